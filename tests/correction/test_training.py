"""From a few images with label images to a model, by the smallest network."""

import json
import os

import cv2
import numpy as np
import pytest

from cellseg_d2.config import check_values, default_config, load_config, merge_config_file
from cellseg_d2.correction.next_image import disagreement, rank_images
from cellseg_d2.correction.plan import Plan
from cellseg_d2.correction.project import Project
from cellseg_d2.correction.training import OVERLAY, configure, correction_data, plan_training
from cellseg_d2.datasets.coco_reader import load_coco
from cellseg_d2.errors import CellSegError
from cellseg_d2.inference.model import CellSegmenter
from cellseg_d2.inference.segmentation import Segmentation
from cellseg_d2.inference.tta import View
from cellseg_d2.io.settings import flat
from cellseg_d2.masks.overlaps import label_image
from cellseg_d2.postprocess.steps import Cells
from cellseg_d2.weights.model_folder import find_model
from tests.discs import disc_image, write_untrained_run

SIZE = 96


@pytest.fixture(scope="module")
def model(tmp_path_factory, repository):
    folder = tmp_path_factory.mktemp("model")
    known = ["INPUT.CELL_DIAMETER", "20.0", "INPUT.ZOOM_TEST", "1.0"]
    return str(write_untrained_run(folder, repository / "configs/quickstart/instant_test.yaml", known))


@pytest.fixture(scope="module")
def folders(tmp_path_factory):
    rng, root = np.random.default_rng(3), tmp_path_factory.mktemp("annotated")
    for name in ("images", "labels"):
        (root / name).mkdir()
    for name in ("a", "b", "c"):
        image, crops = disc_image(rng, SIZE, 4, 0)
        cv2.imwrite(str(root / f"images/{name}.png"), image)
        cv2.imwrite(str(root / f"labels/{name}.png"), label_image(crops, SIZE, SIZE).astype(np.uint8))
    return root


def test_a_model_is_trained_scored_and_chosen(folders, model, tmp_path, call_tool, quick_trainings):
    """With two folds: three trainings; the same call again trains the new model further, the old one is kept."""
    given = ["--images", folders / "images", "--labels", folders / "labels", "--project", tmp_path / "p"]
    code, said = call_tool("train", *given, "--model", model, "--iterations", 2)
    assert code == 0, said
    assert "3 images, 12 cells of" in said
    assert "split: 2 folds" in said
    assert "length: 2 iterations" in said
    assert "score of 3 images that were not trained on:" in said
    assert find_model(tmp_path / "p") == tmp_path / "p"
    assert CellSegmenter.from_pretrained(tmp_path / "p").class_names == ["cell"]
    result = json.loads((tmp_path / "p/runs/0001/result.json").read_text())
    assert sorted(result["before"]) == sorted(result["after"]) == ["a", "b", "c"]
    first = (tmp_path / "p/models/0001/model.safetensors").read_bytes()
    assert first == (tmp_path / "p/model.safetensors").read_bytes()

    # What was interrupted is taken up: the parts that are done are not done again.
    (tmp_path / "p/runs/0001/result.json").unlink()
    times = {path: path.stat().st_mtime_ns for path in (tmp_path / "p/runs/0001").glob("part*/model_final.pth")}
    assert len(times) == 2
    code, said = call_tool("train", *given, "--model", model, "--iterations", 2)
    assert code == 0, said
    assert {path: path.stat().st_mtime_ns for path in times} == times
    assert os.listdir(tmp_path / "p/models") == ["0001"]

    code, said = call_tool("train", *given, "--iterations", 1, "--folds", 0)
    assert code == 0, said
    assert f"model: {tmp_path / 'p'}" in said
    assert "no score is known" in said
    assert (tmp_path / "p/models/0001/model.safetensors").read_bytes() == first
    assert (tmp_path / "p/model.safetensors").read_bytes() != first


def test_what_counts_of_a_correction_is_what_is_trained_on(folders, model, tmp_path):
    project = Project.open(tmp_path / "p", folders / "images", model)
    labels = cv2.imread(str(folders / "labels/a.png"), cv2.IMREAD_UNCHANGED)
    counts = np.zeros((SIZE, SIZE), bool)
    counts[:, : SIZE // 2] = True
    project.save("a", labels, counts=counts)
    data = correction_data(project)
    data.write(tmp_path / "out", {"all": ["a"]})
    (record,) = load_coco(tmp_path / "out/instances_all.json")
    own = project.record("a")
    assert len(record.cells) == len(own.cells) < labels.max()
    assert (record.ignore.mask == own.ignore.mask).all()
    plan = plan_training(data, model)
    cfg = configure(model, plan)
    assert list(cfg.INPUT.ROTATE_ZOOM_CROP.ZOOM) == list(plan.zoom)
    assert list(cfg.MODEL.CLASS_NAMES) == ["cell"]
    assert cfg.TEST.POSTPROCESS.MIN_AREA_SHARE == 0


@pytest.mark.parametrize(("smallest", "areas"), [(40, ([40], [40])), (60, ([50], [60])), (500, ([50], [120]))])
def test_what_is_annotated_is_not_too_small_to_be_found(smallest, areas, tmp_path, repository):
    plan = Plan(2, 20, 0, (20.0, 20.0), (0.9, 1.1), None, smallest, iterations=9, parts=())
    known = ["INPUT.CELL_DIAMETER", "20.0", "INPUT.ZOOM_TEST", "1.0"]
    values = {"MIN_AREAS": "[50]", "DOUBTFUL_AREAS": "[120]", "MIN_AREA_SHARE": "0.2"}
    rules = [word for key, value in values.items() for word in (f"TEST.POSTPROCESS.{key}", value)]
    model = write_untrained_run(tmp_path, repository / "configs/quickstart/instant_test.yaml", known + rules)
    post = configure(str(model), plan).TEST.POSTPROCESS
    assert (*areas, 0) == (post.MIN_AREAS, post.DOUBTFUL_AREAS, post.MIN_AREA_SHARE)


def test_nothing_of_the_training_that_the_model_came_from_is_repeated(tmp_path, repository):
    """But all that prediction reads is kept, also for the model that comes of it."""
    plan = Plan(2, 20, 0, (20.0, 20.0), (0.9, 1.1), None, 40, iterations=9, parts=())
    known = ["INPUT.CELL_DIAMETER", "20.0", "INPUT.ZOOM_TEST", "1.0", "INPUT.INTENSITY", "percentile"]
    known += ["TEST.TILE", "512", "TEST.TTA.ENABLED", "True", "MODEL.RPN.BATCH_SIZE_PER_IMAGE", "77"]
    former = {
        **{"SOLVER.EPOCHS": "7", "SOLVER.STEP_EPOCHS": "[3]", "SOLVER.EMA.ENABLED": "True"},
        **{"SOLVER.GRADIENT_ACCUMULATION": "4", "SOLVER.STAGE_LR_DECAY": "0.5", "TEST.EVAL_EPOCHS": "1"},
        **{"INPUT.COPY_PASTE.PROBABILITY": "0.5", "INPUT.COPY_PASTE.DATASETS": "('other_train',)"},
        **{"DATASETS.TRAIN_REPEAT_FACTOR": "[['discs_train', 3.0]]", "DATASETS.TRAIN": "('discs_train',)"},
        **{"TEST.EVALUATORS": "['coco']", "TEST.BEST_METRIC": "segm/AP", "DATALOADER.CACHE_MB": "1"},
        **{"MODEL.DENSE.CLASS_FUSION_WEIGHTS": "[0.5, 2.0]", "TEST.POSTPROCESS.MASK_OFFSET": "[-0.5, 0.25]"},
    }
    words = [word for item in former.items() for word in item]
    model = write_untrained_run(tmp_path, repository / "configs/quickstart/instant_test.yaml", known + words)
    cfg, source = configure(str(model), plan), load_config(model / "config.yaml")
    usual = default_config()
    merge_config_file(usual, OVERLAY)
    own, before, expected = flat(cfg), flat(source), flat(usual)
    assert {key: own[key] for key in former} == {key: expected[key] for key in former}
    assert {key: own[key] for key in known[::2]} == {key: before[key] for key in known[::2]}
    for group in ("SOLVER", "DATASETS", "DATALOADER"):
        given = {"SOLVER.MAX_ITER", "SOLVER.WARMUP_ITERS"}
        assert not {key for key in own if key.startswith(f"{group}.") and own[key] != expected[key]} - given
    cfg.freeze()
    check_values(cfg)


def test_a_model_that_knows_no_size_is_refused(folders, tmp_path, repository):
    folder = tmp_path / "model"
    folder.mkdir()
    write_untrained_run(folder, repository / "configs/quickstart/instant_test.yaml")
    project = Project.open(tmp_path / "p", folders / "images", str(folder))
    project.save("a", cv2.imread(str(folders / "labels/a.png"), cv2.IMREAD_UNCHANGED))
    with pytest.raises(CellSegError, match=r"INPUT\.CELL_DIAMETER"):
        plan_training(correction_data(project), project.model)


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["--images", "x"], "--images and --labels go together"),
        (["--iterations", "0"], "--iterations: must be at least 1, not 0"),
        (["--folds", "-1"], "--folds: must be at least 0, not -1"),
    ],
)
def test_arguments_that_make_no_sense(words, message, tmp_path, capsys):
    from cellseg_d2.cli import train

    with pytest.raises(SystemExit):
        train.parse_args(["--project", str(tmp_path), *words])
    assert message in capsys.readouterr().err


class Bright:
    """Sees as cells what is bright, in the right half of images only where it is biased."""

    def __init__(self, biased):
        self.biased = biased

    def segment(self, image, **options):
        from cellseg_d2.masks.components import components
        from cellseg_d2.masks.crop import MaskCrop

        mask = image > 160
        if self.biased:
            mask[:, : image.shape[1] // 2] = False
        crops = components(MaskCrop.from_full(mask)) if mask.any() else []
        scores, classes = np.ones(len(crops), np.float32), np.zeros(len(crops), np.int64)
        return Segmentation(Cells(*image.shape, crops, scores, classes), ["cell"])

    def settings(self):
        return {"biased": self.biased}


def squares(*places):
    image = np.full((40, 60), 100, np.uint8)
    for top, left in places:
        image[top : top + 6, left : left + 6] = 200
    return image


def test_views_that_show_the_same_agree():
    image = squares((3, 4), (20, 50))
    assert disagreement(Bright(False), image) == 0
    assert disagreement(Bright(True), squares()) == 0
    # As it is, the right one is seen; mirrored, the left one.
    assert disagreement(Bright(True), image, (View(), View(mirrored=True))) == 1
    assert disagreement(Bright(True), image, (View(), View(turns=2), View())) == pytest.approx(2 / 3)
    with pytest.raises(CellSegError, match="two views"):
        disagreement(Bright(True), image, (View(),))


def test_the_least_sure_image_comes_first_and_is_remembered(tmp_path, monkeypatch):
    (tmp_path / "images").mkdir()
    for name, image in {"a": squares(), "b": squares((3, 50)), "c": squares((17, 27))}.items():
        cv2.imwrite(str(tmp_path / f"images/{name}.png"), image)
    project = Project.open(tmp_path / "p", tmp_path / "images")
    ranks = rank_images(project, Bright(True))
    assert next(iter(ranks)) == "b"
    assert ranks["b"] == 1
    assert ranks["a"] == 0
    monkeypatch.setattr("cellseg_d2.correction.next_image.disagreement", lambda *args, **options: 0.5)
    assert rank_images(project, Bright(True)) == ranks
    assert set(rank_images(project, Bright(False)).values()) == {0.5}
    project.save("b", np.zeros((40, 60), np.uint8))
    assert list(rank_images(project, Bright(False))) == ["a", "c"]
