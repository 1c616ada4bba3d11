"""Drawn cells of two types, and their table, as for a space of shapes."""

from __future__ import annotations

import cv2
import numpy as np
import torch

from cellseg_d2.masks.crop import MaskCrop
from cellseg_d2.shape_space.cells import CellTable
from cellseg_d2.shape_space.space import References, ShapeSpace, Usual
from cellseg_d2.shape_space.vae import ShapeVAE


def ellipse(rng: np.random.Generator) -> np.ndarray:
    """A filled ellipse of any direction, 16 to 80 pixels long."""
    half = rng.uniform(8, 40)
    side, axes = int(2 * half + 5), (2 * half, 2 * half * rng.uniform(0.3, 1))
    canvas = np.zeros((side, side), np.uint8)
    middle = (side - 1) / 2
    cv2.ellipse(canvas, ((middle, middle), axes, rng.uniform(0, 180)), 1, -1)
    return MaskCrop.from_full(canvas).mask


def with_line(rng: np.random.Generator) -> np.ndarray:
    """An ellipse with a line artefact: its lowest row of pixels reaches beyond it on both sides."""
    mask = np.pad(ellipse(rng), 8)
    mask[-9] = True
    return MaskCrop.from_full(mask).mask


def bar(rng: np.random.Generator) -> np.ndarray:
    """A long, thin rectangle along x or y."""
    mask = np.ones((int(rng.integers(3, 6)), int(rng.integers(40, 80))), bool)
    return mask if rng.random() < 0.5 else np.ascontiguousarray(mask.T)


def table(masks: dict[str, list[np.ndarray]], cut: bool = False) -> CellTable:
    """A table of masks by type, as of one image of 500 pixels' height."""
    crops = [MaskCrop(10, 10, mask) for own in masks.values() for mask in own]
    types = [name for name, own in masks.items() for _ in own]
    count = len(crops)
    return CellTable(
        ["image"] * count, list(range(1, count + 1)), types, crops, np.full(count, 500), np.full(count, cut)
    )


def untrained_space() -> ShapeSpace:
    """A space of three dimensions with random weights, for what does not depend on what it has learnt."""
    with torch.random.fork_rng():
        torch.manual_seed(0)
        network = ShapeVAE(32, 3, 8)
    latents = np.random.default_rng(0).normal(size=(50, 3)).astype(np.float32)
    references = References(latents, np.ones(50, np.float32), np.zeros(50, np.int64))
    usual = Usual(*np.array([[0.0], [5.0], [1.0]], dtype=np.float32))
    return ShapeSpace(network, ["cell"], references, usual)
