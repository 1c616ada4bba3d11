"""Coverage of cells by anchors, against Detectron2's own layout of them."""

import gzip
import json

import numpy as np
import pandas as pd
import pytest
import torch
import yaml
from detectron2.config import get_cfg
from detectron2.data.transforms import ResizeShortestEdge
from detectron2.modeling import build_model
from detectron2.modeling.anchor_generator import DefaultAnchorGenerator
from detectron2.structures import Boxes, pairwise_iou

from cellseg_d2.config import load_config
from cellseg_d2.errors import CellSegError
from cellseg_d2.modeling.anchors import (
    Anchors,
    CellBoxes,
    best_iou,
    feature_sizes,
    fit_anchors,
    join,
    read_boxes,
    shares_below,
)

DEFAULT = Anchors.from_lists([[32], [64], [128], [256], [512]], [[0.5, 1.0, 2.0]])
TWO_SCALES = Anchors.from_lists([[16, 24], [32, 48], [64, 96], [128, 192], [256, 384]], [[0.333, 0.5, 1.0, 2.0, 3.0]])


def cell_boxes(boxes, image_size, types=None):
    boxes = np.asarray(boxes, dtype=np.float64).reshape(-1, 4)
    sizes = np.tile(np.asarray(image_size, dtype=np.float64), (len(boxes), 1))
    return CellBoxes(boxes, sizes, np.array(["cell"] * len(boxes) if types is None else types))


def random_boxes(generator, count, height, width):
    corners = generator.uniform(0, [width, height], (count, 2))
    sides = np.exp(generator.uniform(1, 5.5, (count, 2)))
    return np.concatenate([corners - sides / 2, corners + sides / 2], axis=1).clip(0, [width, height, width, height])


@pytest.mark.parametrize("offset", [0.0, 0.5])
@pytest.mark.parametrize("anchors", [DEFAULT, TWO_SCALES])
@pytest.mark.parametrize("size", [(200, 330), (256, 256), (97, 130)])
def test_the_best_anchor_is_that_of_detectron2(anchors, size, offset):
    anchors = Anchors(anchors.sizes, anchors.ratios, anchors.strides, offset)
    boxes = random_boxes(np.random.default_rng(0), 60, *size)
    rows, columns = feature_sizes(np.array([size]), anchors.strides)
    generator = DefaultAnchorGenerator(
        sizes=[list(own) for own in anchors.sizes],
        aspect_ratios=[list(own) for own in anchors.ratios],
        strides=list(anchors.strides),
        offset=offset,
    )
    maps = [torch.zeros(1, 1, int(r[0]), int(c[0])) for r, c in zip(rows, columns, strict=True)]
    laid_out = Boxes.cat(generator(maps))
    expected = pairwise_iou(Boxes(torch.from_numpy(boxes).float()), laid_out).max(dim=1).values.numpy()
    np.testing.assert_allclose(best_iou(cell_boxes(boxes, size), anchors), expected, atol=1e-5)


@pytest.mark.parametrize("size", [(97, 130), (64, 33)])
def test_feature_maps_are_those_of_the_network(repository, size):
    cfg = load_config(repository / "configs/quickstart/instant_test.yaml", ["MODEL.DEVICE", "cpu"])
    model = build_model(cfg).eval()
    images = model.preprocess_image([{"image": torch.zeros(1, *size, dtype=torch.uint8)}])
    with torch.no_grad():
        features = model.backbone(images.tensor)
    rows, columns = feature_sizes(np.array([size]), DEFAULT.strides)
    expected = [tuple(features[name].shape[-2:]) for name in cfg.MODEL.RPN.IN_FEATURES]
    assert [(int(r[0]), int(c[0])) for r, c in zip(rows, columns, strict=True)] == expected


def test_a_box_on_an_anchor_and_one_between_two():
    on_grid = [64 - 16, 32 - 16, 64 + 16, 32 + 16]  # p2's 32 × 32 around (64, 32)
    halfway = [66 - 16, 32 - 16, 66 + 16, 32 + 16]  # 2 px from the anchors at 64 and 68
    iou = best_iou(cell_boxes([on_grid, halfway], (256, 256)), DEFAULT)
    assert iou[0] == pytest.approx(1.0)
    assert iou[1] == pytest.approx(30 / 34)


@pytest.mark.parametrize(("size", "longest"), [((520, 704), 1333), ((520, 1408), 1333), ((700, 333), 900)])
def test_sizes_are_those_of_detectron2_s_resizing(size, longest):
    resized = cell_boxes([[0, 0, size[1], size[0]]], size).resized(800, longest)
    expected = ResizeShortestEdge.get_output_shape(*size, 800, longest)
    assert tuple(resized.image_sizes[0].astype(int)) == expected
    np.testing.assert_allclose(resized.boxes[0], [0, 0, expected[1], expected[0]])


def test_a_zoom_scales_boxes_and_images():
    zoomed = cell_boxes([[10, 20, 30, 50]], (100, 200)).zoomed(1.5)
    np.testing.assert_allclose(zoomed.boxes, [[15, 30, 45, 75]])
    np.testing.assert_allclose(zoomed.image_sizes, [[150, 300]])


def test_fitted_anchors_cover_more_and_are_the_same_each_time():
    generator = np.random.default_rng(1)
    centers = generator.uniform(60, 450, (400, 2))
    sides = generator.normal([18, 26], 1.5, (400, 2))
    boxes = np.concatenate([centers - sides / 2, centers + sides / 2], axis=1)
    cells = cell_boxes(boxes, (512, 512))
    fitted = fit_anchors(cells, sizes_per_level=1, ratios=3)
    assert fitted == fit_anchors(cells, sizes_per_level=1, ratios=3)
    before, after = (shares_below(best_iou(cells, a), cells.types, [0.7])["cell"][0] for a in (DEFAULT, fitted))
    assert before > 0.9
    assert after < 0.1
    for level, stride in zip(fitted.sizes, fitted.strides, strict=True):
        assert list(level) == sorted(level)
        assert all(2 * stride <= size <= 16 * stride for size in level)


def test_each_type_counts_the_same_in_the_fit():
    """A hundred times as many small cells do not crowd out the large ones."""
    generator = np.random.default_rng(2)
    sides = np.concatenate([generator.normal(20, 1, (2000, 2)), generator.normal(90, 4, (20, 2))])
    centers = generator.uniform(100, 900, (2020, 2))
    boxes = np.concatenate([centers - sides / 2, centers + sides / 2], axis=1)
    cells = cell_boxes(boxes, (1024, 1024), ["small"] * 2000 + ["large"] * 20).sample(300)
    assert dict(zip(*np.unique(cells.types, return_counts=True), strict=True)) == {"small": 300, "large": 20}
    fitted = fit_anchors(cells, sizes_per_level=1, ratios=1)
    shares = shares_below(best_iou(cells, fitted), cells.types, [0.7])
    assert shares["large"][0] < 0.2
    assert shares["small"][0] < 0.2


def test_the_yaml_is_a_configuration(tmp_path):
    assert (
        Anchors.from_lists(
            **{
                k.lower().replace("aspect_", ""): v
                for k, v in yaml.safe_load(TWO_SCALES.yaml())["MODEL"]["ANCHOR_GENERATOR"].items()
            }
        )
        == TWO_SCALES
    )
    (tmp_path / "c.yaml").write_text(TWO_SCALES.yaml() + "\nVERSION: 2\n")
    cfg = get_cfg()
    cfg.merge_from_file(str(tmp_path / "c.yaml"))
    assert cfg.MODEL.ANCHOR_GENERATOR.SIZES[1] == [32, 48]


def test_lists_stand_for_all_levels_or_one_each():
    assert Anchors.from_lists([16, 32], [[1.0]]).sizes == ((16.0, 32.0),) * 5
    with pytest.raises(CellSegError, match="SIZES has 2 entries"):
        Anchors.from_lists([[16], [32]], [[1.0]])
    with pytest.raises(CellSegError, match="odd"):
        fit_anchors(cell_boxes([[0, 0, 9, 9]], (64, 64)), ratios=4)


def test_reading_boxes(tmp_path):
    content = {
        "images": [{"id": 7, "file_name": "a.png", "height": 40, "width": 60}],
        "categories": [{"id": 3, "name": "cort"}],
        "annotations": [
            {"id": 1, "image_id": 7, "category_id": 3, "bbox": [5, 6, 10, 20]},
            {"id": 2, "image_id": 7, "category_id": 3, "bbox": [5, 6, 10, 0]},
            {"id": 3, "image_id": 7, "category_id": 3, "bbox": [5, 6, 10, 20], "iscrowd": 1},
        ],
    }
    path = tmp_path / "a.json"
    path.write_text(json.dumps(content))
    cells = read_boxes(path)
    np.testing.assert_array_equal(cells.boxes, [[5, 6, 15, 26]])
    np.testing.assert_array_equal(cells.image_sizes, [[40, 60]])
    assert list(join([cells, cells]).types) == ["cort", "cort"]
    content["annotations"] = content["annotations"][1:]
    path.write_text(json.dumps(content))
    with pytest.raises(CellSegError, match="no annotated cell"):
        read_boxes(path)
    path.write_text('{"images": []}')
    with pytest.raises(CellSegError, match="not a COCO JSON"):
        read_boxes(path)


def test_shares_on_the_competition_s_cells(shared_data):
    """The figures that are known of Detectron2's default and of two sizes a level, at a short side of 800 px."""
    with gzip.open(shared_data / "sartorius_annotations_only.csv.gz") as file:
        table = pd.read_csv(file, usecols=["annotation", "cell_type"])
    boxes = []
    for text in table.annotation:
        runs = np.array(text.split(), dtype=np.int64).reshape(-1, 2)
        rows, first = np.divmod(runs[:, 0] - 1, 704)
        boxes.append((first.min(), rows.min(), (first + runs[:, 1]).max(), rows.max() + 1))
    cells = cell_boxes(boxes, (520, 704), table.cell_type.to_numpy(str)).resized(800, 1333)
    for anchors, expected in (
        (DEFAULT, {"astro": 0.59, "cort": 0.62, "shsy5y": 0.64}),
        (TWO_SCALES, {"astro": 0.27, "cort": 0.21, "shsy5y": 0.24}),
    ):
        shares = {name: share for name, (share,) in shares_below(best_iou(cells, anchors), cells.types, [0.7]).items()}
        assert shares == pytest.approx(expected, abs=0.02)
