"""Train/test splits that keep groups of related configurations together.

Frames of one trajectory and children of one parent are similar: the test error would be too low if one of them were in
the training set and another in the test set.
"""

from collections.abc import Iterator, Mapping, Sequence
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
        Positions of the configurations of each set, in ascending order.
    groups : (n,) int64
        Group number of each configuration.
    """

    train: Array
    test: Array
    groups: Array


def assign_groups(ids: Sequence[int] | Array, records: Sequence[Mapping[str, Any]], keys: Sequence[str]) -> Array:
    """Assign configurations to groups; configurations that are linked directly or through others form one group.

    Parameters
    ----------
    ids : (n,) int
        Ids of the configurations.
    records : sequence of mapping
        Metadata of each configuration.
    keys : sequence of str
        Configurations with the same value of one of these keys, compared as text, are linked. If ``parent`` is one of
        the keys, a configuration is also linked to the configuration whose id is its ``parent``.

    Returns
    -------
    (n,) int64
        Group number of each configuration; groups are numbered from 0 in the order in which they first appear.
    """
    n = len(ids)
    first_positions: dict[tuple[str, str], int] = {}
    if "parent" in keys:  # a parent gets the key of its children: ("parent", id of the parent)
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
    _, first_appearances, component_numbers = np.unique(components, return_index=True, return_inverse=True)
    # The argsort of an argsort is a rank: components are numbered by their first appearance.
    return np.asarray(np.argsort(np.argsort(first_appearances))[component_numbers], dtype=np.int64)


def split_configurations(
    groups: Array, train_fraction: float, seed: int, elements: Sequence[set[int]] | None = None
) -> Split:
    """Split configurations at random into a training and a test set of whole groups.

    Groups are visited in random order. A group is added to the training set unless the size of the set would then be
    farther from ``train_fraction * n``; the other groups form the test set. Coefficients of an element can only be
    fitted if the training set contains it, so for each missing element the smallest group that contains it is moved
    from the test set to the training set.

    Parameters
    ----------
    groups : (n,) int64
        From `assign_groups`.
    train_fraction : float
        Fraction of configurations in the training set, above 0; with 1, the test set is empty.
    seed : int
        Seed of the random order.
    elements : sequence of set of int, optional
        Atomic numbers in each configuration; by default, groups are not moved.

    Returns
    -------
    Split

    Raises
    ------
    InputError
        If there are no configurations, or the training set or, with a fraction below 1, the test set would be empty.
    """
    n = len(groups)
    if not n:
        raise InputError("there are no configurations to split; add configurations")
    if train_fraction == 1:
        return Split(np.arange(n), np.empty(0, dtype=np.int64), groups)
    target_size = train_fraction * n
    members: dict[int, list[int]] = {}
    for k, group in enumerate(groups.tolist()):
        members.setdefault(group, []).append(k)
    group_members = list(members.values())
    train: list[int] = []
    for group in np.random.default_rng(seed).permutation(len(group_members)):
        positions = group_members[group]
        if abs(len(train) + len(positions) - target_size) <= abs(len(train) - target_size):
            train.extend(positions)
    is_train = np.isin(np.arange(n), train)
    for positions_with_missing_element in _find_groups_of_missing_elements(group_members, is_train, elements or ()):
        is_train[positions_with_missing_element] = True
    if is_train.all() or not is_train.any():
        largest_group_size = max(map(len, group_members))
        advice = (
            "if children of one parent may be in both sets, write 'split: {group_by: [family]}', or [trajectory], "
            "or [] if neither is recorded"
            if largest_group_size > n / 2 and n > 1
            else "change the fraction, or add configurations"
        )
        groups_text = f"{n} configurations in {len(group_members)} groups, the largest with {largest_group_size}"
        problem = "leaves the training or the test set empty"
        raise InputError(f"a train_fraction of {train_fraction} of {groups_text}, {problem}; {advice}")
    return Split(np.flatnonzero(is_train), np.flatnonzero(~is_train), groups)


def _find_groups_of_missing_elements(
    group_members: Sequence[Sequence[int]], is_train: Array, elements: Sequence[set[int]]
) -> Iterator[Sequence[int]]:
    """Yield the positions of groups, the smallest first, that add elements which the training set lacks.

    Nothing is yielded if `elements` is empty.
    """
    if not elements:
        return
    missing_elements = set().union(*elements) - set().union(*(elements[k] for k in np.flatnonzero(is_train).tolist()))
    for positions in sorted(group_members, key=len):
        group_elements = set().union(*(elements[k] for k in positions))
        if missing_elements & group_elements:
            missing_elements -= group_elements
            yield positions
