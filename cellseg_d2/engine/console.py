"""What a training says while it runs: a few lines that people look at; everything goes to ``log.txt``."""

from __future__ import annotations

import logging
import math
import shlex
import sys
import time
from collections.abc import Mapping
from datetime import timedelta
from pathlib import Path

from detectron2.config import CfgNode
from detectron2.utils.events import EventStorage, EventWriter, get_event_storage

from cellseg_d2.io.progress import PAUSE

logger = logging.getLogger(__name__)

_LOGGERS = ("fvcore", "detectron2", "cellseg_d2")
# Of a training and of an evaluation: the loggers whose messages are for the console; those of the others if they warn.
_TRAINING = (__name__,)
_EVALUATION = (*_TRAINING, "cellseg_d2.evaluation")
_handlers: list[logging.Handler] = []


def set_up_logging(folder: str, rank: int, evaluation: bool = False) -> None:
    """Have everything logged to ``folder/log.txt``, and on the console of the first process what people look at.

    An earlier call of this process counts no more.

    Args:
        folder: of the run.
        rank: of this process; others than the first log to ``log.txt.rank<N>``.
        evaluation: whether nothing is trained, and scores are all that there is to be seen.
    """
    path = Path(folder) / ("log.txt" if rank == 0 else f"log.txt.rank{rank}")
    path.parent.mkdir(parents=True, exist_ok=True)
    # Not Detectron2's setup_logger, which does nothing when it is called for a folder again.
    log = logging.FileHandler(path, encoding="utf-8")
    log.setFormatter(logging.Formatter("[%(asctime)s] %(name)s %(levelname)s: %(message)s", "%m/%d %H:%M:%S"))
    console = logging.StreamHandler(sys.stdout)
    console.setFormatter(logging.Formatter("[%(asctime)s] %(message)s", "%H:%M:%S"))
    shown = _EVALUATION if evaluation else _TRAINING
    console.addFilter(lambda record: record.levelno >= logging.WARNING or record.name.startswith(shown))
    handlers: list[logging.Handler] = [log, console] if rank == 0 else [log]
    for own in map(logging.getLogger, _LOGGERS):
        own.setLevel(logging.DEBUG)
        own.propagate = False
        own.handlers = [*(handler for handler in own.handlers if handler not in _handlers), *handlers]
    for former in _handlers:
        former.close()
    _handlers[:] = handlers


def usual_length(cells: int, pretrained: bool, batch: int) -> int:
    """About how many iterations a training on so many annotated cells usually takes: a rule of thumb.

    ``60 √cells`` images, and four times as many from random weights, is what this project's own runs come near, from
    some hundred cells to 40,000 (configs/RESULTS.md): the competition's 33 images with 4,000 cells gained up to some
    2,000 iterations of two images each, and little after.

    Args:
        cells: annotated ones of the training set.
        pretrained: whether it begins from the weights of a whole network.
        batch: images of an iteration.
    """
    iterations = 60 * math.sqrt(max(cells, 25)) * (1 if pretrained else 4) / batch
    step = 10 ** max(0, math.floor(math.log10(iterations)) - 1)
    return max(1, round(iterations / step) * step)


def tell_beginning(cfg: CfgNode, datasets: Mapping[str, Mapping[str, int]], start: int) -> None:
    """Say what is trained on what and for how long, and whether that is much more or less than usual.

    Args:
        cfg: of the run, complete.
        datasets: number of ``images`` and ``cells`` by dataset.
        start: the first iteration.
    """

    def told(names: tuple[str, ...]) -> str:
        return ", ".join(f"{n} ({datasets[n]['images']:,} images, {datasets[n]['cells']:,} cells)" for n in names)

    last, batch = cfg.SOLVER.MAX_ITER, cfg.SOLVER.IMS_PER_BATCH * cfg.SOLVER.GRADIENT_ACCUMULATION
    scored = f"{told(cfg.DATASETS.TEST)} by {cfg.TEST.BEST_METRIC}" if cfg.DATASETS.TEST else "nothing"
    logger.info("training on %s; scored on %s", told(cfg.DATASETS.TRAIN), scored)
    begun = f" from iteration {start:,} on" if start else ""
    logger.info("%s iterations of %d images on %s%s", f"{last:,}", batch, cfg.MODEL.DEVICE, begun)
    logger.info("results go to %s, all details to %s", cfg.OUTPUT_DIR, Path(cfg.OUTPUT_DIR) / "log.txt")
    cells = sum(datasets[name]["cells"] for name in cfg.DATASETS.TRAIN)
    usual = usual_length(cells, bool(cfg.MODEL.WEIGHTS), batch)
    if not usual / 3 <= last <= usual * 3:
        how = "long" if last > usual else "short"
        start_from = "" if cfg.MODEL.WEIGHTS else " and random weights"
        logger.info(
            "that is %s for %s cells%s, about %s iterations are usual: SOLVER.MAX_ITER %d SOLVER.STEPS '()'",
            how,
            f"{cells:,}",
            start_from,
            f"{usual:,}",
            usual,
        )


def tell_score(cfg: CfgNode, storage: EventStorage, iteration: int) -> None:
    """Say the score that an evaluation has put into ``storage``, beside the best one before it.

    Args:
        cfg: names the score, ``TEST.BEST_METRIC``, and the datasets.
        storage: of the training.
        iteration: how many iterations are done.
    """
    history = storage.histories().get(cfg.TEST.BEST_METRIC)
    if history is None:
        return
    *earlier, (score, _) = history.values()
    best = max((value for value, _ in earlier), default=None)
    beside = "" if best is None else f", a new best (before {best:.4g})" if score > best else f" (best: {best:.4g})"
    when = f"after iteration {iteration:,}" if iteration else "of the weights that this training begins from"
    logger.info("score %.4g %s%s", score, when, beside)


def tell_end(cfg: CfgNode, storage: EventStorage) -> None:
    """Say where the model is, how it is used, and where nothing was gained over the weights that it began from."""
    history = storage.histories().get(cfg.TEST.BEST_METRIC)
    best = Path(cfg.OUTPUT_DIR) / "model_best.pth"
    kept = f"the model is {best.with_name('model_final.pth')}"
    if history is not None and best.is_file():  # without a score, it is of an earlier training
        kept = f"{best} has the best score"
    if history is not None and cfg.MODEL.WEIGHTS:
        (begun, iteration), *later = history.values()
        if iteration == 0 and later and begun >= max(score for score, _ in later):
            logger.info("no score is better than that of %s (%.4g)", cfg.MODEL.WEIGHTS, begun)
            kept = kept.replace("the best score", "the best score after that")
    use = ["--config-file", str(best.with_name("config.yaml")), "--input", "IMAGES", "--output", "results"]
    logger.info("done: %s; to segment images: %s", kept, shlex.join(["cellseg-d2", "infer", *use]))


class ConsoleWriter(EventWriter):
    """Says the loss and the time left, at most a line every few seconds, and always the last iteration.

    Args:
        last: number of iterations of the whole training.
    """

    def __init__(self, last: int):
        self._last = last
        self._said = -math.inf

    def write(self) -> None:
        storage = get_event_storage()
        done, now = storage.iter + 1, time.monotonic()
        losses = storage.histories().get("total_loss")
        if losses is None or done > self._last or (now - self._said < PAUSE and done < self._last):
            return
        self._said = now
        seconds = storage.histories()["time"].global_avg() if "time" in storage.histories() else None
        left = "" if seconds is None else f", {timedelta(seconds=round(seconds * (self._last - done)))} left"
        logger.info("iteration %s of %s%s, loss %.4g", f"{done:,}", f"{self._last:,}", left, losses.median(20))
