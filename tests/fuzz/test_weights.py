"""Weights from strangers: nothing in a file is run, and what is read is numbers by name."""

import io
import json
import pickle
import struct
import zipfile
from collections import OrderedDict

import numpy as np
import pytest
import torch
from hypothesis import strategies as st
from safetensors.torch import save_file

from cellseg_d2.errors import CellSegError
from cellseg_d2.weights.weight_files import read_weight_file
from tests.fuzz.cases import fuzz

ARRAYS = {"a": np.arange(6, dtype=np.float32).reshape(2, 3), "b": np.arange(4, dtype=">f8"), "c": np.float32(3)}
TENSORS = {"a": torch.arange(6.0).reshape(2, 3), "b": torch.tensor([1, 2]), "c": torch.tensor(3.0)}


def contents():
    """``(suffix, bytes)`` of the same kind of weights in all forms."""
    model = {"model": ARRAYS, "__author__": "someone"}
    files = [(".pkl", pickle.dumps(model, protocol)) for protocol in range(6)]
    for zipped in (True, False):
        buffer = io.BytesIO()
        torch.save({"model": OrderedDict(TENSORS)}, buffer, _use_new_zipfile_serialization=zipped)
        files.append((".pth", buffer.getvalue()))
    return files


FILES = contents()
NAMES = [b"cnumpy\nndarray\n", b"cnumpy\ndtype\n", b"c_codecs\nencode\n", b"cos\nsystem\n", b"cbuiltins\nexec\n"]
PIECES = [
    *NAMES,
    b"(",
    b")",
    b"t",
    b"R",
    b"b",
    b"\x81",
    b"o",
    b"}",
    b"]",
    b"0",
    b"1",
    b"2",
    b"e",
    b"u",
    b"a",
    b"s",
    b"N",
]
PIECES += [b"K\x02", b"X\x02\x00\x00\x00f4", b"X\x06\x00\x00\x00latin1", b"q\x00", b"h\x00"]


@st.composite
def damaged_files(draw):
    suffix, content = draw(st.sampled_from(FILES))
    damage = draw(st.sampled_from(["none", "cut", "flip", "flip", "program"] if suffix == ".pkl" else ["cut", "flip"]))
    data = bytearray(content)
    if damage == "cut":
        data = data[: draw(st.integers(0, len(data) - 1))]
    elif damage == "flip":
        for _ in range(draw(st.integers(1, 3))):
            data[draw(st.integers(0, len(data) - 1))] = draw(st.integers(0, 255))
    elif damage == "program":
        pieces = b"".join(draw(st.lists(st.sampled_from(PIECES), max_size=12)))
        at = draw(st.integers(2, len(data) - 1))
        data[at:at] = pieces
    return suffix, bytes(data), damage == "none"


@fuzz(600, damaged_files())
def test_damaged_weights(folder, case):
    suffix, content, whole = case
    path = folder / f"weights{suffix}"
    path.write_bytes(content)
    weights = read_weight_file(path).weights
    assert all(isinstance(value, torch.Tensor) for value in weights.values())
    if whole:
        assert {name: value.tolist() for name, value in weights.items()} == {n: v.tolist() for n, v in ARRAYS.items()}


class Hostile:
    """Leaves a file where it is unpickled."""

    def __init__(self, function, *arguments):
        self.function, self.arguments = function, arguments

    def __reduce__(self):
        return self.function, self.arguments


def hostile_values(marker):
    import os

    yield "os.system", Hostile(os.system, f"touch {marker}")
    yield "open", Hostile(open, str(marker), "w")
    yield "exec", Hostile(exec, f"open({str(marker)!r}, 'w')")
    yield "eval", Hostile(eval, f"open({str(marker)!r}, 'w')")
    yield "subclass", OrderedDict(a=Hostile(os.mkdir, str(marker)))
    yield "numpy", Hostile(np.lib.format.open_memmap, str(marker), "w+", "u1", (3,))
    yield "torch", Hostile(torch.save, [], str(marker))


def hostile_files(folder, marker):
    """Paths of files that would leave ``marker``, in all forms that weights have."""
    for name, value in hostile_values(marker):
        for protocol in (0, 2, 5):
            path = folder / f"{name}{protocol}.pkl"
            path.write_bytes(pickle.dumps({"model": {"a": value}, "__author__": "x"}, protocol))
            yield path
        for zipped in (True, False):
            path = folder / f"{name}{zipped}.pth"
            torch.save({"model": {"a": value}}, path, _use_new_zipfile_serialization=zipped)
            yield path
        for suffix in (".safetensors", ".pth", ".bin", ".npz"):  # a pickle under any name
            path = folder / f"{name}_plain{suffix}"
            path.write_bytes(pickle.dumps(value, 2))
            yield path


def test_nothing_is_run(tmp_path):
    marker = tmp_path / "it_ran"
    paths = list(hostile_files(tmp_path, marker))
    assert len(paths) > 60
    for path in paths:
        with pytest.raises(CellSegError, match="cannot be read as weights"):
            read_weight_file(path)
        assert not marker.exists(), path


def dtype_state(state):
    """A pickle that makes an array of type object, whose state is as given, with raw bytes for its pointers."""
    array = b"cnumpy.core.multiarray\n_reconstruct\n(cnumpy\nndarray\n(K\x00tX\x01\x00\x00\x00btR"
    dtype = b"cnumpy\ndtype\n(X\x02\x00\x00\x00O8K\x00K\x01tR" + state + b"b"
    return b"\x80\x02}X\x01\x00\x00\x00a" + array + b"(K\x01(K\x01t" + dtype + b"\x89C\x08AAAAAAAAtbs."


def test_bytes_are_never_taken_for_objects(tmp_path):
    """NumPy's own functions let a pickle clear the flags of the type ``object``: its values then are addresses."""
    state = pickle.dumps((3, "|", None, None, None, -1, -1, 0), 2)[2:-1]
    content = dtype_state(state)
    values = pickle.loads(content.replace(b"C\x08AAAAAAAA", b"C\x08" + bytes(8)))["a"]  # null, which nobody follows
    assert values.dtype == object, "the attack works where NumPy is asked"
    (tmp_path / "x.pkl").write_bytes(content)
    with pytest.raises(CellSegError, match="not plain numbers"):
        read_weight_file(tmp_path / "x.pkl")


def test_files_that_would_fill_memory(tmp_path):
    torch.save({"a": torch.zeros(1).expand(10**12)}, tmp_path / "strides.pth")
    with pytest.raises(CellSegError, match="claims to hold 4,000,000 MB"):
        read_weight_file(tmp_path / "strides.pth")

    torch.save({"a": torch.zeros(10**6)}, tmp_path / "whole.pth")
    with zipfile.ZipFile(tmp_path / "whole.pth") as whole, zipfile.ZipFile(tmp_path / "packed.pth", "w", 8) as packed:
        for name in whole.namelist():
            packed.writestr(name, whole.read(name))
    with pytest.raises(CellSegError, match="unpacks to many times its size"):
        read_weight_file(tmp_path / "packed.pth")

    shape = b"(J\xff\xff\xff\x7fJ\xff\xff\xff\x7ft"
    array = b"cnumpy.core.multiarray\n_reconstruct\n(cnumpy\nndarray\n" + shape + b"X\x01\x00\x00\x00btR"
    for name, content in {
        "shape": b"\x80\x02}X\x01\x00\x00\x00a" + array + b"s.",
        "memo": b"\x80\x02}r\xff\xff\xff\x7f.",
        "length": b"\x80\x04\x8e" + struct.pack("<Q", 2**40) + b"x.",
        "again": b"\x80\x02X"
        + struct.pack("<I", 1000)
        + b"x" * 1000
        + b"q\x010]("
        + 999 * (b"c_codecs\nencode\n(h\x01X\x06\x00\x00\x00latin1tR")
        + b"e.",
    }.items():
        (tmp_path / f"{name}.pkl").write_bytes(content)
        with pytest.raises(CellSegError):
            read_weight_file(tmp_path / f"{name}.pkl")


@pytest.mark.parametrize("length", [0, 7, 2**31, 2**62])
def test_safetensors_with_a_lying_header(tmp_path, length):
    header = json.dumps({"a": {"dtype": "F32", "shape": [2**40], "data_offsets": [0, 2**42]}}).encode()
    (tmp_path / "x.safetensors").write_bytes(struct.pack("<Q", length or len(header)) + header + bytes(16))
    with pytest.raises(CellSegError, match="cannot be read as weights"):
        read_weight_file(tmp_path / "x.safetensors")


def test_numbers_that_are_none(tmp_path):
    for name, value in (("nan", float("nan")), ("inf", float("-inf"))):
        weights = {"a": torch.ones(3), "b": torch.tensor([0.0, value])}
        save_file(weights, tmp_path / f"{name}.safetensors")
        torch.save({"model": weights}, tmp_path / f"{name}.pth")
        for suffix in (".safetensors", ".pth"):
            with pytest.raises(CellSegError, match="in 'b' that are not finite numbers"):
                read_weight_file(tmp_path / f"{name}{suffix}")
