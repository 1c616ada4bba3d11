"""Trainings that are killed again and again and resumed until they are done, compared with one that is not.

Every attempt is a process of its own (forked from this one, which spares the imports) that runs ``tools/train_net.py``
and gets a SIGKILL: at a random time, in the middle of writing a checkpoint, just before or after a file takes its name,
or with half a line written. After each kill, what is on disk is checked; at the end of each training, all that it left
is compared with what the unbroken one left. From the root of the checkout:

    OMP_NUM_THREADS=1 .venv/bin/python -m tests.faults.kill_training --output DIR --kills 20 --workers 0 2
"""

from __future__ import annotations

import argparse
import csv
import io
import json
import math
import mmap
import os
import random
import shutil
import signal
import struct
import sys
import time
from collections import Counter
from pathlib import Path

import torch

from cellseg_d2.cli import train_net
from cellseg_d2.engine.checkpointer import is_whole
from cellseg_d2.engine.hooks import PlotCurves
from cellseg_d2.engine.trainer import CellTrainer
from cellseg_d2.visualization.curves import read_scores
from tests.discs import write_disc_dataset

CONFIG = Path(__file__).resolve().parents[2] / "configs/quickstart/instant_test.yaml"
PERIOD = 3
OPTIONS = ["SOLVER.MAX_ITER", 9, "SOLVER.CHECKPOINT_PERIOD", PERIOD, "TEST.EVAL_PERIOD", PERIOD]
OPTIONS += ["SOLVER.GRADIENT_ACCUMULATION", 2, "SOLVER.IMS_PER_BATCH", 2, "INPUT.COPY_PASTE.PROBABILITY", 0.5]
OPTIONS += ["TEST.POSTPROCESS.SCORE_THRESHOLDS", [0.3], "SEED", 3]
KINDS = ("time", "save", "replace", "append")
TIMES = ("data_time", "time", "eta_seconds", "rank_data_time")
# What differs between any two runs: times, and the log.
APART = ("events.out", "log.txt", "curves.png", "metrics.json", "losses.csv", "run.json", ".lock", "config.yaml")


class Progress:
    """What a process that gets killed has told up to then: whole numbers by name, in shared memory."""

    NAMES = ("start", "done", "save", "replace", "append")

    def __init__(self):
        self._memory = mmap.mmap(-1, 8 * len(self.NAMES))
        for name in self.NAMES:
            self[name] = 0
        self["start"] = -1

    def __getitem__(self, name: str) -> int:
        return struct.unpack_from("q", self._memory, 8 * self.NAMES.index(name))[0]

    def __setitem__(self, name: str, value: int) -> None:
        struct.pack_into("q", self._memory, 8 * self.NAMES.index(name), value)

    def count(self, name: str) -> int:
        self[name] += 1
        return self[name]


def die() -> None:
    os.kill(os.getpid(), signal.SIGKILL)


def arm(progress: Progress, kind: str | None, number: int, share: float) -> None:
    """Have this process count what it writes, and die at the ``number``-th time that it does what ``kind`` says."""
    save, replace, sync, step, train = torch.save, os.replace, os.fsync, CellTrainer.after_step, CellTrainer.train

    def saving(data, file, **options):
        if progress.count("save") == number and kind == "save":
            buffer = io.BytesIO()
            save(data, buffer, **options)
            file.write(buffer.getvalue()[: int(share * buffer.tell())])
            file.flush()
            die()
        save(data, file, **options)

    def replacing(source, target):
        last = progress.count("replace") == number and kind == "replace"
        if last and share < 0.5:
            die()
        replace(source, target)
        if last:
            die()

    def syncing(descriptor):
        path = os.readlink(f"/proc/self/fd/{descriptor}")
        if path.endswith(("losses.csv", "metrics.json")) and progress.count("append") == number and kind == "append":
            os.truncate(path, os.path.getsize(path) - 1 - int(20 * share))  # half of the last line
            die()
        sync(descriptor)

    def stepping(self):
        step(self)
        progress["done"] = self.iter + 1

    def training(self):
        progress["start"] = progress["done"] = self.start_iter
        return train(self)

    torch.save, os.replace, os.fsync = saving, replacing, syncing
    CellTrainer.after_step, CellTrainer.train = stepping, training
    # Curves have nothing to do with it, and take longer than the rest.
    PlotCurves.after_step = PlotCurves.after_train = lambda self: None


def attempt(folder: Path, workers: int, kind: str | None, number: int, share: float, seconds: float) -> tuple:
    """One process; returns its progress and whether it was killed."""
    progress = Progress()
    process = os.fork()
    if process == 0:
        code = 1
        try:
            log = os.open(folder.parent / f"{folder.name}.log", os.O_WRONLY | os.O_CREAT | os.O_APPEND, 0o644)
            os.dup2(log, 1)
            os.dup2(log, 2)
            arm(progress, kind, number, share)
            options = [*OPTIONS, "DATALOADER.NUM_WORKERS", workers, "OUTPUT_DIR", folder]
            train_net.main(["--config-file", str(CONFIG), "--resume", *map(str, options)])
            code = 0
        finally:
            sys.stdout.flush()
            os._exit(code)
    if kind == "time":
        time.sleep(seconds)
        os.kill(process, signal.SIGKILL)
    _, status = os.waitpid(process, 0)
    code = os.waitstatus_to_exitcode(status)
    if code not in (0, -signal.SIGKILL):
        raise SystemExit(f"a training ended with exit code {code}; see {folder}.log")
    return progress, code != 0


def check_after_kill(folder: Path) -> None:
    """Whatever there is, is whole."""
    for path in folder.glob("[!.]*.pth"):
        assert is_whole(path), f"{path} is half-written"
    last = folder / "last_checkpoint"
    if last.exists():
        assert (folder / last.read_text()).is_file(), f"{last} names {last.read_text()!r}, which does not exist"
    for path in folder.glob("[!.]*.json"):
        if path.name != "metrics.json":  # whose last line may be cut off until the next start
            json.loads(path.read_text())


def check_same(folder: Path, reference: Path) -> None:
    """All that a training left is what the unbroken one left, but for times and its log."""
    kept, expected = (
        {str(path.relative_to(f)): path for path in f.rglob("*") if path.is_file()} for f in (folder, reference)
    )
    events = ("events.out",)
    assert {n for n in kept if not n.startswith(events)} == {n for n in expected if not n.startswith(events)}
    for name in sorted(kept):
        if name.endswith(".pth"):
            one, other = (torch.load(path, weights_only=True) for path in (kept[name], expected[name]))
            assert_equal(one, other, name)
        elif not name.startswith(APART) and not name.endswith((".npz", ".png")):
            assert kept[name].read_bytes() == expected[name].read_bytes(), f"{name} differs"
    one, other = (losses(f / "losses.csv") for f in (folder, reference))
    assert one == other, "losses.csv differs"
    scores = [read_scores(f / "metrics.json") for f in (folder, reference)]
    assert scores[0].equals(scores[1]), f"scores differ:\n{scores[0]}\n{scores[1]}"
    iterations = [json.loads(line)["iteration"] for line in (folder / "metrics.json").read_text().splitlines()]
    assert iterations == sorted(set(iterations)), "metrics.json tells iterations twice"


def losses(path: Path) -> list[dict]:
    with open(path, newline="") as file:
        return [{key: value for key, value in row.items() if key not in TIMES} for row in csv.DictReader(file)]


def assert_equal(one, other, name: str) -> None:
    """Equal to the last bit, with all that is in them."""
    assert type(one) is type(other), name
    if isinstance(one, torch.Tensor):
        assert one.dtype == other.dtype, name
        assert torch.equal(one, other), f"{name} differs"
    elif isinstance(one, dict):
        assert one.keys() == other.keys(), name
        for key in one:
            assert_equal(one[key], other[key], f"{name}: {key}")
    elif isinstance(one, list | tuple):
        assert len(one) == len(other), name
        for index, pair in enumerate(zip(one, other, strict=True)):
            assert_equal(*pair, f"{name}: {index}")
    else:
        assert one == other or (isinstance(one, float) and math.isnan(one) and math.isnan(other)), f"{name} differs"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--output", type=Path, required=True, help="an empty folder")
    parser.add_argument("--kills", type=int, default=20)
    parser.add_argument("--workers", type=int, nargs="+", default=[0], help="of the killed trainings, in turn")
    parser.add_argument("--seed", type=int, default=0, help="of the moments")
    parser.add_argument("--kinds", nargs="+", choices=KINDS, default=KINDS, help="of kills, in turn")
    args = parser.parse_args()
    torch.set_num_threads(1)
    draw = random.Random(args.seed)
    args.output.mkdir(parents=True, exist_ok=True)
    write_disc_dataset(args.output / "datasets")
    os.environ["DETECTRON2_DATASETS"] = str(args.output / "datasets")
    reference = args.output / "unbroken"
    begin = time.monotonic()
    counts, _ = attempt(reference, 0, None, 0, 0.0, 0.0)
    duration = time.monotonic() - begin

    kills, trainings, lost = Counter(), 0, []
    while sum(kills.values()) < args.kills:
        folder = args.output / f"killed{trainings}"
        workers = args.workers[trainings % len(args.workers)]
        trainings += 1
        reached, killed = 0, True
        while killed:
            total = sum(kills.values())
            kind = args.kinds[total % len(args.kinds)] if total < args.kills else None
            number = draw.randint(1, max(1, counts[kind] // 2)) if kind not in (None, "time") else 0
            progress, killed = attempt(folder, workers, kind, number, draw.random(), draw.uniform(0.1, duration))
            if progress["start"] >= 0:
                lost.append(reached - progress["start"])
                assert progress["start"] >= reached // PERIOD * PERIOD, "more than a checkpoint period is lost"
                reached = progress["done"]
            if killed:
                kills[kind] += 1
                check_after_kill(folder)
        check_same(folder, reference)
        shutil.rmtree(folder)
    report = {"kills": kills, "trainings": trainings, "resumptions": len(lost), "most_iterations_lost": max(lost)}
    print(json.dumps(report))


if __name__ == "__main__":
    main()
