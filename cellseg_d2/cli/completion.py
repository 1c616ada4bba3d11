"""Completion of commands and options by the shell, with argcomplete.

``eval "$(register-python-argcomplete cellseg-d2)"`` in ``~/.bashrc`` or ``~/.zshrc`` turns it on. The shell then calls
the program with the line in the environment instead of arguments.
"""

from __future__ import annotations

import argparse
import os
import shlex
import sys

from cellseg_d2.cli.commands import COMMANDS, PROGRAM, command_name


def completing() -> bool:
    """Whether this process was started to complete a line."""
    return "_ARGCOMPLETE" in os.environ


def line_words() -> list[str]:
    """The words before the one that is being completed, without the program's name; the command's name comes first.

    Where that is what is being completed, the shell gets the names of the commands, and this process ends.
    """
    import argcomplete

    line = os.environ["COMP_LINE"][: int(os.environ["COMP_POINT"])]
    try:
        words = shlex.split(line)
    except ValueError:  # an open quotation mark: within an option's value
        words = line.split()
    if not line.endswith(" "):
        words = words[:-1]
    if len(words) < 2:
        parser = argparse.ArgumentParser(prog=PROGRAM, add_help=False)
        parser.add_argument("--help", action="store_true")
        parser.add_argument("--version", action="store_true")
        parser.add_argument("command", choices=sorted(COMMANDS))
        argcomplete.autocomplete(parser, always_complete_options=False)
    if command_name(words[1]) not in COMMANDS:
        sys.exit(1)  # nothing to offer, and nothing to say in the middle of a line
    os.environ["_ARGCOMPLETE"] = "2"  # so many words of the line are not the parser's
    return words[1:]


def complete(parser: argparse.ArgumentParser) -> None:
    """Give the shell what fits the line; ends the process where it was started for that."""
    if completing():
        import argcomplete

        argcomplete.autocomplete(parser, always_complete_options=False)
