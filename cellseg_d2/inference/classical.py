"""What can be had without a network: Otsu's threshold and a watershed, as a floor for what a network must reach."""

from __future__ import annotations

import numpy as np
from scipy import ndimage
from skimage.feature import peak_local_max
from skimage.filters import threshold_otsu
from skimage.morphology import remove_small_objects
from skimage.segmentation import watershed

from cellseg_d2.detections.detections import Detections
from cellseg_d2.errors import CellSegError
from cellseg_d2.inference.segmenter import Segmenter
from cellseg_d2.masks.overlaps import crops_from_labels
from cellseg_d2.postprocess.params import PostprocessParams

# What is thresholded, by name: brightness, for fluorescence, or contrast within a few pixels, for phase contrast.
FEATURES = ("otsu", "otsu-texture")


class ClassicalSegmenter(Segmenter):
    """Otsu's threshold, then a watershed on the distance to the background, from its maxima.

    Args:
        feature: one of :data:`FEATURES`.
        smoothing: sigma in pixels of the Gaussian over which brightness, or contrast, is taken.
        least_distance: in pixels, between the middles of two cells.
        least_area: in pixels, of a cell.

    Source: Otsu, A threshold selection method from gray-level histograms, 1979; Beucher and Lantuéjoul, Use of
    watersheds in contour detection, 1979; both as of scikit-image.
    """

    def __init__(self, feature: str = "otsu", *, smoothing: float = 1.5, least_distance: int = 6, least_area: int = 30):
        if feature not in FEATURES:
            raise CellSegError(f"there is no method {feature!r}, only {' and '.join(FEATURES)}")
        self.feature = feature
        self.smoothing = smoothing
        self.least_distance = least_distance
        self.least_area = least_area
        self.params = PostprocessParams(vote=False)
        self.class_names = ["cell"]

    def settings(self) -> dict[str, object]:
        """See :meth:`Segmenter.settings`."""
        names = ("feature", "smoothing", "least_distance", "least_area")
        return super().settings() | {name: getattr(self, name) for name in names}

    def detect_views(self, image: np.ndarray, scale: float = 1.0) -> tuple[list[Detections], list[float]]:
        """All regions, each with score 1."""
        crops = crops_from_labels(self._labels(image.astype(np.float32)))
        boxes = np.array([crop.box for crop in crops], dtype=np.float32).reshape(-1, 4)
        scores, classes = np.ones(len(crops), dtype=np.float32), np.zeros(len(crops), dtype=np.int64)
        return [Detections(*image.shape, boxes, scores, classes, crops)], [1.0]

    def _labels(self, image: np.ndarray) -> np.ndarray:
        value = ndimage.gaussian_filter(image, self.smoothing)
        if self.feature == "otsu-texture":
            value = np.sqrt(np.maximum(0, ndimage.gaussian_filter(image**2, self.smoothing) - value**2))
        if value.min() == value.max():  # there is no threshold between equal values
            return np.zeros(image.shape, dtype=np.int32)
        mask = ndimage.binary_fill_holes(value > threshold_otsu(value))
        mask = remove_small_objects(mask, max_size=self.least_area - 1)
        distance = ndimage.distance_transform_edt(mask)
        middles = peak_local_max(ndimage.gaussian_filter(distance, 1), min_distance=self.least_distance, labels=mask)
        markers = np.zeros(image.shape, dtype=np.int32)
        markers[tuple(middles.T)] = np.arange(1, len(middles) + 1)
        return watershed(-distance, markers, mask=mask)
