"""Predictions in bfloat16 where processors are made for it."""

import pytest
import torch

from cellseg_d2.errors import CellSegError
from cellseg_d2.modeling.precision import has_fast_bfloat16, prediction_dtype


@pytest.mark.parametrize("capable", [True, False])
def test_auto_follows_the_processor(capable, monkeypatch):
    monkeypatch.setattr(torch.cpu, "get_capabilities", lambda: {"avx512_bf16": capable}, raising=False)
    assert has_fast_bfloat16() is capable
    assert prediction_dtype("auto", "cpu") is (torch.bfloat16 if capable else None)
    assert prediction_dtype("auto", "cuda:0") is None
    assert prediction_dtype("bfloat16", "cpu") is torch.bfloat16
    assert prediction_dtype("float32", "cpu") is None


def test_a_pytorch_that_does_not_tell_is_taken_at_its_safest(monkeypatch):
    monkeypatch.delattr(torch.cpu, "get_capabilities", raising=False)
    assert prediction_dtype("auto", "cpu") is None


def test_others_are_refused():
    with pytest.raises(CellSegError, match="float16"):
        prediction_dtype("float16", "cpu")
