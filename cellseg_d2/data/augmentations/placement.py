"""Where a rotated, zoomed crop fits into an image, in closed form.

Coordinates are ``(x, y)`` in pixels, pixel centres at +0.5; sizes are ``(height, width)``. A crop *fits* when the
centres of all its pixels lie between the centres of the image's outermost pixels, because then bilinear interpolation
touches nothing else.
"""

from __future__ import annotations

import numpy as np

from cellseg_d2.data.augmentations.random_draws import uniform


def linear_map(angle: float, aspect: float = 1.0, shear: float = 0.0) -> np.ndarray:
    """From output to input offsets at zoom 1, float64 ``(2, 2)`` of determinant 1.

    Args:
        angle: by which the picture turns, in degrees, counter-clockwise as it is seen.
        aspect: how much wider, relative to its height, things get before they are turned.
        shear: in degrees.
    """
    quarter, rest = divmod(angle, 90)
    if rest == 0:  # exact, where sine and cosine would be off by rounding
        cosine, sine = ((1, 0), (0, 1), (-1, 0), (0, -1))[int(quarter) % 4]
    else:
        cosine, sine = np.cos(np.deg2rad(angle)), np.sin(np.deg2rad(angle))
    rotation = np.array([[cosine, -sine], [sine, cosine]], dtype=np.float64)
    stretch = np.array([[aspect**-0.5, np.tan(np.deg2rad(shear))], [0, aspect**0.5]])
    return stretch @ rotation


def least_zoom(linear: np.ndarray, input_size: tuple[int, int], output_size: tuple[int, int]) -> float:
    """The smallest zoom at which an output of that size fits; infinite if none does.

    The places of the output's pixels fill a parallelogram; its bounding box, which is what must fit, shrinks in
    proportion to the zoom.
    """
    needed = np.abs(linear) @ (np.array(output_size[::-1]) - 1)
    available = np.array(input_size[::-1]) - 1
    with np.errstate(divide="ignore", invalid="ignore"):
        return float(np.nan_to_num(needed / available, nan=0.0, posinf=np.inf).max())


def center_range(
    linear: np.ndarray, input_size: tuple[int, int], output_size: tuple[int, int]
) -> tuple[np.ndarray, np.ndarray]:
    """The least and greatest ``(x, y)`` that the crop's centre can have so that it fits.

    Along an axis where no place fits, both are the middle of the image: as little as possible is outside.

    Args:
        linear: ``(2, 2)`` output → input, the zoom included.
        input_size, output_size: in pixels.
    """
    size = np.array(input_size[::-1], dtype=np.float64)
    half = np.abs(linear) @ ((np.array(output_size[::-1]) - 1) / 2)
    low, high = half + 0.5, size - 0.5 - half
    fits = low <= high
    return np.where(fits, low, size / 2), np.where(fits, high, size / 2)


def draw_center(
    linear: np.ndarray,
    input_size: tuple[int, int],
    output_size: tuple[int, int],
    boxes: np.ndarray | None = None,
    cell_probability: float = 0.0,
) -> np.ndarray:
    """A random centre ``(x, y)`` of the crop, from all that fit.

    Args:
        linear, input_size, output_size: see :func:`center_range`.
        boxes: boxes of the cells, ``(N, 4)`` XYXY in pixels.
        cell_probability: with this chance the centre is chosen such that a cell, drawn evenly from all that such a
            crop can contain as a whole, lies at a random place in it. Otherwise it is drawn evenly.
    """
    low, high = center_range(linear, input_size, output_size)
    if boxes is not None and len(boxes) and uniform(0, 1) < cell_probability:
        center = _center_with_cell(linear, input_size, output_size, np.asarray(boxes, dtype=np.float64), low, high)
        if center is not None:
            return center
    return uniform(low, high)


def _center_with_cell(linear, input_size, output_size, boxes, low, high) -> np.ndarray | None:
    size = np.array(input_size[::-1])
    cells = (boxes[:, :2] + boxes[:, 2:]) / 2
    visible = ((cells >= 0) & (cells <= size)).all(axis=1)  # an earlier crop leaves boxes outside the image
    if not visible.any():
        return None
    boxes, cells = boxes[visible], cells[visible]
    inverse = np.linalg.inv(linear)
    # How far from the middle of the output a cell may lie to be whole; one too large for that lies near the middle.
    half = np.array(output_size[::-1]) / 2
    room = np.maximum(half - (boxes[:, 2:] - boxes[:, :2]) / 2 @ np.abs(inverse).T, 0.2 * half)
    centers = np.clip(cells - uniform(-room, room) @ linear.T, low, high)
    missed = (np.abs((cells - centers) @ inverse.T) - room).max(axis=1)
    order = np.argsort(uniform(0, 1, len(cells)))
    # Rotated crops cannot reach into the image's corners: then the cell that is missed by least.
    contained = order[missed[order] <= 1e-6]
    return centers[contained[0] if len(contained) else np.argmin(missed)]


def affine_matrix(linear: np.ndarray, center: np.ndarray, output_size: tuple[int, int]) -> np.ndarray:
    """Output → input, float64 ``(2, 3)``, with the output's middle at ``center``."""
    return np.column_stack([linear, center - linear @ (np.array(output_size[::-1]) / 2)])
