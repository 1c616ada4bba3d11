"""Images of several windows are measured against exactly known discs."""

import numpy as np
import tifffile

from cellseg_d2.benchmarks.mosaic import disc_field, draw_disc, measure_mosaic, write_mosaic
from cellseg_d2.benchmarks.tables import mosaic_table


def test_the_written_mosaic_shows_the_discs(tmp_path):
    discs = disc_field(700, seed=3)
    write_mosaic(tmp_path / "mosaic.tif", discs, 700)
    image = tifffile.imread(tmp_path / "mosaic.tif")
    expected = np.zeros((700, 700), bool)
    for disc in discs:
        crop = draw_disc(*disc)
        expected[crop.slices] |= crop.mask
    assert np.array_equal(image > 150, expected)


def test_every_disc_is_found_once():
    cost = measure_mosaic(1200)
    assert (cost.windows, cost.discs, cost.found, cost.extra) == (4, 33**2, 33**2, 0)
    assert cost.on_seams > 20
    assert min(cost.iou, cost.iou_on_seams) > 0.95
    assert cost.peak > 2**20
    assert "1,200 × 1,200" in mosaic_table([cost])
