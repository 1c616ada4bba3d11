"""One line from an image of any kind to its cells."""

import numpy as np
import pytest
import tifffile

import cellseg_d2
from cellseg_d2.config import load_config
from cellseg_d2.detections.detections import Detections
from cellseg_d2.detections.fusion import FusionParams
from cellseg_d2.errors import CellSegError
from cellseg_d2.images.pixel_size import PixelSize
from cellseg_d2.inference.model import CellSegmenter
from cellseg_d2.inference.segmenter import Segmenter
from cellseg_d2.masks.crop import MaskCrop
from cellseg_d2.masks.overlaps import crops_from_labels
from cellseg_d2.postprocess.params import PostprocessParams
from cellseg_d2.postprocess.steps import postprocess
from cellseg_d2.weights.model_folder import export_model
from tests.discs import disc_image, write_untrained_run


class Bright(Segmenter):
    """Finds connected bright pixels, whatever their size, and notes what it is shown."""

    def __init__(self, tile=None, cell_diameter=0.0, scales=(1.0,), sees=(0, np.inf)):
        """With ``sees``, only cells whose diameters are in this range where the network looks."""
        self.params = PostprocessParams(vote=False)
        self.class_names, self.fusion = ["cell"], FusionParams()
        self.tile, self.cell_diameter, self.scales, self.sees = tile, cell_diameter, scales, sees
        self.shown = []

    def detect_views(self, image, scale=1.0):
        from scipy import ndimage

        self.shown.append((image.shape, round(scale, 3)))
        labels, _ = ndimage.label(image > 160)
        low, high = (np.pi * (side / scale / 2) ** 2 for side in self.sees)
        crops = [crop for crop in crops_from_labels(labels) if low <= crop.area <= high]
        boxes = np.array([crop.box for crop in crops], np.float32).reshape(-1, 4)
        ones = np.ones(len(crops), np.float32)
        return [Detections(*image.shape, boxes, ones, np.zeros(len(crops), np.int64), crops)], [1.0]


@pytest.fixture
def discs():
    return disc_image(np.random.default_rng(4), 120, 6, 0)


def same(segmentation, crops):
    expected = {(crop.box, crop.area) for crop in crops}
    return {(crop.box, crop.area) for crop in segmentation.crops} == expected


def test_arrays_of_any_kind_give_the_same_cells(discs):
    image, crops = discs
    rgb = np.repeat(image[..., None], 3, axis=2)
    for given in (image, rgb, image[None], image[..., None], image.tolist()):
        segmentation = Bright().segment(np.uint8(given) if isinstance(given, list) else given)
        assert same(segmentation, crops)
    for given in (image.astype(np.uint16) * 200, image / 255, image.astype(np.float32) - 1000):  # stretched
        assert len(Bright().segment(given)) == len(crops)


def test_files_know_their_names_and_pixel_sizes(discs, tmp_path):
    image, crops = discs
    path = tmp_path / "well A1.tif"
    tifffile.imwrite(path, image, imagej=True, resolution=(2, 2), metadata={"unit": "um"})
    segmentation = Bright().segment(path)
    assert same(segmentation, crops)
    assert segmentation.name == "well A1"
    assert segmentation.pixel_size == PixelSize(0.5, 0.5)
    assert np.array_equal(segmentation.image, image)
    area = segmentation.measure()["area_um2"].sum()
    assert area == pytest.approx(0.25 * sum(crop.area for crop in crops))
    assert Bright().segment(path, pixel_size=PixelSize(1, 1), name="b").pixel_size == PixelSize(1, 1)


def test_sizes_in_micrometres(discs, tmp_path):
    image, crops = discs
    path = tmp_path / "a.tif"
    tifffile.imwrite(path, image, imagej=True, resolution=(2, 0.5), metadata={"unit": "um"})  # pixels of 0.5 × 2 µm
    segmenter = Bright(cell_diameter=20)
    segmenter.segment(path, diameter_um=40)
    segmenter.segment(image, diameter_um=20, pixel_size=0.5)
    segmenter.segment(image, diameter=40)
    assert segmenter.shown == [((120, 120), 0.5)] * 3
    segmentation = Bright().segment(image, pixel_size=0.5)
    assert segmentation.pixel_size == PixelSize(0.5, 0.5)
    assert {file.suffix for file in segmentation.save(tmp_path, ["labels", "csv", "geojson"])} == {
        ".tif",
        ".csv",
        ".geojson",
    }
    assert segmentation.measure()["area_um2"].sum() == pytest.approx(0.25 * sum(crop.area for crop in crops))
    with pytest.raises(CellSegError, match="does not tell the size of its pixels: give pixel_size, or diameter"):
        segmenter.segment(image, diameter_um=20)
    with pytest.raises(CellSegError, match="in pixels or in micrometres, not both"):
        segmenter.segment(path, diameter_um=20, diameter=20)
    with pytest.raises(CellSegError, match="micrometres above 0"):
        segmenter.segment(path, diameter_um=0)
    for size in ("0.5 um", (0.5, 0.5)):
        with pytest.raises(CellSegError, match="a number of micrometres or a PixelSize, not"):
            segmenter.segment(image, pixel_size=size)


def test_lists_and_stacks_give_lists(discs):
    image, crops = discs
    empty = np.full_like(image, 128)
    several = Bright().segment([image, empty])
    assert [len(one) for one in several] == [len(crops), 0]
    assert [one.name for one in several] == ["image_000", "image_001"]
    planes = Bright().segment(np.stack([empty, image, image, empty, empty]), stack=True)
    assert [len(one) for one in planes] == [0, len(crops), len(crops), 0, 0]
    with pytest.raises(CellSegError, match="5 × 120 × 120"):
        Bright().segment(np.stack([image] * 5))


def test_large_images_are_looked_at_in_windows(discs):
    image, crops = discs
    segmenter = Bright(tile=70)
    assert same(segmenter.segment(image, overlap=40), crops)
    assert {shape for shape, _ in segmenter.shown} == {(70, 70)}
    assert len(segmenter.shown) == 9
    assert same(Bright().segment(image, tile=80, overlap=40), crops)


def test_what_does_not_fit_the_model_is_refused_before_it_looks(discs):
    segmenter = Bright()
    with pytest.raises(CellSegError, match="a side of 64 or more"):
        segmenter.segment(discs[0], tile=1)
    segmenter.params = PostprocessParams(score_thresholds=(0.1, 0.2, 0.3))
    with pytest.raises(CellSegError, match="score_thresholds has 3 values, but the model has"):
        segmenter.segment(discs[0])
    assert not segmenter.shown


def test_a_diameter_changes_the_scale_and_the_windows(discs):
    image, crops = discs
    segmenter = Bright(tile=100, cell_diameter=20)
    assert same(segmenter.segment(image, diameter=40), crops)
    assert segmenter.shown == [((120, 120), 0.5)]  # a window of 200 pixels holds the image
    with pytest.raises(CellSegError, match="does not tell the diameter"):
        Bright().segment(image, diameter=30)


def test_the_best_scale_is_looked_for_where_the_cells_are(discs):
    image, crops = discs
    true = np.median([2 * np.sqrt(crop.area / np.pi) for crop in crops])
    for place in (100, 300):
        mosaic = np.full((520, 520), 128, np.uint8)
        mosaic[place : place + 120, place : place + 120] = image
        segmenter = Bright(tile=120, scales=(0.5, 1.0, 2.0), sees=(1.4 * true, 3 * true))
        assert len(segmenter.segment(mosaic)) >= len(crops) - 1
        assert segmenter.shown[-1] == ((60, 60), 2.0), "windows of 120 of the network's pixels"
    blank = Bright(tile=120, scales=(0.5, 1.0, 2.0))
    blank.segment(np.full((520, 520), 128, np.uint8))
    assert blank.shown[-1][1] == 1.0, "nothing says otherwise"


def test_the_scales_next_to_the_best_one_are_merged_with_it(discs):
    image, crops = discs
    # Large cells are seen at half the size, small ones at the usual size and at twice that; the large have most area.
    two = np.full((120, 240), 128, np.uint8)
    two[:, :120] = image
    rows, columns = np.ogrid[:120, :240]
    for top in range(12, 110, 16):
        two[(rows - top) ** 2 + (columns - 200) ** 2 < 9] = 255
    diameters = [2 * np.sqrt(crop.area / np.pi) for crop in crops]
    sees = (4, 0.6 * max(diameters))
    alone, merged = (Bright(tile=480, scales=(2.0, 0.5, 1.0), sees=sees) for _ in range(2))
    merged.scale_neighbors = 1
    few, more = alone.segment(two), merged.segment(two)
    assert {crop.box for crop in few.crops} < {crop.box for crop in more.crops}
    for segmenter in (alone, merged):
        assert [scale for _, scale in segmenter.shown] == [2.0, 0.5, 1.0], "the whole image is looked at once a scale"
    assert alone.settings() != merged.settings()


def test_windows_of_a_large_image_are_looked_at_at_each_of_the_scales(discs):
    mosaic = np.full((300, 300), 128, np.uint8)
    mosaic[90:210, 90:210] = discs[0]
    segmenter = Bright(tile=120, scales=(0.5, 1.0, 2.0))
    segmenter.scale_neighbors = 1
    assert len(segmenter.segment(mosaic)) == len(discs[1])
    after = [scale for shape, scale in segmenter.shown[3:]]
    best = after[0]
    assert after == [best, *(scale for scale in (0.5, 1.0, 2.0) if scale in after and scale != best)] * (
        len(after) // 2
    )


def test_a_given_diameter_is_the_only_look(discs):
    segmenter = Bright(tile=200, cell_diameter=20, scales=(0.5, 1.0, 2.0))
    segmenter.segment(discs[0], diameter=10)
    assert {scale for _, scale in segmenter.shown} == {2.0}


def test_detections_are_kept_on_demand(discs):
    image, crops = discs
    segmenter = Bright(tile=130)
    segmenter.params = PostprocessParams((1.01,), vote=False)  # no cell is left of them
    assert segmenter.segment(image).detections is None
    [kept] = segmenter.segment([image], keep_detections=True)
    assert len(kept) == 0
    assert {(crop.box, crop.area) for crop in kept.detections.crops()} == {(crop.box, crop.area) for crop in crops}
    assert len(Bright(tile=70).segment(image, tile=120, keep_detections=True).detections) == len(crops)


def test_detections_of_several_windows_are_kept_merged(discs):
    image, crops = discs
    segmenter = Bright(tile=70)
    segmentation = segmenter.segment(image, overlap=40, keep_detections=True)
    assert len(segmenter.shown) > 1
    assert np.array_equal(segmentation.labels, segmenter.segment(image, overlap=40).labels)
    kept = segmentation.detections
    assert (kept.height, kept.width) == image.shape
    assert {(crop.box, crop.area) for crop in kept.crops()} == {(crop.box, crop.area) for crop in crops}
    assert np.array_equal(postprocess(kept, segmenter.params).label_image(), segmentation.labels)


def test_windows_are_stretched_alike():
    image = np.full((60, 120), 1000, np.uint16)
    image[20:30, 20:30], image[20:30, 90:100] = 5000, 2000  # in its own window the second would be as bright
    segmentation = Bright(tile=60).segment(image, overlap=0)
    assert [crop.box for crop in segmentation.crops] == [(20, 20, 30, 30)]


def test_odd_images_are_cells_or_a_sentence(tmp_path):
    assert len(Bright().segment(np.full((1, 1), 7, np.uint8))) == 0
    for image, message in (
        (np.zeros((0, 5)), "no pixels|empty"),
        (np.full((8, 8), np.nan), "no finite"),
        (np.zeros((8, 8), complex), "complex"),
        ("nowhere.png", "does not exist"),
    ):
        with pytest.raises(CellSegError, match=message):
            Bright().segment(image)


@pytest.fixture(scope="module")
def model(tmp_path_factory, repository):
    root = tmp_path_factory.mktemp("model")
    run = write_untrained_run(root, repository / "configs/quickstart/instant_test.yaml")
    opts = ["INPUT.ZOOM_TEST", "1.0", "INPUT.CELL_DIAMETER", "18.0", "TEST.TILE", "128"]
    cfg = load_config(run / "config.yaml", opts)
    cfg.TEST.POSTPROCESS.update(PostprocessParams((0.3,), vote=False).to_config())
    return export_model(cfg, run / "model_best.pth", root / "exported")


def test_a_model_folder_is_one_line(model, discs):
    segmenter = cellseg_d2.CellSegmenter.from_pretrained(model, device="cpu")
    assert isinstance(segmenter, CellSegmenter)
    assert segmenter.params.score_thresholds == (0.3,)
    assert (segmenter.tile, segmenter.cell_diameter) == (128, 18.0)
    segmentation = segmenter.segment(discs[0])
    assert len(segmentation) > 0
    assert (segmentation.labels > 0).sum() == sum(crop.area for crop in segmentation.crops)
    with pytest.raises(CellSegError, match="no model 'none'"):
        CellSegmenter.from_pretrained("none")


def test_the_network_sees_the_same_magnification_in_images_of_any_size(model):
    segmenter = CellSegmenter.from_pretrained(model, device="cpu")
    shapes = []
    segmenter._model.model.backbone.register_forward_pre_hook(lambda _, args: shapes.append(tuple(args[0].shape[-2:])))
    segmenter.segment(np.zeros((64, 96), np.uint8))
    segmenter.segment(np.zeros((200, 96), np.uint8), overlap=32)
    segmenter.segment(np.zeros((64, 64), np.uint8), diameter=9)
    assert shapes == [(64, 96), (128, 96), (128, 96), (128, 128)]


def test_images_smaller_than_the_network_s_stride_are_looked_at_as_well(model):
    segmenter = CellSegmenter.from_pretrained(model, device="cpu")
    segmenter.params = PostprocessParams((0.0,), vote=False)
    for height, width in ((1, 1), (3, 200), (40, 31)):
        segmentation = segmenter.segment(np.full((height, width), 90, np.uint8))
        assert segmentation.labels.shape == (height, width)
        detections = segmenter.detect(np.full((height, width), 90, np.uint8))
        assert (detections.boxes[:, 2:] <= [width, height]).all()


def test_cells_are_crops(discs):
    assert all(isinstance(crop, MaskCrop) for crop in Bright().segment(discs[0]).crops)
