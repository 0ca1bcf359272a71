"""Training, validation and test sets, which are drawn once per group of configurations and never changed."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
from ase import Atoms

from paretofit.dataset import assign_groups

TRAIN, VALIDATE, TEST = "train", "validate", "test"
TRAINING_CONFIG_TYPES = ("input", "supercell", "molecule", "isolated")  # unmodified input structures
FINER_GROUP_KEYS = ("family", "trajectory")  # used instead of "parent" if most configurations have the same parent


def assign_sets(
    structures: Sequence[Atoms],
    known_sets: Mapping[int, str],
    shares: Mapping[str, float],
    group_by: Sequence[str],
    rng: np.random.Generator,
) -> dict[int, str]:
    """Assign a set to every configuration without one; return all sets by ``config_id``.

    Free atoms, cells of one atom and input structures are assigned to the training set, other configurations to the set
    of their group, and MD frames to the set of the start structure of their trajectory. New groups, in random order,
    are assigned to the set that is furthest below its share.

    Parameters
    ----------
    structures : sequence of ase.Atoms
        All configurations.
    known_sets : mapping of int to str
        Existing sets by ``config_id``.
    shares : mapping of str to float
        Fractions of "train", "validate" and "test".
    group_by : sequence of str
        Keys of `choose_group_keys`; configurations with equal values form a group.
    rng : numpy.random.Generator
    """
    ids = [int(atoms.info["config_id"]) for atoms in structures]
    group_numbers = assign_group_numbers(structures, group_by)
    sets = dict(known_sets)
    counts = Counter(sets.values())
    for group in rng.permutation(np.unique(group_numbers)).tolist():
        members = np.flatnonzero(group_numbers == group).tolist()
        new_members = [k for k in members if ids[k] not in sets]
        training_ids = {ids[k] for k in new_members if is_always_training(structures[k])}
        sets |= dict.fromkeys(training_ids, TRAIN)
        counts[TRAIN] += len(training_ids)
        new_members = [k for k in new_members if ids[k] not in training_ids]
        if not new_members:
            continue
        related_sets = [sets[ids[k]] for k in members if ids[k] in known_sets]
        start_ids = [int(structures[k].info.get("started_from", -1)) for k in new_members]
        related_sets += [sets[start_id] for start_id in start_ids if start_id in sets]
        total = counts.total() + len(new_members)
        deficits = {name: share * total - counts[name] for name, share in shares.items()}
        name = related_sets[0] if related_sets else max(deficits, key=deficits.__getitem__)
        sets |= dict.fromkeys((ids[k] for k in new_members), name)
        counts[name] += len(new_members)
    return sets


def choose_group_keys(structures: Sequence[Atoms], group_by: Sequence[str]) -> list[str]:
    """Choose the keys that define groups; replace ``parent`` if more than half of the structures have the same one."""
    numbers = assign_group_numbers(structures, group_by)
    if "parent" in group_by and len(numbers) > 1 and np.bincount(numbers).max() > len(numbers) / 2:
        return list(dict.fromkeys([*(key for key in group_by if key != "parent"), *FINER_GROUP_KEYS]))
    return list(group_by)


def assign_group_numbers(structures: Sequence[Atoms], group_by: Sequence[str]) -> np.ndarray[Any, np.dtype[np.int64]]:
    """Assign group numbers ``(n,)``; a configuration that is always in the training set is a separate group."""
    ids = np.array([int(atoms.info["config_id"]) for atoms in structures])
    records: list[dict[str, Any]] = [{} if is_always_training(atoms) else dict(atoms.info) for atoms in structures]
    return assign_groups(ids, records, group_by)


def is_always_training(atoms: Atoms) -> bool:
    """Check whether a configuration is a free atom, a cell of one atom, or an input structure."""
    return len(atoms) == 1 or str(atoms.info.get("config_type", "")) in TRAINING_CONFIG_TYPES
