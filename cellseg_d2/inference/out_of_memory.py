"""What to do when memory does not suffice for an image: less at a time, at last on the CPU."""

from __future__ import annotations

import logging
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from typing import NamedTuple, TypeVar

import torch
from torch import nn

from cellseg_d2.errors import CellSegError

logger = logging.getLogger(__name__)

Result = TypeVar("Result")

# Messages of the RuntimeErrors with which PyTorch and the libraries below it say that memory is full.
_SAYINGS = ("out of memory", "not enough memory", "can't allocate memory", "ALLOC_FAILED")


class Way(NamedTuple):
    """One way to do something.

    Attributes:
        name: after "in", for users.
        run: does it.
    """

    name: str
    run: Callable[[], Result]


def is_out_of_memory(error: BaseException) -> bool:
    """Whether an error says that the memory of a GPU or of the machine is full."""
    if isinstance(error, MemoryError | torch.OutOfMemoryError):
        return True
    return isinstance(error, RuntimeError) and any(text in str(error) for text in _SAYINGS)


def first_that_fits(ways: Sequence[Way], what: str) -> Result:
    """What the first way gives for which memory suffices; each step down is told as a warning.

    Detectron2's ``retry_if_cuda_oom`` is of no use here: it moves the tensors among the arguments to the CPU, but not
    the network, and knows no smaller windows.

    Args:
        ways: from the one that is wanted to the one that takes least.
        what: is done, for messages, such as an image's name.

    Raises:
        CellSegError: memory does not suffice for any of them.
    """
    for way, less in zip(ways, [*ways[1:], None], strict=True):
        try:
            return way.run()
        except (MemoryError, RuntimeError) as error:
            if not is_out_of_memory(error):
                raise
        # Only here, where the error no longer holds on to all that filled the memory.
        if torch.cuda.is_available():
            torch.cuda.empty_cache()
        if less is not None:
            logger.warning("%s: out of memory in %s, so it is done anew in %s", what, way.name, less.name)
    raise CellSegError(f"{what} does not fit into memory, not even in {ways[-1].name}; free some, or cut it into parts")


@contextmanager
def on_cpu(networks: Sequence[nn.Module]) -> Iterator[None]:
    """Networks on the CPU for the time of the block, and back on their devices after it."""
    homes = [next(network.parameters()).device for network in networks]
    try:
        for network in networks:
            network.cpu()
        yield
    finally:
        for network, home in zip(networks, homes, strict=True):
            network.to(home)
