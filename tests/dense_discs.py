"""Small networks with a dense branch, and drawn discs that they learn in seconds."""

from __future__ import annotations

from pathlib import Path

import torch
from detectron2.config import CfgNode
from detectron2.data.datasets import load_coco_json
from detectron2.utils.events import EventStorage
from torch import nn

from cellseg_d2.config import load_config
from cellseg_d2.data.dataset_mapper import CellDatasetMapper
from cellseg_d2.modeling.build import build_network
from tests.discs import write_disc_dataset

CONFIG = Path(__file__).resolve().parents[1] / "configs/quickstart/instant_test.yaml"


def disc_entries(folder: Path) -> list[dict]:
    """Dataset dicts of three images of discs, two classes; the last is without cells."""
    folder = write_disc_dataset(folder, images=3, size=96)
    entries = load_coco_json(str(folder / "instances_train.json"), str(folder / "images"))
    for annotation in (annotation for entry in entries for annotation in entry["annotations"]):
        annotation["category_id"] -= 1  # as of a registered data set, counted from 0
    return entries


def configuration(name: str, *opts: str) -> CfgNode:
    """Of the smallest network, with the meta architecture ``name``."""
    small = ["MODEL.DEVICE", "cpu", "MODEL.META_ARCHITECTURE", name, "MODEL.DENSE.CHANNELS", "32"]
    return load_config(CONFIG, [*small, *opts])


def batch(cfg: CfgNode, entries: list[dict]) -> list[dict]:
    """The training samples of the images as they are."""
    mapper = CellDatasetMapper(cfg, is_train=True)
    mapper.augmentations = type(mapper.augmentations)([])
    return [mapper(entry) for entry in entries]


def trained(
    cfg: CfgNode, samples: list[dict], steps: int, rate: float = 3e-3
) -> tuple[nn.Module, list[dict[str, float]]]:
    """A network after some steps on the same batch, in evaluation mode, and the losses before each step."""
    torch.manual_seed(0)
    network = build_network(cfg).train()
    optimizer = torch.optim.AdamW(network.parameters(), lr=rate)
    history = []
    with EventStorage():
        for _ in range(steps):
            losses = network(samples)
            optimizer.zero_grad()
            sum(losses.values()).backward()
            optimizer.step()
            history.append({key: loss.item() for key, loss in losses.items()})
    return network.eval(), history
