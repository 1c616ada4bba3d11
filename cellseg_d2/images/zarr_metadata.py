"""What a Zarr folder holds, read before any code of Zarr's runs: which array it means, and how its parts are packed.

A Zarr names the codecs that unpack its parts, and Zarr's packages make each one that any installed package registers,
``pickle`` among them, which runs code. So whatever their versions do, only codecs of a list of plain ones get through.
"""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path, PurePosixPath
from typing import Any, NamedTuple

from cellseg_d2.errors import CellSegError
from cellseg_d2.images.errors import ImageError
from cellseg_d2.io.text import read_json

# Files that say what a folder is, and the version of Zarr's format that has them.
ZARR_FILES = {"zarr.json": 3, ".zarray": 2, ".zgroup": 2}
# By what Zarr 2 calls those of numcodecs; Zarr 3 puts "numcodecs." before the names. All give bytes or numbers.
_NUMCODECS = {
    *("adler32", "astype", "bitround", "blosc", "bz2", "crc32", "crc32c", "delta", "fixedscaleoffset", "fletcher32"),
    *("gzip", "jenkins_lookup3", "lz4", "lzma", "packbits", "quantize", "shuffle", "zlib", "zstd"),
}
# Those of Zarr 3 itself.
_ZARR3 = {"blosc", "bytes", "crc32c", "endian", "gzip", "sharding_indexed", "transpose", "zstd"}


class ZarrArray(NamedTuple):
    """The folder of an array, and the version of Zarr's format, 2 or 3, that it has."""

    folder: Path
    version: int


def find_array(path: str | Path) -> ZarrArray:
    """The array that a Zarr folder is, or the full resolution of the OME-Zarr image that it is.

    Raises:
        CellSegError: its metadata cannot be read.
        ImageError: the folder is neither, or its parts are packed by a codec that is not
            known to be harmless.
    """
    folder = Path(path)
    node = _read_node(folder)
    if node.is_group:
        folder /= _full_resolution(folder, node)
        node = _read_node(folder)
        if node.is_group:
            raise ImageError(f"{folder} is a Zarr group, where an array should be")
    for name in _codecs(node.metadata):
        if name not in _ZARR3 and name.removeprefix("numcodecs.") not in _NUMCODECS:
            raise ImageError(
                f"{folder} is packed by the codec {name!r:.60}, which is not known to be harmless; save it with one "
                f"such as blosc, zstd, gzip or zlib"
            )
    return ZarrArray(folder, node.version)


class _Node(NamedTuple):
    metadata: dict
    version: int
    is_group: bool


def _read_node(path: Path) -> _Node:
    for name, version in ZARR_FILES.items():
        if (path / name).is_file():
            content = read_json(path / name)
            if not isinstance(content, dict):
                raise ImageError(f"{path / name} is no metadata of Zarr")
            return _Node(content, version, name == ".zgroup" or content.get("node_type") == "group")
    raise ImageError(f"{path} is a folder and no Zarr array; name one of its images")


def _full_resolution(path: Path, group: _Node) -> str:
    """Where in a group the full resolution of its image is."""
    attributes: Any = group.metadata.get("attributes")
    if group.version == 2 and (path / ".zattrs").is_file():
        attributes = read_json(path / ".zattrs")
    try:
        ome = attributes.get("ome", attributes)  # OME-Zarr 0.5 put its attributes one level deeper
        name = ome["multiscales"][0]["datasets"][0]["path"]
        inside = PurePosixPath(name)
    except (AttributeError, KeyError, IndexError, TypeError):
        arrays = sorted(child.name for child in path.iterdir() if _is_array(child))
        raise ImageError(f"{path} is a Zarr group; name one of its arrays ({', '.join(arrays)})") from None
    if inside.is_absolute() or ".." in inside.parts:
        raise ImageError(f"{path} names {name!r} as its image, which is outside of it")
    return name


def _is_array(path: Path) -> bool:
    try:
        return not _read_node(path).is_group
    except CellSegError:
        return False


def _codecs(metadata: object) -> Iterator[str]:
    """Names of all codecs, also of those within others."""
    if not isinstance(metadata, dict):
        return
    for key in ("compressor", "filters", "codecs", "index_codecs"):
        value = metadata.get(key)
        for codec in value if isinstance(value, list) else [value]:
            if isinstance(codec, dict):
                yield str(codec.get("id", codec.get("name")))
                yield from _codecs(codec.get("configuration"))
                yield from _codecs({name: child for name, child in codec.items() if name != "configuration"})
            elif codec is not None:
                yield str(codec)
