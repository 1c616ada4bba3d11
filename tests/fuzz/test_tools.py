"""The tools with files that are damaged, mistaken or hostile: one sentence says what is wrong, nothing is half done."""

import csv
import json
import os
import subprocess

import numpy as np
import pytest
import torch
from PIL import Image

from cellseg_d2.detections.saved import save_detections
from tests.conftest import sentences
from tests.discs import disc_image, write_disc_dataset, write_untrained_run
from tests.fuzz.test_images import FILES
from tests.fuzz.test_weights import dtype_state, hostile_files
from tests.quick_python import quick_python


@pytest.fixture(scope="module")
def model(tmp_path_factory, repository):
    return write_untrained_run(tmp_path_factory.mktemp("run"), repository / "configs/quickstart/instant_test.yaml")


def cut_and_flipped(content, cuts, flips):
    """Copies of bytes that end early, and copies with a few other bytes, the same ones in each run."""
    generator = np.random.default_rng(0)
    for length in np.linspace(0, len(content) - 1, cuts).astype(int):
        yield f"cut{length}", content[:length]
    for number in range(flips):
        data = bytearray(content)
        for at in generator.integers(0, len(data), 5):
            data[at] ^= int(generator.integers(1, 256))
        yield f"flip{number}", bytes(data)


def image_corpus(folder):
    """Writes damaged and odd images, and returns their names without suffix."""
    folder.mkdir()
    files = {}
    for number, (suffix, content) in enumerate(FILES):
        files[f"whole{number}{suffix}"] = content
        files |= {f"{name}_{number}{suffix}": data for name, data in cut_and_flipped(content, 5, 2)}
    files |= {"text.png": b"no image\n", "text.tif": b"II*\0", "empty.png": b"", "empty.tif": b""}
    files["wrong.tif"], files["wrong.png"] = FILES[0][1], FILES[10][1]
    for name, content in files.items():
        (folder / name).write_bytes(content)
    for name, shape in {"pixel": (1, 1), "line": (1, 300), "column": (300, 1)}.items():
        Image.fromarray(np.full(shape, 9, np.uint8)).save(folder / f"{name}.png")
    (folder / "folder.png").mkdir()
    return [name.rsplit(".", 1)[0] for name in [*files, "pixel.png", "line.png", "column.png"]]


def renamed(folder):
    """Two files may not have one stem."""
    for path in list(folder.iterdir()):
        path.rename(path.with_name(f"{path.stem}_{path.suffix[1:]}{path.suffix}"))


def rows_of(path):
    with open(path, newline="", encoding="utf-8") as file:
        return list(csv.DictReader(file))


def test_infer_does_what_it_can(tmp_path, model, call_tool):
    image_corpus(tmp_path / "in")
    renamed(tmp_path / "in")
    names = {path.stem for path in (tmp_path / "in").iterdir() if path.is_file()}
    good = tmp_path / "good"
    good.mkdir()
    for number in range(2):
        image, _ = disc_image(np.random.default_rng(number), 64, 2, number)
        Image.fromarray(image).save(good / f"good{number}.png")
    arguments = ("infer", "--config-file", model / "config.yaml", "--device", "cpu", "--save", "submission", "--input")
    assert call_tool(*arguments, good, "--output", tmp_path / "alone")[0] == 0
    code, said = call_tool(*arguments, good, tmp_path / "in", "--output", tmp_path / "together")
    assert code == 1
    rows = rows_of(tmp_path / "together/submission.csv")
    done = {row["id"] for row in rows}
    skipped = {name for name in names if any(name in line for line in said.splitlines() if "skipped: " in line)}
    assert done | skipped == names | {"good0", "good1"}
    assert not done & skipped
    assert len(skipped) > 60
    assert len([name for name in done if name.startswith("whole")]) >= 16
    assert [row for row in rows if row["id"].startswith("good")] == rows_of(tmp_path / "alone/submission.csv")
    assert not list((tmp_path / "together").glob(".*part*"))


def test_convert_to_coco_names_each_image(tmp_path, call_tool):
    names = image_corpus(tmp_path / "in")
    (tmp_path / "labels").mkdir()
    for path in list((tmp_path / "in").iterdir()):
        if path.is_file():
            if path.suffix not in (".tif", ".png") or path.stem in ("text", "empty", "wrong"):
                path.unlink()
            else:
                label = np.zeros((17, 23), np.uint8)
                label[2:6, 3:9] = 1
                Image.fromarray(label).save(tmp_path / "labels" / f"{path.stem}.png")
    names = {path.stem for path in (tmp_path / "in").iterdir() if path.is_file()}
    arguments = ("convert_to_coco", "--images", tmp_path / "in", "--labels", tmp_path / "labels", "--no-progress")
    code, said = call_tool(*arguments, "--output", tmp_path / "strict")
    assert code == 2
    assert "errors" in said
    assert [path.name for path in (tmp_path / "strict").iterdir()] == ["audit.json"]
    code, _ = call_tool(*arguments, "--output", tmp_path / "clean", "--clean", "--val-fraction", 0)
    assert code == 0
    kept = {i["source_id"] for i in json.loads((tmp_path / "clean/instances_train.json").read_text())["images"]}
    audit = json.loads((tmp_path / "clean/audit.json").read_text())
    assert kept | {finding["id"] for finding in audit["findings"]} >= names


CONFIGS = {
    "unknown key": "MODEL: {NOTHING: 1}",
    "wrong type": "SOLVER: {MAX_ITER: many}",
    "a list for a number": "SOLVER: {MAX_ITER: [1, 2]}",
    "another tree": "MODEL: 7",
    "syntax": "MODEL: {",
    "tabs": "MODEL:\n\tDEVICE: cpu",
    "text": "this is not a configuration",
    "empty": "",
    "a date that is none": "OUTPUT_DIR: 2001-99-99",
    "binary": b"\x80\x02\x00\xff",
    "no base": "_BASE_: nowhere.yaml",
    "own base": "_BASE_: config.yaml",
    "base of another kind": "_BASE_: [3]",
    "device": "MODEL: {DEVICE: abacus}",
    "tag": 'OUTPUT_DIR: !!python/object/apply:os.system ["touch MARKER"]',
    "tag, new": 'OUTPUT_DIR: !!python/object/new:os.mkdir ["MARKER"]',
    "tag, name": "OUTPUT_DIR: !!python/name:os.system",
    "tag, module": "OUTPUT_DIR: !!python/module:antigravity",
    "deep": "[\n" * 5000,
    "aliases": "\n".join(
        ["a: &a0 [1,1,1,1,1,1,1,1,1]", *(f"b{i}: &a{i} [{', '.join([f'*a{i - 1}'] * 9)}]" for i in range(1, 9))]
    ),
    "itself": "OUTPUT_DIR: &a [*a]",
}


@pytest.mark.parametrize("name", CONFIGS)
@pytest.mark.parametrize("tool", ["train_net", "infer", "export_model"])
def test_configurations(tmp_path, call_tool, name, tool):
    content, marker = CONFIGS[name], tmp_path / "it_ran"
    data = content if isinstance(content, bytes) else content.replace("MARKER", str(marker)).encode()
    (tmp_path / "config.yaml").write_bytes(data)
    (tmp_path / "child.yaml").write_text("_BASE_: config.yaml\n")
    more = {
        "train_net": [],
        "infer": ["--input", tmp_path, "--output", tmp_path / "out"],
        "export_model": ["--weights", "x.pth", "--output", tmp_path / "out"],
    }[tool]
    if tool == "infer":
        Image.fromarray(np.zeros((9, 9), np.uint8)).save(tmp_path / "image.png")
    for file in ("config.yaml", "child.yaml"):
        code, said = call_tool(tool, "--config-file", tmp_path / file, *more)
        assert code == 2
        assert len(said) < 1000
    assert not marker.exists()
    assert not (tmp_path / "out").exists()


def test_weights(tmp_path, model, call_tool):
    marker = tmp_path / "it_ran"
    Image.fromarray(np.zeros((9, 9), np.uint8)).save(tmp_path / "image.png")
    whole = (model / "model_best.pth").read_bytes()
    state = torch.load(model / "model_best.pth", weights_only=True)["model"]
    paths = [path for path in hostile_files(tmp_path, marker) if path.name.startswith(("os.system", "numpy"))]
    for name, content in [
        *cut_and_flipped(whole, 6, 0),
        ("empty", b""),
        ("text", b"weights"),
        ("zip", b"PK\x05\x06" + bytes(18)),
    ]:
        paths.append(tmp_path / f"{name}.pth")
        paths[-1].write_bytes(content)
    for name, weights in {
        "nan": {key: torch.full_like(value, float("nan")) for key, value in state.items()},
        "other": {f"encoder.{key}": value for key, value in state.items()},
        "shape": {key: value[:1] for key, value in state.items()},
        "short": dict(list(state.items())[3:]),
    }.items():
        paths.append(tmp_path / f"{name}.pth")
        torch.save({"model": weights}, paths[-1])
    paths.append(tmp_path / "dtype.pkl")
    paths[-1].write_bytes(dtype_state(b"N"))
    for path in paths:
        arguments = ("--config-file", model / "config.yaml", "--device", "cpu", "--weights", path)
        code, said = call_tool("infer", *arguments, "--input", tmp_path / "image.png", "--output", tmp_path / "out")
        assert code == 2, path
        assert str(path) in said
        assert not marker.exists(), path
    assert not (tmp_path / "out").exists()


@pytest.mark.parametrize("suffix", [".pkl", ".pth"])
def test_training_from_hostile_weights(tmp_path, repository, monkeypatch, call_tool, suffix):
    monkeypatch.setenv("DETECTRON2_DATASETS", str(tmp_path))
    write_disc_dataset(tmp_path)
    marker = tmp_path / "it_ran"
    weights = next(path for path in hostile_files(tmp_path, marker) if path.suffix == suffix)
    config = repository / "configs/quickstart/instant_test.yaml"
    opts = ["MODEL.DEVICE", "cpu", "MODEL.WEIGHTS", weights, "OUTPUT_DIR", tmp_path / "run"]
    for arguments in ([], ["--eval-only"]):
        code, said = call_tool("train_net", "--config-file", config, *arguments, *opts)
        assert code == 2
        assert "cannot be read as weights" in said
        assert not marker.exists()


POSTPROCESSING = [
    *("score_thresholds: high", "score_threshold: [1]", "[1]", "", "a: [", "nms_iou: .nan", "min_areas: [.inf]"),
    *(f"min_areas: [1{400 * '0'}]", "vote: 2001-99-99", "ranking: !!python/name:os.system", "[\n" * 5000, "\0"),
    *("vote: {{}: 1}", "TEST: 5", "TEST: {POSTPROCESS: [1]}", "TEST: {POSTPROCESS: {NO: 1}}", "TEST: {}"),
    *("_BASE_: config.yaml", "MODEL: {MASK_ON: true}", "TEST: {POSTPROCESS: {VOTE: 1}}"),
]


@pytest.mark.parametrize("content", POSTPROCESSING, ids=range(len(POSTPROCESSING)))
def test_postprocessing(tmp_path, model, call_tool, content):
    (tmp_path / "post.yaml").write_text(content)
    Image.fromarray(np.zeros((9, 9), np.uint8)).save(tmp_path / "image.png")
    arguments = ("--config-file", model / "config.yaml", "--device", "cpu", "--postprocess", tmp_path / "post.yaml")
    code, said = call_tool("infer", *arguments, "--input", tmp_path / "image.png", "--output", tmp_path / "out")
    assert code == 2
    assert str(tmp_path / "post.yaml") in said
    assert len(said) < 1000


TRUTH = "id,annotation,width,height,cell_type\na,1 3,10,8,cort\n"
DETECTION = {"image_id": "a", "category_id": 1, "score": 0.9, "segmentation": {"size": [8, 10], "counts": [80]}}
PREDICTIONS = {
    "empty.csv": "",
    "header.csv": "id,annotation\n",
    "other.csv": "id,predicted\nq,1 3\n",
    "rle.csv": "id,predicted\na,1 x\n",
    "nul.csv": "id,predicted\na,1 3\0 5 2\n",
    "semicolons.csv": "id;predicted\na;1 3\n",
    "binary.csv": b"\x89PNG\r\n\x1a\n",
    "gzip.csv.gz": b"\x1f\x8b\x08\0\0",
    "deep.json": "[" * 100_000,
    "dict.json": "{}",
    "cut.json": '[{"image_id": 1',
    "numbers.json": "[1, 2]",
    "score.json": json.dumps([{**DETECTION, "score": float("nan")}]),
    "mask.json": json.dumps([{**DETECTION, "segmentation": {"size": [8, 10], "counts": "~"}}]),
    "size.json": json.dumps([{**DETECTION, "segmentation": {"size": [1, 1], "counts": [1]}}]),
    "name.txt": "id,predicted\na,1 3\n",
}


@pytest.mark.parametrize("name", PREDICTIONS)
def test_evaluate(tmp_path, call_tool, name):
    content = PREDICTIONS[name]
    (tmp_path / name).write_bytes(content if isinstance(content, bytes) else content.encode())
    (tmp_path / "truth.csv").write_text(TRUTH)
    predictions = ("--predictions", tmp_path / name, "--json", tmp_path / "out.json")
    code, _ = call_tool("evaluate", *predictions, "--ground-truth", tmp_path / "truth.csv")
    assert code == 2
    assert not (tmp_path / "out.json").exists()
    assert call_tool("evaluate", "--predictions", tmp_path / "truth.csv", "--ground-truth", tmp_path / name)[0] == 2


def test_detections(tmp_path, call_tool):
    (tmp_path / "truth.csv").write_text(TRUTH)
    save_detections(tmp_path / "whole.npz", {}, ["cort"])
    whole = (tmp_path / "whole.npz").read_bytes()
    files = dict(cut_and_flipped(whole, 5, 0))
    np.savez(tmp_path / "pickle.npz", **{**np.load(tmp_path / "whole.npz"), "scores": np.array([{}], dtype=object)})
    files["pickle"] = (tmp_path / "pickle.npz").read_bytes()
    for name, content in files.items():
        path = tmp_path / f"{name}.npz"
        path.write_bytes(content)
        arguments = ("--detections", path, "--ground-truth", tmp_path / "truth.csv", "--output", tmp_path / "out.yaml")
        code, said = call_tool("tune_postprocess", *arguments)
        assert code == 2
        assert "is not a detections.npz" in said
        assert not (tmp_path / "out.yaml").exists()


def test_as_its_own_process(tmp_path, repository):
    """The same once more as a user calls it: one line on stderr, nothing run, nothing written."""
    marker = tmp_path / "it_ran"
    content = CONFIGS["tag"].replace("MARKER", str(marker))
    (tmp_path / "config.yaml").write_text(content)
    Image.fromarray(np.zeros((9, 9), np.uint8)).save(tmp_path / "image.png")
    command = [*quick_python(), repository / "tools/infer.py", "--config-file", tmp_path / "config.yaml"]
    command += ["--input", tmp_path / "image.png", "--output", tmp_path / "out"]
    ended = subprocess.run(
        command, capture_output=True, text=True, timeout=300, env={**os.environ, "OMP_NUM_THREADS": "1"}
    )
    assert ended.returncode == 2
    (sentence,) = sentences(ended.stderr)
    assert sentence.startswith("error: ")
    assert not marker.exists()
    assert not (tmp_path / "out").exists()
