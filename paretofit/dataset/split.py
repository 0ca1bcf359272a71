"""Training and test sets, drawn so that relatives stay together.

Frames of one trajectory and children of one parent resemble each other: with one in the training set
and another in the test set, the test error would be too low.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from scipy.sparse import coo_array
from scipy.sparse.csgraph import connected_components

from paretofit.core import Array, InputError


@dataclass(frozen=True)
class Split:
    """Positions of the training and of the test configurations, ascending, and everybody's group.

    Attributes
    ----------
    train, test : (n_train,), (n_test,) int64
    groups : (n,) int64
        Relatives share a number.
    """

    train: Array
    test: Array
    groups: Array


def assign_groups(ids: Sequence[int] | Array, records: Sequence[Mapping[str, Any]], keys: Sequence[str]) -> Array:
    """Number the families: configurations are related if a chain of shared keys links them.

    Parameters
    ----------
    ids : (n,) int
    records : sequence of mapping
        What is known of each configuration. Two with the same value of one of `keys` are related;
        and where ``parent`` is one of the keys, a configuration is related to the one whose id its
        ``parent`` is.
    keys : sequence of str

    Returns
    -------
    (n,) int64
        Families, numbered in order of appearance.
    """
    n = len(ids)
    holders: dict[tuple[str, str], int] = {}
    if "parent" in keys:
        holders.update({("parent", str(int(identity))): k for k, identity in enumerate(ids)})
    first, second = [], []
    for k, record in enumerate(records):
        for key in keys:
            if record.get(key) is not None:
                first.append(k)
                second.append(holders.setdefault((key, str(record[key])), k))
    links = coo_array((np.ones(len(first)), (first, second)), shape=(n, n))
    _, label = connected_components(links, directed=False)
    _, appearance, numbers = np.unique(label, return_index=True, return_inverse=True)
    return np.asarray(np.argsort(np.argsort(appearance))[numbers], dtype=np.int64)


def split_configurations(groups: Array, train_fraction: float, seed: int) -> Split:
    """Split configurations into training and test set by whole groups, at random.

    Groups are taken in random order into the training set as long as each brings its size nearer to
    ``train_fraction * n``; the rest is the test set.

    Parameters
    ----------
    groups : (n,) int64
        From `assign_groups`.
    train_fraction : float
        Above 0; 1 leaves the test set empty.
    seed : int

    Raises
    ------
    InputError
        If one of the two sets would be empty.
    """
    n = len(groups)
    if train_fraction == 1:
        return Split(np.arange(n), np.empty(0, dtype=np.int64), groups)
    target = train_fraction * n
    members: dict[int, list[int]] = {}
    for k, number in enumerate(groups.tolist()):
        members.setdefault(number, []).append(k)
    train: list[int] = []
    families = list(members.values())
    for number in np.random.default_rng(seed).permutation(len(families)):
        family = families[number]
        if abs(len(train) + len(family) - target) <= abs(len(train) - target):
            train.extend(family)
    chosen = np.zeros(n, dtype=bool)
    chosen[train] = True
    if chosen.all() or not chosen.any():
        largest = max(map(len, families))
        advice = (
            "if children of one parent may stand on both sides, write 'split: {group_by: [family]}', or [trajectory], "
            "or [] where neither is recorded"
            if largest > n / 2 and n > 1
            else "change it, or add configurations"
        )
        raise InputError(
            f"a train_fraction of {train_fraction} of {n} configurations in {len(families)} groups of relatives, the "
            f"largest with {largest}, leaves the training or the test set empty; {advice}"
        )
    return Split(np.flatnonzero(chosen), np.flatnonzero(~chosen), groups)
