"""One simulated image of a culture, from a few cells to a sheet without gaps."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from scipy import ndimage

from cellseg_d2.errors import CellSegError
from cellseg_d2.masks.components import largest_component
from cellseg_d2.masks.crop import MaskCrop
from cellseg_d2.simulation.anatomy import Anatomy
from cellseg_d2.simulation.culture_kinds import CULTURE_TYPES, DIAMETERS, LAYOUTS, of_shapes
from cellseg_d2.simulation.dirt import add_bright_specks, add_dirt
from cellseg_d2.simulation.matter import Stain, add_dye, add_thickness
from cellseg_d2.simulation.microscopes import Microscope, field_of_view, form_picture
from cellseg_d2.simulation.scene import MARGIN, check_field

LEAST = 20  # smallest mask, in pixels


def simulate_culture(
    kind: str,
    rng: np.random.Generator,
    height: int = 520,
    width: int = 704,
    density: float = 1.0,
    scope: Microscope | None = None,
    shapes: Sequence[np.ndarray] | None = None,
) -> tuple[np.ndarray, list[MaskCrop]]:
    """Simulate an image of a culture with the masks of its cells.

    The image is a function of the arguments and of the state of ``rng`` alone.

    Args:
        kind: one of :data:`CULTURE_TYPES`; any name where ``shapes`` are given.
        rng: source of all randomness.
        height, width: size of the image in pixels, at least 64.
        density: share of the area that cells take relative to what is usual; 0 gives an image without cells.
        scope: what images of one well have in common; drawn from ``rng`` when None.
        shapes: masks of the cells to be laid out, bool, tight, one component each, at least one.

    Returns:
        The image, uint8 ``(height, width)``, and one tight mask per cell: one 8-connected component each. Masks
        overlap where cells lie over each other.

    Raises:
        CellSegError: unknown kind, image too small, or density negative.
    """
    if shapes is None and kind not in CULTURE_TYPES:
        raise CellSegError(f"the culture {kind!r} cannot be simulated; choose from {', '.join(CULTURE_TYPES)}")
    check_field(height, width, density)
    scope = Microscope.draw(rng) if scope is None else scope
    shape = (height + 2 * MARGIN, width + 2 * MARGIN)
    layers = []
    if shapes is None:
        low, high = DIAMETERS[kind]
        diameter = low * (high / low) ** rng.random() ** 1.4  # small cells rather than large ones
        layers = LAYOUTS[kind](rng, shape, diameter, density) if density > 0 else []
    elif density > 0:
        layers = of_shapes(rng, shape, shapes, density)
    thickness, dye = (np.zeros(shape, dtype=np.float32) for _ in range(2))
    stain = Stain(rng.uniform(0, 1), rng.uniform(0, 1) ** 2, rng.choice([0.0, 1.0]) * rng.uniform(0.2, 1))
    for layer in layers:
        anatomy = Anatomy(layer.labels, rng, rng.uniform(0.25, 0.5))
        if scope.modality == "fluorescence":
            add_dye(dye, anatomy, layer.build, stain, rng)
        else:
            add_thickness(thickness, anatomy, layer.build, rng, layer.bend)
    # Fields without cells teach what is not a cell.
    dirt = scope.dirt * (1 if layers else rng.uniform(1, 4))
    if scope.modality == "fluorescence":
        add_bright_specks(dye, rng, dirt)
    else:
        add_dirt(thickness, rng, dirt)
    cells = np.any([layer.labels > 0 for layer in layers], axis=0) if layers else None
    image = form_picture(thickness, dye, scope, rng, MARGIN, cells)
    seen = field_of_view((height, width), scope)
    return image, [mask for layer in layers for mask in _masks(layer.labels, seen)]


def _masks(labels: np.ndarray, seen: np.ndarray) -> list[MaskCrop]:
    """The parts of a layer's cells that are ``seen``, bool ``(H, W)`` without the margin."""
    inner = np.where(seen, labels[MARGIN:-MARGIN, MARGIN:-MARGIN], 0)
    masks = []
    for number, window in enumerate(ndimage.find_objects(inner), start=1):
        if window is None:
            continue
        part = largest_component(inner[window] == number)
        if np.count_nonzero(part) >= LEAST:
            masks.append(MaskCrop(window[0].start, window[1].start, part).tight())
    return masks
