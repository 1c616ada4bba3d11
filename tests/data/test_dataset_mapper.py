"""Samples for training: image, masks and boxes stay together."""

import copy

import detectron2.data.transforms as T
import numpy as np
import pytest
from detectron2.data import DatasetCatalog
from detectron2.data.datasets import register_coco_instances
from pycocotools import mask as coco_mask
from scipy import ndimage

from cellseg_d2.data.augmentations.crops import RotateZoomCrop
from cellseg_d2.data.augmentations.resize import ResizeShortestEdge
from cellseg_d2.data.catalog import has_ignored, register_folder
from cellseg_d2.data.dataset_mapper import MASK_FORMATS, CellDatasetMapper
from cellseg_d2.data.label_masks import LabelMasks
from cellseg_d2.errors import CellSegError
from tests.discs import change_first_cell, write_disc_dataset
from tests.stock_masks import to_bitmasks


@pytest.fixture(scope="module")
def entries(tmp_path_factory):
    register_folder(write_disc_dataset(tmp_path_factory.mktemp("mapper"), name="mapped"))
    return DatasetCatalog.get("mapped_train")


def full_masks(instances):
    """Masks of either format as bool ``(N, H, W)``."""
    masks = instances.gt_masks
    return (to_bitmasks(masks) if isinstance(masks, LabelMasks) else masks).tensor.numpy()


@pytest.mark.parametrize("mask_format", MASK_FORMATS)
def test_targets_follow_the_image(entries, mask_format):
    augmentations = [
        T.RandomFlip(prob=1.0),
        T.RandomRotation([30, 30], expand=False),
        ResizeShortestEdge(192, 192),
        T.RandomCrop("absolute", (150, 130)),
    ]
    mapper = CellDatasetMapper(True, augmentations=augmentations, channels=1, mask_format=mask_format)
    sample = mapper(entries[0])
    image, instances = sample["image"][0].numpy(), sample["instances"]
    assert sample["image"].shape == (1, 150, 130)
    assert len(instances) >= 2
    bright = image > 160
    covered = full_masks(instances).any(axis=0)
    # The discs are the bright pixels; only their blurred rims may disagree.
    assert (bright & covered).sum() / (bright | covered).sum() > 0.85
    for box, mask in zip(instances.gt_boxes.tensor.numpy(), full_masks(instances), strict=True):
        ys, xs = np.nonzero(mask)
        assert box.tolist() == [xs.min(), ys.min(), xs.max() + 1, ys.max() + 1]


@pytest.mark.parametrize("mask_format", MASK_FORMATS)
def test_an_image_without_cells_is_a_sample(entries, mask_format):
    sample = CellDatasetMapper(True, augmentations=[], mask_format=mask_format)(entries[-1])
    assert len(sample["instances"]) == 0
    assert sample["instances"].gt_boxes.tensor.shape == (0, 4)
    assert sample["image"].shape == (3, 96, 96)


def test_small_rests_are_dropped_together_with_their_classes(entries):
    all_cells = CellDatasetMapper(True, augmentations=[], min_cell_area=1)(entries[1])["instances"]
    limit = int(np.sort(full_masks(all_cells).sum(axis=(1, 2)))[2])
    large = CellDatasetMapper(True, augmentations=[], min_cell_area=limit)(entries[1])["instances"]
    assert len(large) == 3
    assert large.gt_classes.tolist() == [1, 1, 1]


def test_the_dataset_dict_is_not_changed(entries):
    before = copy.deepcopy(entries[0])
    CellDatasetMapper(True, augmentations=[T.Resize((50, 50))])(entries[0])
    assert entries[0] == before


def test_prediction_has_no_targets(entries):
    sample = CellDatasetMapper(False, augmentations=[T.Resize((50, 50))])(entries[0])
    assert "instances" not in sample
    assert (sample["height"], sample["width"]) == (96, 96)


def test_an_image_of_another_size_is_an_error(entries):
    with pytest.raises(CellSegError, match="annotations are for 97"):
        CellDatasetMapper(True, augmentations=[])({**entries[0], "height": 97})


def test_both_formats_are_the_same_targets(entries):
    for angle in (0.0, 37.0, 90.0):
        samples = []
        for mask_format in MASK_FORMATS:
            np.random.seed(int(angle))  # noqa: NPY002 - Detectron2's augmentations draw from it
            augmentations = [ResizeShortestEdge(120, 120), RotateZoomCrop((angle, angle), (0.5, 0.6), (110, 90))]
            samples.append(CellDatasetMapper(True, augmentations=augmentations, mask_format=mask_format)(entries[0]))
        layers, bitmask = (sample["instances"] for sample in samples)
        assert len(layers) == len(bitmask) > 3
        assert np.array_equal(samples[0]["image"], samples[1]["image"])
        order = [np.lexsort(instances.gt_boxes.tensor.numpy().T) for instances in (layers, bitmask)]
        assert np.array_equal(full_masks(layers)[order[0]], full_masks(bitmask)[order[1]])
        assert np.array_equal(layers.gt_boxes.tensor[order[0]], bitmask.gt_boxes.tensor[order[1]])


def test_mirrored_copies_become_cells_of_their_own(entries):
    # Half the size: three quarters of the output are mirror images.
    mapper = CellDatasetMapper(True, augmentations=[RotateZoomCrop((0, 0), (0.4, 0.4))], min_cell_area=3)
    instances = mapper(entries[0])["instances"]
    assert len(instances) > 5
    assert set(instances.gt_classes.tolist()) == {0}
    for mask in full_masks(instances):
        assert ndimage.label(mask, np.ones((3, 3)))[1] == 1


def test_cut_cells_are_dropped_by_their_visible_share(entries):
    crop = T.CropTransform(0, 0, 48, 48)
    augmentation = T.AugmentationList([crop, ResizeShortestEdge(96, 96)])
    areas = full_masks(CellDatasetMapper(True, augmentations=[])(entries[0])["instances"]).sum(axis=(1, 2))
    visible = full_masks(CellDatasetMapper(True, augmentations=[])(entries[0])["instances"])[:, :48, :48].sum(
        axis=(1, 2)
    )
    for share in (0.3, 0.95):
        mapper = CellDatasetMapper(True, augmentations=[augmentation], min_cell_area=1, min_visible=share)
        # Doubling the size rounds the area of a disc by less than the margin between the shares here.
        assert len(mapper(entries[0])["instances"]) == np.count_nonzero(visible >= share * areas)


def test_cells_of_the_same_kind_are_pasted(entries):
    def paste_from(source):
        mapper = CellDatasetMapper(
            True, augmentations=[], paste_from=[source], paste_probability=1.0, paste_count=4, min_cell_area=1
        )
        return mapper(entries[0])

    sample = paste_from(entries[2])
    classes = sample["instances"].gt_classes.tolist()
    assert set(classes) == {0}
    assert 6 <= len(classes) <= 9
    covered = full_masks(sample["instances"]).any(axis=0)
    assert np.median(sample["image"][0].numpy()[covered]) > 170, "pasted pixels and pasted masks go together"
    assert len(paste_from(entries[1])["instances"]) == 5, "the other image has cells of another kind only"
    onto_empty = CellDatasetMapper(True, augmentations=[], paste_from=[entries[1]], paste_probability=1.0)(entries[3])
    assert set(onto_empty["instances"].gt_classes.tolist()) == {1}


def test_the_cache_gives_the_same_samples_without_reading_again(entries, monkeypatch):
    mapper = CellDatasetMapper(True, augmentations=[], cache_bytes=10**6)
    first = mapper(entries[0])
    monkeypatch.setattr(mapper, "read_image", lambda *_: pytest.fail("read again"))
    second = mapper(entries[0])
    assert np.array_equal(first["image"], second["image"])
    assert np.array_equal(full_masks(first["instances"]), full_masks(second["instances"]))


def test_two_datasets_may_annotate_one_image_differently(entries):
    """Also where a loader hands out a copy of the dict each time."""
    mapper = CellDatasetMapper(True, augmentations=[], cache_bytes=10**6)
    fewer = {**entries[0], "annotations": entries[0]["annotations"][:2]}
    other = {**entries[0], "annotations": [{**a, "category_id": 1} for a in entries[0]["annotations"]]}
    for _ in range(2):
        found = [mapper(copy.deepcopy(entry))["instances"].gt_classes.tolist() for entry in (entries[0], fewer, other)]
        assert found == [[0] * 5, [0] * 2, [1] * 5]


def test_what_may_be_pasted_is_sought_once(entries):
    """Not in every sample: a training may paste from many thousand images."""

    class Counted(dict):
        reads = 0

        def __getitem__(self, key):
            Counted.reads += key == "annotations"
            return super().__getitem__(key)

    sources = [Counted(entries[1]) for _ in range(100)]
    mapper = CellDatasetMapper(
        True, augmentations=[], paste_from=sources, paste_probability=1.0, min_cell_area=1, cache_bytes=10**7
    )
    for entry in entries[:2]:
        mapper(entry)
    once = Counted.reads
    for _ in range(20):
        assert len(mapper(entries[1])["instances"]) >= 5
    assert Counted.reads - once < 100


def test_detectron2_s_own_datasets_have_the_same_regions_to_ignore(tmp_path):
    """A region marked iscrowd is background neither in a dataset of this project's nor in one of Detectron2's."""
    folder = write_disc_dataset(tmp_path, images=2, name="crowds")
    content = change_first_cell(folder, "train", iscrowd=1)
    register_folder(folder)
    path = str(folder / "instances_train.json")
    register_coco_instances("crowds_by_detectron2", {}, path, str(folder / "images"))
    own, stock = (DatasetCatalog.get(name) for name in ("crowds_train", "crowds_by_detectron2"))
    assert [has_ignored(entry) for entry in own] == [has_ignored(entry) for entry in stock] == [True, False]
    mapper = CellDatasetMapper(True, augmentations=[])
    for mine, other in zip(own, stock, strict=True):
        a, b = (mapper(entry)["instances"] for entry in (mine, other))
        assert np.array_equal(full_masks(a), full_masks(b))
        ignored = [None if i.gt_masks.ignore is None else int(i.gt_masks.ignore.sum()) for i in (a, b)]
        assert ignored[0] == ignored[1]
    assert mapper(stock[0])["instances"].gt_masks.ignore.sum() == content["annotations"][0]["area"]


def test_regions_to_ignore_follow_the_image_and_leave_cells_alone(entries):
    """The cells themselves as the region, grown by a pixel: what is left of it is a rim around each."""
    annotations = entries[0]["annotations"]
    masks = coco_mask.decode([a["segmentation"] for a in annotations]).any(axis=2)
    grown = ndimage.binary_dilation(masks, iterations=3)
    rle = coco_mask.encode(np.asfortranarray(grown.astype(np.uint8)))
    rle["counts"] = rle["counts"].decode()
    entry = {**entries[0], "ignore": [rle]}
    mapper = CellDatasetMapper(True, augmentations=[T.RandomFlip(prob=1.0)], dense_stride=1)
    sample = mapper(entry)
    rim = (grown & ~masks)[:, ::-1]
    assert np.array_equal(sample["instances"].gt_masks.ignore.numpy(), rim)
    assert np.array_equal(sample["dense"]["foreground"].numpy() == -1, rim)
    assert "ignore" not in sample
    # Pasted cells are known.
    paste = CellDatasetMapper(True, augmentations=[], paste_from=[entries[0]], paste_probability=1.0, paste_count=3)
    everywhere = coco_mask.encode(np.ones((96, 96), np.uint8, order="F"))
    everywhere["counts"] = everywhere["counts"].decode()
    pasted = paste({**entries[-1], "ignore": [everywhere]})["instances"]
    assert len(pasted)
    assert np.array_equal(pasted.gt_masks.ignore.numpy(), ~full_masks(pasted).any(axis=0))


def test_a_region_to_ignore_stays_with_the_masks(entries):
    rle = entries[0]["annotations"][0]["segmentation"]
    masks = CellDatasetMapper(True, augmentations=[])({**entries[1], "ignore": [rle]})["instances"].gt_masks
    for same in (masks[1:3], masks[0], masks.to("cpu"), LabelMasks.cat([masks[:2], masks[2:]])):
        assert same.ignore is not None
        assert same.ignore.sum() == masks.ignore.sum() > 0
