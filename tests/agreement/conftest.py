"""Agreement with Detectron2 is that of float32, whatever this machine predicts in by default."""

import pytest

from cellseg_d2.modeling import precision


@pytest.fixture(autouse=True)
def in_float32(monkeypatch):
    monkeypatch.setattr(precision, "has_fast_bfloat16", lambda: False)
