"""Detectron2's checkpointer with atomic writes and checks for damaged files."""

from __future__ import annotations

import logging
import re
import zipfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import IO

import torch
from detectron2.checkpoint import DetectionCheckpointer
from detectron2.utils.file_io import PathManager

from cellseg_d2.errors import CellSegError, first_line, no_memory
from cellseg_d2.io.atomic import atomic_path

logger = logging.getLogger(__name__)

# Those that Detectron2's PeriodicCheckpointer writes.
NUMBERED = re.compile(r"model_(\d+)\.pth")


class CellCheckpointer(DetectionCheckpointer):
    """``DetectionCheckpointer`` that survives a killed process.

    A file is written under a temporary name and renamed once it is on the disk; only then does ``last_checkpoint`` name
    it. A process that is killed at any moment thus leaves the earlier checkpoints, with or without the new one.

    Args:
        model, save_dir, checkpointables: as in Detectron2.
        tag: whether what is saved becomes the checkpoint from which training resumes.
    """

    def __init__(self, model, save_dir: str = "", *, tag: bool = True, **checkpointables):
        super().__init__(model, save_dir, **checkpointables)
        self.path_manager = _WholeFiles()
        self._tag = tag

    def save(self, name: str, **kwargs) -> None:
        """Save a checkpoint as Detectron2 does.

        Raises:
            CellSegError: it cannot be written, because the disk is full or for another reason of the system's.
        """
        try:
            super().save(name, **kwargs)
        except (OSError, RuntimeError) as error:  # PyTorch raises a RuntimeError of its own after the system's error
            cause = error if isinstance(error, OSError) else error.__context__
            if not isinstance(cause, OSError):
                raise
            raise CellSegError(
                f"the checkpoint {name}.pth cannot be written to {self.save_dir}: {cause.strerror}; repair that, and "
                "go on from the checkpoint before it with --resume"
            ) from error

    def tag_last_checkpoint(self, last_filename_basename: str) -> None:
        if self._tag:
            super().tag_last_checkpoint(last_filename_basename)

    def _load_file(self, filename: str) -> dict:
        """Load a checkpoint without running code from it.

        Detectron2 would unpickle any file whose name ends in ``.pkl`` or ``.pyth``.
        """
        if not filename.endswith(".pth"):
            raise CellSegError(f"{filename} is not a checkpoint of a training here: those end in .pth")
        try:
            content = torch.load(filename, map_location="cpu", weights_only=True)
        except MemoryError:
            raise no_memory(filename) from None
        except Exception as error:  # PyTorch raises almost anything for files of another kind
            raise CellSegError(
                f"{filename} cannot be resumed from: it is damaged, or holds something else ({first_line(error)})"
            ) from None
        if not isinstance(content, dict) or not isinstance(content.get("model"), dict):
            raise CellSegError(f"{filename} cannot be resumed from: it holds no model")
        return content

    def _load_model(self, checkpoint: dict):
        """Load the weights; Detectron2 would only warn of weights that do not fit, and fail later in the optimizer's
        state.

        Raises:
            CellSegError: the checkpoint is of another network.
        """
        found = super()._load_model(checkpoint)
        if found is not None and (others := [*(name for name, *_ in found.incorrect_shapes), *found.missing_keys]):
            raise CellSegError(
                f"the run in {self.save_dir} has another network or other classes ({others[0]} does not fit), so "
                "--resume cannot continue it: give its own configuration and datasets, or another OUTPUT_DIR"
            )
        return found

    def forget_last(self) -> None:
        """Delete ``last_checkpoint``, so that nothing is resumed; the checkpoints themselves stay."""
        Path(self.save_dir, "last_checkpoint").unlink(missing_ok=True)

    def repair_last(self) -> None:
        """If ``last_checkpoint`` names a missing or damaged file, let it name the newest intact one.

        A kill cannot cause this, but a disk that loses confirmed data can, or an incomplete copy of the folder. The
        repair is logged.
        """
        if not self.has_checkpoint():
            return
        last = Path(self.get_checkpoint_file())
        if is_whole(last):
            return
        state = "damaged" if last.is_file() else "missing"
        whole = next((path for path in self._earlier(last) if is_whole(path)), None)
        if whole is None:
            self.forget_last()
            logger.warning(
                "the last checkpoint %s is %s, and there is no earlier one: training starts at iteration 0",
                last,
                state,
            )
        else:
            self.tag_last_checkpoint(whole.name)
            logger.warning("the last checkpoint %s is %s: training goes back to %s", last, state, whole.name)

    def _earlier(self, last: Path) -> list[Path]:
        """The numbered checkpoints before ``last``, the newest first."""
        number = NUMBERED.fullmatch(last.name)
        numbered = ((int(m[1]), path) for path in last.parent.glob("*.pth") if (m := NUMBERED.fullmatch(path.name)))
        before = [path for n, path in numbered if number is None or n < int(number[1])]
        # By time, since the folder may hold a longer training of earlier days.
        return sorted(before, key=lambda path: path.stat().st_mtime_ns, reverse=True)


def is_whole(path: str | Path) -> bool:
    """Whether a file that ``torch.save`` wrote has all its parts, each with its check sum (CRC-32)."""
    try:
        with zipfile.ZipFile(path) as archive:
            return archive.testzip() is None
    except MemoryError:
        raise
    except Exception:  # whatever damaged bytes lead `zipfile` to
        return False


class _WholeFiles:
    """Detectron2's ``PathManager`` with atomic writes: a file gets its name when it is complete."""

    def __getattr__(self, name: str):
        return getattr(PathManager, name)

    def open(self, path: str, mode: str = "r", **options):
        return _whole_file(path, mode) if "w" in mode else PathManager.open(path, mode, **options)


@contextmanager
def _whole_file(path: str, mode: str) -> Iterator[IO]:
    with atomic_path(path, sync=True) as temporary, open(temporary, mode) as file:
        yield file
        file.flush()
