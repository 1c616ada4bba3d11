"""Simulate one image: place cells, draw them with everything between them, and render them as a microscope does."""

from __future__ import annotations

import cv2
import numpy as np

from cellseg_d2.errors import CellSegError
from cellseg_d2.masks.components import largest_component
from cellseg_d2.masks.crop import MaskCrop
from cellseg_d2.masks.overlaps import window_crop
from cellseg_d2.simulation import clutter
from cellseg_d2.simulation.layout import CROWDS, REFERENCE_PIXELS, PlacedCell, place_cells
from cellseg_d2.simulation.optics import Appearance, band_noise, form_image
from cellseg_d2.simulation.shapes import CELL_TYPES

MARGIN = 24  # pixels simulated beyond each side, so that cells are cut by the border as in a real field
SMALLEST_SIDE = 64
# Such an image takes a minute and 5 GB.
LARGEST_SIDE = 10_000


def simulate_image(
    cell_type: str,
    rng: np.random.Generator,
    height: int = 520,
    width: int = 704,
    density: float = 1.0,
    appearance: Appearance | None = None,
    dead_cells: float = 0.0,
) -> tuple[np.ndarray, list[MaskCrop]]:
    """Simulate a phase-contrast image of a neuronal culture with the masks of its cells.

    The image is a function of the arguments and of the state of ``rng`` alone.

    Args:
        cell_type: ``"shsy5y"``, ``"astro"`` or ``"cort"``.
        rng: source of all randomness.
        height, width: size of the image in pixels, at least 64.
        density: number of cells (and of debris) relative to what is usual; 0 gives an image without cells.
        appearance: what images of one well have in common; drawn from ``rng`` when None.
        dead_cells: mean number of floating dead cells in 520 × 704 pixels, beside what is usual, and half as many dark
            clumps of debris. They are not annotated.

    Returns:
        The image, uint8 ``(height, width)``, and one tight mask per cell: one 8-connected component each, together
        overlapping about as much as the competition's annotations do.

    Raises:
        CellSegError: unknown cell type, image too small, or density or dead cells negative.

    Example:
        >>> image, masks = simulate_image("cort", np.random.default_rng(0), height=128, width=160)
        >>> image.shape, image.dtype.name
        ((128, 160), 'uint8')
    """
    if cell_type not in CELL_TYPES:
        raise CellSegError(f"the cell type {cell_type!r} cannot be simulated; choose from {', '.join(CELL_TYPES)}")
    check_field(height, width, density)
    if not 0 <= dead_cells < np.inf:
        raise CellSegError(f"{dead_cells} dead cells per field make no sense; take 0 or more")
    look = Appearance.draw(rng) if appearance is None else appearance
    shape = (height + 2 * MARGIN, width + 2 * MARGIN)
    scale = density * shape[0] * shape[1] / REFERENCE_PIXELS
    cells = place_cells(cell_type, rng, *shape, count=_draw_count(cell_type, rng, look, scale))
    bodies, neurites = np.zeros(shape, dtype=np.float32), np.zeros(shape, dtype=np.float32)
    _draw_bodies(cell_type, rng, cells, bodies)
    _draw_neurites(cell_type, rng, look, scale, cells, neurites)
    # A neurite is a part of the cell that it leaves, so that their thicknesses do not add up there.
    thickness = np.maximum(bodies, neurites) + 0.3 * np.minimum(bodies, neurites)
    _draw_debris(cell_type, rng, look.debris, cells, thickness, scale)
    if dead_cells:
        count = dead_cells * shape[0] * shape[1] / REFERENCE_PIXELS
        clumps = clutter.scatter(rng, shape, count / 2)
        clutter.draw_clumps(thickness, rng, clumps, grains=rng.uniform(3, 8), level=rng.uniform(60, 200))
        clutter.draw_floating_cells(thickness, rng, count)
    image = form_image(thickness, look, rng, MARGIN)
    return image, _visible_masks(cells, height, width, CROWDS[cell_type].least)


def check_field(height: int, width: int, density: float) -> None:
    """Refuse an image of which nothing sensible can be simulated."""
    if not SMALLEST_SIDE <= min(height, width) <= max(height, width) <= LARGEST_SIDE:
        raise CellSegError(
            f"images of {width} × {height} pixels cannot be simulated; take {SMALLEST_SIDE} to {LARGEST_SIDE} each way"
        )
    if not 0 <= density < np.inf:
        raise CellSegError(f"the density {density} makes no sense; take 0 or more, where 1 is usual")


def _draw_count(cell_type: str, rng: np.random.Generator, look: Appearance, scale: float) -> int:
    crowd = CROWDS[cell_type]
    # The spread has two parts: wells differ (look.crowding, a third), and so do the fields of a well.
    within = np.sqrt(max(crowd.spread**2 - 1 / 9, 0.02))
    count = crowd.count * look.crowding * rng.gamma(within**-2, within**2)
    return round(min(count, crowd.most) * scale)


def _draw_bodies(cell_type: str, rng: np.random.Generator, cells: list[PlacedCell], thickness: np.ndarray) -> None:
    """Add the cells' bodies: domes with a granular texture."""
    height, grain = {"shsy5y": (52, 10), "astro": (48, 10), "cort": (62, 15)}[cell_type]
    texture = 0.6 * band_noise(rng, thickness.shape, 0.6, 1.5) + 0.8 * band_noise(rng, thickness.shape, 1.2, 4.0)
    # Grains are dark spots rather than bright ones.
    texture += 0.15 * (texture**2 - 1)
    for cell in cells:
        mask = cell.shape.mask
        depth = cv2.distanceTransform(np.pad(mask, 1).astype(np.uint8), cv2.DIST_L2, 5)[1:-1, 1:-1]
        # Annotators draw around the halo: the body begins more than a pixel inside the mask.
        depth = np.maximum(depth - 1.5, 0)
        strength, roughness = rng.gamma(12, 1 / 12), rng.gamma(5, 1 / 5)
        if cell.shape.flat:
            strength, roughness = 0.32 * strength, 0.4 * roughness
        # A steep edge with a ridge, as of a membrane seen from above, and a slow rise to the thickest place.
        dome = 0.45 * np.minimum(depth / 1.1, 1) + 0.075 * np.minimum(depth, 8)
        dome += 0.25 * np.minimum(depth, 1) * np.exp(-(((depth - 1.2) / 0.9) ** 2))
        window = cell.crop.slices
        thickness[window] += strength * height * dome + roughness * grain * np.minimum(depth / 2, 1) * texture[window]


def _draw_neurites(
    cell_type: str, rng: np.random.Generator, look: Appearance, scale: float, cells: list[PlacedCell], field: np.ndarray
) -> None:
    """Add the neurites: from the corners of shsy5y cells, all around cort cells and between them; astro has none."""
    tips = np.concatenate([np.zeros((0, 3)), *[c.shape.tips + np.array([c.left, c.top, 0]) for c in cells]])
    if cell_type == "shsy5y":
        tips = tips[rng.random(len(tips)) < 0.75 * look.neurites]
        clutter.grow_neurites(field, rng, tips, length=34, level=15, stem=2)
    elif cell_type == "cort":
        fans = np.repeat(_centers(cells), rng.poisson(13 * look.neurites, len(cells)), axis=0)[:, ::-1]
        turn = rng.uniform(0, 2 * np.pi, len(fans))
        fans = np.column_stack([fans + 10 * np.stack([np.cos(turn), np.sin(turn)], axis=1), turn])
        clutter.grow_neurites(field, rng, fans, length=45, level=16, stem=1)
        clutter.grow_neurites(field, rng, tips, length=65, level=15, stem=2)
        stray = clutter.scatter(rng, field.shape, 450 * look.neurites * scale)[:, ::-1]
        stray = np.column_stack([stray, rng.uniform(0, 2 * np.pi, len(stray))])
        clutter.grow_neurites(field, rng, stray, length=60, level=12, stem=1)


def _draw_debris(
    cell_type: str,
    rng: np.random.Generator,
    amount: float,
    cells: list[PlacedCell],
    thickness: np.ndarray,
    scale: float,
) -> None:
    """Add dust, dead cells and clumps of grains; ``amount`` is relative to the mean."""
    everywhere = amount * scale
    clutter.draw_dust(thickness, rng, 130 * everywhere)
    clutter.draw_out_of_focus(thickness, rng, 2 * everywhere)
    dead = clutter.scatter(rng, thickness.shape, 8 * everywhere)
    if cell_type == "cort":
        beads = clutter.scatter(rng, thickness.shape, 130 * everywhere)
        clutter.draw_grains(thickness, rng, beads, rng.gamma(5, 26, len(beads)), radii=(1.6, 3.2), rim=0.65)
        clumps = clutter.scatter(rng, thickness.shape, 14 * everywhere)
        clutter.draw_clumps(thickness, rng, clumps, grains=3, level=90)
        clutter.draw_dead_cells(thickness, rng, dead, level=90)
        return
    # Here debris sticks to the cells.
    centers = _centers(cells)
    centers = centers[rng.random(len(cells)) < (0.14 if cell_type == "shsy5y" else 0.08) * amount]
    centers = centers + rng.normal(0, 6, centers.shape)
    clutter.draw_clumps(thickness, rng, centers, grains=7 if cell_type == "shsy5y" else 4, level=60)
    clutter.draw_dead_cells(thickness, rng, dead, level=60)


def _centers(cells: list[PlacedCell]) -> np.ndarray:
    """The middles of the cells' crops ``(n, 2)`` as ``y, x``."""
    boxes = np.array([cell.crop.box for cell in cells], dtype=float).reshape(-1, 4)
    return (boxes[:, :2] + boxes[:, 2:])[:, ::-1] / 2


def _visible_masks(cells: list[PlacedCell], height: int, width: int, least: int) -> list[MaskCrop]:
    """The parts of the cells inside the image, from the canvas's coordinates to the image's."""
    masks = []
    for cell in cells:
        crop = window_crop(cell.crop, (MARGIN, MARGIN, MARGIN + width, MARGIN + height))
        if crop.mask.size:
            part = largest_component(crop.mask)
            if np.count_nonzero(part) >= least:
                masks.append(MaskCrop(crop.top, crop.left, part).tight())
    return masks
