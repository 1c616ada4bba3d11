"""Networks as TorchScript, for programs that have PyTorch and torchvision, and neither Detectron2 nor this package."""

from __future__ import annotations

import json
from pathlib import Path

import torch
from detectron2.config import CfgNode
from detectron2.export import TracingAdapter
from detectron2.modeling import META_ARCH_REGISTRY, GeneralizedRCNN
from torch import nn

from cellseg_d2.config import class_names
from cellseg_d2.errors import CellSegError, one_line
from cellseg_d2.io.atomic import atomic_path
from cellseg_d2.modeling.build import build_network
from cellseg_d2.weights.dense_maps import scale_notes, simulated_input
from cellseg_d2.weights.weights import load_trained

SCRIPT = "model.ts"
# Of the text within the file that says what goes in and comes out.
NOTES = "cellseg_d2.json"
OUTPUTS = ("boxes", "classes", "masks", "scores")  # in the order in which TracingAdapter flattens a dictionary
# Height and width of the image that is traced, and of those that are compared; not all are multiples of a stride.
_TRACED, _COMPARED = (160, 192), ((160, 192), (150, 170), (97, 301), (256, 128))
_TOLERANCE = 1e-4


def export_torchscript(cfg: CfgNode, weights: str | Path, folder: str | Path) -> Path:
    """Write ``model.ts``; returns its path.

    It takes one image as float ``(C, H, W)``, grey levels 0 … 255 of any size, already zoomed as ``INPUT`` says, and
    gives boxes ``(N, 4)`` in its pixels, classes ``(N,)``, mask probabilities ``(N, 1, M, M)`` on the grids of the
    boxes, and scores ``(N,)``: what Detectron2's ``inference(do_postprocess=False)`` gives. Post-processing, test-time
    augmentation and windows are not in it. :data:`NOTES` within the file says so in JSON.

    The file is compared with the network on simulated images of several sizes before it takes its name.

    Args:
        cfg: of the run.
        weights: its checkpoint; all parameters keep 32 bits.
        folder: made where needed; a file of the same name is replaced.

    Raises:
        CellSegError: the network is no R-CNN of boxes alone, the weights do not fit, or the traced network gives
            something else.
    """
    check_traceable(cfg)
    model = build_network(cfg).cpu().eval()
    load_trained(model, weights)
    channels = len(cfg.MODEL.PIXEL_MEAN)
    adapter = TracingAdapter(model, [{"image": simulated_input(channels, *_TRACED)}], _detect).eval()
    path = Path(folder) / SCRIPT
    with torch.no_grad(), atomic_path(path) as temporary:
        try:
            traced = torch.jit.trace(adapter, adapter.flattened_inputs, check_trace=False)
        except RuntimeError as error:
            raise CellSegError(f"this network cannot be traced: {one_line(error)}") from None
        torch.jit.save(traced, str(temporary), _extra_files={NOTES: json.dumps(_notes(cfg), indent=1)})
        _compare(adapter, torch.jit.load(str(temporary)), channels)
    return path


def check_traceable(cfg: CfgNode) -> None:
    """Refuse a network whose detections are not made by PyTorch alone.

    Raises:
        CellSegError: names the key and the way out.
    """
    name = cfg.MODEL.META_ARCHITECTURE
    network = META_ARCH_REGISTRY.get(name) if name in META_ARCH_REGISTRY else None
    if getattr(network, "inference", None) is not GeneralizedRCNN.inference:
        raise CellSegError(
            f"MODEL.META_ARCHITECTURE is {name}, whose cells are not found by PyTorch alone (a dense branch follows "
            "flows in NumPy), so that TorchScript cannot hold it; hand it on without --torchscript, its maps by "
            "--onnx or --bioimageio, or train GeneralizedRCNN"
        )


def _detect(model: nn.Module, inputs: list[dict]) -> dict[str, torch.Tensor]:
    """Without the image's size, which tracing would make a constant."""
    found = model.inference(inputs, do_postprocess=False)[0]
    values = (found.pred_boxes.tensor, found.pred_classes, found.pred_masks, found.scores)
    return dict(zip(OUTPUTS, values, strict=True))


def _compare(network: nn.Module, traced: nn.Module, channels: int) -> None:
    for height, width in _COMPARED:
        image = simulated_input(channels, height, width)
        for name, expected, found in zip(OUTPUTS, network(image), traced(image), strict=True):
            if expected.shape != found.shape or not torch.allclose(expected, found, rtol=_TOLERANCE, atol=_TOLERANCE):
                raise CellSegError(
                    f"the traced network gives other {name} than the network in an image of {width} × {height} pixels; "
                    "it has a part that depends on its input in a way that tracing cannot follow, and was not written"
                )


def _notes(cfg: CfgNode) -> dict[str, object]:
    return {
        "input": "image, float32 (channels, height, width), grey levels 0 to 255",
        "outputs": list(OUTPUTS),
        "class_names": list(class_names(cfg)),
        **scale_notes(cfg),
        "imports": ["torchvision"],
    }
