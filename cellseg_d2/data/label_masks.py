"""Training masks for Detectron2, stored in a few label images instead of one full-size mask per cell."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

import numpy as np
import torch
from detectron2.structures import Boxes

from cellseg_d2.masks.layers import LabelLayers

# Numbers that crop_and_resize holds at a time, in each of its few temporaries: bounds its memory to about 100 MB.
CHUNK_ELEMENTS = 4_000_000


class LabelMasks:
    """``N`` masks of one image; a field ``gt_masks`` for :class:`detectron2.structures.Instances`.

    Does what Detectron2 asks of :class:`~detectron2.structures.BitMasks`, at the cost of the label images. Indexing
    shares them: the masks of 512 sampled regions are 512 pairs of numbers.

    Attributes:
        layers: uint8 or int16 ``(L, H, W)``, labels, 0 for background.
        layer_of_mask: int64 ``(N,)``.
        label_of_mask: int64 ``(N,)``; mask ``i`` is ``layers[layer_of_mask[i]] == label_of_mask[i]``. A mask may be
            empty, and several may be the same.
        ignore: bool ``(H, W)``, where nobody annotated; None where all counts. It comes along wherever the masks go,
            which are the one field of an image's truth that knows its size.
    """

    def __init__(
        self,
        layers: torch.Tensor,
        layer_of_mask: torch.Tensor,
        label_of_mask: torch.Tensor,
        ignore: torch.Tensor | None = None,
    ):
        if layers.dim() != 3 or layer_of_mask.dim() != 1 or layer_of_mask.shape != label_of_mask.shape:
            shapes = [tuple(t.shape) for t in (layers, layer_of_mask, label_of_mask)]
            raise ValueError(f"LabelMasks needs layers (L, H, W) and two vectors (N,), not {shapes}")
        self.layers = layers
        self.layer_of_mask = layer_of_mask
        self.label_of_mask = label_of_mask
        self.ignore = ignore

    @classmethod
    def from_label_layers(cls, source: LabelLayers) -> LabelMasks:
        """The masks of all cells of ``source``, in its order, on the CPU; memory is shared where possible."""
        layers = source.layers if source.layers.dtype == np.uint8 else source.layers.view(np.int16)
        arrays = (layers, source.layer_of_cell, source.label_of_cell)
        return cls(*(torch.from_numpy(np.require(array, requirements=["C", "W"])) for array in arrays))

    def to_label_layers(self) -> LabelLayers:
        """The same masks as NumPy arrays; memory is shared where possible. No two of them may be the same."""
        layers = self.layers.cpu().numpy()
        layers = layers if layers.dtype == np.uint8 else layers.view(np.uint16)
        return LabelLayers(layers, self.layer_of_mask.cpu().numpy(), self.label_of_mask.cpu().numpy())

    @property
    def image_size(self) -> tuple[int, int]:
        """Height and width in pixels."""
        return self.layers.shape[1], self.layers.shape[2]

    @property
    def device(self) -> torch.device:
        return self.layers.device

    def to(self, device: torch.device | str | int, non_blocking: bool = False) -> LabelMasks:
        """The same masks on another device."""
        tensors = (self.layers, self.layer_of_mask, self.label_of_mask)
        ignore = None if self.ignore is None else self.ignore.to(device=device, non_blocking=non_blocking)
        return LabelMasks(*(tensor.to(device=device, non_blocking=non_blocking) for tensor in tensors), ignore)

    def __len__(self) -> int:
        return len(self.layer_of_mask)

    def __repr__(self) -> str:
        return f"LabelMasks(num_instances={len(self)}, layers={tuple(self.layers.shape)})"

    def __getitem__(self, item: int | slice | torch.Tensor | np.ndarray | Sequence[int]) -> LabelMasks:
        """Some of the masks, by number (then one mask), slice, bool ``(N,)`` or indices; the layers are shared."""
        if isinstance(item, np.ndarray):
            item = torch.from_numpy(item)
        layer, label = self.layer_of_mask[item], self.label_of_mask[item]
        return LabelMasks(self.layers, layer.reshape(-1), label.reshape(-1), self.ignore)

    def __iter__(self) -> Iterator[torch.Tensor]:
        """Full-size masks, bool ``(H, W)``, one at a time."""
        for layer, label in zip(self.layer_of_mask.tolist(), self.label_of_mask.tolist(), strict=True):
            yield self.layers[layer] == label

    @staticmethod
    def cat(masks: Sequence[LabelMasks]) -> LabelMasks:
        """One after another, of one image size. Layers that several of them share are kept once."""
        kept: list[torch.Tensor] = []
        # Of images with regions of their own there is none that would hold for all.
        ignores = {id(own.ignore) for own in masks}
        first_layer: dict[int, int] = {}  # where the layers of each tensor begin
        for own in masks:
            if id(own.layers) not in first_layer:
                first_layer[id(own.layers)] = sum(len(layers) for layers in kept)
                kept.append(own.layers)
        return LabelMasks(
            kept[0] if len(kept) == 1 else torch.cat(kept),  # uint8 and int16 become int16
            torch.cat([own.layer_of_mask + first_layer[id(own.layers)] for own in masks]),
            torch.cat([own.label_of_mask for own in masks]),
            masks[0].ignore if len(ignores) == 1 else None,
        )

    def areas(self) -> torch.Tensor:
        """Pixels of each mask, int64 ``(N,)``."""
        return self._measure()[0]

    def nonempty(self, threshold: int = 0) -> torch.Tensor:
        """Whether each mask has more than ``threshold`` pixels, bool ``(N,)``."""
        return self.areas() > threshold

    def get_bounding_boxes(self) -> Boxes:
        """Tight boxes, float32 ``(N, 4)`` as ``(x0, y0, x1, y1)``, the end exclusive; zeros for an empty mask."""
        return Boxes(self._measure()[1].to(torch.float32))

    def _measure(self) -> tuple[torch.Tensor, torch.Tensor]:
        """Areas int64 ``(N,)`` and boxes int64 ``(N, 4)``, from the horizontal runs of equal labels."""
        number, height, width = self.layers.shape
        # Where a run begins: at a change of label, and with every row.
        begins = torch.ones(self.layers.shape, dtype=torch.bool, device=self.device)
        begins[:, :, 1:] = self.layers[:, :, 1:] != self.layers[:, :, :-1]
        layer, y, x0 = begins.nonzero(as_tuple=True)
        starts = (layer * height + y) * width + x0
        lengths = torch.diff(starts, append=starts.new_tensor([number * height * width]))
        labels = torch.iinfo(self.layers.dtype).max + 1
        keys = layer * labels + self.layers[layer, y, x0]
        mine = self.layer_of_mask * labels + self.label_of_mask

        def reduce(values: torch.Tensor, how: str, initial: int) -> torch.Tensor:
            return keys.new_full((number * labels,), initial).scatter_reduce_(0, keys, values, how)[mine]

        areas = reduce(lengths, "sum", 0)
        boxes = [reduce(x0, "amin", width), reduce(y, "amin", height)]
        boxes += [reduce(x0 + lengths, "amax", 0), reduce(y + 1, "amax", 0)]
        return areas, torch.stack(boxes, dim=1) * (areas > 0)[:, None]

    @torch.no_grad()
    def crop_and_resize(self, boxes: torch.Tensor, mask_size: int) -> torch.Tensor:
        """Mask targets: each mask cut to its box and brought to ``mask_size`` × ``mask_size``.

        The same as :meth:`detectron2.structures.BitMasks.crop_and_resize`, which is ROIAlign (He et al. 2017) with
        ``aligned=True`` and an adaptive number of bilinear samples per bin, and a threshold at ½. Bilinear sampling
        and averaging both separate into rows and columns, so that a target is ``A_y · M · A_xᵀ`` with the small cut-out
        ``M`` of the mask, ``(h, w)``, and weights ``(mask_size, h)`` and ``(mask_size, w)``. No full-size mask is made.

        Args:
            boxes: ``(N, 4)`` as ``(x0, y0, x1, y1)`` in pixels, one for each mask.
            mask_size: side of the targets in pixels.

        Returns:
            bool ``(N, mask_size, mask_size)`` on the masks' device.
        """
        if len(boxes) != len(self):
            raise ValueError(f"{len(boxes)} boxes for {len(self)} masks")
        height, width = self.image_size
        boxes = boxes.to(device=self.device, dtype=torch.float32)
        x = _BinSamples(boxes[:, 0], boxes[:, 2], mask_size, width)
        y = _BinSamples(boxes[:, 1], boxes[:, 3], mask_size, height)
        samples = (x.per_bin * y.per_bin).clamp(min=1).to(torch.float64)
        targets = torch.empty((len(boxes), mask_size, mask_size), dtype=torch.bool, device=self.device)
        for some, rows, columns in _chunks(y.pixels, x.pixels, mask_size):
            weights_y, weights_x = y.weights(some, rows), x.weights(some, columns)
            layer, label = self.layer_of_mask[some], self.label_of_mask[some].to(self.layers.dtype)
            at_y = y.positions(some, rows).clamp(max=height - 1)[:, :, None]
            at_x = x.positions(some, columns).clamp(max=width - 1)[:, None, :]
            inside = self.layers[layer[:, None, None], at_y, at_x] == label[:, None, None]  # (n, rows, columns)
            sums = weights_y @ inside.to(torch.float64) @ weights_x.transpose(1, 2)  # (n, mask_size, mask_size)
            targets[some] = sums >= 0.5 * samples[some, None, None]
        return targets


class _BinSamples:
    """Where ROIAlign samples ``N`` regions along one axis of the image, and how its samples weigh the pixels.

    Coordinates are float32 and computed in ROIAlign's order, so that both round alike. Sums are float64: exact enough,
    and neither mixed precision nor TF32 touches it.

    Attributes:
        per_bin: number of samples in each bin, float32 ``(N,)`` with whole values.
        first, pixels: int64 ``(N,)``, the first pixel that a sample can touch, and how many there are from there on.
    """

    def __init__(self, low: torch.Tensor, high: torch.Tensor, bins: int, length: int):
        """
        Args:
            low, high: ends of the regions in continuous coordinates, float32 ``(N,)``.
            bins: number of bins that each region is divided into.
            length: length of the image along this axis in pixels.
        """
        self.bins, self.length = bins, length
        self.start = low - 0.5  # the centre of pixel 0 is at 0.5
        end = high - 0.5
        self.bin = (end - self.start) / bins
        self.per_bin = self.bin.ceil().clamp(min=0)
        self.first = self.start.floor().clamp(0, length - 1).to(torch.int64)
        self.pixels = (end.ceil().clamp(0, length - 1).to(torch.int64) - self.first + 1).clamp(min=1)

    def positions(self, some: torch.Tensor, pixels: int) -> torch.Tensor:
        """Pixels ``(n, pixels)`` of the regions ``some`` ``(n,)``, counted on beyond what they need."""
        return self.first[some, None] + torch.arange(pixels, device=some.device)

    def weights(self, some: torch.Tensor, pixels: int) -> torch.Tensor:
        """Sum of the bilinear weights of each bin's samples at each pixel, float64 ``(n, bins, pixels)``."""
        bin_number = torch.arange(self.bins, device=some.device)
        start, size, per_bin, first = (
            values[some, None] for values in (self.start, self.bin, self.per_bin, self.first)
        )
        weights = torch.zeros((len(some), self.bins, pixels), dtype=torch.float64, device=some.device)
        for sample in range(int(per_bin.max())):
            point = start + bin_number * size + (sample + 0.5) * size / per_bin.clamp(min=1)  # (n, bins)
            used = (sample < per_bin) & (point >= -1) & (point <= self.length)
            # A point beside the image takes the value of the border, up to one pixel away.
            point = point.clamp(0, self.length - 1)
            before = point.floor()
            share = (point - before).to(torch.float64)  # of the pixel after
            place = before.to(torch.int64) - first
            for weight, pixel in ((1 - share, place), (share, place + 1)):
                # Where a point is not used or lies on the last pixel, the weight is 0 and the place may be any.
                weights.scatter_add_(2, pixel.clamp(0, pixels - 1)[:, :, None], (weight * used)[:, :, None])
        return weights


def _chunks(rows: torch.Tensor, columns: torch.Tensor, bins: int) -> Iterator[tuple[torch.Tensor, int, int]]:
    """Group regions of like size, so that little is padded and a group stays within ``CHUNK_ELEMENTS``.

    Args:
        rows, columns: pixels of each region, int64 ``(N,)``.
        bins: along each side of a region.

    Yields:
        Indices of some regions, int64 ``(n,)``, and the rows and columns that are enough for all of them.
    """
    sizes = torch.stack([rows, columns], dim=1).cpu().numpy()
    order = np.argsort(sizes.max(axis=1), kind="stable")
    begin = 0
    while begin < len(order):
        largest = sizes[order[begin:]]
        largest = np.maximum.accumulate(largest, axis=0)
        elements = np.arange(1, len(largest) + 1) * np.maximum(largest.max(axis=1), bins) ** 2
        fits = (elements <= CHUNK_ELEMENTS) & (largest.max(axis=1) <= 1.5 * largest[0].max() + 8)
        number = max(int(fits.argmin()) if not fits.all() else len(fits), 1)
        some = torch.from_numpy(order[begin : begin + number]).to(rows.device)
        yield some, int(largest[number - 1, 0]), int(largest[number - 1, 1])
        begin += number
