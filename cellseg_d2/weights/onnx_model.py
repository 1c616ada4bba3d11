"""The maps of a network's dense branch as ONNX, for programs without PyTorch."""

from __future__ import annotations

import json
import warnings
from pathlib import Path

import numpy as np
import torch
from detectron2.config import CfgNode

from cellseg_d2.errors import CellSegError
from cellseg_d2.io.atomic import atomic_path
from cellseg_d2.weights.dense_maps import (
    INPUT,
    OUTPUT,
    DenseMapsNetwork,
    compare_maps,
    load_maps_network,
    map_names,
    scale_notes,
)

ONNX = "model.onnx"
OPSET = 17
NEEDED = "ONNX needs two more packages: type `pip install 'cellseg_d2[onnx]'`"


def export_onnx(cfg: CfgNode, weights: str | Path, folder: str | Path) -> Path:
    """Write ``model.onnx``; returns its path.

    In and output are those of :class:`cellseg_d2.weights.dense_maps.DenseMapsNetwork`; the file's metadata, under
    ``cellseg_d2``, say so in JSON. ONNX Runtime's maps are compared with the network's, in batches of several sizes,
    before the file takes its name.

    Args:
        cfg: of the run.
        weights: its checkpoint; all parameters keep 32 bits.
        folder: made where needed; a file of the same name is replaced.

    Raises:
        CellSegError: the network has no dense branch, the weights do not fit, a package is missing, or ONNX Runtime
            gives something else.
    """
    try:
        import onnx
        import onnxruntime
    except ImportError:
        raise CellSegError(NEEDED) from None
    network = load_maps_network(cfg, weights)
    path = Path(folder) / ONNX
    with atomic_path(path) as temporary:
        _trace(network, temporary)
        model = onnx.load(str(temporary))
        onnx.helper.set_model_props(model, {"cellseg_d2": json.dumps(_notes(cfg, network))})
        onnx.save(model, str(temporary))
        options = onnxruntime.SessionOptions()
        options.intra_op_num_threads = torch.get_num_threads()
        session = onnxruntime.InferenceSession(str(temporary), options, providers=["CPUExecutionProvider"])

        def maps(image: np.ndarray) -> np.ndarray:
            return session.run([OUTPUT], {INPUT: image})[0]

        compare_maps(network, maps, "ONNX Runtime")
    return path


def _trace(network: DenseMapsNetwork, path: Path) -> None:
    """By tracing: what comes in its place, by torch.export, took more than two minutes for the same network."""
    any_size = {0: "batch", 2: "height", 3: "width"}
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # of its deprecation, and of sizes that are not in the result
        torch.onnx.export(
            network,
            (network.example(),),
            str(path),
            dynamo=False,
            opset_version=OPSET,
            input_names=[INPUT],
            output_names=[OUTPUT],
            dynamic_axes={INPUT: any_size, OUTPUT: {0: "batch", 2: "map_height", 3: "map_width"}},
        )


def _notes(cfg: CfgNode, network: DenseMapsNetwork) -> dict[str, object]:
    return {
        "input": "image, float32 (batch, channels, height, width), grey levels 0 to 255",
        "sides_are_multiples_of": network.divisor,
        "output": "maps, float32 (batch, maps, height / stride, width / stride)",
        "stride": network.stride,
        "maps": map_names(cfg),
        **scale_notes(cfg),
    }
