"""Which array a Zarr folder means, and that no codec is made that is not on the list."""

import json
import os
import pickle

import numpy as np
import pytest

from cellseg_d2.errors import CellSegError
from cellseg_d2.images.lazy import open_source
from cellseg_d2.images.zarr_metadata import find_array

V2 = {"zarr_format": 2, "shape": [8, 8], "chunks": [8, 8], "dtype": "|u1", "fill_value": 0, "order": "C"}
V2 |= {"compressor": None, "filters": None}
BYTES = {"name": "bytes", "configuration": {"endian": "little"}}
V3 = {
    **{"zarr_format": 3, "node_type": "array", "shape": [8, 8], "data_type": "uint8", "fill_value": 0},
    "chunk_grid": {"name": "regular", "configuration": {"chunk_shape": [8, 8]}},
    "chunk_key_encoding": {"name": "default", "configuration": {"separator": "/"}},
    "codecs": [BYTES],
}


def sharded(codecs, index_codecs):
    configuration = {"chunk_shape": [8, 8], "codecs": codecs, "index_codecs": index_codecs}
    return {"codecs": [{"name": "sharding_indexed", "configuration": configuration}]}


EVIL = {"id": "evil"}
HOSTILE = {
    "compressor": {**V2, "compressor": EVIL},
    "filter": {**V2, "filters": [{"id": "delta", "dtype": "|u1"}, EVIL]},
    "filter within a filter": {**V2, "filters": [{"id": "shuffle", "codecs": [EVIL]}]},
    "object": {**V2, "dtype": "|O", "filters": [EVIL]},
    "codec": {**V3, "codecs": [BYTES, {"name": "evil"}]},
    "numcodecs'": {**V3, "codecs": [{"name": "numcodecs.evil", "configuration": {}}]},
    "by its name": {**V3, "codecs": ["evil"]},
    "within a shard": {**V3, **sharded([BYTES, {"name": "numcodecs.evil"}], [BYTES])},
    "of a shard's index": {**V3, **sharded([BYTES], [BYTES, {"name": "evil"}])},
}


class Payload:
    def __init__(self, marker):
        self.marker = marker

    def __reduce__(self):
        return os.mkdir, (self.marker,)


def write_array(folder, metadata, chunk=b"\7" * 64):
    folder.mkdir(parents=True)
    version = metadata["zarr_format"]
    (folder / ("zarr.json" if version == 3 else ".zarray")).write_text(json.dumps(metadata))
    place = folder / ("c/0/0" if version == 3 else "0.0")
    place.parent.mkdir(parents=True, exist_ok=True)
    place.write_bytes(chunk)


@pytest.mark.parametrize("case", HOSTILE)
@pytest.mark.parametrize("codec", ["pickle", "evil"])
@pytest.mark.parametrize("place", ["array", "image", "image3"])
def test_a_codec_that_is_not_on_the_list_is_not_even_made(tmp_path, case, codec, place):
    """Whatever the versions of Zarr and numcodecs would do: one that is registered must not be asked for."""
    numcodecs = pytest.importorskip("numcodecs")
    made = []

    class Evil(numcodecs.abc.Codec):
        codec_id = "evil"

        def __init__(self, *_, **__):
            made.append(self)

        def encode(self, buf):
            return buf

        def decode(self, buf, out=None):
            return buf

    numcodecs.register_codec(Evil)
    metadata = json.loads(json.dumps(HOSTILE[case]).replace("evil", codec))
    chunk = pickle.dumps(Payload(str(tmp_path / "it_ran")))
    path = tmp_path / "a.zarr"
    if place == "array":
        write_array(path, metadata, chunk)
    else:
        write_array(path / "0", metadata, chunk)
        scales = {"multiscales": [{"datasets": [{"path": "0"}]}]}
        if place == "image":
            (path / ".zgroup").write_text('{"zarr_format": 2}')
            (path / ".zattrs").write_text(json.dumps(scales))
        else:
            group = {"zarr_format": 3, "node_type": "group", "attributes": {"ome": scales}}
            group["consolidated_metadata"] = {"kind": "inline", "must_understand": False, "metadata": {"0": metadata}}
            (path / "zarr.json").write_text(json.dumps(group))
    with pytest.raises(CellSegError, match=rf"codec '(numcodecs\.)?{codec}', which is not known to be harmless"):
        open_source(path).read(0, 0, 8, 8)
    assert not made
    assert not (tmp_path / "it_ran").exists()


@pytest.mark.parametrize("version", [2, 3])
def test_the_codecs_that_programs_write_are_read(tmp_path, version):
    zarr = pytest.importorskip("zarr")
    import numcodecs
    from zarr.codecs import BloscCodec, GzipCodec, ZstdCodec

    image = np.arange(64, dtype=np.uint16).reshape(8, 8)
    packed = [numcodecs.Blosc(), numcodecs.Zlib(), numcodecs.GZip(), numcodecs.LZ4(), numcodecs.BZ2(), numcodecs.Zstd()]
    for number, codec in enumerate([None, *(packed if version == 2 else [BloscCodec(), GzipCodec(), ZstdCodec()])]):
        path = tmp_path / f"{number}.zarr"
        zarr.create_array(path, data=image, chunks=(4, 4), compressors=codec, zarr_format=version)
        assert np.array_equal(open_source(path).read(0, 0, 8, 8), image)
    if version == 3:
        path = tmp_path / "sharded.zarr"
        zarr.create_array(path, data=image, chunks=(4, 4), shards=(8, 8))
        assert np.array_equal(open_source(path).read(0, 0, 8, 8), image)
    else:
        path = tmp_path / "filtered.zarr"
        zarr.create_array(path, data=image, chunks=(4, 4), filters=numcodecs.Delta("<u2"), zarr_format=2)
        assert np.array_equal(open_source(path).read(0, 0, 8, 8), image)


@pytest.mark.parametrize("name", ["../other.zarr", "/other.zarr", "a/../../other.zarr"])
def test_an_image_names_no_array_outside_of_its_folder(tmp_path, name):
    write_array(tmp_path / "other.zarr", V2)
    group = tmp_path / "a.zarr"
    group.mkdir()
    attributes = {"multiscales": [{"datasets": [{"path": name}]}]}
    (group / "zarr.json").write_text(json.dumps({"zarr_format": 3, "node_type": "group", "attributes": attributes}))
    with pytest.raises(CellSegError, match="outside of it"):
        find_array(group)


@pytest.mark.parametrize(
    "content", ["", "[]", "{", '{"node_type": "group", "attributes": 3}', '{"node_type": "group"}']
)
def test_damaged_metadata_is_one_sentence(tmp_path, content):
    (tmp_path / "zarr.json").write_text(content)
    with pytest.raises(CellSegError):
        find_array(tmp_path)
    with pytest.raises(CellSegError, match="no Zarr array"):
        find_array(tmp_path / "none")
