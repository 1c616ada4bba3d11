"""Read JSON and YAML of any origin as plain values, with one clear sentence for every error."""

from __future__ import annotations

import json
import re
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import yaml

from cellseg_d2.errors import CellSegError

# Aliases let a few lines of YAML stand for billions of values. A whole configuration has some hundred.
MAX_YAML_VALUES = 100_000


def read_json(path: str | Path) -> Any:
    """Read a JSON file in UTF-8, with or without a byte order mark.

    ``NaN`` and ``Infinity`` are read as floats, as Python writes them; where numbers matter they are to be checked.

    Raises:
        CellSegError: it does not exist, is not JSON, or is nested beyond reason.
    """
    try:
        return json.loads(Path(path).read_text(encoding="utf-8-sig"))
    except FileNotFoundError:
        raise CellSegError(f"{path} does not exist") from None
    except RecursionError:
        raise CellSegError(f"{path} cannot be read as JSON: its lists or objects are nested too deeply") from None
    except (OSError, ValueError) as error:  # a wrong encoding is a ValueError, too
        raise CellSegError(f"{path} cannot be read as JSON: {error}") from None


def is_json_list(path: str | Path) -> bool:
    """Whether a JSON file is a list, by its first character: the whole may be large, and is read later.

    Raises:
        OSError: it cannot be opened.
    """
    with open(path, encoding="utf-8-sig", errors="replace") as file:
        return file.read(1000).lstrip().startswith("[")


def read_record(path: str | Path) -> dict | None:
    """The object in a JSON file that this project wrote; None if the file is missing or damaged."""
    try:
        content = read_json(path)
    except CellSegError:
        return None
    return content if isinstance(content, dict) else None


def check_form(value: Any, form: Any, where: object) -> None:
    """Refuse a value read from JSON or YAML that does not have the form its readers rely on, at any depth.

    Args:
        value: as read.
        form: a type or several (a bool is not a number, where bool is not among them); ``[form]`` for a list of such
            values; ``{key: form}`` for an object, of which any key may be missing and others may be there, unless
            ``"*"`` says what these are.
        where: the file, for the message.

    Raises:
        CellSegError: names the value.

    Example:
        >>> check_form({"seed": 7, "versions": {"torch": "2"}}, {"seed": int, "versions": {"*": str}}, "a.json")
        >>> check_form({"sizes": [3, "4"]}, {"sizes": [int]}, "a.json")
        Traceback (most recent call last):
        cellseg_d2.errors.CellSegError: a.json is damaged: its sizes.1 is '4'
    """
    if (wrong := _first_wrong(value, form, ())) is not None:
        keys, found = wrong
        name = f"its {'.'.join(keys)}" if keys else "all of it"
        raise CellSegError(f"{where} is damaged: {name} is {found!r:.60}")


def _first_wrong(value: Any, form: Any, keys: tuple[str, ...]) -> tuple[tuple[str, ...], Any] | None:
    """Keys and value of what is of another form; None if all is right."""
    if isinstance(form, dict | list):
        if not isinstance(value, Mapping if isinstance(form, dict) else list | tuple):
            return keys, value
        parts = value.items() if isinstance(value, Mapping) else enumerate(value)
        for key, part in parts:
            inner = form.get(key, form.get("*")) if isinstance(form, dict) else form[0]
            if inner is not None and (wrong := _first_wrong(part, inner, (*keys, str(key)))) is not None:
                return wrong
        return None
    kinds = form if isinstance(form, tuple) else (form,)
    fits = isinstance(value, kinds) and (bool in kinds or not isinstance(value, bool))
    return None if fits else (keys, value)


def check_inside(name: str, where: str) -> str:
    """Check a file name given by an untrusted file, relative to a folder.

    Args:
        name: with ``/``, or on some systems ``\\``, between folders. A full path is taken as it is.
        where: the name stands, for the message.

    Raises:
        CellSegError: it leads out of the folder.
    """
    if ".." in re.split(r"[/\\]", name):
        raise CellSegError(f"{where} names the file {name!r:.80}, which leads out of the folder of its images")
    return name


def read_yaml(path: str | Path) -> Any:
    """Read a YAML file as plain values: Python tags, which could run code, are refused.

    Raises:
        CellSegError: it cannot be read, is not YAML, names a Python object, or is nested or repeated beyond reason.
    """
    try:
        loader = yaml.SafeLoader(Path(path).read_text(encoding="utf-8-sig"))
        root = loader.get_single_node()
        if root is None:
            return None
        if _expanded_size(root) > MAX_YAML_VALUES:
            raise CellSegError(f"{path} stands for more than {MAX_YAML_VALUES} values, by aliases within aliases")
        return loader.construct_document(root)
    except OSError as error:
        raise CellSegError(f"{path} cannot be read: {error.strerror}") from None
    except RecursionError:
        raise CellSegError(f"{path} is not valid YAML: its lists or mappings are nested too deeply") from None
    except (yaml.YAMLError, ValueError) as error:  # ValueError: a date that is none, a wrong encoding
        raise CellSegError(f"{path} is not valid YAML: {' '.join(str(error).split())}") from None


def _expanded_size(root: yaml.Node) -> float:
    """How many values a document has once its aliases are written out; without end where one contains itself."""
    sizes: dict[int, float] = {}

    def size(node: yaml.Node) -> float:
        if id(node) not in sizes:
            sizes[id(node)] = float("inf")  # as long as it is not known: met again inside itself
            sizes[id(node)] = 1 + sum(size(child) for child in _children(node))
        return sizes[id(node)]

    return size(root)


def _children(node: yaml.Node) -> Iterator[yaml.Node]:
    if isinstance(node, yaml.MappingNode):
        for pair in node.value:
            yield from pair
    elif isinstance(node, yaml.SequenceNode):
        yield from node.value
