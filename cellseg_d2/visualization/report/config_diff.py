"""List the keys of a configuration that differ from a base."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import NamedTuple

import yaml

from cellseg_d2.io.settings import differences as differing_keys
from cellseg_d2.io.settings import flat


class Difference(NamedTuple):
    """One key, dotted, with its value in the base and in the configuration as YAML; None where it does not exist."""

    key: str
    base: str | None
    own: str | None


def base_config(path: str | Path | None = None) -> dict:
    """Detectron2's defaults with the project's keys, as plain values.

    Args:
        path: a configuration that is merged into them, with the files that it is based on.

    Raises:
        CellSegError: the file is missing or is not a configuration.
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
    own, other = flat(config), flat(base)
    return [Difference(key, _text(other, key), _text(own, key)) for key in sorted(differing_keys(config, base))]


def _text(values: Mapping[str, object], key: str) -> str | None:
    if key not in values:
        return None
    text = yaml.safe_dump(values[key], default_flow_style=True, width=10**6, allow_unicode=True)
    return text.removesuffix("\n").removesuffix("\n...")
