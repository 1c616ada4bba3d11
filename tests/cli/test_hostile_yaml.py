"""No YAML of strangers runs code, whichever option of whichever tool takes it."""

import ast
import importlib
import re
from contextlib import suppress

import numpy as np
import pytest
from PIL import Image

from cellseg_d2.cli.commands import COMMANDS
from cellseg_d2.detections.saved import save_detections
from tests.conftest import REPOSITORY
from tests.discs import write_disc_dataset, write_untrained_run

PAYLOADS = {
    "config.yaml": 'OUTPUT_DIR: !!python/object/apply:os.system ["touch MARKER"]\n',
    "new.yaml": 'OUTPUT_DIR: !!python/object/new:os.mkdir ["MARKER"]\n',
    "child.yaml": "_BASE_: config.yaml\n",
    "grandchild.yaml": "_BASE_: [child.yaml]\n",
    "postprocess.yaml": 'score_thresholds: !!python/object/apply:os.system ["touch MARKER"]\n',
}
CONFIGURATIONS = ("config.yaml", "new.yaml", "child.yaml", "grandchild.yaml")
INFER = ("--input", "{in}/image.png", "--output", "{in}/out")
# The command and its option, "" for a file that it finds by itself; the hostile files, and all the other words.
WAYS = {
    ("train-net", "--config-file"): (CONFIGURATIONS, ()),
    ("infer", "--config-file"): (CONFIGURATIONS, INFER),
    ("infer", "--model"): (("",), INFER),
    ("infer", "--postprocess"): (("postprocess.yaml",), ("--model", "otsu", *INFER)),
    ("infer", ""): (("{mixed}/config.yaml",), INFER),
    ("pseudo-label", "--config-file"): (
        CONFIGURATIONS,
        ("--images", "{in}/image.png", "--like", "{discs}/instances_train.json", "--output", "{in}/out"),
    ),
    ("pseudo-label", "--postprocess"): (
        ("postprocess.yaml",),
        (
            *("--images", "{in}/image.png", "--like", "{discs}/instances_train.json", "--output", "{in}/out"),
            *("--predictions", "{in}/submission.csv", "--category", "dark"),
        ),
    ),
    ("export-model", "--config-file"): (CONFIGURATIONS, ("--weights", "x.pth", "--output", "{in}/out")),
    ("export-model", "--postprocess"): (
        ("postprocess.yaml",),
        ("--config-file", "{run}/config.yaml", "--output", "{in}/out"),
    ),
    ("cross-validate", "--config-file"): (CONFIGURATIONS, ("--dataset", "discs", "--folds", "2")),
    ("fit-anchors", "--config-file"): (CONFIGURATIONS, ("--json", "{discs}/instances_train.json")),
    ("visualize augmentations", "--config-file"): (CONFIGURATIONS, ("--output", "{in}/out.png")),
    ("benchmark models", "--config-file"): (CONFIGURATIONS, ("--repeats", "1")),
    ("tune-postprocess", "--start"): (
        ("postprocess.yaml",),
        ("--detections", "{in}/detections.npz", "--ground-truth", "{in}/truth.csv", "--output", "{in}/out"),
    ),
    ("tune-postprocess", ""): (
        (),
        ("--detections", "{in}/detections.npz", "--ground-truth", "{in}/truth.csv", "--output", "{in}/out"),
    ),
    ("report", "--base-config"): (CONFIGURATIONS, ("--run", "{run}", "--output", "{in}/out.html")),
    ("report", "--run"): (("",), ("--output", "{in}/out.html")),
}
SUBCOMMANDS = {
    "visualize": ("dataset", "comparison", "augmentations"),
    "benchmark": ("data", "convert", "predict", "models", "mosaic", "corrections"),
}
# Only a GPU's memory is measured; the file goes through `memory_config`.
ONLY_ON_GPUS = {("benchmark data", "--memory-config")}


@pytest.fixture(scope="module")
def places(tmp_path_factory):
    root = tmp_path_factory.mktemp("hostile")
    for name, content in PAYLOADS.items():
        (root / name).write_text(content.replace("MARKER", str(root / "it_ran")))
    Image.fromarray(np.zeros((9, 9), np.uint8)).save(root / "image.png")
    save_detections(root / "detections.npz", {}, ["cort"])
    (root / "truth.csv").write_text("id,annotation,width,height,cell_type\na,1 3,10,8,cort\n")
    (root / "submission.csv").write_text("id,predicted\nimage,1 3\n")
    for name in ("run", "mixed"):
        (root / name).mkdir()
        write_untrained_run(root / name, REPOSITORY / "configs/quickstart/instant_test.yaml")
    (root / "mixed/postprocess.yaml").write_text((root / "postprocess.yaml").read_text())
    return {name: root / name for name in ("run", "mixed")} | {"in": root, "discs": write_disc_dataset(root)}


@pytest.mark.parametrize("way", WAYS, ids="-".join)
def test_no_tag_runs_and_each_is_one_sentence(way, places, call_tool, monkeypatch):
    monkeypatch.setenv("DETECTRON2_DATASETS", str(places["in"]))
    (command, option), (files, others) = way, WAYS[way]
    module, *sub = command.replace("-", "_").split()
    option = option or ("--config-file" if files else "")
    for file in files or ("",):
        given = (option, places["in"] / file.format(**places)) if option else ()
        code, said = call_tool(module, *sub, *(word.format(**places) for word in others), *given)
        assert code == 2, said
        assert "yaml" in said
        assert len(said) < 1000
        assert not (places["in"] / "it_ran").exists()
    assert not list(places["in"].glob("out*"))


def test_the_memory_of_a_gpu_is_measured_with_a_configuration_read_the_same_way(places):
    from detectron2.data import DatasetCatalog

    from cellseg_d2.cli.benchmark import memory_config
    from cellseg_d2.data.catalog import register_json
    from cellseg_d2.errors import CellSegError

    dataset = register_json(places["discs"] / "instances_train.json")
    DatasetCatalog.get(dataset)  # sets the names of the classes
    for file in CONFIGURATIONS:
        with pytest.raises(CellSegError, match=r"not (a )?valid"):
            memory_config(places["in"] / file, dataset)
    assert not (places["in"] / "it_ran").exists()


def helps(capsys):
    """What each command, also each of a command's own, says of itself."""
    for command in COMMANDS:
        main = importlib.import_module(f"cellseg_d2.cli.{command.replace('-', '_')}").main
        for sub in SUBCOMMANDS.get(command, ("",)):
            with suppress(SystemExit):
                main([*filter(None, [sub]), "--help"])
            yield f"{command} {sub}".strip(), capsys.readouterr().out


def test_every_option_that_takes_yaml_is_tried(capsys):
    found = {
        (command, option)
        for command, said in helps(capsys)
        for option, value in re.findall(r"^ +(--[\w-]+)(?: (\w+))?", said, re.MULTILINE)
        if re.search("config|postprocess|start$", option) or value == "YAML"
    }
    assert found - {("tune-postprocess", "--output")} <= WAYS.keys() | ONLY_ON_GPUS
    assert len(found) > 12


@pytest.mark.parametrize("folder", ["cellseg_d2", "tools"])
def test_one_place_merges_files_into_a_configuration(folder):
    """Ruff forbids functions of modules (pyproject.toml), but not methods by their names."""
    unsafe = {
        "merge_from_file",
        "load_cfg",
        "load_yaml_with_base",
        "unsafe_load",
        "full_load",
        "UnsafeLoader",
        "Unpickler",
    }
    allowed = {("config.py", "merge_from_file"), ("array_pickle.py", "Unpickler")}
    used = {
        (path.name, name)
        for path in (REPOSITORY / folder).rglob("*.py")
        for node in ast.walk(ast.parse(path.read_text(encoding="utf-8")))
        if (name := getattr(node, "attr", getattr(node, "id", None))) in unsafe
    }
    assert used <= allowed
    assert not used or ("config.py", "merge_from_file") in used
