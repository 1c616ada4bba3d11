"""Waiting for data, the search for the largest batch, and the step that is measured."""

import math

import pytest

from cellseg_d2.benchmarks.inputs import annotated_entries
from cellseg_d2.benchmarks.training import TrainingStep, largest_that, measure_waiting
from cellseg_d2.config import load_config
from cellseg_d2.data.catalog import register_json
from cellseg_d2.data.dataset_mapper import CellDatasetMapper
from cellseg_d2.errors import CellSegError
from tests.discs import write_disc_dataset


def test_waiting_is_the_share_of_all_time(tmp_path):
    # Detectron2 does not time the first iterations.
    (tmp_path / "losses.csv").write_text("iteration,data_time,time\n0,5.0,\n1,0.1,1.0\n2,0.3,3.0\n3,,2.0\n")
    waiting = measure_waiting(tmp_path)
    assert waiting.iterations == 2
    assert waiting.share == pytest.approx(0.4 / 4)


@pytest.mark.parametrize(("content", "message"), [(None, "does not exist"), ("iteration,lr\n1,0.1\n", "no iteration")])
def test_runs_without_times_are_refused(tmp_path, content, message):
    if content:
        (tmp_path / "losses.csv").write_text(content)
    with pytest.raises(CellSegError, match=message):
        measure_waiting(tmp_path)


@pytest.mark.parametrize("most", [1, 2, 5, 16, 64])
def test_the_largest_batch_is_found_in_few_tries(most):
    for largest in range(most + 1):
        tries = []

        def fits(number, largest=largest, tries=tries):
            tries.append(number)
            return number <= largest

        assert largest_that(fits, most) == largest
        assert tries[0] == 1
        assert max(tries) <= most
        assert len(tries) == len(set(tries)) <= 2 * math.log2(most) + 2


def test_a_step_trains_on_targets_of_both_forms(tmp_path, repository):
    folder = write_disc_dataset(tmp_path, size=64)
    entry = annotated_entries(register_json(folder / "instances_train.json"))[0]
    cfg = load_config(repository / "configs/quickstart/instant_test.yaml", ["MODEL.DEVICE", "cpu", "SEED", "1"])
    step = TrainingStep(cfg)
    for mask_format in ("bitmask", "layers"):
        sample = CellDatasetMapper(True, augmentations=[], channels=1, mask_format=mask_format)(entry)
        before = [parameter.detach().clone() for parameter in step.model.parameters()]
        assert math.isfinite(step([sample] * 2))
        assert any((a != b).any() for a, b in zip(before, step.model.parameters(), strict=True))
