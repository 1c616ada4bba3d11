"""Split images so that images that look alike stay together and every cell type is spread as evenly as possible."""

from __future__ import annotations

from collections.abc import Hashable, Iterator, Sequence

import numpy as np

from cellseg_d2.errors import CellSegError

# Cost of a part without an image of a type that has enough groups for all parts: more than any imbalance.
_ABSENCE = 1e3
_TRIES, _FEW_GROUPS = 20, 30


def split_groups(
    groups: Sequence[Hashable], types: Sequence[Hashable], shares: Sequence[float], seed: int = 0
) -> np.ndarray:
    """Distribute images to parts, group by group.

    Each group goes to the part that lacks it most, the largest groups first; then single groups are moved, and pairs
    exchanged, as long as that helps. The squared deviation of each part's share of each type's images from the wanted
    share is minimised. A type with as many groups as there are parts is in all of them.

    Args:
        groups: ``N``, the group of each image; images of one group stay together.
        types: ``N``, the type of each image.
        shares: ``P``, what each part should have of the whole; they sum to 1.
        seed: decides between equally good choices.

    Returns:
        int64 ``(N,)``: the part of each image, 0…P-1. The same input gives the same parts.

    Raises:
        CellSegError: there are fewer groups than parts.

    Example:
        >>> split_groups(["a", "a", "b", "c"], ["x"] * 4, [0.5, 0.5]).tolist() in ([0, 0, 1, 1], [1, 1, 0, 0])
        True
    """
    shares = np.asarray(shares, dtype=np.float64)
    if (shares <= 0).any() or abs(shares.sum() - 1) > 1e-9:
        raise ValueError(f"shares must be positive and sum to 1, not {shares.tolist()}")
    names = list(dict.fromkeys(groups))
    if len(names) < len(shares):
        raise CellSegError(f"{len(names)} groups of images cannot be split into {len(shares)} parts")
    index = {name: i for i, name in enumerate(names)}
    kinds = {kind: i for i, kind in enumerate(dict.fromkeys(types))}
    counts = np.zeros((len(names), len(kinds)))  # images of each type in each group
    for group, kind in zip(groups, types, strict=True):
        counts[index[group], kinds[kind]] += 1
    rng = np.random.default_rng(seed)
    # Large groups fit worst, so they go first; a shuffled order decides between equally large ones.
    order = rng.permutation(len(names))
    order = order[np.argsort(-counts[order].sum(axis=1), kind="stable")]
    tries = [_Assignment(counts, shares)]
    tries[0].solve(order)
    if len(names) <= _FEW_GROUPS:  # that may have led into a corner: start from chance, too
        for _ in range(_TRIES):
            tries.append(_Assignment(counts, shares, rng.choice(len(shares), len(names), p=shares)))
            tries[-1].improve(rng.permutation(len(names)))
    part = min(tries, key=lambda assignment: round(assignment.cost(assignment.load), 9)).part
    return np.array([part[index[group]] for group in groups], dtype=np.int64)


class _Assignment:
    """Groups to parts: ``counts`` ``(G, T)``, ``shares`` ``(P,)``. Works on one assignment, ``part`` ``(G,)``."""

    def __init__(self, counts: np.ndarray, shares: np.ndarray, part: np.ndarray | None = None):
        self.counts = counts
        self.shares = shares[:, None]
        # The number of all images counts as one more type, so that the parts have the right size too.
        features = np.concatenate([counts, counts.sum(axis=1, keepdims=True)], axis=1)
        self.features = features / features.sum(axis=0)
        # Columns in which no part may be empty.
        self.everywhere = np.append((counts > 0).sum(axis=0) >= len(shares), True)
        self.part = np.full(len(counts), -1) if part is None else part  # -1: nowhere yet
        self.load = np.zeros((len(shares), self.features.shape[1]))  # what each part has of each type
        if part is not None:
            np.add.at(self.load, part, self.features)

    def cost(self, load: np.ndarray) -> float:
        # Sums of thirds and tenths may miss 0 by a little.
        absent = (load[:, self.everywhere] < 1e-9).sum()
        return float((((load - self.shares) ** 2) / self.shares).sum() + _ABSENCE * absent)

    def solve(self, order: np.ndarray) -> None:
        """Place all groups in the given order, each in the part that lacks it most; then improve the result."""
        for group in order:
            self._place(group)
        self.improve(order)

    def improve(self, order: np.ndarray) -> None:
        """Move single groups and exchange pairs of them until nothing gets better."""
        cost = self.cost(self.load)
        for _ in range(20):
            for group in order:
                self._place(group)
            for i, j in self._exchanges(order):
                self._exchange_if_better(i, j)
            before, cost = cost, self.cost(self.load)
            if cost >= before - 1e-12:
                return

    def _place(self, group: int) -> None:
        """Put a group where it costs least; it stays where it is unless another part is better."""
        features, old = self.features[group], self.part[group]
        if old >= 0:
            self.load[old] -= features
        costs = np.empty(len(self.load))
        for candidate in range(len(self.load)):
            self.load[candidate] += features
            costs[candidate] = self.cost(self.load)
            self.load[candidate] -= features
        best = int(np.argmin(costs))
        if old >= 0 and costs[old] <= costs[best] + 1e-12:
            best = old
        self.load[best] += features
        self.part[group] = best

    def _exchange_if_better(self, i: int, j: int) -> None:
        a, b = self.part[i], self.part[j]
        load = self.load.copy()
        load[a] += self.features[j] - self.features[i]
        load[b] += self.features[i] - self.features[j]
        if self.cost(load) < self.cost(self.load) - 1e-12:
            self.load, self.part[i], self.part[j] = load, b, a

    def _exchanges(self, order: np.ndarray, most: int = 4000) -> Iterator[tuple[int, int]]:
        """Pairs of groups in different parts that do not hold the same, at most ``most``."""
        pairs = 0
        for position, i in enumerate(order):
            others = order[position + 1 :]
            others = others[(self.part[others] != self.part[i]) & (self.counts[others] != self.counts[i]).any(axis=1)]
            for j in others[: most - pairs]:
                if self.part[j] != self.part[i]:  # an exchange before may have changed that
                    yield i, j
            pairs += len(others)
            if pairs >= most:
                return
