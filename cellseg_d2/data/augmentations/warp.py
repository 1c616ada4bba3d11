"""Transforms that fetch every output pixel from a place of the input: affine maps without black corners.

Image and labels are fetched from the very same places, the image bilinearly, the labels from the nearest pixel. The
places are computed here, since OpenCV's own affine warps round differently from release to release.

Coordinates are Detectron2's: ``(x, y)`` in pixels, the centre of the first pixel at (0.5, 0.5).
"""

from __future__ import annotations

from functools import cached_property

import cv2
import numpy as np
from fvcore.transforms.transform import Transform

from cellseg_d2.data.augmentations.background import TILE, Background
from cellseg_d2.errors import CellSegError

OUTSIDE_POLICIES = ("reflect", "background")
# A part that is outside is faded in over so many pixels, which hides the line where cells are cut.
SEAM = 3.0
TOLERANCE = 1e-6  # pixels


class SamplingTransform(Transform):
    """Base class: a subclass says where each output pixel lies in the input.

    Attributes:
        input_size, output_size: ``(height, width)`` in pixels.
    """

    def __init__(self, input_size: tuple[int, int], output_size: tuple[int, int]):
        super().__init__()
        self.input_size = tuple(int(size) for size in input_size)
        self.output_size = tuple(int(size) for size in output_size)

    @cached_property
    def places(self) -> tuple[np.ndarray, np.ndarray]:
        """Column and row **indices** (pixel centres at integers), float32 ``(h, w)`` each, inside the input."""
        raise NotImplementedError

    @cached_property
    def nearest(self) -> np.ndarray:
        """The input pixel nearest to each place as a row-major position, intp ``(h, w)``."""
        columns, rows = (np.rint(places).astype(np.intp) for places in self.places)
        rows *= self.input_size[1]
        rows += columns
        return rows

    def apply_image(self, img: np.ndarray) -> np.ndarray:
        """Interpolate bilinearly.

        Args:
            img: uint8 or float32 ``(H, W)`` of the input size.
        """
        self.check_size(img)
        columns, rows = self.places
        # Replication only matters for places beyond the border by a rounding error.
        return cv2.remap(np.ascontiguousarray(img), columns, rows, cv2.INTER_LINEAR, borderMode=cv2.BORDER_REPLICATE)

    def apply_segmentation(self, segmentation: np.ndarray) -> np.ndarray:
        """Take the nearest pixel: labels are never mixed.

        Args:
            segmentation: ``(H, W)`` of the input size, any integer dtype or bool.

        Returns:
            ``(h, w)`` of the same dtype.
        """
        self.check_size(segmentation)
        return np.ascontiguousarray(segmentation).ravel().take(self.nearest)

    def check_size(self, image: np.ndarray) -> None:
        """Raise ValueError for an image that this transform was not made for."""
        if image.shape != self.input_size:
            raise ValueError(f"this transform is for an image {self.input_size}, not {image.shape}")


class AffineTransform(SamplingTransform):
    """An affine map into an image of given size, in one warp.

    What lies outside the input is never black:

    * ``"reflect"`` mirrors image **and** masks at the border. The mirrored cells are whole, real-looking cells, so
      they must be learnt as cells; leaving their masks away would teach that cells are background, and ignoring them
      would need a loss that knows of ignored regions. A mirrored copy carries the label of its original: where
      :attr:`splits_labels` is true, split each label into connected components. (A cell that touches the border grows
      together with its copy and stays one.)
    * ``"background"`` fills with the image's own background, its level and its noise, where labels are 0. There are
      fewer cells then, each of which is real.

    With a matrix that only moves by whole pixels and turns by multiples of 90°, nothing is interpolated and all values
    are kept exactly.

    Attributes:
        matrix: float64 ``(2, 3)``, takes output coordinates to input coordinates.
        inside: whether every output pixel, with the four neighbours it is interpolated from, lies inside the input.
    """

    def __init__(
        self,
        matrix: np.ndarray,
        input_size: tuple[int, int],
        output_size: tuple[int, int],
        outside: str = "reflect",
        seed: int = 0,
    ):
        """
        Args:
            matrix: ``(2, 3)``, output → input.
            input_size, output_size: ``(height, width)`` in pixels.
            outside: ``"reflect"`` or ``"background"``.
            seed: seed of the background's noise.
        """
        if outside not in OUTSIDE_POLICIES:
            raise CellSegError(f"outside is {outside!r}; it can be {' or '.join(OUTSIDE_POLICIES)}")
        super().__init__(input_size, output_size)
        self.matrix = np.array(matrix, dtype=np.float64)
        self.outside = outside
        self.seed = seed
        low, high = self._extent()
        size = np.array(self.input_size[::-1])
        self.inside = bool((low >= 0.5 - TOLERANCE).all() and (high <= size - 0.5 + TOLERANCE).all())

    def _extent(self) -> tuple[np.ndarray, np.ndarray]:
        """The least and greatest ``(x, y)`` of all places, pixel centres at +0.5."""
        size = np.array(self.output_size[::-1])
        center = self.matrix[:, :2] @ (size / 2) + self.matrix[:, 2]
        half = np.abs(self.matrix[:, :2]) @ ((size - 1) / 2)
        return center - half, center + half

    @property
    def exact(self) -> bool:
        """Whether every place is the centre of a pixel."""
        linear = self.matrix[:, :2]
        first = linear.sum(axis=1) / 2 + self.matrix[:, 2] - 0.5
        whole = np.abs(np.concatenate([np.rint(linear) - linear, (np.rint(first) - first)[:, None]], axis=1))
        return bool((whole < TOLERANCE).all() and abs(abs(np.linalg.det(linear)) - 1) < TOLERANCE)

    @property
    def splits_labels(self) -> bool:
        """Whether one label can come out as several cells: the original and its mirrored copies."""
        return self.outside == "reflect" and not self.inside

    @property
    def zoom(self) -> float:
        """Output pixels per input pixel."""
        return float(abs(np.linalg.det(self.matrix[:, :2])) ** -0.5)

    @cached_property
    def _unbounded_places(self) -> tuple[np.ndarray, np.ndarray]:
        height, width = self.output_size
        x, y = np.arange(width) + 0.5, np.arange(height) + 0.5
        return tuple(
            (a * x).astype(np.float32)[None, :] + (b * y + (c - 0.5)).astype(np.float32)[:, None]
            for a, b, c in self.matrix
        )

    @cached_property
    def places(self) -> tuple[np.ndarray, np.ndarray]:
        bring_in = reflect_index if self.outside == "reflect" else clamp_index
        sizes = self.input_size[::-1]
        places = self._unbounded_places
        return places if self.inside else tuple(bring_in(p, size) for p, size in zip(places, sizes, strict=True))

    @cached_property
    def _distance_outside(self) -> np.ndarray:
        """How far each output pixel lies beyond the border, in output pixels, float32 ``(h, w)``; ≤ 0 inside."""
        beyond = [
            np.abs(places - (size - 1) / 2) - size / 2
            for places, size in zip(self._unbounded_places, self.input_size[::-1], strict=True)
        ]
        return np.maximum(*beyond) * np.float32(self.zoom)

    def apply_image(self, img: np.ndarray) -> np.ndarray:
        self.check_size(img)
        if self.exact:
            result = np.ascontiguousarray(img).ravel().take(self.nearest)
        else:
            result = super().apply_image(against_aliasing(img, self.zoom))
        if self.inside or self.outside == "reflect":
            return result
        background = Background.of(img)
        fill = background.level_at(*self.places)
        # The noise goes the way of the image, so that interpolation softens both alike.
        noise = against_aliasing(background.noise(np.random.default_rng(self.seed)), self.zoom)
        repeated = (np.mod(places, np.float32(TILE)) for places in self._unbounded_places)
        fill += cv2.remap(noise, *repeated, cv2.INTER_LINEAR, borderMode=cv2.BORDER_WRAP)
        weight = np.clip(self._distance_outside / SEAM, 0, 1)
        mixed = result + weight * (fill - result)
        return np.clip(np.rint(mixed), 0, 255).astype(np.uint8) if img.dtype == np.uint8 else mixed.astype(img.dtype)

    def apply_segmentation(self, segmentation: np.ndarray) -> np.ndarray:
        result = super().apply_segmentation(segmentation)
        if not self.inside and self.outside == "background":
            result[self._distance_outside > 0] = 0
        return result

    def apply_coords(self, coords: np.ndarray) -> np.ndarray:
        """Input ``(x, y)``, ``(N, 2)``, to output; points of mirrored copies are not among them."""
        inverse = np.linalg.inv(self.matrix[:, :2])
        return (np.asarray(coords, dtype=np.float64) - self.matrix[:, 2]) @ inverse.T

    def inverse(self) -> AffineTransform:
        """The way back; what the first way cut off is background."""
        linear = np.linalg.inv(self.matrix[:, :2])
        matrix = np.column_stack([linear, -linear @ self.matrix[:, 2]])
        return AffineTransform(matrix, self.output_size, self.input_size, "background", self.seed)


def reflect_index(places: np.ndarray, size: int) -> np.ndarray:
    """Indices mirrored into ``[0, size - 1]`` at the centres of the first and the last pixel, as often as needed."""
    if size == 1:
        return np.zeros_like(places)
    last = np.float32(size - 1)
    return last - np.abs(np.mod(places, 2 * last) - last)


def clamp_index(places: np.ndarray, size: int) -> np.ndarray:
    """Indices clipped to ``[0, size - 1]``."""
    return np.clip(places, 0, np.float32(size - 1))


def against_aliasing(image: np.ndarray, zoom: float) -> np.ndarray:
    """The image smoothed as much as making it smaller by ``zoom`` < 1 demands; unchanged for others."""
    if zoom >= 0.95:
        return image
    return cv2.GaussianBlur(image, (0, 0), 0.5 * (zoom**-2 - 1) ** 0.5)
