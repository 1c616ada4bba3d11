"""Processes that are quick to start."""

import functools

import pytest
import torch.multiprocessing


@pytest.fixture
def forked(monkeypatch):
    """Processes begin as copies of this one: they need not import everything anew."""
    monkeypatch.setattr(
        torch.multiprocessing,
        "start_processes",
        functools.partial(torch.multiprocessing.start_processes, start_method="fork"),
    )
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)  # which a copy of this process could not use
