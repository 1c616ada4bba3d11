"""The floors of the package. As a script it names the files that know neither PyTorch nor Detectron2, a path a line."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]
PACKAGE = ROOT / "cellseg_d2"

# From the lowest floor up; a module belongs to the first entry that its name begins with.
FLOORS = [
    ("missing", 0),
    ("errors", 0),
    ("io", 0),
    ("masks", 0),
    ("metrics", 0),
    ("images", 1),
    ("datasets", 1),
    ("simulation", 1),
    ("detections.instances", 2),
    ("detections", 1),
    ("predictions", 1),
    ("postprocess", 1),
    ("tiling", 1),
    ("data.cache", 1),
    ("data", 2),
    ("weights.array_pickle", 1),
    ("weights", 3),
    ("export", 1),
    ("inference.measure", 1),
    ("inference.segmentation", 1),
    ("inference.diameter", 1),
    ("inference.parts", 1),
    ("inference.pseudo_labels", 1),
    ("visualization.augmentation_sheet", 4),
    ("visualization.overlays", 1),
    ("visualization", 2),
    ("modeling", 2),
    ("config", 2),
    ("evaluation", 3),
    ("inference", 3),
    ("cross_validation", 4),
    ("engine", 4),
    ("benchmarks", 5),
    ("cli", 6),
]
PLAIN = 1  # the highest floor without PyTorch
# Tests of commands that are also those of the modules below them, which have none of their own.
ALSO_PLAIN = ("cli.convert_to_coco", "cli.pseudo_label")


def modules() -> Iterator[tuple[str, Path]]:
    """Name without ``cellseg_d2.`` and file of every module but the package's own."""
    for path in sorted(PACKAGE.rglob("*.py")):
        name = ".".join(path.relative_to(PACKAGE).with_suffix("").parts).removesuffix(".__init__")
        if name != "__init__":
            yield name, path


def floor_of(name: str) -> int:
    """The floor of a module, named without ``cellseg_d2.``."""
    for prefix, floor in FLOORS:
        if name == prefix or name.startswith((prefix + ".", prefix + "_")):
            return floor
    raise AssertionError(f"cellseg_d2.{name} is on no floor: add it to FLOORS in tests/floors.py")


def plain_modules() -> Iterator[tuple[str, Path]]:
    """Those of the floors without PyTorch."""
    return ((name, path) for name, path in modules() if floor_of(name) <= PLAIN)


def is_of_a_plain_module(path: Path) -> bool:
    """Whether a file of tests is that of modules on the floors without PyTorch; the tests mirror the package."""
    *folders, file = path.relative_to(ROOT / "tests").with_suffix("").parts
    name = ".".join([*folders, file.removeprefix("test_")])
    return name in ALSO_PLAIN or any(name == plain for plain, _ in plain_modules())


if __name__ == "__main__":
    print(*(path.relative_to(ROOT) for _, path in plain_modules()), sep="\n")
