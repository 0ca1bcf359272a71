"""Training, validation and test set: drawn once per group of related configurations, and never changed afterwards."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
from ase import Atoms

from paretofit.dataset import assign_groups

TRAIN, VALIDATE, TEST = "train", "validate", "test"
TRAINING_CONFIG_TYPES = ("input", "supercell", "molecule", "isolated")  # input structures as they are
FINER_GROUP_KEYS = ("family", "trajectory")  # used instead of "parent" if nearly all have the same parent


def assign_sets(
    structures: Sequence[Atoms],
    known_sets: Mapping[int, str],
    shares: Mapping[str, float],
    group_by: Sequence[str],
    rng: np.random.Generator,
) -> dict[int, str]:
    """Assign a set to every configuration that has none; return all sets by ``config_id``.

    Free atoms, cells of one atom and input structures go to the training set. Other configurations follow their group,
    and MD frames follow the structure that the trajectory started from. New groups, in random order, go to the set that
    is furthest below its share.

    Parameters
    ----------
    structures : sequence of ase.Atoms
        All configurations.
    known_sets : mapping of int to str
        Existing sets by ``config_id``.
    shares : mapping of str to float
        Fractions of "train", "validate" and "test".
    group_by : sequence of str
        Keys whose equal values make a group, from `choose_group_keys`.
    rng : numpy.random.Generator
    """
    ids = [int(atoms.info["config_id"]) for atoms in structures]
    group_numbers = assign_group_numbers(structures, group_by)
    sets = dict(known_sets)
    counts = Counter(sets.values())
    for group in rng.permutation(np.unique(group_numbers)).tolist():
        members = np.flatnonzero(group_numbers == group).tolist()
        new = [k for k in members if ids[k] not in sets]
        fixed = {ids[k] for k in new if is_always_training(structures[k])}
        sets |= dict.fromkeys(fixed, TRAIN)
        counts[TRAIN] += len(fixed)
        free = [k for k in new if ids[k] not in fixed]
        if not free:
            continue
        related_sets = [sets[ids[k]] for k in members if ids[k] in known_sets]
        start_ids = [int(structures[k].info.get("started_from", -1)) for k in free]
        related_sets += [sets[start_id] for start_id in start_ids if start_id in sets]
        total = counts.total() + len(free)
        missing = {name: share * total - counts[name] for name, share in shares.items()}
        name = related_sets[0] if related_sets else max(missing, key=missing.__getitem__)
        sets |= dict.fromkeys((ids[k] for k in free), name)
        counts[name] += len(free)
    return sets


def choose_group_keys(structures: Sequence[Atoms], group_by: Sequence[str]) -> list[str]:
    """Choose the keys that define groups: ``family`` replaces ``parent`` if more than half have the same parent."""
    numbers = assign_group_numbers(structures, group_by)
    if "parent" in group_by and len(numbers) > 1 and np.bincount(numbers).max() > len(numbers) / 2:
        return list(dict.fromkeys([*(key for key in group_by if key != "parent"), *FINER_GROUP_KEYS]))
    return list(group_by)


def assign_group_numbers(structures: Sequence[Atoms], group_by: Sequence[str]) -> np.ndarray[Any, np.dtype[np.int64]]:
    """Assign group numbers ``(n,)``; a configuration that is always in the training set is a group of its own."""
    ids = np.array([int(atoms.info["config_id"]) for atoms in structures])
    records: list[dict[str, Any]] = [{} if is_always_training(atoms) else dict(atoms.info) for atoms in structures]
    return assign_groups(ids, records, group_by)


def is_always_training(atoms: Atoms) -> bool:
    """Whether a configuration is a free atom, a cell of one atom, or an input structure."""
    return len(atoms) == 1 or str(atoms.info.get("config_type", "")) in TRAINING_CONFIG_TYPES
