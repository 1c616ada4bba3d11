"""Two processes come to what one comes to: training, evaluation, and batches of images."""

import csv
import json
import os
import subprocess
import sys

import cv2
import numpy as np
import pytest
import torch
from detectron2.modeling import build_model

from cellseg_d2.cli import infer
from cellseg_d2.config import load_config
from cellseg_d2.engine.launcher import launch_work
from tests.discs import disc_image, write_disc_dataset
from tests.distributed import work


@pytest.fixture(scope="module")
def runs(tmp_path_factory, repository):
    """Folder by number of processes, each with what :func:`tests.distributed.work.train_and_predict` returned."""
    root = tmp_path_factory.mktemp("processes")
    folder = write_disc_dataset(root, images=5)  # four to train on, and one without cells
    content = json.loads((folder / "instances_val.json").read_text())
    for entry, key in [(i, "id") for i in content["images"]] + [(a, "image_id") for a in content["annotations"]]:
        entry[key] = 6 - entry[key]  # Detectron2's order, which then is not that of the names
    (folder / "instances_val.json").write_text(json.dumps(content))
    only = json.loads((folder / "instances_val.json").read_text())
    only["images"] = [image for image in only["images"] if image["id"] == 5]
    only["annotations"] = [cell for cell in only["annotations"] if cell["image_id"] == 5]
    only["info"]["image_root"] = "../discs/images"
    (root / "one").mkdir()
    (root / "one/instances_val.json").write_text(json.dumps(only))
    (root / "images").mkdir()
    for index in range(5):
        cv2.imwrite(str(root / f"images/{index}.png"), disc_image(np.random.default_rng(index), 96, 4, index % 2)[0])
    (root / "images/3.png").write_bytes(b"no image")

    config = root / "config.yaml"
    cfg = load_config(repository / "configs/quickstart/instant_test.yaml", ["MODEL.DEVICE", "cpu"])
    config.write_text(cfg.dump())
    torch.manual_seed(0)
    torch.save({"model": build_model(cfg).state_dict()}, root / "model.pth")

    threads = torch.get_num_threads()
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("DETECTRON2_DATASETS", str(root))
        patch.setenv("CUDA_VISIBLE_DEVICES", "")
        returned = {
            count: launch_work(work.train_and_predict, (config, root / str(count), root / "images"), num_gpus=count)
            for count in (1, 2)
        }
    torch.set_num_threads(threads)
    return {count: (root / str(count), returned[count]) for count in returned}


def files_of(folder):
    return {path.relative_to(folder).as_posix(): path for path in folder.rglob("*") if path.is_file()}


def test_losses_and_weights_are_those_of_one_process_with_the_same_batch(runs):
    rows = {}
    for count, (folder, _) in runs.items():
        with open(folder / "losses.csv", newline="") as file:
            rows[count] = [(int(row["iteration"]), float(row["total_loss"])) for row in csv.DictReader(file)]
    assert [number for number, _ in rows[1]] == [0, 1, 2]
    assert np.allclose(rows[1], rows[2], rtol=1e-4)
    one, two = (torch.load(runs[count][0] / "model_final.pth", weights_only=True)["model"] for count in (1, 2))
    start = torch.load(runs[1][0].parent / "model.pth", weights_only=True)["model"]
    for name, value in one.items():
        assert torch.allclose(value, two[name], rtol=1e-4, atol=1e-6), name
    assert any(not torch.equal(value, start[name]) for name, value in one.items())


def test_the_folder_is_as_after_one_process(runs):
    one, two = (set(files_of(runs[count][0])) for count in (1, 2))
    events = {name for name in one | two if "events.out" in name}
    logs = {name for name in one | two if name.startswith("log.txt")}
    assert one - events - logs == two - events - logs
    assert len(events & one) == len(events & two) == 1


def test_scores_and_predictions_are_those_of_one_process(runs):
    (one, (_, scores, _)), (two, (rank, scores_of_two, _)) = runs[1], runs[2]
    assert rank == 0
    assert json.dumps(scores) == json.dumps(scores_of_two)
    for dataset, images in (("discs_val", 5), ("one_val", 1)):
        with open(one / "inference" / dataset / "submission.csv", newline="") as file:
            predicted = [row["id"] for row in csv.DictReader(file)]
        assert len(dict.fromkeys(predicted)) == images
        names = ("submission.csv", "competition.json", "coco_results.json", "detections.npz")
        for name in names:
            path = f"inference/{dataset}/{name}"
            assert (one / path).read_bytes() == (two / path).read_bytes(), path
        assert len(predicted) > images, "random weights find something"


def test_images_that_are_shared_out_give_the_files_of_one_process(runs):
    (one, (_, _, result)), (two, (_, _, result_of_two)) = runs[1], runs[2]
    files, files_of_two = files_of(one / "segmented"), files_of(two / "segmented")
    assert {name for name in files if not name.startswith(".")} == {
        "submission.csv",
        "cells.csv",
        *(f"labels/{index}_labels.tif" for index in (0, 1, 2, 4)),
    }
    for name in files:
        if name != ".unfinished/settings.json":
            assert files[name].read_bytes() == files_of_two[name].read_bytes(), name
    assert files.keys() == files_of_two.keys()
    assert result.counts == result_of_two.counts
    assert sum(map(sum, (counts.values() for counts in result.counts.values()))) > 4
    assert [path.name for path in result_of_two.failed] == [path.name for path in result.failed] == ["3.png"]


def test_the_tool_shares_images_out(forked, tmp_path, capfd):
    (tmp_path / "images").mkdir()
    for name in "abc":
        cv2.imwrite(str(tmp_path / f"images/{name}.png"), disc_image(np.random.default_rng(ord(name)), 96, 4, 0)[0])
    (tmp_path / "images/d.png").write_bytes(b"no image")
    command = ["--model", "otsu", "--input", tmp_path / "images", "--save", "csv", "--output", tmp_path / "out"]
    assert infer.main([*map(str, command), "--num-gpus", "2", "--min-area", "9"]) == 1
    said = capfd.readouterr().out
    assert said.count("d.png") == 1, "the failed image is named once"
    assert said.count("cells.csv") == 1, "one process reports"
    assert "4 images in 2 processes" in said
    with open(tmp_path / "out/cells.csv", newline="") as file:
        assert [row["image"] for row in csv.DictReader(file)] == [name for name in "abc" for _ in range(4)]


@pytest.mark.skipif(not os.environ.get("CELLSEG_LONG_TESTS"), reason="takes a minute; CELLSEG_LONG_TESTS=1 runs it")
def test_two_machines_train_and_predict_by_the_same_command(repository, tmp_path):
    write_disc_dataset(tmp_path)
    environment = {**os.environ, "CUDA_VISIBLE_DEVICES": "", "OMP_NUM_THREADS": "1"}
    environment["DETECTRON2_DATASETS"] = str(tmp_path)

    def on_two_machines(*command):
        from detectron2.engine.launch import _find_free_port

        url = f"tcp://127.0.0.1:{_find_free_port()}"
        machines = [
            subprocess.Popen(
                [sys.executable, *map(str, command), "--num-machines", "2", "--machine-rank", rank, "--dist-url", url],
                cwd=repository,
                env=environment,
                stdout=subprocess.PIPE,
                stderr=subprocess.STDOUT,
                text=True,
            )
            for rank in "01"
        ]
        said = [machine.communicate(timeout=500)[0] for machine in machines]
        assert [machine.returncode for machine in machines] == [0, 0], said
        return said

    config = repository / "configs/quickstart/instant_test.yaml"
    # Detectron2's options come before the KEY VALUE pairs.
    (tmp_path / "config.yaml").write_text(f"_BASE_: {config}\nOUTPUT_DIR: {tmp_path / 'run'}\n")
    on_two_machines("tools/train_net.py", "--config-file", tmp_path / "config.yaml")
    assert (tmp_path / "run/model_final.pth").is_file()
    images = tmp_path / "discs/images"
    said = on_two_machines("tools/infer.py", "--model", "otsu", "--input", images, "--output", tmp_path / "out")
    assert "8 images in 2 processes" in said[0]
    assert not any("Warning" in text for text in said)
    assert len(list((tmp_path / "out/overlay").iterdir())) == 8
