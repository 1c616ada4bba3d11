"""Models to hand on: a folder with a short configuration, weights that cannot run code, and post-processing.

The project's own are in ``cellseg_d2/models``. Wherever weights are named, ``cellseg://NAME/model.safetensors`` stands
for theirs, as ``detectron2://`` does for those of Detectron2's model zoo.
"""

from __future__ import annotations

from pathlib import Path

import yaml
from detectron2.config import CfgNode
from detectron2.utils.file_io import PathHandler, PathManager
from safetensors.torch import save

from cellseg_d2.config import changed_settings, class_names
from cellseg_d2.errors import CellSegError
from cellseg_d2.io.atomic import atomic_path, atomic_set, write_text_atomic
from cellseg_d2.postprocess.params import FILE_NAME as POSTPROCESS
from cellseg_d2.postprocess.params import PostprocessParams
from cellseg_d2.weights.weight_files import read_weight_file

SHIPPED = Path(__file__).resolve().parents[1] / "models"
CONFIG, WEIGHTS = "config.yaml", "model.safetensors"
PREFIX = "cellseg://"


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


def export_model(
    cfg: CfgNode, weights: str | Path, folder: str | Path, *, half: bool = True, params: PostprocessParams | None = None
) -> Path:
    """Write ``config.yaml``, ``model.safetensors`` and ``postprocess.yaml`` of a trained model; returns the folder.

    Args:
        cfg: of the run. Only what differs from the defaults is written, without the run's data sets and folders.
        weights: its checkpoint.
        folder: made where needed; files of the same names are replaced.
        half: weights as 16-bit floats, which take half the space. Predictions differ by less than one part in 1,000.
        params: the post-processing, by default the configuration's.
    """
    folder, params = Path(folder), params or PostprocessParams.from_config(cfg)
    params.check_classes(class_names(cfg))
    settings = {"VERSION": cfg.VERSION, **changed_settings(cfg)}
    for name in ("DATASETS", "DATALOADER", "SOLVER", "OUTPUT_DIR", "SEED"):
        settings.pop(name, None)
    settings["MODEL"] = {k: v for k, v in settings.get("MODEL", {}).items() if k not in ("WEIGHTS", "DEVICE")}
    settings["MODEL"]["WEIGHTS"] = ""
    tensors = {
        name: (value.half() if half and value.is_floating_point() else value).contiguous()
        for name, value in read_weight_file(weights).weights.items()
    }
    text = yaml.safe_dump(plain_values(settings), sort_keys=False, default_flow_style=None)
    with atomic_set():
        with atomic_path(folder / WEIGHTS) as temporary:
            temporary.write_bytes(save(tensors))  # save_file would make a file that only its owner can read
        params.to_yaml(folder / POSTPROCESS)
        write_text_atomic(folder / CONFIG, text)
    return folder


def plain_values(value: object) -> object:
    """Dicts and lists instead of configuration nodes and tuples, as YAML can hold them."""
    if isinstance(value, dict):
        return {key: plain_values(child) for key, child in value.items()}
    return [plain_values(child) for child in value] if isinstance(value, list | tuple) else value


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
