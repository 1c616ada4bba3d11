"""tools/visualize.py augmentations: the sheet shows the samples of the training's own mapper."""

import numpy as np
import pytest
from detectron2.data import DatasetCatalog
from PIL import Image
from pycocotools import mask as coco_mask

from cellseg_d2.cli import visualize as tool
from cellseg_d2.config import load_config
from cellseg_d2.data.catalog import register_folder
from cellseg_d2.data.dataset_mapper import MASK_FORMATS, CellDatasetMapper
from cellseg_d2.errors import CellSegError
from cellseg_d2.visualization.augmentation_sheet import augmentation_sheet, describe_augmentations, target_crops
from cellseg_d2.visualization.overlays import PALETTE
from tests.discs import write_disc_dataset, write_untrained_run

CONFIG = "configs/quickstart/instant_test.yaml"


@pytest.fixture
def visualize(repository, monkeypatch, tmp_path):
    monkeypatch.setenv("DETECTRON2_DATASETS", str(tmp_path))
    write_disc_dataset(tmp_path)
    output = tmp_path / "out" / "sheet.png"

    def call(*options):
        assert not tool.main(
            ["augmentations", "--config-file", str(repository / CONFIG), "--output", str(output), *options]
        )
        return np.array(Image.open(output))

    return call


@pytest.fixture
def entry(tmp_path):
    register_folder(write_disc_dataset(tmp_path, name="sheet"))
    return DatasetCatalog.get("sheet_train")[0]


def colored(picture):
    """Pixels of outlines, bool (H, W)."""
    return (picture[:, :, None] == np.array(PALETTE)).all(axis=3).any(axis=2)


def test_the_sheet_of_the_training_set(visualize, capsys):
    few, more = visualize("--count", "1"), visualize("--count", "3", "--columns", "3")
    assert more.shape[1] > few.shape[1]
    assert colored(few).any()
    assert "image " in capsys.readouterr().out


def test_a_dataset_by_its_file_and_options(visualize, tmp_path):
    folder = write_disc_dataset(tmp_path / "else", name="other")
    options = ["--json", str(folder / "instances_val.json"), "--image-index", "0", "--count", "2"]
    assert colored(visualize(*options, "INPUT.COPY_PASTE.PROBABILITY", "1.0")).any()


def test_samples_are_those_of_the_mapper(visualize, tmp_path):
    """The same seed draws the same sheet, another one another."""
    first, again, other = (visualize("--count", "2", "--seed", seed) for seed in ("4", "4", "11"))
    assert np.array_equal(first, again)
    assert first.shape != other.shape or not np.array_equal(first, other)


def test_the_mapper_is_that_of_the_training(visualize, monkeypatch, tmp_path):
    """Cells come from the datasets that they are pasted from, in the model's classes."""
    path = write_disc_dataset(tmp_path, name="other") / "instances_train.json"
    path.write_text(path.read_text().replace('"bright"', '"pale"'))
    drawn = []

    def remember(mapper, entry, *args, **kwargs):
        drawn.append((mapper, entry))
        return augmentation_sheet(mapper, entry, *args, **kwargs)

    monkeypatch.setattr("cellseg_d2.visualization.augmentation_sheet.augmentation_sheet", remember)
    pasted = ["INPUT.COPY_PASTE.PROBABILITY", "1.0", "INPUT.COPY_PASTE.DATASETS", "('other_train',)"]
    one = ["DATASETS.CATEGORY_MAP", "[['*','cell']]", "DATASETS.TRAIN_REPEAT_FACTOR", "[['discs_train',2.0]]"]
    for given in ([], ["--json", str(tmp_path / "discs/instances_val.json")]):
        visualize("--count", "1", *given, *pasted, *one)
        mapper, entry = drawn[-1]
        assert {"other" in source["file_name"] for source in mapper.paste_from} == {True}
        assert {a["category_id"] for own in (entry, *mapper.paste_from) for a in own["annotations"]} == {0}
    with pytest.raises(CellSegError, match="the datasets do not have the same categories"):
        visualize(*pasted)
    with pytest.raises(CellSegError, match="'elsewhere_train' is not in"):
        visualize(*pasted[:3], "('elsewhere_train',)")


@pytest.mark.parametrize(
    ("options", "message"),
    [(["--image-index", "4"], "there are 4 images"), (["--json", "none.json"], "none.json does not exist")],
)
def test_mistakes_are_told(visualize, options, message):
    with pytest.raises(CellSegError, match=message):
        visualize(*options)


@pytest.mark.parametrize("mask_format", MASK_FORMATS)
def test_crops_are_the_targets(entry, mask_format):
    instances = CellDatasetMapper(True, augmentations=[], mask_format=mask_format)(entry)["instances"]
    crops = target_crops(instances)
    assert [crop.area for crop in crops] == [
        coco_mask.area(annotation["segmentation"]) for annotation in entry["annotations"]
    ]
    assert [list(crop.box) for crop in crops] == instances.gt_boxes.tensor.tolist()


def test_grey_levels_are_those_of_the_original(entry):
    """A darker sample looks darker: no panel is stretched by itself."""
    from cellseg_d2.data.augmentations.photometric import BrightnessContrast

    darker = BrightnessContrast((-30, -30), (1, 1), (1, 1))
    means = []
    for augmentations in ([], [darker]):
        mapper = CellDatasetMapper(True, augmentations=augmentations, channels=1)
        sheet = augmentation_sheet(mapper, entry, "title", count=1)
        panel = sheet[sheet.shape[0] // 8 : sheet.shape[0] // 3, -300:-100]
        means.append(np.median(panel))
    assert means[1] < means[0] - 20


def test_copy_paste_comes_first(repository):
    cfg = load_config(repository / CONFIG, ["INPUT.COPY_PASTE.PROBABILITY", "0.5"])
    assert describe_augmentations(cfg) == "copy-paste (0.5) → rotate_zoom_crop → flip → vertical_flip"


def test_fields_of_a_dense_model(repository, tmp_path, capsys):
    folder = write_disc_dataset(tmp_path, images=2)
    run = tmp_path / "run"
    run.mkdir()
    write_untrained_run(run, repository / CONFIG, ["MODEL.META_ARCHITECTURE", "DenseSegmenter"])
    options = ["--images", str(folder / "images"), "--config-file", str(run / "config.yaml"), "MODEL.DEVICE", "cpu"]
    assert not tool.main(["fields", "--output", str(tmp_path / "out"), "--limit", "1", "--columns", "2", *options])
    assert "1 pictures" in capsys.readouterr().out
    picture = np.array(Image.open(next((tmp_path / "out").glob("*.png"))))
    assert picture.shape[1] >= 2 * 96


def test_fields_of_a_network_without_a_dense_branch_are_refused(repository, tmp_path):
    folder = write_disc_dataset(tmp_path, images=2)
    run = tmp_path / "run"
    run.mkdir()
    write_untrained_run(run, repository / CONFIG)
    options = ["--images", str(folder / "images"), "--config-file", str(run / "config.yaml"), "MODEL.DEVICE", "cpu"]
    with pytest.raises(CellSegError, match="which has no dense branch"):
        tool.main(["fields", "--output", str(tmp_path / "out"), *options])
