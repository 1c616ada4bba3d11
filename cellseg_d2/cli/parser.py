"""The parser of all commands: KEY VALUE anywhere, and what is mistyped in one sentence with what was meant."""

from __future__ import annotations

import argparse
import re
import sys
from collections.abc import Sequence
from difflib import get_close_matches
from itertools import takewhile
from pathlib import Path
from typing import NoReturn

from cellseg_d2.cli.completion import complete
from cellseg_d2.errors import did_you_mean

# What keys of Detectron2's configuration begin with; those of the second line are complete.
SECTIONS = ("DATALOADER", "DATASETS", "GLOBAL", "INPUT", "MODEL", "SOLVER", "TEST")
ALONE = ("CUDNN_BENCHMARK", "OUTPUT_DIR", "SEED", "VERSION", "VIS_PERIOD")
_KEY = re.compile(r"[A-Z_]+(\.[A-Z0-9_]+)*")
_UNKNOWN = "unrecognized arguments: "
_CHOICE = re.compile(r"invalid choice: '(?P<word>.*)' \(choose from (?P<known>.*)\)")


class CommandParser(argparse.ArgumentParser):
    """``ArgumentParser`` that tells mistakes in one sentence and completes lines for the shell.

    Keys of the configuration are taken where :meth:`add_settings` asks for them.
    """

    _takes_settings = False

    def add_settings(self, what: str = "configuration options") -> None:
        """Take ``KEY VALUE`` and ``KEY=VALUE`` among the words of the command line, into the list ``opts``.

        They may stand anywhere, also behind options that take all words that follow. The help says ``what`` they are.
        """
        self._takes_settings = True
        usage = self.format_usage().removeprefix("usage: ").rstrip()
        self.usage = f"{usage} [KEY VALUE ...]".replace("%", "%%")
        self.add_argument_group("configuration", f"KEY VALUE ... anywhere: {what}, such as TEST.POSTPROCESS.VOTE False")

    def parse_known_args(self, args=None, namespace=None):  # type: ignore[override]
        if type(self) is CommandParser:  # argcomplete calls it again, of a class of its own
            complete(self)
        words = list(sys.argv[1:] if args is None else args)
        own = words if self._subparsers is None else takewhile(lambda word: word.startswith("-"), words)
        self._check_options(list(own))
        if not self._takes_settings:
            return super().parse_known_args(words, namespace)
        words, settings = self._without_settings(words)
        found, unknown = super().parse_known_args(words, namespace)
        found.opts = settings
        return found, unknown

    def _check_options(self, words: Sequence[str]) -> None:
        """Name a mistyped option rather than the one that is required and seems to be missing therefore."""
        known = [name for name in self._option_string_actions if name.startswith("--")]
        for word in words[: words.index("--")] if "--" in words else words:
            name = word.partition("=")[0]
            if name.startswith("--") and not any(option.startswith(name) for option in known):
                self.error(f"there is no option {name}{did_you_mean(name, known)}")

    def _without_settings(self, words: Sequence[str]) -> tuple[list[str], list[str]]:
        """The words that are not settings, and the settings as ``KEY``, ``VALUE``, ``KEY`` …"""
        others: list[str] = []
        settings: list[str] = []
        remaining = iter(words)
        for word in remaining:
            key, sign, value = word.partition("=")
            if not is_key(key):
                others.append(word)
                continue
            given = value if sign else next(remaining, None)
            if given is None or (given.startswith("--") and not sign) or (not sign and is_key(given)):
                self.error(f"the key {key} has no value: give {key} VALUE")
            settings += [key, given]
        return others, settings

    def error(self, message: str) -> NoReturn:
        """Exit with code 2 after one sentence; the whole usage, of many lines, would hide it."""
        if message.startswith(_UNKNOWN):
            message = f"not understood: {message.removeprefix(_UNKNOWN)}"
        elif match := _CHOICE.search(message):
            message += did_you_mean(match["word"], re.findall(r"'([^']*)'", match["known"]))
        self.exit(2, f"error: {message} ({self.prog} --help explains all)\n")


def is_key(word: str) -> bool:
    """Whether a word is a key of the configuration, or looks like one that is mistyped, and not the name of a file."""
    if not _KEY.fullmatch(word) or Path(word).exists():
        return False
    section, dot, _ = word.partition(".")
    return bool(get_close_matches(section, SECTIONS, n=1, cutoff=0.75)) if dot else word in ALONE
