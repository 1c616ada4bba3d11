"""The command ``cellseg-d2``: which commands there are, and the call of one of them."""

from __future__ import annotations

import importlib
import sys
from collections.abc import Sequence

from cellseg_d2 import __version__
from cellseg_d2.cli.commands import ALIASES, COMMANDS, GROUPS, PROGRAM, command_name
from cellseg_d2.cli.common import run
from cellseg_d2.cli.completion import completing, line_words
from cellseg_d2.errors import CellSegError, did_you_mean


def main(argv: Sequence[str] | None = None) -> None:
    """The entry point; exits with the code of the command. Only the command that is called is imported."""
    words = line_words() if completing() else sys.argv[1:] if argv is None else list(argv)
    run(lambda: call(words))


def call(words: Sequence[str]) -> int | None:
    """Run the command that the first word names, with the others; returns its exit code.

    Raises:
        CellSegError: there is no such command.
    """
    if not words or words[0] in ("-h", "--help"):
        print(help_text())
        return 0
    if words[0] == "--version":
        print(f"{PROGRAM} {__version__}")
        return 0
    name = command_name(words[0])
    if name not in COMMANDS:
        hint = did_you_mean(name, (*COMMANDS, *ALIASES)) or f"; {PROGRAM} --help lists them"
        raise CellSegError(f"there is no command {words[0]!r}{hint}")
    module = importlib.import_module(f"cellseg_d2.cli.{name.replace('-', '_')}")  # noqa: TID251
    return module.main(list(words[1:]))


def help_text() -> str:
    """All commands in their groups, one a line."""
    width = max(map(len, COMMANDS))
    lines = [f"usage: {PROGRAM} COMMAND ...", "", "Mask R-CNN for cells in microscopy images, on Detectron2."]
    for group, commands in GROUPS.items():
        lines += ["", f"{group}:", *(f"  {name:{width}}  {summary}" for name, summary in commands.items())]
    lines += ["", "other names: " + ", ".join(f"{alias} = {name}" for alias, name in ALIASES.items())]
    lines += ["", f"  {PROGRAM} COMMAND --help", f"  {PROGRAM} --version"]
    return "\n".join(lines)
