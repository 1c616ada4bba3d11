"""The table of formats in docs/formats.md has every way in and out."""

import re

from cellseg_d2.cli.convert import formats
from cellseg_d2.datasets.readers import DATASET_READERS
from cellseg_d2.export.formats import batch_formats
from tests.conftest import REPOSITORY


def test_the_table_has_every_reader_and_every_format():
    lines = (REPOSITORY / "docs/formats.md").read_text(encoding="utf-8").splitlines()
    rows = [[cell.strip() for cell in line.split("|")[1:-1]] for line in lines if line.startswith("|")]
    rows = [row for row in rows[2:] if len(row) == 4]
    read = [name for row in rows for name in re.findall(r"`--([a-z]+)`", row[1])]
    written = [name for row in rows for name in re.findall(r"^`([a-z]+)`", row[2])]
    assert sorted(read) == sorted(DATASET_READERS)
    assert sorted(written) == sorted({*batch_formats(), *formats()})
