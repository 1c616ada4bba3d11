"""The maps of a network's dense branch as a model of the BioImage Model Zoo (bioimage.io)."""

from __future__ import annotations

import os
import tempfile
import warnings
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from types import ModuleType
from typing import Any

import cv2
import numpy as np
import torch
from detectron2.config import CfgNode

from cellseg_d2.errors import CellSegError, one_line
from cellseg_d2.io.atomic import atomic_path
from cellseg_d2.simulation import simulate_image
from cellseg_d2.weights.dense_maps import INPUT, OUTPUT, DenseMapsNetwork, compare_maps, load_maps_network, map_names

PACKAGE = "model.bioimageio.zip"
NEEDED = "a description for bioimage.io needs another package: type `pip install 'cellseg_d2[bioimageio]'`"
# Height and width of the image with which others test the model, in multiples of the least side.
_TEST = (8, 8)
# Of bioimage.io's scaling; far below the contrast of any camera.
_EPS = 1e-6
_SOURCES = (
    ("U-Net: Ronneberger, Fischer & Brox, MICCAI 2015", "10.1007/978-3-319-24574-4_28"),
    (
        "Flows to the centres of cells: Stringer, Wang, Michaelos & Pachitariu, Nature Methods 2021",
        "10.1038/s41592-020-01018-x",
    ),
    ("Mask R-CNN: He, Gkioxari, Dollár & Girshick, ICCV 2017", "10.1109/ICCV.2017.322"),
)
_DETECTRON2 = "Detectron2: Wu, Kirillov, Massa, Lo & Girshick, 2019"
_DETECTRON2_URL = "https://github.com/facebookresearch/detectron2"
_DOCUMENTATION = """\
# {name}

The dense branch of a network of cellseg_d2, which predicts for every pixel whether it is in a cell and where that
cell's centre is. The boxes of the same network, if it has any, are not in here: their number depends on the image.

## Input

`{input}`, axes batch, channel, y, x: {channels} of grey levels, height and width multiples of {divisor}
from {least} on. {intensity}
{size}

## Output

`{output}`, axes batch, channel, y, x, one pixel for every {stride} × {stride} of the input:

{maps}

Probabilities are between 0 and 1. The flow is about of length 1 in a cell and means nothing outside. The pixels of a
cell are those whose paths along the flow end in one place, as in Cellpose; that step is not in this model. It is
`cellseg_d2.masks.flow_instances.follow_flows(flow, foreground >= {threshold:g})`.

## Validation

The test input is simulated, and the test output what the original network gives for it. Scores of cells are those of
the whole network in cellseg_d2 (`cellseg-d2 evaluate`); they do not hold for these maps alone. Before using the model,
compare its cells with some outlined by hand in images of your own.
"""


@dataclass(frozen=True)
class Description:
    """What only the model's makers know of it.

    Attributes:
        name: of the model, 5 to 128 characters.
        authors: their names.
        license: identifier of SPDX, such as ``"CC-BY-4.0"``.
    """

    name: str
    authors: Sequence[str]
    license: str


def export_bioimageio(cfg: CfgNode, weights: str | Path, folder: str | Path, about: Description) -> Path:
    """Write ``model.bioimageio.zip``; returns its path.

    It holds ``rdf.yaml`` in the newest format of the installed ``bioimageio.spec``, the network as TorchScript, a test
    input and output, a cover and documentation. In and output are those of
    :class:`cellseg_d2.weights.dense_maps.DenseMapsNetwork`, and the stretching of ``INPUT.INTENSITY`` is described as
    preprocessing.

    The TorchScript is compared with the network on images of several sizes, and the package has passed the validator
    of ``bioimageio.spec``, before the file takes its name.

    Args:
        cfg: of the run.
        weights: its checkpoint; all parameters keep 32 bits.
        folder: made where needed; a file of the same name is replaced.
        about: see there.

    Raises:
        CellSegError: the network has no dense branch, the weights do not fit, ``bioimageio.spec`` is missing, refuses
            the description, or the traced network gives something else.
    """
    spec = _library()
    network = load_maps_network(cfg, weights)
    path = Path(folder) / PACKAGE
    with tempfile.TemporaryDirectory() as parts, atomic_path(path) as temporary:
        _write_parts(Path(parts), network, cfg, about)
        try:
            description = _description(Path(parts), network, cfg, about)
            spec.save_bioimageio_package(description, output_path=temporary)
        except ValueError as error:  # of pydantic and of the library itself
            raise CellSegError(f"bioimage.io takes no such description: {_complaint(error)}") from None
        summary = spec.load_description(temporary, perform_io_checks=True).validation_summary
        if summary.status == "failed":
            raise CellSegError(f"bioimage.io's validator refuses the package: {one_line(summary.errors[0].msg)}")
    return path


def _library() -> ModuleType:
    """``bioimageio.spec`` without its log and its look at the network for icons and other models."""
    os.environ.setdefault("BIOIMAGEIO_LOG_WARNINGS", "false")
    try:
        from loguru import logger

        logger.disable("bioimageio")
        import bioimageio.spec as spec
        import bioimageio.spec.model.v0_5  # noqa: F401
    except ImportError:
        raise CellSegError(NEEDED) from None
    return spec


def _complaint(error: ValueError) -> str:
    """The first error of pydantic's, with what it is about."""
    if not hasattr(error, "errors"):
        return one_line(error)
    first = error.errors()[0]
    if first["type"] == "literal_error":  # whose message has all names, hundreds of licences
        return f"{first['loc'][0]} {first['input']!r} is not one of the names that it knows"
    return f"{first['loc'][0]}: {one_line(first['msg'])}"


def _write_parts(folder: Path, network: DenseMapsNetwork, cfg: CfgNode, about: Description) -> None:
    height, width = (side * network.divisor for side in _TEST)
    grey, _ = simulate_image("cort", np.random.default_rng(0), height, width)
    image = np.repeat(grey[None, None].astype(np.float32), network.channels, axis=1)
    with torch.no_grad():
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # about sizes, which are compared below
            traced = torch.jit.trace(network, network.example(), check_trace=False)
        torch.jit.save(traced, str(folder / "weights.pt"))
        traced = torch.jit.load(str(folder / "weights.pt"))
        compare_maps(network, lambda given: traced(torch.from_numpy(given)).numpy(), "the traced network")
        maps = network(torch.from_numpy(_stretched(image, cfg))).numpy()
    np.save(folder / "test_input.npy", image)
    np.save(folder / "test_output.npy", maps)
    cv2.imwrite(str(folder / "cover.png"), _cover(grey, maps[0]))
    (folder / "README.md").write_text(_documentation(network, cfg, about), encoding="utf-8")


def _stretched(image: np.ndarray, cfg: CfgNode) -> np.ndarray:
    """What :func:`_preprocessing` describes."""
    if cfg.INPUT.INTENSITY == "auto":
        return image
    low, high = np.percentile(image, cfg.INPUT.INTENSITY_PERCENTILES)
    return np.clip((image - low) / (high - low + _EPS) * 255, 0, 255).astype(np.float32)


def _preprocessing(cfg: CfgNode) -> list[dict[str, Any]]:
    if cfg.INPUT.INTENSITY == "auto":
        return []
    low, high = cfg.INPUT.INTENSITY_PERCENTILES
    scale = {"axes": ["channel", "y", "x"], "min_percentile": low, "max_percentile": high, "eps": _EPS}
    return [
        {"id": "scale_range", "kwargs": scale},
        {"id": "scale_linear", "kwargs": {"gain": 255.0, "offset": 0.0}},
        {"id": "clip", "kwargs": {"min": 0.0, "max": 255.0}},
    ]


def _description(folder: Path, network: DenseMapsNetwork, cfg: CfgNode, about: Description) -> Any:
    from bioimageio.spec.model import v0_5

    names = map_names(cfg)
    side = {"min": 2 * network.divisor, "step": network.divisor}
    colours = ["grey"] if network.channels == 1 else [f"channel{i + 1}" for i in range(network.channels)]
    pytorch = torch.__version__.partition("+")[0]
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        return v0_5.ModelDescr.model_validate(
            {
                "type": "model",
                "format_version": v0_5.ModelDescr.implemented_format_version,
                "name": about.name,
                "description": "Foreground, boundary and flow of cells in microscopy images, by a U-Net on the "
                "backbone of a Mask R-CNN",
                "authors": [{"name": name} for name in about.authors],
                "license": about.license,
                "cite": [
                    *({"text": text, "doi": doi} for text, doi in _SOURCES),
                    {"text": _DETECTRON2, "url": _DETECTRON2_URL},
                ],
                "tags": ["cells", "instance-segmentation", "2d", "unet", "flow", "pytorch", "detectron2", "cellseg_d2"],
                "documentation": {"source": folder / "README.md"},
                "covers": [{"source": folder / "cover.png"}],
                "inputs": [
                    {
                        "id": INPUT,
                        "description": "microscopy image",
                        "axes": [
                            {"type": "batch"},
                            {"type": "channel", "channel_names": colours},
                            {"type": "space", "id": "y", "size": side},
                            {"type": "space", "id": "x", "size": side},
                        ],
                        "data": {"type": "float32"},
                        "test_tensor": {"source": folder / "test_input.npy"},
                        "preprocessing": _preprocessing(cfg),
                    }
                ],
                "outputs": [
                    {
                        "id": OUTPUT,
                        "description": "probabilities, and the flow to the centres of cells",
                        "axes": [
                            {"type": "batch"},
                            {"type": "channel", "channel_names": names},
                            *(
                                {
                                    "type": "space",
                                    "id": axis,
                                    "size": {"tensor_id": INPUT, "axis_id": axis},
                                    "scale": float(network.stride),
                                }
                                for axis in "yx"
                            ),
                        ],
                        "data": {"type": "float32"},
                        "test_tensor": {"source": folder / "test_output.npy"},
                    }
                ],
                "weights": {"torchscript": {"source": folder / "weights.pt", "pytorch_version": pytorch}},
            }
        )


def _documentation(network: DenseMapsNetwork, cfg: CfgNode, about: Description) -> str:
    if cfg.INPUT.INTENSITY == "auto":
        intensity = "It expects 8-bit images as they are; stretch any other to 0 … 255 first, which is not in here."
    else:
        low, high = cfg.INPUT.INTENSITY_PERCENTILES
        intensity = (
            f"The preprocessing stretches the image's percentiles {low:g} and {high:g} to 0 and 255, so that it may "
            "have any range; the normalisation by mean and deviation is in the weights."
        )
    diameter, zoom = cfg.INPUT.CELL_DIAMETER, cfg.INPUT.ZOOM_TEST
    size = "Resize images so that cells are as large in pixels as in the training."
    if diameter and zoom:
        size = f"Resize images so that cells have a diameter of about {diameter * zoom:.0f} pixels, as in the training."
    meanings = {
        "foreground": "probability that the pixel is in a cell",
        "boundary": "probability that it is at a cell's boundary",
        "flow_x": "direction of the cell's centre, to the right",
        "flow_y": "direction of the cell's centre, downward",
    }
    maps = (f"- `{name}`: {meanings.get(name, 'probability of this class')}" for name in map_names(cfg))
    return _DOCUMENTATION.format(
        name=about.name,
        input=INPUT,
        output=OUTPUT,
        channels="one channel" if network.channels == 1 else f"{network.channels} channels",
        divisor=network.divisor,
        least=2 * network.divisor,
        intensity=intensity,
        size=size,
        stride=network.stride,
        maps="\n".join(maps),
        threshold=cfg.MODEL.DENSE.THRESHOLD,
    )


def _cover(grey: np.ndarray, maps: np.ndarray) -> np.ndarray:
    """The test image beside its flow, as BGR ``(H, 2 W, 3)``: directions as hues, the foreground as brightness."""
    foreground, x, y = maps[0], maps[2], maps[3]
    hue = (np.degrees(np.arctan2(y, x)) % 360) / 2
    hsv = np.stack([hue, np.full_like(hue, 200), 255 * foreground], axis=-1)
    flow = cv2.cvtColor(hsv.astype(np.uint8), cv2.COLOR_HSV2BGR)
    right = cv2.resize(flow, grey.shape[::-1], interpolation=cv2.INTER_NEAREST)
    return np.concatenate([cv2.cvtColor(grey, cv2.COLOR_GRAY2BGR), right], axis=1)
