"""Package models for sharing: a folder with a short configuration and weights that cannot run code.

The project's own are in ``cellseg_d2/models``. Wherever weights are named, ``cellseg://NAME/model.safetensors`` stands
for theirs, as ``detectron2://`` does for those of Detectron2's model zoo.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import yaml
from detectron2.config import CfgNode
from detectron2.utils.file_io import PathHandler, PathManager
from safetensors.torch import save

from cellseg_d2.config import changed_settings, class_names
from cellseg_d2.errors import CellSegError
from cellseg_d2.io.atomic import atomic_path, atomic_set, write_text_atomic
from cellseg_d2.io.settings import plain
from cellseg_d2.postprocess.params import FILE_NAME as POSTPROCESS
from cellseg_d2.postprocess.params import PostprocessParams
from cellseg_d2.weights.mean import mean_weights
from cellseg_d2.weights.weights import CHECKPOINTS

SHIPPED = Path(__file__).resolve().parents[1] / "models"
CONFIG, WEIGHTS = "config.yaml", "model.safetensors"
PREFIX = "cellseg://"
# The keys that prediction reads beside those of MODEL; all others are for training and for scores.
PREDICTION_INPUT = (
    *("FORMAT", "MIN_SIZE_TEST", "MAX_SIZE_TEST", "ZOOM_TEST"),
    *("INTENSITY", "INTENSITY_PERCENTILES", "CELL_DIAMETER"),
)
PREDICTION_TEST = (
    *("DETECTIONS_PER_IMAGE", "POSTPROCESS", "SCALES", "SCALE_NEIGHBORS"),
    *("PRECISION", "TILE", "TTA", "FUSION"),
)


def shipped_models() -> list[str]:
    """Names of the models that come with the project."""
    return sorted(path.parent.name for path in SHIPPED.glob(f"*/{WEIGHTS}"))


def find_model(model: str | Path) -> Path:
    """The folder of a model.

    Args:
        model: a name of :func:`shipped_models`, or a folder that :func:`export_model` or a training run has written.

    Raises:
        CellSegError: there is no such model.
    """
    for folder in (SHIPPED / str(model), Path(model)):
        if (folder / CONFIG).is_file():
            return folder
    known = ", ".join(shipped_models()) or "none"
    raise CellSegError(
        f"there is no model {str(model)!r}: give a folder with a {CONFIG} and weights, or one of those that come with "
        f"the project: {known}"
    )


def check_free(folder: str | Path, weights: str) -> None:
    """Refuse a folder in which an export would replace, or be mistaken for, what is of no earlier export.

    Args:
        folder: need not exist.
        weights: name of the file of weights that will be written.

    Raises:
        CellSegError: names the first of them.
    """
    others = [name for name in (*CHECKPOINTS, "last_checkpoint") if name != weights]  # the last is a training's
    if not (Path(folder) / weights).exists():
        others += [CONFIG, POSTPROCESS]
    for name in others:
        if (Path(folder) / name).exists():
            raise CellSegError(f"{folder} already holds {name}, which is of no earlier export; choose another folder")


def prediction_settings(cfg: CfgNode) -> dict:
    """What prediction reads of a configuration and differs from the defaults, and all of ``TEST.POSTPROCESS``; nothing
    of how and on what it was trained, and neither the device nor the weights.
    """
    changed = changed_settings(cfg)

    def read(group: str, keys: Sequence[str]) -> dict:
        return {key: value for key, value in changed.get(group, {}).items() if key in keys}

    return {
        "VERSION": cfg.VERSION,
        "MODEL": {key: value for key, value in changed["MODEL"].items() if key != "DEVICE"} | {"WEIGHTS": ""},
        "INPUT": read("INPUT", PREDICTION_INPUT),
        "TEST": read("TEST", PREDICTION_TEST) | {"POSTPROCESS": plain(cfg.TEST.POSTPROCESS)},
    }


def export_model(
    cfg: CfgNode, weights: str | Path | Sequence[str | Path], folder: str | Path, *, half: bool = True
) -> Path:
    """Write ``config.yaml`` and ``model.safetensors`` of a trained model; returns the folder.

    Args:
        cfg: configuration of the run, of which :func:`prediction_settings` are written.
        weights: its checkpoint, or several whose mean is written (:func:`mean_weights`).
        folder: created if needed; files of the same names are replaced, and a ``postprocess.yaml`` of an earlier
            version, which would be laid over the configuration, is removed.
        half: weights as 16-bit floats, which take half the space. Predictions differ by less than one part in 1,000.
    """
    folder = Path(folder)
    files = [weights] if isinstance(weights, str | Path) else weights
    PostprocessParams.from_config(cfg).check_classes(class_names(cfg))
    settings = prediction_settings(cfg)
    tensors = {
        name: (value.half() if half and value.is_floating_point() else value).contiguous()
        for name, value in mean_weights(files).items()
    }
    text = yaml.safe_dump(settings, sort_keys=False, default_flow_style=None)
    with atomic_set():
        with atomic_path(folder / WEIGHTS) as temporary:
            temporary.write_bytes(save(tensors))  # save_file would make a file that only its owner can read
        write_text_atomic(folder / CONFIG, text)
    (folder / POSTPROCESS).unlink(missing_ok=True)
    return folder


class ShippedModelHandler(PathHandler):
    """Resolves ``cellseg://NAME/FILE`` to the file of a model that comes with the project."""

    def _get_supported_prefixes(self) -> list[str]:
        return [PREFIX]

    def _get_local_path(self, path: str, force: bool = False, **kwargs) -> str:
        name, _, file = path.removeprefix(PREFIX).partition("/")
        return str(find_model(name) / (file or WEIGHTS))

    def _open(self, path: str, mode: str = "r", buffering: int = -1, **kwargs):
        return open(self._get_local_path(path), mode, buffering)


PathManager.register_handler(ShippedModelHandler(), allow_override=True)
