"""Every kind of input that the README names, by shell and by Python: the same cells, and those that are there."""

import json
import os
import subprocess
from collections import Counter
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
import tifffile
import torch
import zarr
from PIL import Image

from cellseg_d2 import cli
from cellseg_d2.inference.classical import ClassicalSegmenter
from tests.discs import write_disc_dataset
from tests.quick_python import quick_python

CELLS = 6
Y, X = np.mgrid[:96, :128]
CENTRES = [(20 + 28 * (i // 3), 24 + 38 * (i % 3)) for i in range(CELLS)]
DISCS = [(Y - y) ** 2 + (X - x) ** 2 <= 81 for y, x in CENTRES]
NOISE = np.random.default_rng(0).normal(0, 5, Y.shape)
GREY = (np.any(DISCS, axis=0) * 140 + 40 + NOISE).clip(0, 255).astype(np.uint8)
RGB = np.stack([GREY] * 3, axis=2)


def ome_zarr(path, version):
    group = zarr.open_group(path, mode="w", zarr_format=version)
    group.create_array("0", data=GREY[None, None], chunks=(1, 1, 64, 64))
    group.create_array("1", data=GREY[None, None, ::2, ::2], chunks=(1, 1, 64, 64))
    scales = {"multiscales": [{"datasets": [{"path": "0"}, {"path": "1"}]}]}
    group.attrs.update(scales if version == 2 else {"ome": scales})


# By the name of the file: what writes the image to it.
FILES = {
    "grey.png": lambda path: Image.fromarray(GREY).save(path),
    "deep.png": lambda path: Image.fromarray(GREY.astype(np.uint16) * 200).save(path),
    "rgb.png": lambda path: Image.fromarray(RGB).save(path),
    "photo.jpg": lambda path: Image.fromarray(GREY).save(path, quality=95),
    "photo.JPEG": lambda path: Image.fromarray(RGB).save(path, quality=95),
    "map.bmp": lambda path: Image.fromarray(GREY).save(path),
    "8bit.tif": lambda path: tifffile.imwrite(path, GREY),
    "16bit.tiff": lambda path: tifffile.imwrite(path, GREY.astype(np.uint16) * 200, compression="deflate"),
    "32bit.tif": lambda path: tifffile.imwrite(path, GREY / np.float32(255), tile=(64, 64)),
    "int32.tif": lambda path: tifffile.imwrite(path, GREY.astype(np.int32) - 1000),
    "rgb.tif": lambda path: tifffile.imwrite(path, RGB, photometric="rgb"),
    "lzw.tif": lambda path: Image.fromarray(GREY).save(path, compression="tiff_lzw"),
    "imagej.tif": lambda path: tifffile.imwrite(path, GREY, imagej=True, resolution=(2, 2), metadata={"unit": "um"}),
    "ome.ome.tif": lambda path: tifffile.imwrite(path, GREY, ome=True),
    "v2.zarr": lambda path: zarr.create_array(path, data=GREY, chunks=(64, 64), zarr_format=2),
    "v3.zarr": lambda path: zarr.create_array(path, data=GREY, chunks=(64, 64), zarr_format=3),
    "v2.ome.zarr": lambda path: ome_zarr(path, 2),
    "v3.ome.zarr": lambda path: ome_zarr(path, 3),
    "unmarked": lambda path: zarr.create_array(path, data=GREY, chunks=(64, 64)),
}
# By the name of the way: what it makes of a folder with one image, as arguments of the shell.
WAYS = {
    "the file": lambda folder, path: [path],
    "its folder": lambda folder, path: [folder],
    "a pattern": lambda folder, path: [f"{folder}/{path.name[:3]}*"],
    "a data set": lambda folder, path: [write_disc_dataset(folder.parent, images=1) / "instances_val.json"],
}


def exit_code(*words):
    """Of ``cellseg-d2`` in this process."""
    with pytest.raises(SystemExit) as ended:
        cli.main(list(map(str, words)))
    return ended.value.code


def infer(*arguments):
    return exit_code("infer", "--model", "otsu", *arguments)


@pytest.fixture
def folder(tmp_path):
    (tmp_path / "in").mkdir()
    return tmp_path / "in"


@pytest.mark.parametrize("options", [(), ("--pixel-size", "0.5")], ids=["plain", "pixel size"])
@pytest.mark.parametrize("name", FILES)
def test_files(folder, name, options):
    path = folder / name
    FILES[name](path)
    assert infer("--input", path, "--output", folder.parent / "out", "--save", "labels", "csv", *options) == 0
    by_shell = tifffile.imread(folder.parent / f"out/labels/{path.stem}_labels.tif")
    by_python = ClassicalSegmenter("otsu").segment(path)
    assert len(by_python) == CELLS
    assert np.array_equal(by_shell, by_python.labels)
    for disc in DISCS:  # each is where it was drawn
        found = by_shell[disc]
        assert (found == np.bincount(found[found > 0]).argmax()).mean() > 0.9


@pytest.mark.parametrize("way", WAYS)
@pytest.mark.parametrize("name", ["grey.png", "8bit.tif", "v3.zarr"])
def test_ways_to_name_them(folder, name, way):
    FILES[name](folder / name)
    assert (
        infer("--input", *WAYS[way](folder, folder / name), "--output", folder.parent / "out", "--save", "labels") == 0
    )
    assert len(list((folder.parent / "out/labels").iterdir())) == 1


def test_arrays_and_lists(folder):
    FILES["grey.png"](folder / "grey.png")
    FILES["v2.zarr"](folder / "v2.zarr")
    stored = zarr.open(folder / "v2.zarr", mode="r")
    np.save(folder / "a.npy", GREY)
    mapped = np.load(folder / "a.npy", mmap_mode="r")
    images = [GREY, RGB, Image.fromarray(RGB), torch.tensor(RGB), GREY.tolist(), GREY[None], GREY / 255, stored, mapped]
    segmenter = ClassicalSegmenter("otsu")
    each = [segmenter.segment(image) for image in images]
    together = segmenter.segment([folder / "grey.png", str(folder / "v2.zarr"), *images])
    assert [len(found) for found in each] == [CELLS] * len(images)
    assert [len(found) for found in together] == [CELLS] * (len(images) + 2)
    assert [len(found) for found in segmenter.segment(np.stack([GREY, GREY]), stack=True)] == [CELLS] * 2


@pytest.mark.parametrize(
    ("options", "names"),
    [
        (("--channel", "gfp", "--projection", "max"), ["a"]),
        (("--channel", "1", "--stack"), ["a_z000", "a_z001"]),
        (("--axes", "CZYX", "--channel", "0", "--projection", "mean"), ["a"]),
    ],
)
def test_options_that_choose_planes(folder, options, names):
    """Axes are ZCYX, with cells in the second channel; read as CZYX, planes and channels change places."""
    planes = np.stack([np.stack([GREY * 0, GREY])] * 2)
    metadata = {"axes": "ZCYX", "Channel": {"Name": ["DAPI", "GFP"]}}
    tifffile.imwrite(folder / "a.tif", planes, ome=True, photometric="minisblack", metadata=metadata)
    assert infer("--input", folder, "--output", folder.parent / "out", "--save", "images", "labels", *options) == 0
    assert pd.read_csv(folder.parent / "out/images.csv")["count"].tolist() == [CELLS] * len(names)
    assert [path.name for path in sorted((folder.parent / "out/labels").iterdir())] == [
        f"{n}_labels.tif" for n in names
    ]


def test_what_is_not_clear_is_asked_for_with_the_option(folder, capsys):
    tifffile.imwrite(folder / "a.tif", np.stack([GREY * 0, GREY]), imagej=True, metadata={"axes": "CYX"})
    assert infer("--input", folder, "--output", folder.parent / "out") == 1
    said = capsys.readouterr()
    assert (
        "a.tif has 2 channels (0 to 1): choose the one in which cells are seen with --channel N" in said.out + said.err
    )


@pytest.mark.parametrize(
    ("option", "value", "said"),
    [
        ("--pixel-size", "0", "a pixel of 0.0"),
        ("--pixel-size", "-1", "positive numbers"),
        ("--pixel-size", "nan", "positive numbers"),
        ("--tile", "1", "a side of 64 or more"),
        ("--tile", "0", "a side of 64 or more"),
        ("--overlap", "-1", "cannot overlap by -1"),
        ("--diameter", "0", "must be above 0"),
        ("--diameter", "nan", "must be above 0"),
        ("--diameter-um", "0", "must be above 0"),
        ("--axes", "TCZ", "with Y and X among them"),
    ],
)
def test_numbers_that_make_no_sense_are_refused_once_and_before_any_work(folder, capsys, option, value, said):
    FILES["grey.png"](folder / "grey.png")
    assert infer("--input", folder, "--output", folder.parent / "out", f"{option}={value}") == 2
    errors = capsys.readouterr().err
    assert errors.count(said) == 1
    assert errors.count("error: ") == 1
    assert not (folder.parent / "out").exists()


@pytest.mark.parametrize(
    "words", [("TEST.POSTPROCESS.MIN_AREAS", "[50]"), ("TEST.POSTPROCES.X", "1"), ("--tta",), ("--weights", "w.pth")]
)
def test_settings_of_a_network_are_refused_without_one(folder, capsys, words):
    FILES["grey.png"](folder / "grey.png")
    assert infer("--input", folder, "--output", folder.parent / "out", *words) == 2
    assert f"--model otsu has no network and no configuration: leave {words[0]} out" in capsys.readouterr().err


def test_a_folder_of_others_beside_the_images_does_no_harm(folder, monkeypatch):
    FILES["grey.png"](folder / "grey.png")
    (folder / "lost+found").mkdir()

    def is_file(path):
        if "lost+found" in path.parts:
            raise PermissionError(13, "Permission denied", str(path))
        return original(path)

    original = Path.is_file
    monkeypatch.setattr(Path, "is_file", is_file)
    assert infer("--input", folder, "--output", folder.parent / "out", "--save", "csv") == 0


def _change(name, **values):
    def change(path):
        path = path / name
        path.write_text(json.dumps(json.loads(path.read_text()) | values))

    return change


def _chunk(content):
    def change(path):
        first = min(file for file in path.rglob("*") if file.is_file() and file.name not in ("zarr.json", ".zarray"))
        first.write_bytes(content(first.read_bytes()))

    return change


# What may become of a Zarr folder; what is stored in chunks shows only when they are read.
DAMAGES = {
    "cut": _chunk(lambda data: data[: len(data) // 2]),
    "empty": _chunk(lambda data: b""),
    "overwritten": _chunk(lambda data: bytes(byte ^ 255 for byte in data)),
    **{
        f"{key}-{number}": _change(".zarray", **{key: value})
        for key, values in {
            "shape": [[10**7, 10**7], [-4, 10], [0, 128], "x", [96], None],
            "chunks": [[10**7, 10**7], [0, 64], [64]],
            "dtype": ["<f8", "<c8", "|O", 7],
            "fill_value": ["x"],
            "zarr_format": [9],
            "compressor": [{"id": "nothing"}, [1]],
        }.items()
        for number, value in enumerate(values)
    },
    "text": lambda path: (path / ".zarray").write_text("no JSON"),
    "bytes": lambda path: (path / ".zarray").write_bytes(b"\xff\0"),
    "lost": lambda path: (path / ".zarray").unlink(),
}


def test_damaged_zarr_folders_are_named_and_the_others_done(folder, capsys):
    for name, damage in DAMAGES.items():
        zarr.create_array(folder / f"{name}.zarr", data=GREY, chunks=(64, 64), zarr_format=2)
        damage(folder / f"{name}.zarr")
    for name in ("a.zarr", "m.zarr", "z.zarr"):
        FILES["v2.zarr"](folder / name)
    assert infer("--input", folder, "--output", folder.parent / "out", "--save", "labels") == 1
    said = capsys.readouterr()
    assert "Traceback" not in said.out + said.err
    skipped = [line for line in said.out.splitlines() if line.startswith("skipped: ")]
    assert len(skipped) == len(DAMAGES)
    assert all(sum(str(folder / f"{name}.zarr") in line for line in skipped) == 1 for name in DAMAGES)
    done = sorted((folder.parent / "out/labels").iterdir())
    assert [path.name for path in done] == ["a_labels.tif", "m_labels.tif", "z_labels.tif"]
    assert all(tifffile.imread(path).max() == CELLS for path in done)


ODD_NAMES = [b"a\rb.png", b"new\nline.png", b"latin-\xe9.png", b"half-\xc3.png"]
# With the results' suffix "_labels.tif" 255 bytes, one more, and no name that could be longer.
LONG_NAMES = [name + b".png" for name in (b"m" * 236, b"u" * 244, "é".encode() * 122, b"n" * 245, b"o" * 251)]


def test_odd_and_long_names_are_one_image_s_matter(folder, capsys):
    FILES["grey.png"](folder / "grey.png")
    content = (folder / "grey.png").read_bytes()
    for name in [*ODD_NAMES, *LONG_NAMES, b"a.png", b"z.png"]:
        (folder / os.fsdecode(name)).write_bytes(content)
    for options in [], ["--resume"]:
        code = infer("--input", folder, "--output", folder.parent / "out", "--save", "labels", "csv", *options)
        said = capsys.readouterr()
        assert "Traceback" not in said.out + said.err
        skipped = [line for line in said.out.splitlines() if line.startswith("skipped: ")]
        assert len(skipped) == len(ODD_NAMES) + 2
        assert all(text in said.out for text in ("a\\rb", "new\\nline", r"latin-\udce9", r"half-\udcc3", "shorten"))
        assert code == 1
        done = {path.name for path in (folder.parent / "out/labels").iterdir()}
        expected = {"a", "z", "grey", "m" * 236, "u" * 244, "é" * 122}
        assert done == {f"{name}_labels.tif" for name in expected}


def test_the_other_tools_name_odd_names(folder, capsys):
    """Long names work; what no table can hold is an error of that image, and left out with ``--clean``."""
    labels, output = folder.parent / "labels", folder.parent / "out"
    labels.mkdir()
    numbers = sum(number * disc for number, disc in enumerate(DISCS, start=1)).astype(np.uint8)
    for name in [*ODD_NAMES, *LONG_NAMES, b"a.png"]:
        Image.fromarray(GREY).save(folder / os.fsdecode(name))
        Image.fromarray(numbers).save(labels / os.fsdecode(name))
    call = ["convert-to-coco", "--images", folder, "--labels", labels, "--val-fraction", "0", "--no-progress"]
    codes = [exit_code(*call, "--output", output, *clean) for clean in ([], ["--clean"])]
    assert codes == [2, None]
    assert "4 errors" in capsys.readouterr().err
    images = json.loads((output / "instances_train.json").read_text())["images"]
    assert len(images) == len(LONG_NAMES) + 1


def test_all_of_them_in_one_call_of_the_shell(folder, repository):
    for name, write in FILES.items():
        write(folder / f"{name.replace('.', '_')}{folder.joinpath(name).suffix}")
    command = [
        *quick_python(),
        "tools/infer.py",
        "--model",
        "otsu",
        "--input",
        folder,
        "--output",
        folder.parent / "out",
    ]
    result = subprocess.run([*map(str, command), "--save", "coco"], capture_output=True, text=True, cwd=repository)
    assert result.returncode == 0, result.stderr
    found = json.loads((folder.parent / "out/coco.json").read_text())
    images = Counter(annotation["image_id"] for annotation in found["annotations"])
    assert list(images.values()) == [CELLS] * len(FILES) == [CELLS] * len(found["images"])
