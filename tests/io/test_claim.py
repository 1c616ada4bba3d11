"""Two processes never write to one folder."""

import os
import subprocess
import sys

import pytest

from cellseg_d2.errors import CellSegError
from cellseg_d2.io.claim import claim, claimed

HOLD = """
import os, sys
from cellseg_d2.io.claim import claim
claim(sys.argv[1])
if os.fork() == 0:  # as a data loading worker, which outlives a kill for a while
    os.close(1)
    sys.stdin.read()
    os._exit(0)
print(os.getpid(), flush=True)
sys.stdin.read()
"""


def test_a_folder_is_for_one_process_until_that_ends(tmp_path):
    holder = subprocess.Popen(
        [sys.executable, "-c", HOLD, str(tmp_path)], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
    )
    try:
        process = holder.stdout.readline().strip()
        with pytest.raises(CellSegError, match=f"process {process} is writing to .*choose another folder"):
            claim(tmp_path)
        (tmp_path / "elsewhere").mkdir()
        claim(tmp_path / "elsewhere")
        holder.kill()
        holder.wait()
        claim(tmp_path)  # though its worker still runs
        assert (tmp_path / ".lock").read_text().strip() == str(os.getpid())
    finally:
        holder.stdin.close()  # ends the worker, too
        holder.kill()
        holder.wait()
        holder.stdout.close()


def test_leftovers_are_removed(tmp_path):
    left = tmp_path / ".model_final.999999999.part.pth"
    left.touch()
    claim(tmp_path)
    assert not left.exists()


def test_a_claim_of_a_block_leaves_nothing(tmp_path):
    out = tmp_path / "out"
    with claimed(out):
        assert (out / ".lock").read_text().strip() == str(os.getpid())
        with claimed(out):
            pass
        assert (out / ".lock").exists(), "a block within a block ends nothing"
    assert not out.exists(), "it was made for the block, and stayed empty"
    with claimed(out):
        (out / "result").touch()
    assert [path.name for path in out.iterdir()] == ["result"]
    with pytest.raises(ZeroDivisionError), claimed(out):
        1 / 0  # noqa: B018
    assert [path.name for path in out.iterdir()] == ["result"]


LOOP = """
import sys, time
from cellseg_d2.errors import CellSegError
from cellseg_d2.io.claim import claimed
done = 0
while done < 40:
    try:
        with claimed(sys.argv[1]):
            with open(sys.argv[1] + "/inside", "x"):
                pass
            import os; os.unlink(sys.argv[1] + "/inside")
            done += 1
    except CellSegError:
        pass
    time.sleep(0.001)
"""


def test_never_two_at_once_though_each_removes_its_lock(tmp_path):
    """Between opening and locking a file, its holder may have removed it: then two could hold one lock each."""
    (tmp_path / "keep").touch()
    both = [subprocess.Popen([sys.executable, "-c", LOOP, str(tmp_path)], stderr=subprocess.PIPE) for _ in range(2)]
    for process in both:
        _, said = process.communicate(timeout=120)
        assert process.returncode == 0, said.decode()
    assert [path.name for path in tmp_path.iterdir()] == ["keep"]
