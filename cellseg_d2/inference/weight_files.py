"""Reading files of weights without running code from them."""

from __future__ import annotations

import pickle
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import safetensors.torch
import torch
from safetensors import SafetensorError

from cellseg_d2.errors import CellSegError

# What arrays are pickled as, by the numpy of then and of now.
HARMLESS = {
    ("collections", "OrderedDict"),
    ("_codecs", "encode"),
    ("numpy", "ndarray"),
    ("numpy", "dtype"),
    *((f"numpy.{core}.multiarray", name) for core in ("core", "_core") for name in ("_reconstruct", "scalar")),
    *((f"numpy.{core}.numeric", "_frombuffer") for core in ("core", "_core")),
}


# What the readers raise for a file that is cut, overwritten, or of another kind.
_DAMAGE = (pickle.UnpicklingError, SafetensorError, RuntimeError, EOFError, OSError, ValueError, ImportError, KeyError)


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

    Unlike Detectron2's checkpointer this refuses a file that holds anything else, which could run any code.

    Raises:
        CellSegError: it cannot be read, or holds something else.
    """
    path = Path(path)
    if not path.is_file():
        raise CellSegError(f"there is no weights file {str(path)!r}")
    try:
        content = _READERS.get(path.suffix, _read_torch)(path)
    except _DAMAGE as error:
        reason = str(error).splitlines()[0] if str(error) else type(error).__name__
        raise CellSegError(
            f"{path} cannot be read as weights; it seems damaged, or is something else ({reason})"
        ) from None
    if not isinstance(content, dict):
        raise CellSegError(f"{path} holds no weights by name, but a {type(content).__name__}")
    author = content.get("__author__")
    other_names = bool(content.get("matching_heuristics", False))
    caffe2 = author == "Caffe2"
    if path.suffix == ".pkl" and not ("model" in content and author):  # as Caffe2 and Detectron wrote them
        content = content.get("blobs", content)
        content = {name: value for name, value in content.items() if not name.endswith("_momentum")}
        other_names = caffe2 = True
    weights = content.get("model", content)
    if not isinstance(weights, dict) or not weights:
        raise CellSegError(f"{path} holds no weights by name")
    weights = {name: torch.from_numpy(v) if isinstance(v, np.ndarray) else v for name, v in weights.items()}
    foreign = [name for name, value in weights.items() if not isinstance(value, torch.Tensor)]
    if foreign:
        raise CellSegError(f"{path} holds something else than weights, such as {foreign[0]!r}")
    if all(name.startswith("module.") for name in weights):  # of a model wrapped for several GPUs
        weights = {name.removeprefix("module."): value for name, value in weights.items()}
    return WeightFile(weights, other_names, caffe2)


def _read_torch(path: Path) -> object:
    return torch.load(path, map_location="cpu", weights_only=True)


def _read_pickle(path: Path) -> object:
    with open(path, "rb") as file:
        return _ArrayUnpickler(file, encoding="latin1").load()


class _ArrayUnpickler(pickle.Unpickler):
    def find_class(self, module: str, name: str) -> object:
        if (module, name) not in HARMLESS:
            raise pickle.UnpicklingError(f"it asks for {module}.{name}, which no array needs")
        return super().find_class(module, name)


_READERS = {".pkl": _read_pickle, ".safetensors": safetensors.torch.load_file}
