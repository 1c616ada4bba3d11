"""Which keys of a configuration differ from a base."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import NamedTuple

import yaml


class Difference(NamedTuple):
    """One key, dotted, with its value in the base and in the configuration as YAML; None where it does not exist."""

    key: str
    base: str | None
    own: str | None


def base_config(path: str | Path | None = None) -> dict:
    """Detectron2's defaults with the project's keys, as plain values.

    Args:
        path: of a configuration that is laid over them, with the files that it is based on.

    Raises:
        CellSegError: the file is missing or is no configuration.
    """
    # A report about predictions alone does without Detectron2 and the seconds that its import takes.
    from cellseg_d2.config import default_config, merge_config_file

    cfg = default_config()
    if path is not None:
        merge_config_file(cfg, path)  # not load_config, which draws a seed and chooses a device
    return yaml.safe_load(cfg.dump())


def differences(config: Mapping, base: Mapping) -> list[Difference]:
    """The keys whose values differ, in alphabetical order.

    Example:
        >>> differences({"A": {"B": 1, "C": [2]}}, {"A": {"B": 1, "C": [3]}})
        [Difference(key='A.C', base='[3]', own='[2]')]
    """
    own, other = dict(_flat(config)), dict(_flat(base))
    return [
        Difference(key, other.get(key), own.get(key))
        for key in sorted(own.keys() | other.keys())
        if own.get(key) != other.get(key)
    ]


def _flat(config: Mapping, prefix: str = "") -> Iterator[tuple[str, str]]:
    for key, value in config.items():
        if isinstance(value, Mapping) and value:
            yield from _flat(value, f"{prefix}{key}.")
        else:
            text = yaml.safe_dump(value, default_flow_style=True, width=10**6, allow_unicode=True)
            yield f"{prefix}{key}", text.removesuffix("\n").removesuffix("\n...")
