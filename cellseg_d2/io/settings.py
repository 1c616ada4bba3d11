"""Flatten and compare nested settings such as configurations."""

from __future__ import annotations

from collections.abc import Mapping


def plain(value: object) -> object:
    """Dicts and lists instead of configuration nodes and tuples, as YAML and JSON hold them."""
    if isinstance(value, Mapping):
        return {key: plain(child) for key, child in value.items()}
    return [plain(child) for child in value] if isinstance(value, list | tuple) else value


def flat(settings: Mapping, prefix: str = "") -> dict[str, object]:
    """Plain values by dotted key.

    Example:
        >>> flat({"A": {"B": 1, "C": (2, 3)}, "D": {}})
        {'A.B': 1, 'A.C': [2, 3], 'D': {}}
    """
    values: dict[str, object] = {}
    for key, value in settings.items():
        if isinstance(value, Mapping) and value:
            values |= flat(value, f"{prefix}{key}.")
        else:
            values[f"{prefix}{key}"] = plain(value)
    return values


def nested(values: Mapping[str, object]) -> dict:
    """The inverse of :func:`flat`."""
    settings: dict = {}
    for key, value in values.items():
        *path, name = key.split(".")
        node = settings
        for part in path:
            node = node.setdefault(part, {})
        node[name] = value
    return settings


def differences(own: Mapping, base: Mapping) -> list[str]:
    """Dotted keys whose values differ or that one of the two lacks: those of ``base``, then those of ``own`` alone.

    Tuples equal lists; a whole number differs from the fraction of the same value.

    Example:
        >>> differences({"A": {"B": 1, "C": (2,)}}, {"A": {"B": 1.0, "C": [2]}, "D": None})
        ['A.B', 'D']
    """
    first, second = flat(base), flat(own)
    both = first.keys() & second.keys()
    return [key for key in first | second if key not in both or repr(first[key]) != repr(second[key])]
