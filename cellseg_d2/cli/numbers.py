"""Types of options that are numbers within bounds."""

from __future__ import annotations

import argparse
import math
from collections.abc import Callable


def at_least(least: int, most: float = math.inf) -> Callable[[str], int]:
    """The type of whole numbers from ``least`` on, up to ``most``."""
    bounds = f"at least {least}" if most == math.inf else f"from {least} to {most}"

    def number(text: str) -> int:
        if not least <= int(text) <= most:
            raise argparse.ArgumentTypeError(f"must be {bounds}, not {text}")
        return int(text)

    number.__name__ = "int"  # as argparse calls it where the text is no number
    return number


whole, count = at_least(0), at_least(1)
# NumPy's oldest generator, PyTorch's and Detectron2's take all of these, and one more for each process.
seed = at_least(0, 2**31 - 1)


def positive(text: str) -> float:
    """A number above 0."""
    if not 0 < float(text) < math.inf:
        raise argparse.ArgumentTypeError(f"must be above 0 and finite, not {text}")
    return float(text)


def not_negative(text: str) -> float:
    """A number from 0 on."""
    if not 0 <= float(text) < math.inf:
        raise argparse.ArgumentTypeError(f"must be at least 0 and finite, not {text}")
    return float(text)


positive.__name__ = not_negative.__name__ = "float"
