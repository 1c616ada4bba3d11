"""Several processes that end well, that fail, and that are killed."""

import pytest
import torch.multiprocessing

from cellseg_d2.engine.launcher import launch_work
from cellseg_d2.errors import CellSegError
from tests.distributed import work


def test_what_the_first_process_returns_is_returned(forked, tmp_path):
    assert launch_work(work.share, (tmp_path,), num_gpus=3) == 40
    assert sorted(path.name for path in tmp_path.iterdir()) == ["rank0", "rank1", "rank2"]
    assert launch_work(work.share, (tmp_path,)) == 40, "one process is this one"


def test_processes_leave_their_group_before_they_end(forked, tmp_path):
    """Otherwise its threads may abort them."""
    launch_work(work.report_group, (tmp_path,), num_gpus=2)
    assert {path.name: path.read_text() for path in tmp_path.iterdir()} == {"rank0": "False", "rank1": "False"}


def test_a_sentence_of_any_process_is_the_caller_s(forked):
    with pytest.raises(CellSegError, match=r"^there is no such thing$"):
        launch_work(work.fail, num_gpus=2)


def test_a_killed_process_ends_all_of_them(forked):
    with pytest.raises(CellSegError, match=r"process 2 of 2 was killed \(SIGKILL\), possibly out of memory"):
        launch_work(work.die, num_gpus=2)


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        ({"num_gpus": 0}, "0 processes does not exist"),
        ({"num_machines": 2, "machine_rank": 2}, "machine 2 of 2"),
        ({"num_machines": 2}, "--dist-url"),
    ],
)
def test_what_cannot_be_is_refused_at_once(arguments, said):
    with pytest.raises(CellSegError, match=said):
        launch_work(work.share, **arguments)


def test_more_processes_than_gpus_are_refused(monkeypatch):
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    monkeypatch.setattr(torch.cuda, "device_count", lambda: 1)
    with pytest.raises(CellSegError, match="--num-gpus is 2, but this machine has 1"):
        launch_work(work.share, num_gpus=2)
