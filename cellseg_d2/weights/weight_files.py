"""Read files of weights without running code from them."""

from __future__ import annotations

import warnings
import zipfile
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import safetensors.torch
import torch

from cellseg_d2.errors import CellSegError, first_line, no_memory
from cellseg_d2.io.array_pickle import read_array_pickle
from cellseg_d2.io.atomic import unpacked_size
from cellseg_d2.io.text import read_yaml

# Some of the weights may share their values, and a file may be packed; beyond this factor it is made to fill memory.
MAX_EXPANSION = 16


@dataclass(frozen=True, eq=False)
class WeightFile:
    """The weights in a file.

    Attributes:
        weights: by the names in the file.
        other_names: the names are to be matched with a model's, as Detectron2 does for backbones from elsewhere.
        caffe2: they follow Caffe2's conventions.
    """

    weights: dict[str, torch.Tensor]
    other_names: bool = False
    caffe2: bool = False


def read_weight_file(path: str | Path) -> WeightFile:
    """Read a ``.pth`` of tensors, a ``.safetensors``, or a ``.pkl`` of arrays as Detectron2's model zoo has them.

    Unlike Detectron2's checkpointer this never runs code from a file, so that no flag and no list of known checksums is
    needed for untrusted files. It uses PyTorch's unpickler for weights only, safetensors, which has no code, and an
    unpickler of its own (:mod:`cellseg_d2.io.array_pickle`) with which a ``.pkl`` can name nothing but arrays.

    Raises:
        CellSegError: it cannot be read, holds anything else than weights, which is where code would be, holds values
            that are not finite numbers, or claims to hold many times more than the file has room for.
    """
    path = Path(path)
    if not path.is_file():
        raise CellSegError(f"there is no weights file {str(path)!r}")
    try:
        content = _READERS.get(path.suffix, _read_torch)(path)
    except CellSegError as error:
        raise CellSegError(f"{path} {error}") from None
    except MemoryError:
        raise no_memory(path) from None
    except Exception as error:  # the readers raise almost anything for files that are cut, overwritten, or another kind
        # PyTorch's own unpickler advises to run the file's code.
        reason = "" if "weights_only" in first_line(error) else f" ({first_line(error)})"
        raise CellSegError(
            f"{path} cannot be read as weights; it seems damaged, or is something else{reason}"
        ) from None
    if not isinstance(content, dict):
        raise CellSegError(f"{path} holds no weights by name, but a {type(content).__name__}")
    author = content.get("__author__")
    other_names = content.get("matching_heuristics", False) is True
    caffe2 = author == "Caffe2"
    from_caffe2 = path.suffix == ".pkl" and not ("model" in content and author)  # as Caffe2 and Detectron wrote them
    if from_caffe2:
        content = content.get("blobs", content)
        other_names = caffe2 = True
    weights = content.get("model", content) if isinstance(content, dict) else None
    if not isinstance(weights, dict) or not weights or not all(isinstance(name, str) for name in weights):
        raise CellSegError(f"{path} holds no weights by name")
    if from_caffe2:
        weights = {name: value for name, value in weights.items() if not name.endswith("_momentum")}
    weights = {name: _as_tensor(value) for name, value in weights.items()}
    foreign = [name for name, value in weights.items() if not isinstance(value, torch.Tensor)]
    if foreign:
        raise CellSegError(f"{path} holds something else than weights, such as {foreign[0]!r}")
    _check_values(path, weights)
    if all(name.startswith("module.") for name in weights):  # of a model wrapped for several GPUs
        weights = {name.removeprefix("module."): value for name, value in weights.items()}
    return WeightFile(weights, other_names, caffe2)


def config_beside(path: Path) -> dict:
    """``MODEL`` of the configuration that a run writes beside its checkpoints; empty where there is none."""
    file = path.with_name("config.yaml")
    if path.suffix not in (".pth", ".safetensors") or not file.is_file():
        return {}
    content = read_yaml(file)
    if not isinstance(content, dict) or not isinstance(content.get("MODEL"), dict):
        raise CellSegError(f"{file}, which tells the classes of {path.name}, is not a configuration: it has no MODEL")
    return content["MODEL"]


def _as_tensor(value: object) -> object:
    """What can be a tensor as one; not anything else, nor arrays of types that PyTorch lacks."""
    if not isinstance(value, np.ndarray):
        return value
    try:
        return torch.from_numpy(value)
    except TypeError:
        return value


def _check_values(path: Path, weights: Mapping[str, torch.Tensor]) -> None:
    odd = [name for name, value in weights.items() if value.layout != torch.strided or value.is_quantized]
    if odd:
        raise CellSegError(f"{path} holds {odd[0]!r} as no plain tensor; save the model's state_dict()")
    # A tensor of a few bytes may repeat them, by its strides, to any size.
    claimed = sum(value.numel() * value.element_size() for value in weights.values())
    if claimed > MAX_EXPANSION * path.stat().st_size:
        raise CellSegError(f"{path} claims to hold {claimed / 1e6:,.0f} MB of weights, for which it is far too small")
    for name, value in weights.items():
        if value.is_floating_point() and not torch.isfinite(value).all():
            raise CellSegError(
                f"{path} holds values in {name!r} that are not finite numbers, as diverged training leaves them; "
                "take an earlier checkpoint"
            )


def _read_torch(path: Path) -> object:
    # PyTorch itself packs nothing.
    if zipfile.is_zipfile(path) and unpacked_size(path) > MAX_EXPANSION * path.stat().st_size:
        raise CellSegError("unpacks to many times its size, which weights do not")
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # about protocols of damaged files
        return torch.load(path, map_location="cpu", weights_only=True)


_READERS = {".pkl": read_array_pickle, ".safetensors": safetensors.torch.load_file}
