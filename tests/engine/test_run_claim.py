"""Two trainings never write to one folder."""

import os
import subprocess
import sys

import pytest

from cellseg_d2.engine.run_claim import claim_run
from cellseg_d2.errors import CellSegError

HOLD = """
import os, sys
from cellseg_d2.engine.run_claim import claim_run
claim_run(sys.argv[1])
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
        with pytest.raises(CellSegError, match=f"process {process} is training in .*choose another OUTPUT_DIR"):
            claim_run(tmp_path)
        (tmp_path / "elsewhere").mkdir()
        claim_run(tmp_path / "elsewhere")
        holder.kill()
        holder.wait()
        claim_run(tmp_path)  # though its worker still runs
        assert (tmp_path / ".lock").read_text().strip() == str(os.getpid())
    finally:
        holder.stdin.close()  # ends the worker, too
        holder.kill()
        holder.wait()
        holder.stdout.close()


def test_leftovers_are_removed(tmp_path):
    left = tmp_path / ".model_final.999999999.part.pth"
    left.touch()
    claim_run(tmp_path)
    assert not left.exists()
