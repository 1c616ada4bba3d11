"""Train a space of shapes on one processor core, in minutes."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import torch

from cellseg_d2.errors import CellSegError
from cellseg_d2.io.progress import track
from cellseg_d2.shape_space.cells import CellTable
from cellseg_d2.shape_space.space import (
    MAX_REFERENCES,
    References,
    ShapeSpace,
    Usual,
    check_settings,
    join,
    place_pictures,
)
from cellseg_d2.shape_space.vae import ShapeVAE

LEAST_CELLS = 64


@dataclass(frozen=True)
class Settings:
    """How a space is trained.

    Attributes:
        latent: number of dimensions.
        size: side of the normalised pictures.
        width: channels of the first convolution.
        steps: number of batches.
        batch: pictures in each.
        rate: highest learning rate, which is reached after a third of the steps and then falls to 0.
        max_cells: largest number of cells; of more, this many are drawn.
        seed: seed of all random numbers: the same seed gives the same space on the same machine.
    """

    latent: int = 2
    size: int = 32
    width: int = 8
    steps: int = 3000
    batch: int = 128
    rate: float = 2e-3
    max_cells: int = 50_000
    seed: int = 0


def train_space(cells: CellTable, settings: Settings | None = None, progress: bool = False) -> ShapeSpace:
    """Learn a space of shapes from masks.

    Cells that their image's border cuts are left out: their straight edges are not their own.

    Raises:
        CellSegError: a setting makes no sense, or too few cells are whole.
    """
    settings = settings or Settings()
    check_settings(settings.size, settings.latent, settings.width)
    rng = np.random.default_rng(settings.seed)
    whole = np.flatnonzero(~cells.cut)
    if len(whole) < LEAST_CELLS:
        raise CellSegError(
            f"only {len(whole)} of {len(cells)} cells lie whole inside their images; a space of shapes needs "
            f"{LEAST_CELLS}"
        )
    if len(whole) > settings.max_cells:
        whole = np.sort(rng.choice(whole, settings.max_cells, replace=False))
    cells = cells.select(whole)
    pictures, scales = cells.pictures(settings.size, progress)
    network = _fit(pictures, settings, progress)
    parts = range(0, len(pictures), 512)
    placed = join([place_pictures(network, pictures[i : i + 512], scales[i : i + 512]) for i in parts], settings.latent)
    names = sorted(set(cells.types))
    kept = np.sort(rng.choice(len(cells), min(len(cells), MAX_REFERENCES), replace=False))
    types = np.array([names.index(name) for name in cells.types])
    references = References(placed.latents[kept], placed.scales[kept], types[kept])
    return ShapeSpace(network, names, references, Usual.of(placed.scales, placed.improbabilities))


def _fit(pictures: np.ndarray, settings: Settings, progress: bool) -> ShapeVAE:
    source = torch.Generator().manual_seed(settings.seed)
    with torch.random.fork_rng(devices=[]):  # the layers are initialised by the global source
        torch.manual_seed(settings.seed)
        network = ShapeVAE(settings.size, settings.latent, settings.width)
    data = torch.from_numpy(pictures)
    optimizer = torch.optim.AdamW(network.parameters(), settings.rate, weight_decay=1e-4)
    schedule = torch.optim.lr_scheduler.OneCycleLR(optimizer, settings.rate, total_steps=settings.steps)
    waiting = torch.zeros(0, dtype=torch.int64)
    with track(range(settings.steps), "training", "step", shown=progress) as bar:
        for step in bar:
            while len(waiting) < settings.batch:
                waiting = torch.cat([waiting, torch.randperm(len(data), generator=source)])
            chosen, waiting = waiting[: settings.batch], waiting[settings.batch :]
            noise = torch.randn(len(chosen), settings.latent, generator=source)
            misfits, divergences = network(data[chosen], noise)
            loss = (misfits + divergences).mean()
            optimizer.zero_grad()
            loss.backward()
            optimizer.step()
            schedule.step()
            if step % 50 == 0:
                bar.set_postfix(misfit=f"{misfits.mean():.1f}", divergence=f"{divergences.mean():.1f}")
    return network
