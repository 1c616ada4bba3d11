"""What all tools share: examples in the help, and errors as one sentence with exit code 2."""

from __future__ import annotations

import argparse
import logging
import sys
import warnings
from collections.abc import Callable
from pathlib import Path

# The tools also run from a checkout that was never installed.
sys.path.insert(0, str(Path(__file__).resolve().parents[1]))


def make_parser(description: str, examples: str, notes: str = "") -> argparse.ArgumentParser:
    """A parser whose help ends with ``notes`` and ``examples``, one command a line."""
    epilog = f"{notes}\nexamples:\n{examples}" if notes else f"examples:\n{examples}"
    return argparse.ArgumentParser(
        description=description, epilog=epilog, formatter_class=argparse.RawDescriptionHelpFormatter
    )


def run(main: Callable[[], int | None]) -> None:
    """Call ``main`` and exit with what it returns; a CellSegError becomes one sentence on stderr and exit code 2."""
    from cellseg_d2.errors import CellSegError

    # What PyTorch says of Detectron2's use of it; nothing that a user could act on.
    warnings.filterwarnings("ignore", category=FutureWarning, module=r"torch|detectron2|fvcore")
    warnings.filterwarnings("ignore", message="torch.meshgrid", category=UserWarning)
    logging.getLogger("torch.fx").setLevel(logging.ERROR)
    try:
        sys.exit(main())
    except CellSegError as error:
        print(f"error: {error}", file=sys.stderr)
        sys.exit(2)
    except ModuleNotFoundError as error:
        if error.name != "detectron2":
            raise
        print(f"error: {error}", file=sys.stderr)
        sys.exit(2)
    except OSError as error:
        if error.filename is None:
            raise
        print(f"error: {error.filename}: {error.strerror}", file=sys.stderr)
        sys.exit(2)
    except KeyboardInterrupt:
        print("interrupted", file=sys.stderr)
        sys.exit(130)
