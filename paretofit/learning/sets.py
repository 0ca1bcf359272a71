"""Training, validation and test sets; a group of configurations is assigned to a set once, and its set never changes.

A group contains all configurations that derive from one draw of the augmentation: a distorted structure, vacancies and
substitutions in it, and frames of dynamics that started from any of these. Duplicates belong to the same group, too.
"""

from __future__ import annotations

from collections import Counter, defaultdict
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

import numpy as np
from ase import Atoms

from paretofit.dataset import assign_groups
from paretofit.learning.set_balance import TEST, TRAIN, VALIDATE, represent_categories
from paretofit.structures import assign_duplicates

TRAINING_CONFIG_TYPES = ("input", "supercell", "molecule", "isolated")  # unmodified input structures
DUPLICATE_KEY = "duplicate of"  # key of the records that define groups
Stratum = tuple[str, str]  # kind of structure with its periodicity, such as "distorted (2D)", and name of the input


def assign_sets(
    structures: Sequence[Atoms],
    known_sets: Mapping[int, str],
    shares: Mapping[str, float],
    group_by: Sequence[str],
    rng: np.random.Generator,
) -> dict[int, str]:
    """Assign a set to every configuration without one; return all sets by ``config_id``.

    Free atoms, cells of one atom and input structures are assigned to the training set, other configurations to the set
    of their group, and MD frames to the set of the start structure of their trajectory. New groups are stratified: each
    is assigned to the set with the largest total deficit. A deficit is the number of configurations by which a set
    is below its share; deficits are added over the same strata, the same kind, periodicity and input, and all
    configurations. Groups are then moved, if possible, so that each kind, periodicity and input is in every
    set (`represent_categories`).

    Parameters
    ----------
    structures : sequence of ase.Atoms
        All configurations.
    known_sets : mapping of int to str
        Existing sets by ``config_id``.
    shares : mapping of str to float
        Fractions of "train", "validate" and "test".
    group_by : sequence of str
        Info keys; configurations with equal values of any of these keys form a group.
    rng : numpy.random.Generator
    """
    ids = [int(atoms.info["config_id"]) for atoms in structures]
    sets, new_groups = dict(known_sets), []
    sets |= {k: TRAIN for k, atoms in zip(ids, structures, strict=True) if k not in sets and is_always_training(atoms)}
    for members in _list_groups(assign_group_numbers(structures, group_by), rng):
        new_members = [k for k in members if ids[k] not in sets]
        start_ids = [int(structures[k].info.get("started_from", -1)) for k in new_members]
        related_ids = [ids[k] for k in members if ids[k] in sets] + [k for k in start_ids if k in sets]
        if new_members and related_ids:
            sets |= {ids[k]: sets[related_ids[0]] for k in new_members}
        elif new_members:
            new_groups.append(members)
    counts: defaultdict[Any, Counter[str]] = defaultdict(Counter)
    for k, atoms in enumerate(structures):
        if ids[k] in sets and not is_always_training(atoms):
            for category in _list_categories({get_stratum(atoms)}):
                counts[category][sets[ids[k]]] += 1
    group_sets: list[str] = []
    # the sort is stable: groups of the same strata remain in random order
    new_groups.sort(key=lambda members: sorted({get_stratum(structures[k]) for k in members}))
    for members in new_groups:
        categories = _list_categories({get_stratum(structures[k]) for k in members})
        totals = {category: counts[category].total() + len(members) for category in categories}
        deficits = {
            name: sum(share * totals[category] - counts[category][name] for category in categories)
            for name, share in shares.items()
        }
        group_sets.append(max(deficits, key=deficits.__getitem__))
        for category in categories:
            counts[category][group_sets[-1]] += len(members)
    strata = [{get_stratum(structures[k]) for k in members} for members in new_groups]
    pairs = [{("pair", kind) for kind, _ in group} for group in strata]
    sizes = [len(members) for members in new_groups]
    group_sets = represent_categories([_name_categories(group) for group in strata], pairs, sizes, shares, group_sets)
    for members, name in zip(new_groups, group_sets, strict=True):
        sets |= {ids[k]: name for k in members}
    return sets


def _list_groups(numbers: Any, rng: np.random.Generator) -> list[list[int]]:
    """List the members of each group, in random order of the groups."""
    return [np.flatnonzero(numbers == group).tolist() for group in rng.permutation(np.unique(numbers))]


def _list_categories(strata: Iterable[Stratum]) -> list[Any]:
    """List the categories that contain a group: its strata, their kinds, periodicities and inputs, and "all"."""
    strata = set(strata)
    pairs = {("pair", kind) for kind, _ in strata}
    return [frozenset(strata), *sorted(_name_categories(strata) | pairs), "all"]


def _name_categories(strata: Iterable[Stratum]) -> set[tuple[str, str]]:
    """Name the kinds, periodicities and inputs of strata, such as ("kind", "distorted") and ("periodicity", "2D")."""
    categories = set()
    for kind, name in strata:
        config_type, _, periodicity = kind.rpartition(" ")
        categories |= {("kind", config_type), ("periodicity", periodicity.strip("()")), ("input", name)}
    return categories


def describe_small_strata(structures: Sequence[Atoms], sets: Mapping[int, str], group_by: Sequence[str]) -> str:
    """Describe the kinds, periodicities and inputs with too few groups for every set; empty if there are none.

    Parameters
    ----------
    structures : sequence of ase.Atoms
    sets : mapping of int to str
        Result of `assign_sets`.
    group_by : sequence of str
    """
    split_structures = [atoms for atoms in structures if not is_always_training(atoms)]
    numbers = assign_group_numbers(split_structures, group_by)
    groups: defaultdict[tuple[str, str], set[int]] = defaultdict(set)
    category_sets: defaultdict[tuple[str, str], set[str]] = defaultdict(set)
    for atoms, number in zip(split_structures, numbers.tolist(), strict=True):
        for category in _name_categories({get_stratum(atoms)}):
            groups[category].add(number)
            category_sets[category].add(sets[int(atoms.info["config_id"])])
    parts = [
        f"{noun} {name!r} ({len(groups[noun, name])} {'group' if len(groups[noun, name]) == 1 else 'groups'})"
        for noun, name in sorted(groups)
        if name and {VALIDATE, TEST} - category_sets[noun, name]
    ]
    return "" if not parts else f"not in every set, because there are few groups: {', '.join(parts)}"


def get_stratum(atoms: Atoms) -> Stratum:
    """Return the kind of a structure with its periodicity, and the name of its input (empty if not recorded)."""
    return name_kind(atoms.info.get("config_type"), int(atoms.pbc.sum())), str(atoms.info.get("input", ""))


def name_kind(config_type: Any, n_periodic: int) -> str:
    """Name a kind of structure that is periodic in `n_periodic` directions, such as "distorted (2D)"."""
    return f"{config_type or 'structures'} ({n_periodic}D)"


def assign_group_numbers(structures: Sequence[Atoms], group_by: Sequence[str]) -> np.ndarray[Any, np.dtype[np.int64]]:
    """Assign group numbers ``(n,)``; unmodified inputs and free atoms are grouped with their duplicates only."""
    ids = np.array([int(atoms.info["config_id"]) for atoms in structures])
    records: list[dict[str, Any]] = [{} if is_always_training(atoms) else dict(atoms.info) for atoms in structures]
    duplicates = assign_duplicates(structures) if len(structures) else ids
    records = [{**record, DUPLICATE_KEY: int(number)} for record, number in zip(records, duplicates, strict=True)]
    return assign_groups(ids, records, [*group_by, DUPLICATE_KEY])


def is_always_training(atoms: Atoms) -> bool:
    """Check whether a configuration is a free atom, a cell of one atom, or an input structure."""
    return len(atoms) == 1 or str(atoms.info.get("config_type", "")) in TRAINING_CONFIG_TYPES
