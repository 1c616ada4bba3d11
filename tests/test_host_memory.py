"""Memory of conversion, evaluation and prediction goes with one image, not with how many there are.

``CELLSEG_MEMORY=10,80,300 pytest -s tests/test_host_memory.py`` prints the peaks for as many images.
"""

import csv
import functools
import os
import subprocess
import sys

import numpy as np
import pytest
from PIL import Image

from cellseg_d2.masks.crop import crop_to_kaggle
from cellseg_d2.simulation import simulate_image
from tests.conftest import REPOSITORY

HEIGHT, WIDTH = 260, 352
TOOLS = ("convert_to_coco", "evaluate", "infer")
COUNTS = [int(count) for count in os.environ.get("CELLSEG_MEMORY", "4,20").split(",")]
# What may be kept of an image, in MiB: run lengths of its cells, and what Python takes for them. The masks of its cells
# at full size take about 2.
KEPT = 0.2
# Peak of the memory of a process after each of several calls of a tool, in MiB. Unlike `getrusage`, this does not begin
# with what the process that started it had.
PROBE = """
import importlib, os, sys
main = importlib.import_module(f"cellseg_d2.cli.{sys.argv[1]}").main
real, null = os.dup(1), os.open(os.devnull, os.O_WRONLY)
for line in sys.argv[2:]:
    os.dup2(null, 1)
    assert not main(line.split("|"))
    sys.stdout.flush()
    os.dup2(real, 1)
    peak = next(line for line in open("/proc/self/status") if line.startswith("VmHWM"))
    print(int(peak.split()[1]) / 1024)
    sys.stdout.flush()
"""

pytestmark = pytest.mark.skipif(not os.path.exists("/proc/self/status"), reason="peaks are read as Linux tells them")


@pytest.fixture(scope="module")
def data(tmp_path_factory):
    """Folder by number of images, each with the competition's layout and a submission that repeats the truth."""
    folders = {}
    for count in COUNTS:
        folder = folders[count] = tmp_path_factory.mktemp(f"images{count}")
        write_images(folder, count)
    return folders


@functools.cache
def simulated():
    """An image, and its cells as Kaggle RLE."""
    image, masks = simulate_image("cort", np.random.default_rng(1), HEIGHT, WIDTH, density=2)
    assert len(masks) * HEIGHT * WIDTH > 8 * KEPT * 2**20
    return image, [crop_to_kaggle(mask, WIDTH) for mask in masks]


def write_images(folder, count):
    (folder / "train").mkdir()
    with open(folder / "train.csv", "w", newline="") as truth, open(folder / "p.csv", "w", newline="") as predicted:
        rows, predictions = csv.writer(truth), csv.writer(predicted)
        rows.writerow(["id", "annotation", "width", "height", "cell_type"])
        predictions.writerow(["id", "predicted"])
        for number in range(count):
            image, cells = simulated()
            Image.fromarray(image).save(folder / f"train/i{number}.png", compress_level=1)
            for cell in cells:
                rows.writerow([f"i{number}", cell, WIDTH, HEIGHT, "cort"])
                predictions.writerow([f"i{number}", cell])


def peaks(tool, folders):
    """Peak in MiB after each of the folders, in one process."""
    lines = []
    for folder in folders:
        arguments = {
            "convert_to_coco": ["--csv", folder / "train.csv", "--images", folder / "train", "--clean"],
            "evaluate": ["--predictions", folder / "p.csv", "--ground-truth", folder / "train.csv"],
            "infer": ["--model", "otsu", "--input", folder / "train", "--save", "submission", "csv", "labels"],
        }[tool]
        arguments += [] if tool == "evaluate" else ["--output", folder / tool]
        lines.append("|".join(map(str, arguments)))
    environment = {**os.environ, "OMP_NUM_THREADS": "1"}
    command = [sys.executable, "-c", PROBE, tool, *lines]
    result = subprocess.run(command, capture_output=True, text=True, cwd=REPOSITORY, env=environment)
    assert result.returncode == 0, result.stderr
    return [float(line) for line in result.stdout.splitlines()]


@pytest.mark.parametrize("tool", TOOLS)
def test_peaks_do_not_grow_with_the_number_of_images(tool, data):
    few, many = COUNTS[0], COUNTS[-1]
    first, last = peaks(tool, [data[few], data[many]])
    assert last - first < KEPT * (many - few) + 2, f"{tool}: {first:.0f} MiB for {few} images, {last:.0f} for {many}"


@pytest.mark.skipif("CELLSEG_MEMORY" not in os.environ, reason="CELLSEG_MEMORY=10,80,300 prints the table")
def test_table_of_peaks(data):
    for tool in TOOLS:
        print(
            tool, *(f"{count} images {peaks(tool, [folder])[0]:.0f} MiB" for count, folder in data.items()), sep=" · "
        )
