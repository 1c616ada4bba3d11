"""Random crops that show only what the image has: rotated and zoomed, rescaled, or chosen to contain cells."""

from __future__ import annotations

import detectron2.data.transforms as T
import numpy as np
from detectron2.config import CfgNode
from detectron2.data.transforms import Augmentation
from fvcore.transforms.transform import CropTransform, Transform

from cellseg_d2.data.augmentations.placement import affine_matrix, draw_center, least_zoom, linear_map
from cellseg_d2.data.augmentations.random_draws import log_uniform, seed, uniform
from cellseg_d2.data.augmentations.registry import AUGMENTATION_REGISTRY
from cellseg_d2.data.augmentations.settings import interval, number, outside, size
from cellseg_d2.data.augmentations.warp import AffineTransform

Range = tuple[float, float]


class RotateZoomCrop(Augmentation):
    """Rotation by any angle, zoom and crop in one warp that stays inside the image.

    For the drawn angle, the zooms at which the crop fits are known in closed form; the zoom is drawn from those of them
    that are in the range, then the centre from all at which the crop fits. Only if no zoom in the range fits, something
    outside the image is needed: then the largest zoom is taken, which needs least, and ``outside`` says what is seen
    there (see :class:`AffineTransform` for the two choices and what they mean for masks).

    With an angle that is a multiple of 90° and zoom 1, pixels are moved and not interpolated.
    """

    def __init__(
        self,
        angle: Range = (-180.0, 180.0),
        zoom: Range = (1.0, 1.5),
        size: tuple[int, int] = (0, 0),
        *,
        aspect: Range = (1.0, 1.0),
        shear: Range = (0.0, 0.0),
        cell_probability: float = 0.0,
        outside: str = "reflect",
    ):
        """
        Args:
            angle: range in degrees, counter-clockwise.
            zoom: range of output pixels per input pixel, drawn evenly on a logarithmic scale.
            size: ``(height, width)`` of the output in pixels; 0 is the input's.
            aspect: range of the factor by which things get wider relative to their height.
            shear: range in degrees.
            cell_probability: the chance that the crop is placed around a cell, see :func:`draw_center`.
            outside: ``"reflect"`` or ``"background"``.
        """
        super().__init__()
        self._init(locals())

    def get_transform(self, image: np.ndarray, boxes: np.ndarray | None) -> AffineTransform:
        """
        Args:
            image: ``(H, W)``.
            boxes: boxes of its cells, ``(N, 4)`` XYXY in pixels, or None.
        """
        input_size = image.shape[:2]
        linear = linear_map(uniform(*self.angle), log_uniform(*self.aspect), uniform(*self.shear))
        output_size = tuple(wanted or given for wanted, given in zip(self.size, input_size, strict=True))
        low, high = self.zoom
        fitting = max(low, least_zoom(linear, input_size, output_size))
        linear = linear / (self.draw_zoom(fitting, high) if fitting <= high else high)
        center = draw_center(linear, input_size, output_size, boxes, self.cell_probability)
        matrix = affine_matrix(linear, center, output_size)
        if np.isin(linear, (-1.0, 0.0, 1.0)).all():
            # Whole pixels. The outermost centres that fit are at whole pixels as well, so none is left by rounding.
            first = linear.sum(axis=1) / 2 - 0.5
            matrix[:, 2] = np.rint(matrix[:, 2] + first) - first
        return AffineTransform(matrix, input_size, output_size, self.outside, seed())

    def draw_zoom(self, low: float, high: float) -> float:
        """A zoom from those in the range that fit."""
        return log_uniform(low, high)


class Rotation(RotateZoomCrop):
    """Rotation by any angle, the size kept, and enlarged no more than it takes to have no empty corners."""

    def __init__(self, angle: Range, max_zoom: float = 1.7, outside: str = "reflect"):
        """
        Args:
            angle: range in degrees, counter-clockwise.
            max_zoom: with angles that need a higher one, ``outside`` is seen. √2 serves all angles of a square
                image, √(H² + W²) / min(H, W) all of any. 1 keeps the scale.
            outside: ``"reflect"`` or ``"background"``.
        """
        super().__init__(angle, (1.0, max_zoom), outside=outside)
        self.max_zoom = max_zoom

    def draw_zoom(self, low: float, high: float) -> float:
        return low


class ScaleJitter(Augmentation):
    """Resize by a random factor and cut out what exceeds the size; nothing is padded.

    An image that has become smaller than the size stays smaller.
    """

    def __init__(self, scale: Range = (0.8, 1.25), size: tuple[int, int] = (0, 0), *, cell_probability: float = 0.0):
        """
        Args:
            scale: range of the factor, drawn evenly on a logarithmic scale.
            size: the largest ``(height, width)`` of the output in pixels; 0 is the input's.
            cell_probability: see :func:`draw_center`.
        """
        super().__init__()
        self._init(locals())

    def get_transform(self, image: np.ndarray, boxes: np.ndarray | None) -> AffineTransform:
        input_size = image.shape[:2]
        scale = log_uniform(*self.scale)
        output_size = tuple(
            min(wanted or given, int((given - 1) * scale) + 1)
            for wanted, given in zip(self.size, input_size, strict=True)
        )
        linear = np.eye(2) / scale
        center = draw_center(linear, input_size, output_size, boxes, self.cell_probability)
        return AffineTransform(affine_matrix(linear, center, output_size), input_size, output_size)


class CellCrop(Augmentation):
    """A crop of fixed size that is chosen to contain cells; nothing is interpolated."""

    def __init__(self, size: tuple[int, int], cell_probability: float = 1.0):
        """
        Args:
            size: ``(height, width)`` in pixels; 0 is the image's. A smaller image is taken whole.
            cell_probability: see :func:`draw_center`.
        """
        super().__init__()
        self._init(locals())

    def get_transform(self, image: np.ndarray, boxes: np.ndarray | None) -> Transform:
        height, width = image.shape[:2]
        h, w = (min(wanted or given, given) for wanted, given in zip(self.size, (height, width), strict=True))
        x, y = draw_center(np.eye(2), (height, width), (h, w), boxes, self.cell_probability)
        return CropTransform(round(x - w / 2), round(y - h / 2), w, h, width, height)


@AUGMENTATION_REGISTRY.register("rotation", defaults={"ANGLE": [0.0, 0.0], "MAX_ZOOM": 1.7, "OUTSIDE": "reflect"})
def rotation(cfg: CfgNode) -> list[T.Augmentation]:
    """by any angle, the size of the image kept, without empty corners

    ``ANGLE`` is drawn evenly from the range, in degrees; ``[0, 0]`` is none. The image is enlarged as little as is
    needed to have no empty corners, at most by ``MAX_ZOOM``; where that is not enough, ``OUTSIDE`` is seen: "reflect"
    (image and masks mirrored) or "background" (its level and noise, no cells). 1.7 is enough for all angles of an image
    of 704 × 520.
    """
    angle = interval(cfg, "ROTATION.ANGLE")
    max_zoom = number(cfg, "ROTATION.MAX_ZOOM", low=1)
    return [Rotation(angle, max_zoom, outside(cfg, "ROTATION.OUTSIDE"))] if any(angle) else []


@AUGMENTATION_REGISTRY.register(
    "rotate_zoom_crop",
    defaults={
        "ANGLE": [-180.0, 180.0],
        "ZOOM": [1.0, 1.7],
        "SIZE": [0, 0],
        "ASPECT": [1.0, 1.0],
        "SHEAR": [0.0, 0.0],
        "CELL_PROBABILITY": 0.5,
        "OUTSIDE": "reflect",
    },
)
def rotate_zoom_crop(cfg: CfgNode) -> list[T.Augmentation]:
    """rotation, zoom and crop in one warp that stays inside the image

    ``ZOOM``: output pixels per input pixel, drawn from those in the range at which the crop fits. ``SIZE``: [height,
    width] of the output in pixels, 0 is the input's. ``ASPECT``: factor by which things get wider relative to their
    height; ``SHEAR`` in degrees. ``CELL_PROBABILITY``: the chance that the crop is placed around a random cell;
    otherwise it is placed anywhere. ``OUTSIDE``, where no zoom of the range fits: "reflect" or "background", as for
    ROTATION.
    """
    return [
        RotateZoomCrop(
            interval(cfg, "ROTATE_ZOOM_CROP.ANGLE"),
            interval(cfg, "ROTATE_ZOOM_CROP.ZOOM", positive=True),
            size(cfg, "ROTATE_ZOOM_CROP.SIZE"),
            aspect=interval(cfg, "ROTATE_ZOOM_CROP.ASPECT", positive=True),
            shear=interval(cfg, "ROTATE_ZOOM_CROP.SHEAR", -60, 60),
            cell_probability=number(cfg, "ROTATE_ZOOM_CROP.CELL_PROBABILITY", 0, 1),
            outside=outside(cfg, "ROTATE_ZOOM_CROP.OUTSIDE"),
        )
    ]


@AUGMENTATION_REGISTRY.register(
    "scale_jitter",
    defaults={"SCALE": [0.8, 1.25], "SIZE": [0, 0], "CELL_PROBABILITY": 0.5},
)
def scale_jitter(cfg: CfgNode) -> list[T.Augmentation]:
    """resized by a random factor, then cropped to at most ``SIZE``; never padded"""
    return [
        ScaleJitter(
            interval(cfg, "SCALE_JITTER.SCALE", positive=True),
            size(cfg, "SCALE_JITTER.SIZE"),
            cell_probability=number(cfg, "SCALE_JITTER.CELL_PROBABILITY", 0, 1),
        )
    ]


@AUGMENTATION_REGISTRY.register("cell_crop", defaults={"SIZE": [256, 256], "CELL_PROBABILITY": 1.0})
def cell_crop(cfg: CfgNode) -> list[T.Augmentation]:
    """a crop of ``SIZE``, with ``CELL_PROBABILITY`` placed around a random cell"""
    return [CellCrop(size(cfg, "CELL_CROP.SIZE"), number(cfg, "CELL_CROP.CELL_PROBABILITY", 0, 1))]
