"""Record what is needed to repeat a run besides its configuration."""

from __future__ import annotations

import hashlib
import platform
import shlex
import subprocess
import sys
from collections.abc import Sequence
from datetime import UTC, datetime
from importlib import metadata
from pathlib import Path

from detectron2.config import CfgNode
from detectron2.data import DatasetCatalog, MetadataCatalog
from detectron2.utils import comm

import cellseg_d2
from cellseg_d2.datasets.coco_file import is_cell
from cellseg_d2.io.atomic import atomic_set, write_json_atomic, write_text_atomic

PACKAGES = ("torch", "torchvision", "numpy", "opencv-python-headless", "pycocotools", "fvcore", "pandas", "scipy")


CONFIG = "config.yaml"


def write_run_files(cfg: CfgNode, datasets: Sequence[str], record: str, keep_config: bool = False) -> dict | None:
    """Write ``config.yaml`` and the record of a run into ``OUTPUT_DIR``, both or neither, in the main process only.

    Args:
        cfg: configuration of the run, complete.
        datasets: see :func:`write_run_record`.
        record: name of the record.
        keep_config: leave a ``config.yaml`` that is there as it is: that of the training whose model is evaluated.

    Returns:
        The record; None in other processes.
    """
    if not comm.is_main_process():
        return None
    folder = Path(cfg.OUTPUT_DIR)
    with atomic_set():
        if not (keep_config and (folder / CONFIG).exists()):
            write_text_atomic(folder / CONFIG, cfg.dump())
        return write_run_record(cfg, folder / record, datasets)


def write_run_record(cfg: CfgNode, path: str | Path, datasets: Sequence[str]) -> dict:
    """Write and return command, versions, seed, and the datasets' fingerprints as JSON.

    The fingerprint of a dataset is the SHA-256 of its JSON, which holds every mask, together with its numbers of
    images and cells and the total size of its image files.
    """
    import detectron2

    record = {
        "command": called_as(sys.argv),
        "started": datetime.now(UTC).isoformat(timespec="seconds"),
        "seed": cfg.SEED,
        "weights": cfg.MODEL.WEIGHTS,
        "versions": {
            "cellseg_d2": cellseg_d2.__version__,
            "commit": _git_commit(),
            "detectron2": detectron2.__version__,
            "python": platform.python_version(),
            **{name: _version(name) for name in PACKAGES},
        },
        "machine": {"system": platform.platform(), "processor": platform.machine(), "device": cfg.MODEL.DEVICE},
        "datasets": {name: dataset_fingerprint(name) for name in datasets},
    }
    write_json_atomic(path, record, indent=1)
    return record


def called_as(argv: Sequence[str]) -> str:
    """The line that was typed, from ``sys.argv``, which has paths where a command or a module of Python was called."""
    program = Path(argv[0])
    if program.parts[-3:] == ("cellseg_d2", "cli", "__main__.py"):
        return shlex.join(["python", "-m", "cellseg_d2.cli", *argv[1:]])
    if program.stem == "cellseg-d2":
        return shlex.join([program.stem, *argv[1:]])
    return shlex.join(argv)


def dataset_fingerprint(name: str) -> dict:
    """SHA-256 of a registered dataset's JSON, its numbers of images and cells, and the bytes of its image files."""
    entries = DatasetCatalog.get(name)
    json_file = Path(MetadataCatalog.get(name).json_file)
    return {
        "json_file": str(json_file),
        "sha256": hashlib.sha256(json_file.read_bytes()).hexdigest(),
        "images": len(entries),
        "cells": sum(is_cell(annotation) for entry in entries for annotation in entry["annotations"]),
        "image_bytes": sum(Path(e["file_name"]).stat().st_size for e in entries if Path(e["file_name"]).exists()),
    }


def _version(package: str) -> str | None:
    try:
        return metadata.version(package)
    except metadata.PackageNotFoundError:
        return None


def _git_commit() -> str | None:
    """The commit of the checkout that this package runs from, with ``-dirty`` where files differ; None elsewhere."""
    try:
        result = subprocess.run(
            ["git", "describe", "--always", "--dirty", "--abbrev=40"],
            cwd=Path(__file__).parent,
            capture_output=True,
            text=True,
            timeout=10,
        )
    except (OSError, subprocess.TimeoutExpired):
        return None
    return result.stdout.strip() or None
