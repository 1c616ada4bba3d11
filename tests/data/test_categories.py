"""Datasets with different categories and weights as one training set."""

import copy
import json
from collections import Counter
from itertools import islice

import pytest
from detectron2.data import DatasetCatalog, MetadataCatalog

from cellseg_d2.config import load_config
from cellseg_d2.data.categories import choose_classes, in_classes, map_categories, mixed, repeat_factors
from cellseg_d2.data.dataset_mapper import CellDatasetMapper
from cellseg_d2.engine.setup import prepare_training
from cellseg_d2.engine.trainer import CellTrainer
from cellseg_d2.errors import CellSegError
from tests.discs import CLASSES, write_disc_dataset

TO_ONE = "[['*','cell']]"


def rename(folder, names):
    """Give the categories of a converted dataset other names."""
    for path in folder.glob("instances_*.json"):
        content = json.loads(path.read_text())
        for category, name in zip(content["categories"], names, strict=True):
            category["name"] = name
        path.write_text(json.dumps(content))


@pytest.fixture
def config(repository, tmp_path, monkeypatch):
    """Two datasets: ``discs`` with bright and dark ones, and ``other`` with the same called dark and pale."""
    monkeypatch.setenv("DETECTRON2_DATASETS", str(tmp_path / "datasets"))
    write_disc_dataset(tmp_path / "datasets", images=3)
    rename(write_disc_dataset(tmp_path / "datasets", images=5, name="other"), ("dark", "pale"))

    def make(*opts):
        path = repository / "configs/quickstart/instant_test.yaml"
        return load_config(path, ["OUTPUT_DIR", str(tmp_path / "run"), *map(str, opts)])

    return make


BOTH = ("DATASETS.TRAIN", "('discs_train','other_train')")


def test_category_maps():
    names = ["bright", "dark", "pale"]
    assert map_categories(names, []) == names
    assert map_categories(names, [["*", "cell"]]) == ["cell"] * 3
    assert map_categories(names, [["pale", "bright"]]) == ["bright", "dark", "bright"]
    assert map_categories(names, [["dark", "dark"], ["*", "light"]]) == ["light", "dark", "light"]
    with pytest.raises(CellSegError, match="pairs"):
        map_categories(names, ["cell"])
    with pytest.raises(CellSegError, match="twice"):
        map_categories(names, [["pale", "a"], ["pale", "b"]])


def test_classes_from_datasets():
    two = {"a": ["x", "y"], "b": ["y", "z"]}
    assert choose_classes({"a": ["x", "y"], "b": ["x", "y"]}, []) == ["x", "y"]
    assert choose_classes(two, [["z", "x"]]) == ["x", "y"]
    assert choose_classes(two, [], ["z", "y", "x"]) == ["z", "y", "x"]
    with pytest.raises(CellSegError, match="CATEGORY_MAP"):
        choose_classes(two, [])
    with pytest.raises(CellSegError, match=r"b has the category 'z'"):
        choose_classes(two, [], ["x", "y"])


def test_a_view_has_the_model_s_classes_and_leaves_the_original(config):
    prepare_training(config(*BOTH, "DATASETS.CATEGORY_MAP", TO_ONE, "MODEL.ROI_HEADS.NUM_CLASSES", 1))
    before = copy.deepcopy(DatasetCatalog.get("other_train"))
    view = in_classes("other_train", [["pale", "bright"]], CLASSES)
    entries = DatasetCatalog.get(view)
    swapped = {0: 1, 1: 0}  # dark is 0 there and 1 here, pale is 1 there and bright, 0, here
    for old, new in zip(before, entries, strict=True):
        assert new["file_name"] == old["file_name"]
        assert [a["category_id"] for a in new["annotations"]] == [swapped[a["category_id"]] for a in old["annotations"]]
    assert MetadataCatalog.get(view).thing_classes == list(CLASSES)
    assert DatasetCatalog.get("other_train") == before
    assert MetadataCatalog.get("other_train").thing_classes == ["dark", "pale"]
    assert in_classes("discs_train", [], CLASSES) == "discs_train", "nothing to do"


def test_another_map_replaces_the_view(config):
    prepare_training(config(*BOTH, "DATASETS.CATEGORY_MAP", TO_ONE, "MODEL.ROI_HEADS.NUM_CLASSES", 1))

    def ids(category_map):
        entries = DatasetCatalog.get(in_classes("discs_train", category_map, ["a", "b"]))
        return {a["category_id"] for entry in entries for a in entry["annotations"]}

    assert ids([["*", "a"]]) == {0}
    assert ids([["*", "b"]]) == {1}


def test_datasets_that_differ_need_a_map(config):
    with pytest.raises(CellSegError, match=r"discs_train: bright, dark; other_train: dark, pale.*CATEGORY_MAP"):
        prepare_training(config(*BOTH))
    with pytest.raises(CellSegError, match="NUM_CLASSES 1"):
        prepare_training(config(*BOTH, "DATASETS.CATEGORY_MAP", TO_ONE))
    with pytest.raises(CellSegError, match="'gray', but the datasets only have bright, dark, pale"):
        prepare_training(config(*BOTH, "DATASETS.CATEGORY_MAP", "[['gray','dark'],['pale','bright']]"))
    cfg = prepare_training(config(*BOTH, "DATASETS.CATEGORY_MAP", "[['pale','bright']]"))
    assert list(cfg.MODEL.CLASS_NAMES) == list(CLASSES)
    assert cfg.DATASETS.TRAIN == ("discs_train", "other_train"), "the configuration can be used again"


def test_only_what_is_needed_is_replaced(config):
    cfg = prepare_training(config())
    assert mixed(cfg) is cfg
    cfg = prepare_training(config(*BOTH, "DATASETS.CATEGORY_MAP", "[['pale','bright']]"))
    assert mixed(cfg).DATASETS.TRAIN[0] == "discs_train"
    assert mixed(cfg).DATASETS.TRAIN[1] != "other_train"


def test_datasets_that_nothing_is_pasted_from_need_not_be_there(config):
    elsewhere = ("INPUT.COPY_PASTE.DATASETS", "('elsewhere_train',)")
    cfg = prepare_training(config(*BOTH, "DATASETS.CATEGORY_MAP", "[['pale','bright']]", *elsewhere))
    assert mixed(cfg).INPUT.COPY_PASTE.DATASETS == ("elsewhere_train",)
    assert CellDatasetMapper(mixed(cfg), is_train=True).paste_from == []


def test_factors_are_checked():
    assert repeat_factors(("a", "b"), [["b", 2]]) == {"a": 1.0, "b": 2.0}
    for wrong in (["b"], ["b", 0], ["b", "2"]):
        with pytest.raises(CellSegError, match="pairs of a dataset and a number"):
            repeat_factors(("a", "b"), [wrong])
    with pytest.raises(CellSegError, match="'c', which is not in"):
        repeat_factors(("a", "b"), [["c", 1.0]])


def test_an_epoch_counts_the_repetitions(config):
    opts = (*BOTH, "DATASETS.CATEGORY_MAP", TO_ONE, "MODEL.ROI_HEADS.NUM_CLASSES", 1)
    weights = ("DATASETS.TRAIN_REPEAT_FACTOR", "[['other_train',3.0]]", "SOLVER.EPOCHS", 2, "SOLVER.IMS_PER_BATCH", 2)
    cfg = prepare_training(config(*opts, *weights))
    assert cfg.SOLVER.MAX_ITER == 18  # 2 · (3 + 3 · 5) / 2
    assert cfg.DATALOADER.SAMPLER_TRAIN == "WeightedTrainingSampler"
    with pytest.raises(CellSegError, match="RandomSubset"):
        prepare_training(config(*opts, *weights, "DATALOADER.SAMPLER_TRAIN", "RandomSubsetTrainingSampler"))


def test_the_loader_mixes_as_asked(config):
    """With factors of 1 and 3 on 3 and 5 images, 15 of 18 are of the second; and all cells are of one class."""
    cfg = prepare_training(
        config(
            *BOTH,
            *("DATASETS.CATEGORY_MAP", TO_ONE, "MODEL.ROI_HEADS.NUM_CLASSES", 1),
            *("DATASETS.TRAIN_REPEAT_FACTOR", "[['other_train',3.0]]", "SOLVER.IMS_PER_BATCH", 1),
        )
    )
    samples = [batch[0] for batch in islice(CellTrainer.build_train_loader(cfg), 36)]
    assert {int(c) for sample in samples for c in sample["instances"].gt_classes} == {0}
    seen = Counter("other" if "/other/" in sample["file_name"] else "discs" for sample in samples)
    # Images of one shape are grouped into batches, here of one, so that two whole epochs are seen.
    assert seen == {"other": 30, "discs": 6}


def test_measures_by_class_see_the_model_s_classes(config, tmp_path):
    """A model with one class, evaluated on two types: AP of the one class, the competition's score by type."""
    cfg = prepare_training(
        config(
            *("DATASETS.CATEGORY_MAP", TO_ONE, "MODEL.ROI_HEADS.NUM_CLASSES", 1),
            *("TEST.EVALUATORS", "['livecell','competition']"),
        )
    )
    results = CellTrainer.test(cfg, CellTrainer.build_model(cfg))
    assert not any(key.startswith("AP-") for key in results["livecell_segm"])
    assert set(CLASSES) <= set(results["competition"])
    truth = json.loads((tmp_path / "run/inference/discs_val/truth.json").read_text())
    assert [category["name"] for category in truth["categories"]] == ["cell"]
    assert {a["category_id"] for a in truth["annotations"]} == {1}


def test_pasted_cells_come_from_their_own_datasets_in_the_model_s_classes(config):
    paste = ("INPUT.COPY_PASTE.PROBABILITY", 1.0, "INPUT.COPY_PASTE.DATASETS", "('other_train',)")
    one = ("DATASETS.CATEGORY_MAP", TO_ONE, "MODEL.ROI_HEADS.NUM_CLASSES", 1)
    cfg = prepare_training(config("DATASETS.TRAIN", "('discs_train',)", *paste, *one))
    assert cfg.MODEL.CLASS_NAMES == ["cell"]
    mapper = CellDatasetMapper(mixed(cfg), is_train=True)
    sources = {entry["file_name"] for entry in mapper.paste_from}
    assert sources == {entry["file_name"] for entry in DatasetCatalog.get("other_train") if entry["annotations"]}
    assert {a["category_id"] for entry in mapper.paste_from for a in entry["annotations"]} == {0}
