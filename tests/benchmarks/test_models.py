"""What a model costs is measured on the model of the configuration, trained and used as it says."""

from cellseg_d2.benchmarks.models import measure_model
from cellseg_d2.benchmarks.tables import models_table


def test_time_and_memory_of_a_small_model(repository):
    config = repository / "configs/quickstart/instant_test.yaml"
    opts = ["MODEL.DEVICE", "cpu", "SOLVER.IMS_PER_BATCH", "3", "TEST.DETECTIONS_PER_IMAGE", "40"]
    cost = measure_model(config, opts, repeats=1)
    assert cost.batch == 3
    assert cost.megapixels == 3 * 64 * 64 / 1e6
    assert cost.detections == 40
    assert 1e6 < cost.parameters < 5e6
    assert min(cost.train_seconds, cost.predict_seconds) > 1e-3
    assert min(cost.train_peak, cost.predict_peak) > 4 * cost.parameters  # at least the weights themselves
    table = models_table({"instant_test": cost})
    assert "3 × 0.004" in table
    assert "40" in table
