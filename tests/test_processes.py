"""A killed worker ends the work with a sentence, a killed parent ends its workers, and nothing else makes processes."""

import multiprocessing
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from cellseg_d2.errors import CellSegError
from cellseg_d2.processes import in_process, in_processes
from tests.fuzz.cases import time_limit
from tests.plain import ROOT


def test_work_is_done_in_order_and_its_errors_arrive():
    assert list(in_processes(abs, range(-20, 20), 2)) == list(map(abs, range(-20, 20)))
    with pytest.raises(TypeError, match="bad operand"):
        list(in_processes(abs, [1, "2", 3], 1))
    with pytest.raises(ZeroDivisionError):
        in_process(divmod, 1, 0)
    assert in_process(os.getpid) != os.getpid()


def test_items_are_not_all_taken_at_once():
    taken = []
    results = in_processes(abs, (taken.append(n) or n for n in range(100)), 1)
    assert next(results) == 0
    assert len(taken) < 10
    results.close()
    assert not multiprocessing.active_children()


@pytest.mark.parametrize("end", [(os._exit, 3), (signal.raise_signal, signal.SIGKILL)])
def test_a_worker_that_ends_is_noticed(end):
    function, code = end
    with time_limit(60), pytest.raises(CellSegError, match="worker process was killed"):
        in_process(function, code)
    with time_limit(60), pytest.raises(CellSegError, match="worker process was killed"):
        list(in_processes(function, [code] * 50, 2))


def test_an_exception_ends_the_workers_at_once():
    results = in_processes(time.sleep, [0, *[300] * 9], 1)
    next(results)
    with time_limit(60):
        results.close()
    assert not multiprocessing.active_children()


def workers_of(process):
    """Numbers of the workers among a process's children, once there are some."""
    while True:
        children = Path(f"/proc/{process.pid}/task/{process.pid}/children").read_text().split()
        found = [int(pid) for pid in children if b"spawn_main" in Path(f"/proc/{pid}/cmdline").read_bytes()]
        if found:
            return found
        time.sleep(0.05)


@pytest.fixture
def simulating(tmp_path):
    """A simulation by two workers that takes minutes."""
    command = [sys.executable, "tools/make_simulated.py", "--output", str(tmp_path / "sim"), "--workers", "2"]
    process = subprocess.Popen(
        [*command, "--images-per-type", "300"], cwd=ROOT, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True
    )
    yield process
    process.kill()
    process.wait()


def test_a_killed_worker_of_make_simulated_is_told_and_leaves_nothing(tmp_path, simulating):
    with time_limit(120):
        os.kill(workers_of(simulating)[0], signal.SIGKILL)
        said, _ = simulating.communicate()
    assert simulating.returncode == 2, said
    assert said.count("error: a worker process was killed") == 1
    assert "Traceback" not in said, said
    assert not list(tmp_path.iterdir())


def test_a_killed_make_simulated_takes_its_workers_along_and_blocks_nobody(tmp_path, simulating):
    with time_limit(120):
        workers = workers_of(simulating)
        while not list(tmp_path.glob(".sim.*.part")):
            time.sleep(0.05)
        simulating.kill()
        simulating.communicate()
        while any(Path(f"/proc/{pid}/stat").is_file() and _state(pid) != "Z" for pid in workers):
            time.sleep(0.05)
    (left,) = tmp_path.iterdir()
    command = [sys.executable, "tools/make_simulated.py", "--output", tmp_path / "sim", "--images-per-type", "1"]
    options = ["--test-per-type", "0", "--size", "96", "96"]
    assert subprocess.run([*map(str, command), *options], cwd=ROOT, capture_output=True).returncode == 0
    assert [path.name for path in tmp_path.iterdir()] == ["sim"], f"{left} is of the same folder, and of no process"


def _state(pid):
    return Path(f"/proc/{pid}/stat").read_text().rsplit(")", 1)[1].split()[0]


def test_nothing_else_makes_a_pool():
    """Detectron2's launcher and PyTorch's data loaders notice killed processes by themselves."""
    for path in (ROOT / "cellseg_d2").rglob("*.py"):
        text = path.read_text(encoding="utf-8")
        if path.name != "processes.py":
            assert not [word for word in (".Pool(", "ProcessPoolExecutor", "Process(target") if word in text], path
