"""Read pickles of arrays without running code: all names in them are resolved to functions of this module.

A pickle is a program that calls what it names. Allowing only NumPy's own functions would not make it harmless: a state
for ``dtype`` can turn raw bytes into pointers to objects. Therefore no function of NumPy is called with content of a
file; each name that pickled arrays use is replaced by a function here that makes an array of plain numbers, or refuses.
"""

from __future__ import annotations

import io
import math
import pickle
import pickletools
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np

# Numbers only: no objects, texts or records. As pickles spell them, with or without a byte order.
_SIZES = {"f": "248", "i": "1248", "u": "1248", "b": "1"}
_NUMBERS = {f"{kind}{size}" for kind, sizes in _SIZES.items() for size in sizes}
_BYTE_ORDERS = ("<", ">", "|", "=")


def read_array_pickle(path: str | Path) -> object:
    """Read a ``.pkl`` that holds arrays, numbers and texts, in lists, tuples and dicts.

    Files of Python 2, as Caffe2 and Detectron2's model zoo have them, are read too.

    Returns:
        What the file holds. Arrays and NumPy's scalars are arrays of numbers ``(…)``; they may be read-only.

    Raises:
        pickle.UnpicklingError: the file names anything else than what arrays of numbers are made of.
        Exception: almost any, for a file that is damaged.
    """
    return parse_array_pickle(Path(path).read_bytes())


def parse_array_pickle(data: bytes, objects: bool = False) -> object:
    """Read a pickle as :func:`read_array_pickle` does.

    Args:
        data: the pickle.
        objects: read arrays of objects as flat lists of what is in them, itself numbers, texts, arrays, lists, tuples
            and dicts only. That is how ``numpy.save`` writes a dict.
    """
    _check_memo(data)
    return _finished(_ArrayUnpickler(data, objects).load())


def _check_memo(data: bytes) -> None:
    """Refuse a pickle whose memo indices exceed its size, as memory would be reserved for all of them."""
    for steps, (opcode, argument, _) in enumerate(pickletools.genops(data), start=1):
        if opcode.name in ("PUT", "BINPUT", "LONG_BINPUT") and not 0 <= (argument or 0) <= steps:
            raise pickle.UnpicklingError("it remembers more than it holds")


class _Named:
    """Replaces a name in a pickle: it can only be called."""

    __slots__ = ("_make",)

    def __init__(self, make: Callable):
        self._make = make

    def __call__(self, *arguments: object) -> object:
        return self._make(*arguments)

    def __setstate__(self, state: object) -> None:
        raise pickle.UnpicklingError("it changes what it names")


class _DType:
    """A type of numbers, whose byte order a pickle gives afterwards."""

    __slots__ = ("dtype",)
    known = _NUMBERS

    def __init__(self, name: object, *_: object):
        text = name.lstrip("".join(_BYTE_ORDERS)) if isinstance(name, str) else name
        if text not in self.known:
            raise pickle.UnpicklingError(f"it has arrays of type {name!r:.40}, which are not plain numbers")
        self.dtype = np.dtype(text)

    def __setstate__(self, state: Sequence) -> None:
        if state[1] not in _BYTE_ORDERS:
            raise pickle.UnpicklingError(f"its arrays have the byte order {state[1]!r:.40}")
        self.dtype = self.dtype.newbyteorder(state[1])


class _AnyDType(_DType):
    """A type of numbers, or that of objects."""

    __slots__ = ()
    known = _NUMBERS | {"O", "O8"}


class _Array:
    """An array to be, whose values a pickle gives afterwards."""

    __slots__ = ("values",)

    def __init__(self, *_: object):
        self.values: np.ndarray | list | None = None

    def __setstate__(self, state: Sequence) -> None:
        *_, shape, dtype, fortran, data = state
        if isinstance(dtype, _DType) and dtype.dtype == object:
            if not isinstance(data, list):
                raise pickle.UnpicklingError("its arrays of objects have no list of them")
            self.values = data
            return
        self.values = _array(data, dtype, shape, "F" if fortran else "C")


def _array(data: object, dtype: object, shape: object, order: object = "C", axis_order: Any = None) -> np.ndarray:
    """An array that looks at ``data``, which must be as long as its shape and type say."""
    if not isinstance(dtype, _DType) or dtype.dtype == object or not isinstance(shape, tuple) or len(shape) > 32:
        raise pickle.UnpicklingError("its arrays have no shape or no type")
    if isinstance(data, str):  # the bytes of Python 2
        data = data.encode("latin1")
    if not isinstance(data, bytes | bytearray):
        raise pickle.UnpicklingError("its arrays have no values")
    if not all(isinstance(side, int) and side >= 0 for side in shape):
        raise pickle.UnpicklingError(f"its arrays have the shape {shape!r:.40}")
    if math.prod(shape) * dtype.dtype.itemsize != len(data):
        raise pickle.UnpicklingError(f"an array of shape {shape!r:.40} has {len(data)} bytes")
    values = np.frombuffer(data, dtype.dtype)
    if order == "K" and axis_order is not None:
        values = values.reshape(shape).transpose(axis_order)
    else:
        values = values.reshape(shape, order="F" if order == "F" else "C")
    return values.astype(dtype.dtype.newbyteorder("="), copy=False)  # PyTorch knows only this machine's byte order


def _scalar(dtype: object, data: object) -> np.ndarray:
    return _array(data, dtype, ())


def _dict(*pairs: object) -> dict:
    return dict(*pairs)


def _no_bytes() -> bytes:
    """The values of an array without any, as protocols up to 2 write them."""
    return b""


def _marker(*_: object) -> object:
    raise pickle.UnpicklingError("it makes an array in a way that NumPy's pickles do not")


class _ArrayUnpickler(pickle.Unpickler):
    def __init__(self, data: bytes, objects: bool = False):
        super().__init__(io.BytesIO(data), encoding="latin1")
        self._to_encode = len(data)
        self._named = {
            ("collections", "OrderedDict"): _Named(_dict),
            ("__builtin__", "bytes"): _Named(_no_bytes),
            ("_codecs", "encode"): _Named(self._encode),
            ("numpy", "ndarray"): _Named(_marker),
            ("numpy", "dtype"): _Named(_AnyDType if objects else _DType),
        }
        for core in ("numpy.core", "numpy._core"):  # of then and of now
            self._named |= {
                (f"{core}.multiarray", "_reconstruct"): _Named(_Array),
                (f"{core}.multiarray", "scalar"): _Named(_scalar),
                (f"{core}.numeric", "_frombuffer"): _Named(_array),
            }

    def find_class(self, module: str, name: str) -> object:
        if (module, name) not in self._named:
            raise pickle.UnpicklingError(f"it asks for {module}.{name}, which no array needs")
        return self._named[module, name]

    def _encode(self, text: object, encoding: object = "latin1") -> bytes:
        """Bytes as old protocols write them. In all no more than the file has, which could ask again and again."""
        if not isinstance(text, str) or encoding != "latin1":
            raise pickle.UnpicklingError("it encodes a text in a way that NumPy's pickles do not")
        self._to_encode -= len(text)
        if self._to_encode < 0:
            raise pickle.UnpicklingError("it unpacks to more than it holds")
        return text.encode("latin1")


def _finished(value: object, levels: int = 3) -> object:
    """``value`` with arrays in place of what stands for them, down to the third level, where weights are."""
    if isinstance(value, _Array):
        return _finished(value.values, levels) if isinstance(value.values, list) else value.values
    if isinstance(value, list) and levels:
        return [_finished(child, levels - 1) for child in value]
    if isinstance(value, dict) and levels:
        return {key: _finished(child, levels - 1) for key, child in value.items()}
    return value
