"""Batches that are killed, interrupted, or run out of room, and go on: files are those of an unbroken run.

``CELLSEG_KILLS=50`` kills as often as that.
"""

import errno
import json
import multiprocessing
import os
import random
import signal
import time
from pathlib import Path

import numpy as np
import pytest
from detectron2.modeling import build_model
from PIL import Image

from cellseg_d2.cli import common, infer
from cellseg_d2.config import load_config
from cellseg_d2.detections.fusion import FusionParams
from cellseg_d2.errors import CellSegError
from cellseg_d2.export.formats import Format
from cellseg_d2.inference import batch
from cellseg_d2.inference.batch import segment_files
from cellseg_d2.inference.classical import ClassicalSegmenter
from cellseg_d2.inference.ensemble import Ensemble
from cellseg_d2.inference.model import CellSegmenter
from tests.discs import disc_image, write_untrained_run

SAVED = ("submission", "csv", "labels", "geojson", "overlay", "detections")
KILLS = int(os.environ.get("CELLSEG_KILLS", "6"))


class Noting(ClassicalSegmenter):
    """Otsu's threshold, which leaves the name of each image in a file, and may end the process at one."""

    def __init__(self, notes=None, kill_at=None):
        super().__init__("otsu", least_area=9)
        self.notes, self.kill_at = notes, kill_at

    def segment(self, image, **options):
        if self.notes:
            with open(self.notes, "a") as file:
                file.write(Path(image).stem)
        if Path(image).stem == self.kill_at:
            os.kill(os.getpid(), signal.SIGKILL)
        return super().segment(image, **options)


@pytest.fixture(scope="module")
def images(tmp_path_factory):
    folder = tmp_path_factory.mktemp("images")
    for index, name in enumerate("abcdef"):
        image, _ = disc_image(np.random.default_rng(index), 96, index, 0)
        Image.fromarray(image).save(folder / f"{name}.png")
    return sorted(folder.iterdir())


@pytest.fixture(scope="module")
def unbroken(images, tmp_path_factory):
    folder = tmp_path_factory.mktemp("unbroken")
    segment_files(Noting(), images, folder, SAVED)
    return contents(folder)


def contents(folder):
    return {path.relative_to(folder): path.read_bytes() for path in folder.rglob("*") if path.is_file()}


def in_a_process(call, *args, kill_after=None, **options):
    """Exit code of a copy of this process that makes a call, and is killed after so many seconds."""
    process = multiprocessing.get_context("fork").Process(target=call, args=args, kwargs=options)
    process.start()
    if kill_after is not None:
        time.sleep(kill_after)
        process.kill()
    process.join()
    return process.exitcode


def test_a_killed_batch_goes_on_where_it_was(images, unbroken, tmp_path):
    notes, out = tmp_path / "notes", tmp_path / "out"
    for kill_at in ("c", "f"):
        code = in_a_process(segment_files, Noting(notes, kill_at), images, out, SAVED, resume=True)
        assert code == -signal.SIGKILL
        assert not (out / "submission.csv").exists()
    result = segment_files(Noting(notes), images, out, SAVED, resume=True)
    assert notes.read_text() == "abc" + "cdef" + "f", "each image once, but for those that were cut off"
    assert result.resumed == 5
    assert contents(out) == unbroken


def test_killed_at_any_moment(images, unbroken, tmp_path):
    chance, out = random.Random(1), tmp_path / "out"
    started = time.perf_counter()
    assert in_a_process(segment_files, Noting(), images, tmp_path / "timed", SAVED) == 0
    duration = time.perf_counter() - started
    done = 0
    for number in range(KILLS):
        resume = number > 0
        (out / "submission.csv").unlink(missing_ok=True)  # so that only what this call wrote can be whole
        code = in_a_process(
            segment_files, Noting(), images, out, SAVED, kill_after=chance.uniform(0, duration), resume=resume
        )
        assert code in (0, -signal.SIGKILL)
        parts = len([path for path in out.glob(".unfinished/*.json") if not path.name.startswith((".", "settings"))])
        # Where the kill meets the last step, which removes the parts and then the claim, or comes after it, all results
        # are there.
        left = (".unfinished", ".lock")
        results = {path: content for path, content in contents(out).items() if path.parts[0] not in left}
        assert parts >= done or results == unbroken, "nothing that was done is lost"
        done = parts
    segment_files(Noting(), images, out, SAVED, resume=True)
    assert contents(out) == unbroken


@pytest.mark.parametrize("moment", range(0, 20, 3))
def test_killed_while_a_file_takes_its_name(images, unbroken, tmp_path, monkeypatch, moment):
    """One by one the moments between a written file and its name: of parts, of images' files, of the merged files."""
    out, count, replace = tmp_path / "out", iter(range(1000)), os.replace

    def cut(source, target):
        if next(count) == moment:
            os.kill(os.getpid(), signal.SIGKILL)
        replace(source, target)

    with monkeypatch.context() as patch:
        patch.setattr(os, "replace", cut)
        code = in_a_process(segment_files, Noting(), images[:4], out, SAVED)
    last = 1 + 4 * 4 + 2  # the settings, three files and a part of each image, and two files of all
    assert code == (-signal.SIGKILL if moment < last else 0)
    result = segment_files(Noting(), images, out, SAVED, resume=True)
    assert (result.resumed is not None) == (1 <= moment < last)
    assert contents(out) == unbroken, "nothing half-written is left"


def test_without_resume_everything_is_done_anew(images, unbroken, tmp_path):
    notes, out = tmp_path / "notes", tmp_path / "out"
    in_a_process(segment_files, Noting(notes, "d"), images, out, SAVED)
    result = segment_files(Noting(notes), images, out, SAVED)
    assert notes.read_text() == "abcd" + "abcdef"
    assert result.resumed is None
    assert contents(out) == unbroken
    assert segment_files(Noting(), images, out, SAVED, resume=True).resumed is None, "nothing is left to resume"


def test_images_that_changed_or_lost_their_files_are_done_anew(images, tmp_path):
    paths = [tmp_path / path.name for path in images]
    for path, original in zip(paths, images, strict=True):
        path.write_bytes(original.read_bytes())
    notes, out = tmp_path / "notes", tmp_path / "out"
    in_a_process(segment_files, Noting(notes, "e"), paths, out, ["labels", "csv"])
    Image.fromarray(disc_image(np.random.default_rng(9), 96, 5, 0)[0]).save(paths[0])
    (out / "labels/b_labels.tif").unlink()
    (part,) = (path for path in out.glob(".unfinished/*.json") if '"key": "c"' in path.read_text())
    part.write_text(part.read_text()[:50])
    segment_files(Noting(notes), paths, out, ["labels", "csv"], resume=True)
    assert notes.read_text() == "abcde" + "abcef"
    assert (out / "cells.csv").read_text().count("\na,") == 5


def test_other_settings_are_refused(images, unbroken, tmp_path):
    out = tmp_path / "out"
    in_a_process(segment_files, Noting(None, "d"), images, out, SAVED)
    other = Noting()
    other.least_area = 20
    with pytest.raises(CellSegError, match=r"other settings \(segmenter.least_area\)"):
        segment_files(other, images, out, SAVED, resume=True)
    with pytest.raises(CellSegError, match=r"other settings \(saved, options.tile\)"):
        segment_files(Noting(), images, out, SAVED[1:], resume=True, tile=64)
    segment_files(Noting(), images, out, SAVED, resume=True)
    assert contents(out) == unbroken, "the refusals changed nothing"


def test_images_that_failed_are_tried_again(images, unbroken, tmp_path):
    paths = [tmp_path / path.name for path in images]
    for path, original in zip(paths, images, strict=True):
        path.write_bytes(original.read_bytes())
    paths[2].write_bytes(b"no image")
    notes, out = tmp_path / "notes", tmp_path / "out"
    result = segment_files(Noting(notes), paths, out, SAVED)
    assert list(result.failed) == [paths[2]]
    assert (out / "submission.csv").is_file(), "of the others"
    paths[2].write_bytes(images[2].read_bytes())
    assert segment_files(Noting(notes), paths, out, SAVED, resume=True).failed == {}
    assert notes.read_text() == "abcdef" + "c"
    assert contents(out) == unbroken


def test_no_room_on_the_disk_is_one_sentence_and_can_be_resumed(images, unbroken, tmp_path, monkeypatch, capsys):
    out, write, room = tmp_path / "out", Format.write, iter("1111100000")

    def fill(self, path, segmentation):
        if next(room) == "0":
            raise OSError(errno.ENOSPC, "No space left on device")
        return write(self, path, segmentation)

    arguments = ["--model", "otsu", "--input", str(images[0].parent), "--output", str(out), "--save", *SAVED]
    with monkeypatch.context() as patch:
        patch.setattr(Format, "write", fill)
        patch.setattr("sys.argv", ["tools/infer.py"])
        with pytest.raises(SystemExit) as ended:
            common.run(lambda: infer.main(arguments))
    assert ended.value.code == 2
    said = capsys.readouterr().err.splitlines()
    assert [line for line in said if line.startswith("error:")] == [
        f"error: results cannot be written to {out} (No space left on device); the images done so far are kept: mend "
        "that, and give the same call again with --resume"
    ]
    assert infer.main([*arguments, "--resume"]) == 0
    assert "1 images were done before" in capsys.readouterr().out
    infer.main([*arguments, "--output", str(tmp_path / "whole")])
    assert contents(out) == contents(tmp_path / "whole")


def test_ctrl_c_says_how_to_go_on(images, tmp_path, monkeypatch, capsys):
    arguments = ["--model", "otsu", "--input", str(images[0].parent), "--output", str(tmp_path), "--save", "csv"]
    segment, calls = ClassicalSegmenter.detect_views, iter("1110")

    def interrupted(self, image, scale=1.0):
        if next(calls) == "0":
            raise KeyboardInterrupt
        return segment(self, image, scale)

    with monkeypatch.context() as patch:
        patch.setattr(ClassicalSegmenter, "detect_views", interrupted)
        with pytest.raises(SystemExit) as ended:
            common.run(lambda: infer.main(arguments))
    assert ended.value.code == 130
    assert "the images done so far are kept: give the same call again with --resume" in capsys.readouterr().err
    assert infer.main([*arguments, "--resume"]) == 0
    assert "3 images were done before" in capsys.readouterr().out


def test_an_error_of_the_program_keeps_what_was_done(images, tmp_path, monkeypatch):
    monkeypatch.setattr(batch, "_table", lambda segmentation, _: f"image{1 / (segmentation.name != 'c')}")
    with pytest.raises(ZeroDivisionError):
        segment_files(Noting(), images, tmp_path, ["csv"])
    monkeypatch.undo()
    assert segment_files(Noting(), images, tmp_path, ["csv"], resume=True).resumed == 2


def test_settings_tell_all_that_decides(tmp_path, repository, monkeypatch):
    folder = write_untrained_run(tmp_path, repository / "configs/quickstart/instant_test.yaml")
    network = build_model(load_config(folder / "config.yaml", ["MODEL.DEVICE", "cpu"]))
    monkeypatch.setattr("cellseg_d2.inference.model.build_network", lambda cfg: network)

    def settings(*opts, change=None):
        cfg = load_config(folder / "config.yaml", ["MODEL.DEVICE", "cpu", *map(str, opts)])
        segmenter = CellSegmenter.from_config(cfg, folder / "model_best.pth")
        if change:
            change(segmenter)
        return json.dumps(segmenter.settings(), default=str)

    def scale(segmenter):
        next(segmenter.networks()[0].parameters()).data[0] += 1e-6

    usual = settings()
    assert settings("OUTPUT_DIR", "elsewhere", "SOLVER.BASE_LR", 0.5, "MODEL.WEIGHTS", "other.pth") == usual
    others = [
        settings("TEST.DETECTIONS_PER_IMAGE", 7),
        settings("MODEL.ROI_HEADS.SCORE_THRESH_TEST", 0.2),
        settings("TEST.POSTPROCESS.MIN_AREAS", [9]),
        settings("TEST.TTA.ENABLED", True, "TEST.FUSION.IOU", 0.7),
        settings(change=scale),
    ]
    assert len({usual, *others}) == 1 + len(others)


def test_settings_of_an_ensemble_are_those_of_its_members():
    members, weights = [Noting(), Noting()], [1.0, 2.0]
    members[1].least_area = 20
    for member in members:
        member.fusion = FusionParams()
    settings = Ensemble(members, weights=weights).settings()
    assert settings["members"] == [member.settings() for member in members]
    assert settings["weights"] == weights
