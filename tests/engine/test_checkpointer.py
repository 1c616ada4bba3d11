"""Checkpoints are whole, the last one is found, and a damaged one is noticed."""

import contextlib
import io
import os
import pickle
import resource
import zipfile

import pytest
import torch

from cellseg_d2.engine.checkpointer import CellCheckpointer, is_whole
from cellseg_d2.errors import CellSegError


@pytest.fixture
def checkpoints(tmp_path):
    """Three checkpoints, the third of them the last."""
    checkpointer = CellCheckpointer(torch.nn.Linear(3, 2), str(tmp_path))
    for number in (2, 5, 8):
        checkpointer.save(f"model_{number:07d}", iteration=number)
        os.utime(tmp_path / f"model_{number:07d}.pth", (number, number))
    return checkpointer


def last(checkpointer):
    return os.path.basename(checkpointer.get_checkpoint_file()) if checkpointer.has_checkpoint() else None


def test_it_saves_and_loads_as_detectron2_does(checkpoints, tmp_path):
    assert last(checkpoints) == "model_0000008.pth"
    assert sorted(path.name for path in tmp_path.iterdir()) == ["last_checkpoint"] + [
        f"model_000000{number}.pth" for number in (2, 5, 8)
    ]
    other = CellCheckpointer(torch.nn.Linear(3, 2), str(tmp_path))
    assert other.resume_or_load("", resume=True)["iteration"] == 8
    assert torch.equal(other.model.weight, checkpoints.model.weight)


def test_a_checkpoint_is_named_last_when_it_is_there(tmp_path, monkeypatch):
    moved = []
    replace = os.replace

    def noting(source, target):
        replace(source, target)
        moved.append(os.path.basename(target))

    monkeypatch.setattr(os, "replace", noting)
    CellCheckpointer(torch.nn.Linear(3, 2), str(tmp_path)).save("model_0000002")
    assert moved == ["model_0000002.pth", "last_checkpoint"]


def test_the_best_model_does_not_become_the_last_checkpoint(checkpoints, tmp_path):
    CellCheckpointer(checkpoints.model, str(tmp_path), tag=False).save("model_best")
    assert is_whole(tmp_path / "model_best.pth")
    assert last(checkpoints) == "model_0000008.pth"


def test_a_whole_file_is_told_from_every_cut_and_every_damage(checkpoints, tmp_path):
    path = tmp_path / "model_0000008.pth"
    content = path.read_bytes()
    assert is_whole(path)
    damaged = tmp_path / "damaged.pth"
    for length in range(0, len(content), 37):
        damaged.write_bytes(content[:length])
        assert not is_whole(damaged), length
    weight = content.index(checkpoints.model.weight.detach().numpy().tobytes())
    damaged.write_bytes(content[:weight] + bytes([content[weight] ^ 1]) + content[weight + 1 :])
    assert not is_whole(damaged)
    damaged.write_bytes(bytes(len(content)))
    assert not is_whole(damaged)


@pytest.mark.parametrize("damage", ["missing", "damaged"])
def test_a_last_checkpoint_that_is_unfit_is_replaced_by_the_one_before(checkpoints, tmp_path, caplog, damage):
    def spoil(number):
        path = tmp_path / f"model_{number:07d}.pth"
        path.unlink() if damage == "missing" else path.write_bytes(path.read_bytes()[:-1])

    checkpoints.repair_last()
    assert not caplog.records
    spoil(8)
    checkpoints.repair_last()
    assert last(checkpoints) == "model_0000005.pth"
    (record,) = caplog.records
    assert record.getMessage().endswith(f"model_0000008.pth is {damage}: training goes back to model_0000005.pth")
    spoil(5)
    checkpoints.repair_last()
    assert last(checkpoints) == "model_0000002.pth"
    spoil(2)
    caplog.clear()
    checkpoints.repair_last()
    assert last(checkpoints) is None
    assert "training starts at iteration 0" in caplog.records[0].getMessage()
    checkpoints.repair_last()
    assert len(caplog.records) == 1


def test_checkpoints_of_a_longer_training_of_earlier_days_are_not_taken(checkpoints, tmp_path):
    checkpoints.save("model_final")
    checkpoints.save("model_0000999")
    os.utime(tmp_path / "model_0000999.pth", (1, 1))
    checkpoints.tag_last_checkpoint("model_final.pth")
    (tmp_path / "model_final.pth").write_bytes(b"")
    checkpoints.repair_last()
    assert last(checkpoints) == "model_0000008.pth"


def test_a_full_disk_leaves_the_checkpoints_from_before(checkpoints, tmp_path):
    """A limit on the size of files stands in for it: the system refuses to write in the middle of the file."""
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    before = sorted(tmp_path.iterdir())
    resource.setrlimit(resource.RLIMIT_FSIZE, (1000, hard))
    try:
        with pytest.raises(
            CellSegError, match=r"model_0000011.pth cannot be written to .*: File too large; .*--resume"
        ):
            checkpoints.save("model_0000011")
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))
    assert sorted(tmp_path.iterdir()) == before
    assert last(checkpoints) == "model_0000008.pth"


def resume(folder):
    return CellCheckpointer(torch.nn.Linear(3, 2), str(folder)).resume_or_load("", resume=True)


class Payload:
    """Leaves a file where it is unpickled."""

    def __init__(self, path):
        self.path = path

    def __reduce__(self):
        return os.mkdir, (str(self.path),)


@pytest.mark.parametrize("name", ["model.pkl", "model.pyth", "model.pth"])
def test_no_code_is_run_of_what_is_named_last(checkpoints, tmp_path, name):
    # A file that is a pickle to those who read from its beginning, and a whole archive to others.
    content = io.BytesIO(pickle.dumps({"model": Payload(tmp_path / "ran"), "__author__": "x"}))
    with zipfile.ZipFile(content, "a") as target, zipfile.ZipFile(tmp_path / "model_0000008.pth") as source:
        for part in source.namelist():
            target.writestr(part, source.read(part))
    (tmp_path / name).write_bytes(content.getvalue())
    checkpoints.tag_last_checkpoint(name)
    with contextlib.suppress(CellSegError):
        resume(tmp_path)
    torch.save({"model": Payload(tmp_path / "ran")}, tmp_path / "hostile.pth")
    checkpoints.tag_last_checkpoint("hostile.pth")
    with pytest.raises(CellSegError, match=r"hostile.pth cannot be resumed from"):
        resume(tmp_path)
    assert not (tmp_path / "ran").exists()


def test_only_checkpoints_of_trainings_are_resumed_from(checkpoints, tmp_path):
    torch.save([1, 2], tmp_path / "list.pth")
    for name, message in (("list.pth", "holds no model"), ("model.pkl", "end in .pth")):
        (tmp_path / "model.pkl").touch()
        checkpoints.tag_last_checkpoint(name)
        with pytest.raises(CellSegError, match=message):
            resume(tmp_path)
