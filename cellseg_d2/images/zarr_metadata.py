"""What a Zarr folder holds, read before any code of Zarr's runs: which array it means, with which axes and what scale,
and how its parts are packed.

A Zarr names the codecs that unpack its parts, and Zarr's packages make each one that any installed package registers,
``pickle`` among them, which runs code. So whatever their versions do, only codecs of a list of plain ones get through.
"""

from __future__ import annotations

import math
from collections.abc import Iterator
from pathlib import Path, PurePosixPath
from typing import Any, NamedTuple

from cellseg_d2.errors import CellSegError
from cellseg_d2.images.axes import axis_names, choose_scene
from cellseg_d2.images.errors import ImageError
from cellseg_d2.io.text import read_json

# Files that say what a folder is, and the version of Zarr's format that has them.
ZARR_FILES = {"zarr.json": 3, ".zarray": 2, ".zgroup": 2}
# Kinds of axes of which there is one, whatever its name.
_KINDS = {"time": "t", "channel": "c"}
# By what Zarr 2 calls those of numcodecs; Zarr 3 puts "numcodecs." before the names. All give bytes or numbers.
_NUMCODECS = {
    *("adler32", "astype", "bitround", "blosc", "bz2", "crc32", "crc32c", "delta", "fixedscaleoffset", "fletcher32"),
    *("gzip", "jenkins_lookup3", "lz4", "lzma", "packbits", "quantize", "shuffle", "zlib", "zstd"),
}
# Those of Zarr 3 itself.
_ZARR3 = {"blosc", "bytes", "crc32c", "endian", "gzip", "sharding_indexed", "transpose", "zstd"}


class ZarrArray(NamedTuple):
    """An array in a Zarr folder, and what is said about it.

    Attributes:
        folder: of the array.
        version: of Zarr's format, 2 or 3.
        axes: their names, a letter each, as of :class:`cellseg_d2.images.axes.Layout`; None if nothing names them.
        channels: names of the channels, as far as they are told.
        scale: of each axis, with its unit; empty if nothing tells it.
    """

    folder: Path
    version: int
    axes: str | None = None
    channels: tuple[str, ...] = ()
    scale: tuple[tuple[float, str | None], ...] = ()

    @property
    def pixel_size(self) -> tuple[tuple[float, str | None], tuple[float, str | None]] | None:
        """Width and height of a pixel, each with its unit; None where nothing tells them."""
        if self.axes is None or len(self.scale) != len(self.axes):
            return None
        return self.scale[self.axes.index("X")], self.scale[self.axes.index("Y")]


def find_array(path: str | Path, scene: int | str | None = None) -> ZarrArray:
    """The array that a Zarr folder is, or the full resolution of the OME-Zarr image that it is.

    Args:
        path: of the folder.
        scene: of several images in a folder, as bioformats2raw writes them, the number of one, or its name.

    Raises:
        CellSegError: its metadata cannot be read.
        AxesError: it holds several images of which one must be chosen.
        ImageError: the folder is neither, or its parts are packed by a codec that is not
            known to be harmless.
    """
    folder = Path(path)
    node = _read_node(folder)
    image: _Image | None = None
    if node.is_group and "bioformats2raw.layout" in _attributes(folder, node):
        folder = _one_scene(folder, scene)
        node = _read_node(folder)
    if node.is_group:
        image = _full_resolution(folder, node)
        folder /= image.path
        node = _read_node(folder)
        if node.is_group:
            raise ImageError(f"{folder} is a Zarr group, where an array should be")
    for name in _codecs(node.metadata):
        if name not in _ZARR3 and name.removeprefix("numcodecs.") not in _NUMCODECS:
            raise ImageError(
                f"{folder} is packed by the codec {name!r:.60}, which is not known to be harmless; save it with one "
                f"such as blosc, zstd, gzip or zlib"
            )
    if image is not None:
        return ZarrArray(folder, node.version, image.axes, image.channels, image.scale)
    names = node.metadata.get("dimension_names")
    return ZarrArray(folder, node.version, axis_names(names) if isinstance(names, list) else None)


class _Image(NamedTuple):
    """What OME-Zarr says about an image."""

    path: str
    axes: str | None
    channels: tuple[str, ...]
    scale: tuple[tuple[float, str | None], ...]


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


def _attributes(path: Path, group: _Node) -> dict[str, Any]:
    """What a group says about what is in it; OME-Zarr 0.5 put that one level deeper."""
    attributes: Any = group.metadata.get("attributes")
    if group.version == 2 and (path / ".zattrs").is_file():
        attributes = read_json(path / ".zattrs")
    if not isinstance(attributes, dict):
        return {}
    inner = attributes.get("ome", attributes)
    return inner if isinstance(inner, dict) else {}


def _one_scene(path: Path, scene: int | str | None) -> Path:
    """The folder of one of several images, which are numbered."""
    names = sorted((child.name for child in path.iterdir() if child.name.isdecimal() and child.is_dir()), key=int)
    if not names:
        raise ImageError(f"{path} holds no image")
    return path / names[choose_scene(scene, [""] * len(names), path)]


def _full_resolution(path: Path, group: _Node) -> _Image:
    """Where in a group the full resolution of its image is, and what is said about it."""
    attributes = _attributes(path, group)
    try:
        multiscale = attributes["multiscales"][0]
        dataset = multiscale["datasets"][0]
        name = dataset["path"]
        inside = PurePosixPath(name)
    except (AttributeError, KeyError, IndexError, TypeError):
        if "plate" in attributes:
            raise ImageError(f"{path} is a plate: name its fields, such as '{path}/*/*/*'") from None
        arrays = sorted(child.name for child in path.iterdir() if _is_array(child))
        raise ImageError(f"{path} is a Zarr group; name one of its arrays ({', '.join(arrays)})") from None
    if inside.is_absolute() or ".." in inside.parts:
        raise ImageError(f"{path} names {name!r} as its image, which is outside of it")
    try:
        axes = [axis if isinstance(axis, dict) else {"name": axis} for axis in multiscale.get("axes", [])]
        words = [_KINDS.get(str(axis.get("type")), axis["name"]) for axis in axes]
        units = [axis.get("unit") for axis in axes]
        channels = tuple(str(channel.get("label", "")) for channel in attributes.get("omero", {}).get("channels", []))
        factors = [_factors(told, len(axes)) for told in (multiscale, dataset)]
    except (AttributeError, KeyError, TypeError, ValueError):
        raise ImageError(f"{path} tells its axes in a way that is not OME-Zarr's") from None
    scale = zip(*factors, strict=True) if all(factors) else ()
    sides = tuple((math.prod(both), unit) for both, unit in zip(scale, units, strict=False))
    # Before version 0.3 there were always five.
    names = axis_names(words) if words else ("TCZYX" if multiscale.get("version") in ("0.1", "0.2") else None)
    return _Image(name, names, channels, sides)


def _factors(told: dict, count: int) -> list[float]:
    """How much each axis is scaled, by what an image or its data set tells; 1 where it tells nothing."""
    for transformation in told.get("coordinateTransformations", []):
        if transformation.get("type") == "scale":
            factors = [float(factor) for factor in transformation["scale"]]
            return factors if len(factors) == count else []
    return [1.0] * count


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
