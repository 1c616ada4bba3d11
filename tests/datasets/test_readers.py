"""The tables of images and planes in docs/formats.md have every kind and option; for the first one see
:mod:`tests.test_formats_table`.
"""

import inspect
import re
from itertools import takewhile

import pytest

from cellseg_d2.cli.infer import PLANES, parse_args
from cellseg_d2.images.microscope import MICROSCOPE_SUFFIXES
from cellseg_d2.images.read import IMAGE_SUFFIXES, ZARR_SUFFIX
from cellseg_d2.inference.segmenter import Segmenter
from tests.conftest import REPOSITORY


def table(first):
    """The rows, as lists of cells, of the table whose first column is called so."""
    lines = (REPOSITORY / "docs/formats.md").read_text(encoding="utf-8").splitlines()
    start = next(number for number, line in enumerate(lines) if line.startswith(f"| {first} |"))
    rows = takewhile(lambda line: line.startswith("|"), lines[start + 2 :])
    return [[cell.strip() for cell in re.split(r"(?<!\\)\|", row)[1:-1]] for row in rows]


def test_the_table_of_images_has_every_kind():
    kinds = {name for row in table("image") for name in re.findall(r"`(\.[a-z0-9]+)`", row[0])}
    assert kinds == {*IMAGE_SUFFIXES, *MICROSCOPE_SUFFIXES, ZARR_SUFFIX}


def test_the_table_of_planes_has_every_option():
    rows = table("option")
    names = [re.match(r"`--([a-z-]+)", row[0]).group(1).replace("-", "_") for row in rows]
    assert sorted(names) == sorted((*PLANES, "diameter_um"))
    arguments = inspect.signature(Segmenter.segment).parameters
    assert {name for row in rows for name in re.findall(r"`([a-z_]+)=", row[1])} == {*names, "frame"} <= set(arguments)


@pytest.mark.parametrize("row", table("option"), ids=lambda row: row[0])
def test_the_options_are_written_as_they_are_given(row):
    words = row[0].strip("`").replace("\\|NAME", "").replace("\\|mean", "").replace("UM", "12").split()
    assert parse_args(["--input", "a.tif", "--output", "out", *words])
