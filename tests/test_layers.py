"""Imports point downward: masks, metrics and conversion know neither PyTorch nor Detectron2."""

import ast
import subprocess
import sys
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]
PACKAGE = ROOT / "cellseg_d2"

# From the lowest floor up; a module belongs to the first entry that its name begins with.
FLOORS = [
    ("missing", 0),
    ("errors", 0),
    ("files", 0),
    ("rle", 0),
    ("masks", 0),
    ("overlaps", 0),
    ("outlines", 0),
    ("label_layers", 0),
    ("label_runs", 0),
    ("components", 0),
    ("metrics", 0),
    ("coco_metrics", 0),
    ("data.catalog", 2),
    ("data.mixing", 2),
    ("data.dataset_mapper", 2),
    ("data.augmentations.build", 2),
    ("data.augmentations", 2),
    ("data", 1),
    ("export", 1),
    ("evaluation.truth", 1),
    ("evaluation.errors", 1),
    ("evaluation.error", 1),
    ("measurements", 1),
    ("inference.segmentation", 1),
    ("inference.detections", 1),
    ("inference.diameter", 1),
    ("inference.postprocess", 1),
    ("inference.mask_nms", 1),
    ("inference.raw", 1),
    ("inference.tuning", 1),
    ("inference.fusion", 1),
    ("inference.tiling", 1),
    ("inference.prediction_files", 1),
    ("inference.pseudo_labels", 1),
    ("visualization.augmentation_sheet", 4),
    ("visualization.overlays", 1),
    ("visualization", 2),
    ("structures", 2),
    ("inference.instances", 2),
    ("modeling", 2),
    ("config", 2),
    ("evaluation", 3),
    ("inference", 3),
    ("engine", 4),
    ("benchmarks", 5),
    ("cli", 6),
]
PLAIN = 1  # the highest floor without PyTorch


def modules():
    for path in sorted(PACKAGE.rglob("*.py")):
        name = ".".join(path.relative_to(PACKAGE).with_suffix("").parts).removesuffix(".__init__")
        if name != "__init__":
            yield name, path


def floor_of(name):
    for prefix, floor in FLOORS:
        if name == prefix or name.startswith((prefix + ".", prefix + "_")):
            return floor
    raise AssertionError(f"cellseg_d2.{name} is on no floor: add it to FLOORS")


def imports_of(path):
    for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
        if isinstance(node, ast.ImportFrom) and node.module and node.module.startswith("cellseg_d2."):
            yield node.module.removeprefix("cellseg_d2.")
        elif isinstance(node, ast.Import):
            yield from (a.name.removeprefix("cellseg_d2.") for a in node.names if a.name.startswith("cellseg_d2."))


def test_imports_point_downward():
    upward = [
        f"{name} (floor {floor_of(name)}) imports {imported} (floor {floor_of(imported)})"
        for name, path in modules()
        for imported in imports_of(path)
        if floor_of(imported) > floor_of(name)
    ]
    assert not upward, "\n".join(upward)


def test_the_lower_floors_import_no_torch():
    plain = [f"cellseg_d2.{name}" for name, _ in modules() if floor_of(name) <= PLAIN]
    assert len(plain) > 20
    code = f"import sys, {', '.join(plain)}\nprint([n for n in ('torch', 'detectron2') if n in sys.modules])"
    result = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, cwd=ROOT)
    assert result.stdout.strip() == "[]", result.stdout + result.stderr


def test_the_model_zoo_is_never_imported():
    """It needs ``pkg_resources``, which is gone from setuptools."""
    for folder in ("cellseg_d2", "tools"):
        for path in (ROOT / folder).rglob("*.py"):
            assert "detectron2.model_zoo" not in path.read_text(encoding="utf-8"), path


def test_files_can_be_read_in_one_sitting():
    long = {str(p): n for _, p in modules() if (n := len(p.read_text(encoding="utf-8").splitlines())) > 350}
    assert not long
