"""Parts shared by all commands: parsers whose help has examples, the user's own modules, errors as one sentence.

All texts name a command ``cellseg-d2 NAME``. In a checkout, ``python tools/NAME.py`` is the same.
"""

from __future__ import annotations

import argparse
import shlex
import sys
import textwrap
from collections.abc import Callable, Sequence
from importlib.abc import MetaPathFinder
from pathlib import Path

from cellseg_d2.cli.commands import PROGRAM, command_name
from cellseg_d2.cli.parser import CommandParser
from cellseg_d2.errors import CellSegError, sentence
from cellseg_d2.io.console import make_printing_safe, printing_failure
from cellseg_d2.registry import import_own
from cellseg_d2.shape_space import SHIPPED


def command_line(module: str, argv: Sequence[str]) -> str:
    """The line that repeats a call, for records: the command of ``cellseg_d2/cli/<module>.py`` with its arguments."""
    return shlex.join([PROGRAM, command_name(module), *argv])


class ImportModule(argparse.Action):
    """Imports the module that an option names."""

    def __call__(self, parser, namespace, values, option_string=None) -> None:
        import_own(values)


def make_parser(module: str, description: str, examples: str, notes: str = "") -> CommandParser:
    """The parser of ``cellseg_d2/cli/<module>.py``; its help ends with ``notes`` and ``examples``, a command a line."""
    parser = CommandParser(
        prog=f"{PROGRAM} {command_name(module)}",
        description=textwrap.fill(description, 110),
        epilog=f"{notes}\nexamples:\n{examples}" if notes else f"examples:\n{examples}",
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument(
        "--import",
        action=ImportModule,
        default=argparse.SUPPRESS,
        metavar="MODULE",
        help="a Python file or module of your own that registers readers, augmentations, evaluators, backbones or "
        "formats (docs/extending.md)",
    )
    return parser


def add_shapes_option(group: argparse._ArgumentGroup, use: str) -> None:
    """Add ``--shapes``; without FILE it is the space of shapes that comes with the project.

    Args:
        group: group of the parser.
        use: the help text's first words, up to "a space of shapes …".
    """
    group.add_argument(
        "--shapes",
        type=Path,
        nargs="?",
        const=SHIPPED,
        metavar="FILE",
        help=f"{use} (without FILE: the one that comes with the project)",
    )


def print_older(files: Sequence[Path]) -> None:
    """Name files of an earlier call that lie where results were written, and are none of them."""
    if files:
        print(
            f"note: files of an earlier call that are none of these results: {len(files)}, such as {files[0]}; remove "
            "them if they are not needed"
        )


def import_named(words: Sequence[str]) -> None:
    """Import what ``--import`` names, before parsers are made that list what is registered."""
    for index, word in enumerate(words):
        if word.startswith("--import="):
            import_own(word.partition("=")[2])
        elif word == "--import" and index + 1 < len(words):
            import_own(words[index + 1])


class _Announcement(MetaPathFinder):
    """Finds no module, but says when PyTorch is first looked for, whose import takes several seconds."""

    said = False

    def find_spec(self, fullname: str, path: object, target: object = None) -> None:
        if fullname == "torch" and not self.said:
            self.said = True
            print("loading PyTorch …", file=sys.stderr, flush=True)


def announce_loading() -> None:
    """Have the first line come at once in every command that needs PyTorch, and in no other."""
    if "torch" not in sys.modules:
        sys.meta_path.insert(0, _Announcement())


def run(main: Callable[[], int | None]) -> None:
    """Call ``main`` and exit with what it returns; a CellSegError becomes one sentence on stderr and exit code 2.

    What ``main`` prints fits any console, and ends nothing where it cannot be printed.
    """
    make_printing_safe()
    announce_loading()
    try:
        import_named(sys.argv[1:])
        code = main()
        if (failure := printing_failure()) is not None:
            print(f"error: not all could be printed ({failure.strerror}); files are complete", file=sys.stderr)
            code = code or 2
        sys.exit(code)
    except (CellSegError, ModuleNotFoundError, OSError, MemoryError) as error:
        said = sentence(error)
        if said is None:
            raise
        print(f"error: {said}", file=sys.stderr)
        sys.exit(2)
    except KeyboardInterrupt:
        print("interrupted", file=sys.stderr)
        sys.exit(130)
