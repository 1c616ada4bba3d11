"""Trained weights into a model, without running code from the file and without leaving a part untrained."""

from __future__ import annotations

import pickle
from pathlib import Path

import torch
from torch import nn

from cellseg_d2.errors import CellSegError

CHECKPOINTS = ("model_best.pth", "model_final.pth")


def find_weights(config_file: str | Path) -> Path:
    """The best, else the final checkpoint beside a run's ``config.yaml``.

    Raises:
        CellSegError: there is neither.
    """
    folder = Path(config_file).parent
    for name in CHECKPOINTS:
        if (folder / name).is_file():
            return folder / name
    raise CellSegError(
        f"no weights are given and there is no {' or '.join(CHECKPOINTS)} beside {config_file}; give --weights FILE"
    )


def load_trained(model: nn.Module, path: str | Path) -> None:
    """Load a checkpoint that a trainer saved (``.pth``) into ``model``; every parameter must be in it.

    Raises:
        CellSegError: the file is missing or damaged, or is of another architecture.
    """
    path = Path(path)
    if not path.is_file():
        raise CellSegError(f"there is no weights file {str(path)!r}")
    try:
        checkpoint = torch.load(path, map_location="cpu", weights_only=True)
    except (pickle.UnpicklingError, RuntimeError, EOFError, OSError, ValueError) as error:
        first_line = str(error).splitlines()[0] if str(error) else type(error).__name__
        raise CellSegError(f"{path} is no readable PyTorch checkpoint of tensors: {first_line}") from error
    state = checkpoint.get("model", checkpoint) if isinstance(checkpoint, dict) else None
    if not isinstance(state, dict) or not all(isinstance(v, torch.Tensor) for v in state.values()):
        raise CellSegError(f"{path} holds no model: a checkpoint of tools/train_net.py is expected")
    current = model.state_dict()
    wrong = [name for name, value in state.items() if name in current and current[name].shape != value.shape]
    missing = [name for name in current if name not in state and not name.endswith("num_batches_tracked")]
    unexpected = [name for name in state if name not in current]
    if wrong or missing or unexpected:
        example = (wrong or missing or unexpected)[0]
        raise CellSegError(
            f"{path} does not fit the configuration ({len(wrong)} parameters of another shape, {len(missing)} missing, "
            f"{len(unexpected)} unknown, such as {example}); give the config.yaml of the run that the weights are from"
        )
    model.load_state_dict(state, strict=False)
