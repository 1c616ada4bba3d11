"""What all commands share: help in the words by which they were called, and errors as one sentence with exit code 2.

All texts, also those of the package's errors, name a command ``tools/NAME.py``, which is how a checkout calls it. Those
who called the installed ``cellseg-d2`` read ``cellseg-d2 NAME`` in its place.
"""

from __future__ import annotations

import argparse
import logging
import re
import shlex
import sys
import warnings
from collections.abc import Callable, Sequence
from pathlib import Path

from cellseg_d2.cli.commands import COMMANDS, PROGRAM
from cellseg_d2.errors import NO_DETECTRON2, CellSegError, no_memory, system_error
from cellseg_d2.io.console import make_printing_safe, printing_failure

# Not within a longer path, which is somebody's file.
SCRIPT = re.compile(r"(?<![\w/\\.~-])(?:python )?tools/(\w+)\.py\b")


def command_name(word: str) -> str:
    """The spelling of the table, with ``-``; ``word`` may have ``_``."""
    return word.replace("_", "-")


def called_as_script() -> bool:
    """Whether a file of the name of a command was called, such as ``tools/infer.py``, not the installed command."""
    path = Path(sys.argv[0])
    return path.suffix == ".py" and command_name(path.stem) in COMMANDS


def as_called(text: str) -> str:
    """``text``, in which commands are called ``python tools/NAME.py`` or ``tools/NAME.py``, as this user calls them."""
    if called_as_script():
        return text

    def name(match: re.Match) -> str:
        command = command_name(match[1])
        return f"{PROGRAM} {command}" if command in COMMANDS else match[0]

    return SCRIPT.sub(name, text)


def command_line(module: str, argv: Sequence[str]) -> str:
    """The line that repeats a call, for records: the command of ``cellseg_d2/cli/<module>.py`` with its arguments."""
    return f"{as_called(f'python tools/{module}.py')} {shlex.join(argv)}".rstrip()


class CommandParser(argparse.ArgumentParser):
    """A parser, also of subcommands, whose help names commands as they were called."""

    def format_help(self) -> str:
        return as_called(super().format_help())


def make_parser(module: str, description: str, examples: str, notes: str = "") -> argparse.ArgumentParser:
    """The parser of ``cellseg_d2/cli/<module>.py``; its help ends with ``notes`` and ``examples``, a command a line."""
    return CommandParser(
        prog=as_called(f"python tools/{module}.py"),
        description=description,
        epilog=f"{notes}\nexamples:\n{examples}" if notes else f"examples:\n{examples}",
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )


def quieten() -> None:
    """Silence, in this process, what PyTorch says of Detectron2's use of it; nothing that a user could act on."""
    warnings.filterwarnings("ignore", category=FutureWarning, module=r"torch|detectron2|fvcore")
    warnings.filterwarnings("ignore", message="torch.meshgrid", category=UserWarning)
    logging.getLogger("torch.fx").setLevel(logging.ERROR)


def run(main: Callable[[], int | None]) -> None:
    """Call ``main`` and exit with what it returns; a CellSegError becomes one sentence on stderr and exit code 2.

    What ``main`` prints fits any console, and ends nothing where it cannot be printed.
    """
    make_printing_safe()
    quieten()
    try:
        code = main()
        if (failure := printing_failure()) is not None:
            print(f"error: not all could be printed ({failure.strerror}); files are complete", file=sys.stderr)
            code = code or 2
        sys.exit(code)
    except CellSegError as error:
        print(f"error: {as_called(str(error))}", file=sys.stderr)
        sys.exit(2)
    except ModuleNotFoundError as error:
        if error.name != "detectron2":
            raise
        print(f"error: {NO_DETECTRON2}", file=sys.stderr)
        sys.exit(2)
    except OSError as error:
        if error.strerror is None:
            raise
        print(f"error: {system_error(error)}", file=sys.stderr)
        sys.exit(2)
    except MemoryError:
        print(f"error: {no_memory('what was asked for')}", file=sys.stderr)
        sys.exit(2)
    except KeyboardInterrupt:
        print("interrupted", file=sys.stderr)
        sys.exit(130)
