"""Pickles of arrays are read without unpickling; what could run code is refused. More of it is in ``tests/fuzz``."""

import os
import pickle

import numpy as np
import pytest

from cellseg_d2.io.array_pickle import read_array_pickle

ARRAYS = {
    "float": np.arange(6, dtype=np.float32).reshape(2, 3),
    "fortran": np.asfortranarray(np.arange(6.0).reshape(2, 3)),
    "big endian": np.arange(4, dtype=">i4"),
    "strided": np.arange(24).reshape(2, 3, 4).transpose(2, 0, 1),
    "bool": np.array([True, False]),
    "empty": np.zeros((0, 3), np.uint8),
    "scalar": np.float64(3.5),
}


def read(tmp_path, content):
    path = tmp_path / "weights.pkl"
    path.write_bytes(content)
    return read_array_pickle(path)


@pytest.mark.parametrize("protocol", range(pickle.HIGHEST_PROTOCOL + 1))
def test_arrays_come_back(tmp_path, protocol):
    found = read(tmp_path, pickle.dumps({"model": ARRAYS, "author": "someone", "steps": 7}, protocol))
    assert (found["author"], found["steps"]) == ("someone", 7)
    for name, value in ARRAYS.items():
        np.testing.assert_array_equal(found["model"][name], value)
        assert found["model"][name].dtype == value.dtype.newbyteorder("=")


def test_what_python_2_wrote(tmp_path):
    """There, bytes were texts."""
    array = b"cnumpy.core.multiarray\n_reconstruct\n(cnumpy\nndarray\n(I0\ntS'b'\ntR"
    state = b"(I1\n(I2\ntcnumpy\ndtype\n(S'u1'\nI0\nI1\ntR(I3\nS'|'\nNNNI-1\nI-1\nI0\ntbI00\nS'\\x07\\x08'\ntb."
    assert read(tmp_path, array + state).tolist() == [7, 8]


class Call:
    def __init__(self, function, *arguments):
        self.call = function, arguments

    def __reduce__(self):
        return self.call


@pytest.mark.parametrize("protocol", [0, 2, 4])
def test_no_name_but_those_of_arrays_is_looked_up(tmp_path, protocol):
    marker = tmp_path / "it_ran"
    for hostile in (Call(os.mkdir, str(marker)), Call(eval, f"open({str(marker)!r}, 'w')"), Call(np.load, "a.npy")):
        with pytest.raises(pickle.UnpicklingError, match="which no array needs"):
            read(tmp_path, pickle.dumps({"a": hostile}, protocol))
    assert not marker.exists()


@pytest.mark.parametrize(
    ("value", "message"),
    [
        (np.array([{}], dtype=object), "not plain numbers"),
        (np.array(["text"]), "not plain numbers"),
        (np.zeros(2, dtype=[("a", "i4")]), "not plain numbers"),
        (np.array(["2020-01-01"], dtype="datetime64[D]"), "not plain numbers"),
    ],
)
def test_only_numbers(tmp_path, value, message):
    with pytest.raises(pickle.UnpicklingError, match=message):
        read(tmp_path, pickle.dumps(value))


@pytest.mark.parametrize(
    ("program", "message"),
    [
        (b"\x80\x02}r\xff\xff\xff\x7f.", "remembers more than it holds"),
        (b"cnumpy\nndarray\n(K\x02tR.", "in a way that NumPy's pickles do not"),
        (b"cnumpy\ndtype\n}b.", "changes what it names"),
        (b"c_codecs\nencode\n(X\x01\x00\x00\x00aX\x05\x00\x00\x00utf-8tR.", "encodes a text"),
        (b"cnumpy.core.multiarray\nscalar\n(cnumpy\ndtype\n(X\x02\x00\x00\x00f8tRC\x02xxtR.", "has 2 bytes"),
        (b"cnumpy.core.multiarray\nscalar\n(K\x01C\x02xxtR.", "no shape or no type"),
        (b"cnumpy.core.multiarray\nscalar\n(cnumpy\ndtype\n(X\x02\x00\x00\x00f8tRK\x01tR.", "have no values"),
        (b"cnumpy\ndtype\n(X\x02\x00\x00\x00f8tR(K\x03X\x01\x00\x00\x00?tb.", "byte order"),
    ],
)
def test_programs_that_are_no_array(tmp_path, program, message):
    with pytest.raises(pickle.UnpicklingError, match=message):
        read(tmp_path, program)
