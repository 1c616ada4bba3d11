"""Zarr arrays and OME-Zarr images, with their axes."""

from __future__ import annotations

import math
from pathlib import Path

from cellseg_d2.images.arrays import StoredArray, array_layout
from cellseg_d2.images.axes import ONE_PLANE, AxesError, Layout, PlaneChoice, renamed
from cellseg_d2.images.errors import ImageError, check_claim, clear_errors
from cellseg_d2.images.zarr_metadata import find_array

# A folder with so much in it may claim a terapixel (see check_claim); what more it holds need not be counted.
_ENOUGH_BYTES = 2**26


def open_zarr(path: str | Path, *, channel_axis: int | None = None, choice: PlaneChoice = ONE_PLANE) -> StoredArray:
    """The array that a Zarr folder is, or the full resolution of the OME-Zarr image that it is.

    Args:
        path: of the folder.
        channel_axis: of an array that does not name its axes, see :func:`cellseg_d2.images.arrays.as_stored`.
        choice: may name the axes, and the scene of a folder with several images.

    Raises:
        CellSegError: it cannot be read, or is no image.
    """
    path = Path(path)
    found = find_array(path, choice.scene)
    try:
        import zarr
    except ImportError:
        raise ImageError(f"{path} is a Zarr array, which needs another package: type `pip install zarr`") from None
    with clear_errors(path):
        array = zarr.open_array(found.folder, mode="r", zarr_format=found.version)
        # A chunk is unpacked as a whole, however small the image is.
        claimed = max(array.shape, array.shards or array.chunks, key=math.prod)
        check_claim(path, claimed, math.prod(claimed), _bytes_of(path))
    if found.axes is not None and len(found.axes) != len(array.shape):
        raise AxesError(f"{path} names the axes {found.axes}, but its array has {len(array.shape)} of them")
    if found.axes is None or channel_axis is not None:
        layout = array_layout(array.shape, channel_axis, choice, origin=path)
    else:
        layout = Layout(found.axes, array.shape, found.channels)
        layout = layout if choice.axes is None else renamed(layout, choice.axes, path)
    return StoredArray(array, layout, path)


def _bytes_of(folder: Path) -> int:
    """Bytes of all files, or of so many that no image that memory holds is too large for them."""
    size = 0
    for file in folder.rglob("*"):
        size += file.stat().st_size if file.is_file() else 0
        if size > _ENOUGH_BYTES:
            break
    return size
