"""Average checkpoints of one network: the mean often predicts better than each, and costs no more than one."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import torch

from cellseg_d2.errors import CellSegError
from cellseg_d2.weights.weight_files import config_beside, read_weight_file


def mean_weights(paths: Sequence[str | Path]) -> dict[str, torch.Tensor]:
    """The mean of each parameter over files of weights; of one file, its weights as they are.

    The method is that of model soups (Wortsman et al. 2022, arXiv:2203.05482), all of the same share. It holds for
    networks that were trained from the same weights, and so have similar ones: the mean of two that began from
    different random weights predicts nothing.

    Args:
        paths: files as :func:`read_weight_file` reads them, at least one.

    Returns:
        Floating-point parameters of several files as float32. Others, such as counters, as the first file has them.

    Raises:
        CellSegError: a file cannot be read, is named twice, has other parameters than the first or, by the
            ``config.yaml`` beside it, other classes.
    """
    if twice := [
        path for k, path in enumerate(paths) if Path(path).resolve() in [Path(p).resolve() for p in paths[:k]]
    ]:
        raise CellSegError(f"{twice[0]} is named twice; a mean is of different files")
    first, *others = paths
    mean = read_weight_file(first).weights
    if not others:
        return mean
    floating = [name for name, value in mean.items() if value.is_floating_point()]
    sums = {name: mean[name].double() for name in floating}
    for path in others:
        weights = read_weight_file(path).weights
        known, other = (config_beside(Path(file)).get("CLASS_NAMES") for file in (first, path))
        if known and other and known != other:
            raise CellSegError(
                f"{path} is of a network with the classes {', '.join(map(str, other))}, {first} of one with "
                f"{', '.join(map(str, known))}; a mean is of runs with one configuration"
            )
        shapes = [{name: value.shape for name, value in each.items()} for each in (mean, weights)]
        if shapes[0] != shapes[1]:
            differing = sorted(name for name, _ in shapes[0].items() ^ shapes[1].items())
            raise CellSegError(
                f"{path} is of another network than {first}: they differ in {len(set(differing))} parameters, such as "
                f"{differing[0]}; a mean is of runs with one configuration"
            )
        for name in floating:
            sums[name] += weights[name]
    return mean | {name: (total / len(paths)).float() for name, total in sums.items()}
