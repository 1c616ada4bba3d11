"""Load trained weights into a model without running code from the file and without leaving a part untrained."""

from __future__ import annotations

from pathlib import Path

from torch import nn

from cellseg_d2.config import find_config
from cellseg_d2.errors import CellSegError
from cellseg_d2.weights.weight_files import read_weight_file

CHECKPOINTS = ("model_best.pth", "model_final.pth", "model.safetensors")


def find_weights(config_file: str | Path) -> Path:
    """The best, else the final checkpoint beside a run's ``config.yaml``.

    Args:
        config_file: see :func:`cellseg_d2.config.find_config`.

    Raises:
        CellSegError: there is neither, or no such configuration.
    """
    folder = find_config(config_file).parent
    for name in CHECKPOINTS:
        if (folder / name).is_file():
            return folder / name
    raise CellSegError(
        f"no weights are given and there is no {' or '.join(CHECKPOINTS)} beside {config_file}; give --weights FILE"
    )


def load_trained(model: nn.Module, path: str | Path) -> None:
    """Load what :func:`read_weight_file` reads into ``model``; every parameter must be in it. Half precision widens.

    Others must not be in it, but for names that begin as one of the model's ``ignored_weights``, where it has such.

    Raises:
        CellSegError: the file is missing or damaged, or is of another architecture.
    """
    state = read_weight_file(path).weights
    current = model.state_dict()
    wrong = [name for name, value in state.items() if name in current and current[name].shape != value.shape]
    missing = [name for name in current if name not in state and not name.endswith("num_batches_tracked")]
    ignored = getattr(model, "ignored_weights", ())
    unexpected = [name for name in state if name not in current and not name.startswith(ignored)]
    if wrong or missing or unexpected:
        example = (wrong or missing or unexpected)[0]
        raise CellSegError(
            f"{path} does not fit the configuration ({len(wrong)} parameters of another shape, {len(missing)} missing, "
            f"{len(unexpected)} unknown, such as {example}); give the config.yaml of the run that the weights are from"
        )
    model.load_state_dict(state, strict=False)
