"""Networks with a dense branch: they learn, predict as an R-CNN does, and change nothing unasked."""

import copy

import numpy as np
import pytest
import torch
from detectron2.utils.events import EventStorage

from cellseg_d2.data.dataset_mapper import CellDatasetMapper
from cellseg_d2.detections.detections import Detections
from cellseg_d2.detections.instances import UnpastedMasks, to_detections
from cellseg_d2.errors import CellSegError
from cellseg_d2.inference.model import CellSegmenter
from cellseg_d2.masks.crop import MaskCrop
from cellseg_d2.modeling.build import build_network
from cellseg_d2.weights.adapt import load_pretrained
from cellseg_d2.weights.model_folder import export_model
from cellseg_d2.weights.weights import load_trained
from tests.dense_discs import batch, configuration, disc_entries, trained

NAMES = ("DenseSegmenter", "DenseRCNN")


@pytest.fixture(scope="module")
def entries(tmp_path_factory):
    return disc_entries(tmp_path_factory.mktemp("dense"))


def test_it_learns_drawn_discs(entries):
    cfg = configuration("DenseSegmenter", "MODEL.DENSE.MIN_PIXELS", "4")
    samples = batch(cfg, entries)
    network, history = trained(cfg, samples, 100)
    for name in ("foreground", "boundary", "flow", "class"):
        first, last = (history[i][f"loss_dense_{name}"] for i in (0, -1))
        assert last < 0.6 * first, name
    with torch.no_grad():
        outputs = UnpastedMasks(network)([{**sample, "height": 96, "width": 96} for sample in samples])
    for sample, output in zip(samples, outputs, strict=True):
        detections = to_detections(output["instances"])
        truth = [MaskCrop.from_full(mask.numpy()) for mask in sample["instances"].gt_masks]
        found = [crop for crop, score in zip(detections.crops(), detections.scores, strict=True) if score > 0.4]
        assert len(found) == len(truth)
        for mask in sample["instances"].gt_masks:
            mask = mask.numpy()
            fulls = [crop.to_full(96, 96) for crop in found]
            assert max((mask & full).sum() / (mask | full).sum() for full in fulls) > 0.7
        if len(truth):
            assert set(detections.classes[detections.scores > 0.4]) == set(sample["instances"].gt_classes.tolist())


@pytest.mark.parametrize("name", NAMES)
@pytest.mark.parametrize("stride", [1, 2, 4])
def test_losses_and_predictions_at_every_stride(entries, name, stride):
    # So little is asked of a cell that even this network finds some.
    least = ("MODEL.DENSE.THRESHOLD", "0.1", "MODEL.DENSE.MIN_PIXELS", "1", "MODEL.DENSE.MAX_FLOW_ERROR", "100.0")
    least += ("MODEL.ROI_HEADS.SCORE_THRESH_TEST", "0.0")
    cfg = configuration(name, "MODEL.DENSE.STRIDE", str(stride), *least)
    network, history = trained(cfg, batch(cfg, entries), 2)
    expected = {f"loss_dense_{key}" for key in ("foreground", "boundary", "flow", "class")}
    assert expected <= set(history[0])
    assert ("loss_mask" in history[0]) == (name == "DenseRCNN")
    assert all(np.isfinite(value) for losses in history for value in losses.values())
    image = torch.randint(60, 200, (1, 70, 90), dtype=torch.uint8)
    with torch.no_grad():
        pasted = network([{"image": image, "height": 35, "width": 45}])[0]["instances"]
        grids = UnpastedMasks(network)([{"image": image, "height": 35, "width": 45}])[0]["instances"]
        whole = UnpastedMasks(network)([{"image": image, "height": 70, "width": 90}])[0]["instances"]
    maps = network.dense_maps([{"image": image}])[0]
    assert maps.foreground.shape == (-(-70 // stride), -(-90 // stride))
    count = len(pasted)
    assert count == len(grids) == len(whole) > 0
    assert pasted.image_size == grids.image_size == (35, 45)
    assert pasted.pred_masks.shape == (count, 35, 45)
    assert grids.pred_masks.probabilities.shape == (count, 1, 56, 56)
    torch.testing.assert_close(2 * grids.pred_boxes.tensor, whole.pred_boxes.tensor)
    torch.testing.assert_close(pasted.pred_boxes.tensor, grids.pred_boxes.tensor)


def test_the_dense_half_of_a_trained_network_is_one_by_itself(tmp_path):
    both = build_network(configuration("DenseRCNN", "MODEL.DENSE.TO_MASK_HEAD", True)).eval()
    file = tmp_path / "both.pth"
    torch.save({"model": both.state_dict()}, file)
    half = build_network(configuration("DenseSegmenter")).eval()
    load_trained(half, file)
    image = [{"image": torch.randint(60, 200, (1, 70, 90), dtype=torch.uint8)}]
    for name in ("foreground", "flow", "classes"):
        np.testing.assert_array_equal(*(getattr(network.dense_maps(image)[0], name) for network in (half, both)))

    other = {**both.state_dict(), "roi_tails.weight": torch.zeros(1)}
    torch.save({"model": other}, file)
    with pytest.raises(CellSegError, match=r"1 unknown, such as roi_tails\.weight"):
        load_trained(half, file)
    torch.save({"model": half.state_dict()}, file)
    with pytest.raises(CellSegError, match="missing"):
        load_trained(both, file)


def test_both_are_trained_by_the_same_step_as_each_alone(entries):
    """Losses of the boxes are those of a network without the branch."""
    together = configuration("DenseRCNN")
    alone = configuration("ReflectionPaddedRCNN")
    torch.manual_seed(0)
    both, boxes = build_network(together).train(), build_network(alone).train()
    boxes.load_state_dict({k: v for k, v in both.state_dict().items() if not k.startswith("dense_head.")})
    samples = batch(together, entries)
    with EventStorage():
        torch.manual_seed(1)
        expected = boxes(copy.deepcopy(samples))
        torch.manual_seed(1)
        losses = both(samples)
    assert all(torch.equal(losses[name], value) for name, value in expected.items())


def test_features_for_the_mask_head_begin_as_nothing_and_are_learnt(entries):
    opts = ("MODEL.DENSE.FUSION_WEIGHT", "0.0", "MODEL.ROI_HEADS.SCORE_THRESH_TEST", "0.0")
    alone = configuration("DenseRCNN", *opts)
    helped = configuration("DenseRCNN", *opts, "MODEL.DENSE.TO_MASK_HEAD", "True")
    torch.manual_seed(0)
    first, second = build_network(alone).eval(), build_network(helped).eval()
    second.load_state_dict(first.state_dict(), strict=False)
    image = [{"image": torch.randint(60, 200, (1, 64, 96), dtype=torch.uint8)}]
    with torch.no_grad():
        a, b = (network.inference(image, do_postprocess=False)[0] for network in (first, second))
    assert len(a) > 0
    assert torch.equal(a.pred_masks, b.pred_masks)
    network, _ = trained(helped, batch(helped, entries), 3)
    assert all(projection.weight.abs().max() > 0 for projection in network.mask_context.projections[:1])


def test_without_features_for_the_mask_head_there_are_no_parameters_for_them():
    alone, helped = (
        set(build_network(configuration("DenseRCNN", "MODEL.DENSE.TO_MASK_HEAD", on)).state_dict())
        for on in ("False", "True")
    )
    added = helped - alone
    assert alone < helped
    assert {name.split(".")[0] for name in added} == {"mask_context"}


def test_the_mask_s_loss_reaches_the_decoder_only_through_its_features_for_the_mask_head(entries):
    for on in (False, True):
        cfg = configuration("DenseRCNN", "MODEL.DENSE.TO_MASK_HEAD", str(on))
        torch.manual_seed(0)
        network = build_network(cfg).train()
        if on:  # zeros let nothing through before the first step
            for projection in network.mask_context.projections:
                torch.nn.init.normal_(projection.weight, std=0.1)
        with EventStorage():
            network(batch(cfg, entries))["loss_mask"].backward()
        gradient = network.dense_head.last.weight.grad
        assert (gradient is not None and gradient.abs().max() > 0) == on


def test_a_model_goes_on_with_features_for_the_mask_head_and_back(tmp_path):
    off, on = (configuration("DenseRCNN", "MODEL.DENSE.TO_MASK_HEAD", value) for value in ("False", "True"))
    for before, after in ((off, on), (on, off)):
        torch.save({"model": build_network(before).state_dict()}, tmp_path / "before.pth")
        after.MODEL.WEIGHTS = str(tmp_path / "before.pth")
        network = build_network(after)
        transfer = load_pretrained(network, after)
        changed = transfer.initialised if after is on else transfer.unused
        assert len(changed) == 2 * len(after.MODEL.ROI_HEADS.IN_FEATURES)
        assert all(name.startswith("mask_context.") for name in changed)
        assert not (transfer.unused if after is on else transfer.initialised)
        if after is on:
            assert all(parameter.abs().max() == 0 for parameter in network.mask_context.parameters())


def test_tta_and_export_have_the_features_for_the_mask_head(tmp_path):
    """They change what is found, and the exported model finds the same."""
    opts = ("MODEL.DENSE.FUSION_WEIGHT", "0.0", "MODEL.ROI_HEADS.SCORE_THRESH_TEST", "0.0", "TEST.TTA.ENABLED", "True")
    cfg = configuration("DenseRCNN", *opts, "MODEL.DENSE.TO_MASK_HEAD", "True")
    cfg.MODEL.CLASS_NAMES = ["a", "b"]
    torch.manual_seed(0)
    network = build_network(cfg).eval()
    image = np.random.default_rng(0).integers(60, 200, (64, 96)).astype(np.uint8)
    masks = []
    for std in (0.0, 0.5):
        for projection in network.mask_context.projections:
            torch.nn.init.normal_(projection.weight, std=std)
        found, _ = CellSegmenter.from_network(cfg, copy.deepcopy(network)).detect_views(image)
        assert len(found) == 8
        masks.append([np.asarray(view.masks) for view in found if len(view)])
    assert any(a.shape != b.shape or np.abs(a - b).max() > 1e-3 for a, b in zip(*masks, strict=True))
    torch.save({"model": network.state_dict()}, tmp_path / "model_best.pth")
    folder = export_model(cfg, tmp_path / "model_best.pth", tmp_path / "out", half=False)
    again, _ = CellSegmenter.from_pretrained(folder, device="cpu").detect_views(image)
    for expected, view in zip(masks[1], [view for view in again if len(view)], strict=True):
        np.testing.assert_allclose(np.asarray(view.masks), expected, atol=1e-5)


def test_heads_without_pooled_masks_take_no_features():
    opts = ("MODEL.ROI_HEADS.NAME", "Res5ROIHeads", "MODEL.ROI_HEADS.IN_FEATURES", "['p4']", "MODEL.MASK_ON", "False")
    pooler = ("MODEL.ROI_BOX_HEAD.POOLER_TYPE", "ROIAlignV2", "MODEL.RESNETS.DEPTH", "18")
    with pytest.raises(CellSegError, match="TO_MASK_HEAD needs heads such as StandardROIHeads"):
        build_network(configuration("DenseRCNN", "MODEL.DENSE.TO_MASK_HEAD", "True", *opts, *pooler))


def test_boxes_alone_are_the_result_where_the_branch_counts_nothing():
    cfg = configuration("DenseRCNN", "MODEL.DENSE.FUSION_WEIGHT", "0.0")
    torch.manual_seed(0)
    network = build_network(cfg).eval()
    boxes = build_network(configuration("ReflectionPaddedRCNN")).eval()
    boxes.load_state_dict({k: v for k, v in network.state_dict().items() if not k.startswith("dense_head.")})
    image = [{"image": torch.randint(60, 200, (1, 64, 96), dtype=torch.uint8)}]
    with torch.no_grad():
        a, b = (one.inference(image, do_postprocess=False)[0] for one in (network, boxes))
    assert torch.equal(a.pred_boxes.tensor, b.pred_boxes.tensor)
    assert torch.equal(a.pred_masks, b.pred_masks)


def seen(boxes_class, dense_class):
    """What the boxes and the dense branch find, four pixels apart: one cell each, with half a score, of a class."""
    grid = np.ones((1, 28, 28), np.float32)
    return [
        Detections(64, 96, np.array([[x, 8, x + 24, 32]], np.float32), np.array([0.5]), np.array([kind]), grid)
        for x, kind in ((8, boxes_class), (12, dense_class))
    ]


@pytest.mark.parametrize(
    ("vote", "dense_class", "x"),
    [
        (False, 0, 11),  # in class 0 the dense branch counts three times
        (False, 1, 8),  # cells of two classes are two cells
        (True, 0, 11),
        (True, 1, 11),  # the image is of class 0, the first of two equals
    ],
)
def test_the_branch_counts_by_class(vote, dense_class, x):
    opts = ("MODEL.DENSE.CLASS_FUSION_WEIGHTS", "[3.0, 0.5]", "TEST.POSTPROCESS.VOTE", str(vote))
    network = build_network(configuration("DenseRCNN", *opts)).eval()
    merged = network._merged(*seen(0, dense_class))
    assert len(merged) == (1 if vote or dense_class == 0 else 2)
    assert sorted(merged.boxes[:, 0].tolist())[0] == x


def test_weights_by_class_are_one_for_each():
    same = build_network(configuration("DenseRCNN", "MODEL.DENSE.FUSION_WEIGHT", "2.0")).dense_weights
    by_class = build_network(configuration("DenseRCNN", "MODEL.DENSE.CLASS_FUSION_WEIGHTS", "[2, 2.0]")).dense_weights
    np.testing.assert_array_equal(same, by_class)
    opts = ("MODEL.DENSE.CLASS_FUSION_WEIGHTS", "[1.0, 3.0]", "MODEL.DENSE.FUSION_WEIGHT")
    for weight, expected in {"0.5": [0.5, 1.5], "0.0": [0, 0]}.items():  # 0 is boxes alone, whatever the classes
        assert build_network(configuration("DenseRCNN", *opts, weight)).dense_weights.tolist() == expected
    for wrong in ([1.0], [1.0, -1.0], [1.0, "astro"], [1.0, float("nan")]):
        cfg = configuration("DenseRCNN")
        cfg.MODEL.DENSE.CLASS_FUSION_WEIGHTS = wrong
        with pytest.raises(CellSegError, match="CLASS_FUSION_WEIGHTS needs a number of at least 0 for each of the 2"):
            build_network(cfg)


def test_other_networks_get_no_maps(entries):
    stock = batch(configuration("ReflectionPaddedRCNN"), entries)
    assert all("dense" not in sample for sample in stock)
    dense = batch(configuration("DenseSegmenter"), entries)
    for a, b in zip(stock, dense, strict=True):
        assert torch.equal(a["image"], b["image"])
        assert torch.equal(a["instances"].gt_boxes.tensor, b["instances"].gt_boxes.tensor)


def test_masks_must_be_layers():
    with pytest.raises(CellSegError, match="INPUT"):
        CellDatasetMapper(configuration("DenseSegmenter", "INPUT.MASK_LAYERS", False), is_train=True)


@pytest.mark.parametrize(
    ("opts", "message"),
    [
        (("MODEL.DENSE.STRIDE", "3"), "MODEL.DENSE.STRIDE is 3"),
        (("MODEL.DENSE.IN_FEATURES", "['p9']"), r"MODEL.DENSE.IN_FEATURES is \['p9'\]"),
        (("MODEL.DENSE.NAME", "Nope"), "make no network"),
    ],
)
def test_settings_that_make_no_branch_are_a_sentence(opts, message):
    with pytest.raises(CellSegError, match=message):
        build_network(configuration("DenseSegmenter", *opts))


def test_padding_is_not_learnt_from(entries):
    cfg = configuration("DenseSegmenter")
    head = build_network(cfg).dense_head
    targets = [sample["dense"] for sample in batch(cfg, entries)]
    maps = torch.randn(3, 6, 48, 48)
    expected = head.losses(maps, targets)
    wider = torch.nn.functional.pad(maps, (0, 16, 0, 16), value=7.0)
    for name, loss in head.losses(wider, targets).items():
        assert loss.item() == pytest.approx(expected[name].item(), rel=1e-5)
