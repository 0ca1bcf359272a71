"""Train/test splits that keep groups of related configurations together.

Frames of one trajectory and children of one parent resemble each other: with one in the training set and another in
the test set, the test error would be too low.
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
    """Train/test split of configurations.

    Attributes
    ----------
    train, test : (n_train,), (n_test,) int64
        Positions of the configurations, ascending.
    groups : (n,) int64
        Group of each configuration.
    """

    train: Array
    test: Array
    groups: Array


def assign_groups(ids: Sequence[int] | Array, records: Sequence[Mapping[str, Any]], keys: Sequence[str]) -> Array:
    """Assign configurations to groups: those that a chain of shared keys links are in one group.

    Parameters
    ----------
    ids : (n,) int
    records : sequence of mapping
        Metadata of each configuration. Configurations with the same value of one of `keys` are linked; if ``parent``
        is one of the keys, a configuration is also linked to the configuration with the id ``parent``.
    keys : sequence of str

    Returns
    -------
    (n,) int64
        Group numbers in order of appearance.
    """
    n = len(ids)
    first_positions: dict[tuple[str, str], int] = {}
    if "parent" in keys:
        first_positions.update({("parent", str(int(config_id))): k for k, config_id in enumerate(ids)})
    links = [
        (k, first_positions.setdefault((key, str(record[key])), k))
        for k, record in enumerate(records)
        for key in keys
        if record.get(key) is not None
    ]
    rows, columns = np.array(links, dtype=int).reshape(-1, 2).T
    graph = coo_array((np.ones(len(links)), (rows, columns)), shape=(n, n))
    _, components = connected_components(graph, directed=False)
    _, appearance, numbers = np.unique(components, return_index=True, return_inverse=True)
    return np.asarray(np.argsort(np.argsort(appearance))[numbers], dtype=np.int64)


def split_configurations(groups: Array, train_fraction: float, seed: int) -> Split:
    """Split configurations at random into a training and a test set of whole groups.

    Groups are visited in random order, and join the training set if that brings its size closer to
    ``train_fraction * n``; the others form the test set.

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
        If the training or the test set would be empty.
    """
    n = len(groups)
    if train_fraction == 1:
        return Split(np.arange(n), np.empty(0, dtype=np.int64), groups)
    target = train_fraction * n
    members: dict[int, list[int]] = {}
    for k, group in enumerate(groups.tolist()):
        members.setdefault(group, []).append(k)
    group_members = list(members.values())
    train: list[int] = []
    for group in np.random.default_rng(seed).permutation(len(group_members)):
        positions = group_members[group]
        if abs(len(train) + len(positions) - target) <= abs(len(train) - target):
            train.extend(positions)
    is_train = np.zeros(n, dtype=bool)
    is_train[train] = True
    if is_train.all() or not is_train.any():
        largest = max(map(len, group_members))
        advice = (
            "if children of one parent may be in both sets, write 'split: {group_by: [family]}', or [trajectory], "
            "or [] if neither is recorded"
            if largest > n / 2 and n > 1
            else "change it, or add configurations"
        )
        raise InputError(
            f"a train_fraction of {train_fraction} of {n} configurations in {len(group_members)} groups, the largest "
            f"with {largest}, leaves the training or the test set empty; {advice}"
        )
    return Split(np.flatnonzero(is_train), np.flatnonzero(~is_train), groups)
