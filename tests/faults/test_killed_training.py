"""Trainings that are killed end as if they had not been.

A few kills here; many with the environment variable CELLSEG_TEST_KILLS=100, or with ``tests.faults.kill_training``.
"""

import json
import os
import subprocess
import sys

import pytest

from tests.quick_python import quick_python

KILLS = int(os.environ.get("CELLSEG_TEST_KILLS", "4"))


@pytest.mark.skipif(sys.platform != "linux", reason="its processes are watched through /proc")
def test_a_training_that_is_killed_again_and_again_ends_as_an_unbroken_one(repository, tmp_path):
    command = [*quick_python(), "-m", "tests.faults.kill_training", "--output", str(tmp_path), "--workers", "0", "2"]
    result = subprocess.run(
        [*command, "--kills", str(KILLS)],
        cwd=repository,
        env={**os.environ, "OMP_NUM_THREADS": "1"},
        capture_output=True,
        text=True,
        timeout=120 + 60 * KILLS,
    )
    assert result.returncode == 0, result.stderr[-3000:]
    report = json.loads(result.stdout)
    assert sum(report["kills"].values()) == KILLS
    assert report["most_iterations_lost"] < 3
