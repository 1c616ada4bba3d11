"""A trained space of shapes: place masks in it, judge their plausibility, and draw new masks from it."""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import safetensors
import torch
from safetensors.torch import save
from scipy.spatial import KDTree
from scipy.stats import norm

from cellseg_d2.errors import CellSegError, first_line
from cellseg_d2.io.atomic import atomic_path
from cellseg_d2.io.text import check_form
from cellseg_d2.masks.components import largest_component
from cellseg_d2.masks.crop import MaskCrop
from cellseg_d2.masks.normalize import Pose, draw_normalized, normalize_shape
from cellseg_d2.shape_space.vae import ShapeVAE, divergence, misfit
from cellseg_d2.weights.weight_files import read_weight_file

FORMAT = "cellseg-d2 shape space 1"
SIZES = (32, 48, 64)
# Number of training cells that are kept with a space, for the map and for drawing new cells.
MAX_REFERENCES = 4000
_BATCH = 256
_NEAREST = 6  # cells, with itself, between which new ones are drawn
_ABOUT, _NETWORK, _REFERENCE = "cellseg_d2", "network.", "reference."


@dataclass(frozen=True, eq=False)
class Placed:
    """Masks in a space of shapes.

    Attributes:
        latents: float32 ``(N, D)``, the mean position of each.
        scales: float32 ``(N,)``, pixels of the image per cell of the normalised grid.
        misfits: float32 ``(N,)``, distance between the mask and the decoded picture at its position, in nats.
        improbabilities: float32 ``(N,)``, ``misfits`` plus the divergence of the position: the negative evidence lower
            bound.
    """

    latents: np.ndarray
    scales: np.ndarray
    misfits: np.ndarray
    improbabilities: np.ndarray

    def __len__(self) -> int:
        return len(self.scales)


@dataclass(frozen=True, eq=False)
class Usual:
    """The improbabilities that are usual for cells of a size.

    Small cells are drawn in few pixels, large ones in detail, so that each is compared with those of its size: the
    logarithms follow about a normal distribution, whose mean and deviation change with the size.

    Attributes:
        sizes: float32 ``(B,)``, ascending logarithms of scales.
        means, deviations: float32 ``(B,)`` of the logarithms of the improbabilities of such cells.
    """

    sizes: np.ndarray
    means: np.ndarray
    deviations: np.ndarray

    @classmethod
    def of(cls, scales: np.ndarray, improbabilities: np.ndarray, bins: int = 16, least: int = 50) -> Usual:
        """Of cells' scales and improbabilities, ``(N,)``, in bins of equal counts, ``least`` at least."""
        order = np.argsort(scales, kind="stable")
        parts = np.array_split(order, max(1, min(bins, len(order) // least)))
        sizes, values = np.log(scales), np.log(improbabilities)
        rows = [(sizes[part].mean(), values[part].mean(), max(float(values[part].std()), 1e-3)) for part in parts]
        return cls(*np.array(rows, dtype=np.float32).T)

    def surprise(self, placed: Placed) -> np.ndarray:
        """By how many standard deviations cells are less probable than is usual for their size, float64 ``(N,)``."""
        sizes, values = np.log(placed.scales), np.log(placed.improbabilities)
        return (values - np.interp(sizes, self.sizes, self.means)) / np.interp(sizes, self.sizes, self.deviations)

    def plausibility(self, placed: Placed) -> np.ndarray:
        """About the share of the space's own cells of like size that are less probable, float64 ``(N,)``."""
        return norm.sf(self.surprise(placed))


@dataclass(frozen=True, eq=False)
class References:
    """Cells of those that a space was learnt from.

    Attributes:
        latents: float32 ``(K, D)``.
        scales: float32 ``(K,)``.
        types: int64 ``(K,)``, index of the type's name.
    """

    latents: np.ndarray
    scales: np.ndarray
    types: np.ndarray


class ShapeSpace:
    """A space of shapes of a data set.

    Args:
        network: the trained network.
        type_names: types of the cells that it was trained on.
        references: some of these cells.
        usual: the usual improbabilities of these cells.

    Example:
        >>> space = ShapeSpace.load("shapes.safetensors")  # doctest: +SKIP
        >>> space.plausibilities([crop.mask for crop in segmentation.crops])  # doctest: +SKIP
        array([0.83, 0.41, 0.00, …])
    """

    def __init__(self, network: ShapeVAE, type_names: Sequence[str], references: References, usual: Usual):
        self.network = network.eval().requires_grad_(False)
        self.type_names = list(type_names)
        self.references = references
        self.usual = usual

    @property
    def size(self) -> int:
        """Side of the normalised grid."""
        return self.network.size

    @property
    def latent(self) -> int:
        """Number of dimensions."""
        return self.network.latent

    def place(self, masks: Sequence[np.ndarray]) -> Placed:
        """Find where masks lie.

        Args:
            masks: ``N`` bool arrays, none without a pixel.
        """
        parts = []
        for start in range(0, len(masks), _BATCH):
            shapes = [normalize_shape(mask, self.size) for mask in masks[start : start + _BATCH]]
            pictures = np.stack([grid for grid, _ in shapes])
            parts.append(place_pictures(self.network, pictures, np.array([pose.scale for _, pose in shapes])))
        return join(parts, self.latent)

    def surprises(self, masks: Sequence[np.ndarray]) -> np.ndarray:
        """By how many standard deviations masks are less probable than is usual for their size, float64 ``(N,)``."""
        return self.usual.surprise(self.place(masks))

    def plausibilities(self, masks: Sequence[np.ndarray]) -> np.ndarray:
        """About the share of the space's own cells of a mask's size that are less plausible, float64 ``(N,)``."""
        return self.usual.plausibility(self.place(masks))

    def pictures(self, latents: np.ndarray) -> np.ndarray:
        """The shapes at ``latents`` ``(N, D)``: float32 ``(N, S, S)``, how probable it is that a place is inside."""
        parts = [np.zeros((0, self.size, self.size), dtype=np.float32)]
        with torch.inference_mode():
            for start in range(0, len(latents), _BATCH):
                part = torch.from_numpy(np.asarray(latents[start : start + _BATCH], dtype=np.float32))
                parts.append(self.network.decode(part).sigmoid().numpy())
        return np.concatenate(parts)

    def draw(self, rng: np.random.Generator, count: int, cell_type: str | None = None) -> list[np.ndarray]:
        """New masks like the cells that the space was learnt from, of their sizes, turned at random.

        A mask lies between a cell and one of the nearest to it, so that each type keeps its own region, and has that
        cell's size.

        Args:
            rng: source of all randomness.
            count: how many.
            cell_type: one of ``type_names``; None for all.

        Returns:
            Tight bool masks of one piece each, none without a pixel.

        Raises:
            CellSegError: there is no cell of this type.
        """
        kept = self.references
        own = np.arange(len(kept.types))
        if cell_type is not None:
            index = self.type_names.index(cell_type) if cell_type in self.type_names else -1
            own = np.flatnonzero(kept.types == index)
        if len(own) == 0:
            raise CellSegError(
                f"this space of shapes has no cells of type {cell_type!r}; it has {', '.join(self.type_names)}"
            )
        latents, scales = kept.latents[own], kept.scales[own]
        near = KDTree(latents).query(latents, k=min(_NEAREST, len(own)))[1].reshape(len(own), -1)
        masks: list[np.ndarray] = []
        while len(masks) < count:
            first = rng.integers(len(own), size=min(count - len(masks), _BATCH))
            second = near[first, rng.integers(near.shape[1], size=len(first))]
            share = rng.random(len(first))
            places = latents[first] + share[:, None] * (latents[second] - latents[first])
            for picture, scale in zip(self.pictures(places), scales[first].tolist(), strict=True):
                # A place where nothing is inside would be asked again and again; its most likely pixel is a cell's.
                picture[np.unravel_index(picture.argmax(), picture.shape)] = 1
                signs = rng.choice((-1, 1), 2).tolist()
                drawn = draw_normalized(picture, Pose(scale, rng.uniform(-np.pi, np.pi), (signs[0], signs[1])))
                if drawn.any():
                    masks.append(MaskCrop.from_full(largest_component(drawn)).mask)
        return masks

    def save(self, path: str | Path) -> None:
        """Write the space to a ``.safetensors``, which cannot run code, with the network in half precision."""
        tensors = {_NETWORK + name: value.half() for name, value in self.network.state_dict().items()}
        kept = {
            "latents": self.references.latents,
            "scales": self.references.scales,
            "types": self.references.types.astype(np.int32),
            "usual": np.stack([self.usual.sizes, self.usual.means, self.usual.deviations]),
        }
        tensors |= {_REFERENCE + name: torch.from_numpy(value) for name, value in kept.items()}
        about = {"format": FORMAT, "size": self.size, "latent": self.latent, "width": self.network.width}
        # One entry: safetensors writes several in any order.
        metadata = {_ABOUT: json.dumps(about | {"types": self.type_names})}
        with atomic_path(path) as temporary:
            temporary.write_bytes(save({name: value.contiguous() for name, value in tensors.items()}, metadata))

    @classmethod
    def load(cls, path: str | Path) -> ShapeSpace:
        """Read what :meth:`save` wrote. Nothing in it is executed.

        Raises:
            CellSegError: it is missing, damaged, or something else.
        """
        tensors = read_weight_file(path).weights
        try:
            with safetensors.safe_open(path, "pt") as file:
                about = json.loads((file.metadata() or {}).get(_ABOUT, "{}"))
            check_form(about, _FORM, path)
            if about.get("format") != FORMAT:
                raise ValueError(f"its format is {about.get('format')!r}, not {FORMAT!r}")
            check_settings(about["size"], about["latent"], about["width"])
            network = ShapeVAE(about["size"], about["latent"], about["width"])
            network.load_state_dict({name: value.float() for name, value in _part(tensors, _NETWORK).items()})
            kept = {name: value.numpy() for name, value in _part(tensors, _REFERENCE).items()}
            references = References(kept["latents"], kept["scales"], kept["types"].astype(np.int64))
            usual = Usual(*kept["usual"])
            _check_values(references, usual, about)
        except (CellSegError, MemoryError):
            raise
        except Exception as error:  # safetensors, JSON and PyTorch raise almost anything for files of another kind
            raise CellSegError(
                f"{path} is not a space of shapes as cellseg-d2 shape-space train writes it ({first_line(error)})"
            ) from None
        return cls(network, about["types"], references, usual)


_FORM = {"format": str, "size": int, "latent": int, "width": int, "types": [str]}


def _part(tensors: dict[str, torch.Tensor], prefix: str) -> dict[str, torch.Tensor]:
    return {name.removeprefix(prefix): value for name, value in tensors.items() if name.startswith(prefix)}


def _check_values(references: References, usual: Usual, about: dict) -> None:
    """Refuse numbers that no cells have; that they are finite has been checked."""
    count = len(references.types)
    if references.latents.shape != (count, about["latent"]) or references.scales.shape != (count,) or not count:
        raise ValueError("its arrays do not fit each other")
    if references.types.min() < 0 or references.types.max() >= len(about["types"]):
        raise ValueError("it has cells of types without names")
    if references.scales.min() <= 0 or not len(usual.sizes) or usual.deviations.min() <= 0:
        raise ValueError("it has cells without a size")


def check_settings(size: int, latent: int, width: int) -> None:
    """Refuse settings that make no network, or one that is too large for its purpose.

    Raises:
        CellSegError: names the setting.
    """
    if size not in SIZES:
        raise CellSegError(f"the grid's size must be one of {', '.join(map(str, SIZES))}, not {size}")
    for name, value, least, most in (("number of latent dimensions", latent, 2, 64), ("network's width", width, 4, 64)):
        if not least <= value <= most:
            raise CellSegError(f"the {name} must be {least} to {most}, not {value}")


def place_pictures(network: ShapeVAE, pictures: np.ndarray, scales: np.ndarray) -> Placed:
    """Place normalised pictures, float32 ``(N, S, S)``, in a network's space."""
    with torch.inference_mode():
        own = torch.from_numpy(pictures)
        mean, log_variance = network.encode(own)
        misfits = misfit(network.decode(mean), own)
        improbabilities = misfits + divergence(mean, log_variance)
    # Nothing is quite certain, which keeps the logarithm finite.
    values = (misfits.numpy(), np.maximum(improbabilities.numpy(), 1e-3))
    return Placed(mean.numpy(), scales.astype(np.float32), *values)


def join(parts: Sequence[Placed], latent: int) -> Placed:
    """Concatenate several; ``latent`` is the number of dimensions."""
    nothing = np.zeros(0, dtype=np.float32)
    parts = [Placed(np.zeros((0, latent), dtype=np.float32), nothing, nothing, nothing), *parts]
    return Placed(*(np.concatenate([getattr(part, name) for part in parts]) for name in Placed.__dataclass_fields__))
