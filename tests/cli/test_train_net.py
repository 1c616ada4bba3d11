"""A run's files are written when all is checked: a call that is refused leaves a finished run as it was."""

import errno
import json

import pytest

from cellseg_d2.cli import train_net
from cellseg_d2.config import load_config
from cellseg_d2.engine import run_record
from tests.conftest import REPOSITORY
from tests.discs import write_disc_dataset

CONFIG = REPOSITORY / "configs/quickstart/instant_test.yaml"
SHORT = ("MODEL.DEVICE", "cpu", "SOLVER.MAX_ITER", "2", "SOLVER.CHECKPOINT_PERIOD", "2", "TEST.EVAL_PERIOD", "0")


@pytest.fixture(scope="module")
def datasets(tmp_path_factory):
    """``discs``, the same with other names of the two classes, and the same with one class."""
    root = tmp_path_factory.mktemp("datasets")
    write_disc_dataset(root)
    for name, categories in {"renamed": ("dark", "bright"), "single": ("cell",)}.items():
        folder = write_disc_dataset(root, name=name)
        for path in folder.glob("*.json"):
            content = json.loads(path.read_text())
            content["categories"] = [{"id": i + 1, "name": kind} for i, kind in enumerate(categories)]
            for annotation in content["annotations"]:
                annotation["category_id"] = min(annotation["category_id"], len(categories))
            path.write_text(json.dumps(content))
    return root


@pytest.fixture(scope="module")
def trained(datasets, tmp_path_factory):
    run = tmp_path_factory.mktemp("trained") / "run"
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("DETECTRON2_DATASETS", str(datasets))
        train_net.main(["--config-file", str(CONFIG), *SHORT, "DATASETS.TEST", "()", "OUTPUT_DIR", str(run)])
    return run


@pytest.fixture
def train(call_tool, datasets, trained, monkeypatch, no_curves):
    monkeypatch.setenv("DETECTRON2_DATASETS", str(datasets))

    def train(*arguments, dataset="discs"):
        given = ("DATASETS.TRAIN", f"('{dataset}_train',)", "DATASETS.TEST", "()", "OUTPUT_DIR", trained)
        options = [word for word in arguments if str(word).startswith("--")]
        return call_tool("train_net", "--config-file", CONFIG, *options, *SHORT, *given, *arguments[len(options) :])

    return train


def state(folder):
    """All that a run is known by; the log may tell of what was refused."""
    files = (path for path in folder.rglob("*") if path.is_file() and path.name not in ("log.txt", ".lock"))
    return {str(path.relative_to(folder)): path.read_bytes() for path in files}


@pytest.mark.parametrize(
    ("dataset", "options", "said"),
    [
        ("single", ("MODEL.ROI_HEADS.NUM_CLASSES", 1), "classes bright, dark, and --resume cannot continue it"),
        ("renamed", (), "is for the classes bright, dark, and --resume cannot continue it for dark, bright"),
        ("discs", ("MODEL.ROI_BOX_HEAD.FC_DIM", 48), "has another network or other classes"),
    ],
)
def test_a_run_is_not_resumed_as_another_one(train, trained, dataset, options, said):
    before = state(trained)
    code, printed = train("--resume", *options, "SOLVER.MAX_ITER", 4, dataset=dataset)
    assert code == 2
    assert said in printed
    assert state(trained) == before


def test_a_start_that_is_refused_leaves_what_to_resume_from(train, trained, tmp_path):
    before = state(trained)
    (tmp_path / "cut.pth").write_bytes(b"PK")
    assert train("MODEL.WEIGHTS", tmp_path / "cut.pth")[0] == 2
    assert state(trained) == before


def test_a_training_does_not_write_over_the_weights_that_it_begins_with(train, trained):
    before = state(trained)
    code, printed = train("MODEL.WEIGHTS", trained / "model_final.pth")
    assert code == 2
    assert "model_final.pth is an input and would be written over" in printed
    assert state(trained) == before


def test_an_evaluation_leaves_the_run_s_configuration(train, trained):
    before = state(trained)
    options = ("MODEL.WEIGHTS", trained / "model_final.pth", "TEST.DETECTIONS_PER_IMAGE", 7)
    assert train("--eval-only", *options, "DATASETS.TEST", "('discs_val',)")[0] == 0
    after = state_of_files(trained)
    assert (trained / "config.yaml").read_bytes() == before["config.yaml"]
    assert json.loads((trained / "eval.json").read_text())["datasets"].keys() == {"discs_val"}
    assert before.keys() <= after


def state_of_files(folder):
    return {path.name for path in folder.iterdir()}


def test_no_room_at_the_start_leaves_neither_file_half_written(tmp_path, monkeypatch):
    cfg = load_config(CONFIG, ["MODEL.DEVICE", "cpu", "OUTPUT_DIR", str(tmp_path)])
    run_record.write_run_files(cfg, (), "run.json")
    before = state(tmp_path)
    assert before.keys() == {"config.yaml", "run.json"}

    def no_room(*_, **__):
        raise OSError(errno.ENOSPC, "No space left on device")

    cfg.SOLVER.MAX_ITER = 99
    for broken in ("write_run_record", "write_text_atomic"):
        with monkeypatch.context() as patch:
            patch.setattr(run_record, broken, no_room)
            with pytest.raises(OSError, match="No space"):
                run_record.write_run_files(cfg, (), "run.json")
        assert state(tmp_path) == before
    run_record.write_run_files(cfg, (), "eval.json", keep_config=True)
    assert (tmp_path / "config.yaml").read_bytes() == before["config.yaml"]


def test_what_a_run_leaves_is_complete(trained):
    names = state_of_files(trained)
    assert {"config.yaml", "run.json", "log.txt", "model_final.pth", "last_checkpoint"} <= names
    assert load_config(trained / "config.yaml").MODEL.CLASS_NAMES == ["bright", "dark"]
    assert "configuration:" in (trained / "log.txt").read_text()
