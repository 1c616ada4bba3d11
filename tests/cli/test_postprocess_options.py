"""Options of post-processing: what a user names is what counts."""

import argparse

import pytest

from cellseg_d2.cli.postprocess_options import add_postprocess_options, choose_postprocess, postprocess_opts
from cellseg_d2.config import load_config
from cellseg_d2.postprocess.params import PostprocessParams
from cellseg_d2.weights.model_folder import SHIPPED


@pytest.mark.parametrize(
    ("words", "area", "share", "doubtful"),
    [([], 25, 0.2, 160), (["--score-threshold", "0.9"], 25, 0.2, 160), (["--min-area", "12"], 12, 0, 0)],
)
def test_a_named_area_keeps_all_cells_from_there_on(words, area, share, doubtful):
    """The shipped model leaves out what is small among an image's cells; who names an area does not want that."""
    parser = argparse.ArgumentParser()
    add_postprocess_options(parser)
    args = parser.parse_args(words)
    cfg = load_config(SHIPPED / "cells/config.yaml", postprocess_opts(args))
    own = PostprocessParams(min_areas=(25,), min_area_share=0.2, doubtful_areas=(160,))
    for params in (PostprocessParams.from_config(cfg), choose_postprocess(args, own)):
        assert (params.min_areas, params.min_area_share, params.doubtful_areas) == ((area,), share, (doubtful,))
