"""Training, validation and test sets; a group of configurations is assigned to a set once, and its set never changes.

A group contains all configurations that derive from one draw of the augmentation: a distorted structure, vacancies and
substitutions in this structure, and frames of dynamics that started from any of these. Duplicates of a configuration
belong to its group.
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

TRAINING_CONFIG_TYPES = ("input", "supercell", "molecule", "isolated")  # kinds of unmodified input structures
DUPLICATE_KEY = "duplicate of"  # key whose equal values mark duplicates, in the records that define groups
Stratum = tuple[str, str]  # kind of structure with its periodicity, such as "distorted (2D)", and name of the input


def assign_sets(
    structures: Sequence[Atoms],
    known_sets: Mapping[int, str],
    shares: Mapping[str, float],
    group_by: Sequence[str],
    rng: np.random.Generator,
) -> dict[int, str]:
    """Assign a set to every configuration without one.

    Free atoms, cells of one atom and input structures are assigned to the training set, other configurations to the set
    of their group, and MD frames to the set of the start structure of their trajectory. New groups are stratified: each
    is assigned to the set with the largest total deficit. A deficit is the number of configurations by which a set is
    below its share of a category. The total is the sum over the categories of the group: its combination of strata, its
    kinds, periodicities and inputs, its pairs of kind and periodicity, and all configurations. Groups are then
    moved, if possible, so that each kind, periodicity and input is in every set (`represent_categories`).

    Parameters
    ----------
    structures : sequence of ase.Atoms
        All configurations, with the info key ``config_id`` and, if known, ``config_type``, ``input`` and
        ``started_from``.
    known_sets : mapping of int to str
        Existing sets by ``config_id``.
    shares : mapping of str to float
        Fractions of "train", "validate" and "test".
    group_by : sequence of str
        Info keys; configurations with equal values of any of these keys form a group.
    rng : numpy.random.Generator
        Generator that draws the order of the groups.

    Returns
    -------
    dict of int to str
        Known and new sets by ``config_id``.
    """
    ids = [int(atoms.info["config_id"]) for atoms in structures]
    sets = dict(known_sets)
    for config_id, atoms in zip(ids, structures, strict=True):
        if config_id not in sets and is_always_training(atoms):
            sets[config_id] = TRAIN
    new_groups = []
    for members in _list_groups(assign_group_numbers(structures, group_by), rng):
        is_new_group = _assign_known_set(members, structures, ids, sets)
        if is_new_group:
            new_groups.append(members)
    counts = _count_by_category(structures, ids, sets)
    group_sets: list[str] = []
    # the sort is stable: groups of the same strata remain in random order
    new_groups.sort(key=lambda members: sorted({get_stratum(structures[index]) for index in members}))
    for members in new_groups:
        categories = _list_categories({get_stratum(structures[index]) for index in members})
        totals = {category: counts[category].total() + len(members) for category in categories}
        deficits = {
            name: sum(share * totals[category] - counts[category][name] for category in categories)
            for name, share in shares.items()
        }
        group_sets.append(max(deficits, key=deficits.__getitem__))
        for category in categories:
            counts[category][group_sets[-1]] += len(members)
    strata = [{get_stratum(structures[index]) for index in members} for members in new_groups]
    # a kind in a stratum includes the periodicity
    pairs = [{("pair", kind) for kind, _ in group_strata} for group_strata in strata]
    sizes = [len(members) for members in new_groups]
    categories_by_group = [_name_categories(group_strata) for group_strata in strata]
    group_sets = represent_categories(categories_by_group, pairs, sizes, shares, group_sets)
    for members, name in zip(new_groups, group_sets, strict=True):
        sets |= {ids[index]: name for index in members}
    return sets


def _assign_known_set(
    members: Sequence[int], structures: Sequence[Atoms], ids: Sequence[int], sets: dict[int, str]
) -> bool:
    """Assign the new members of a group to the set of a known member or start structure, in `sets`, in place.

    Returns whether the group is new: it has members without a set, and nothing determines their set.
    """
    new_members = [index for index in members if ids[index] not in sets]
    start_ids = [int(structures[index].info.get("started_from", -1)) for index in new_members]
    related_ids = [ids[index] for index in members if ids[index] in sets]
    related_ids += [start_id for start_id in start_ids if start_id in sets]
    if new_members and related_ids:
        sets.update({ids[index]: sets[related_ids[0]] for index in new_members})
    return bool(new_members) and not related_ids


def _count_by_category(
    structures: Sequence[Atoms], ids: Sequence[int], sets: Mapping[int, str]
) -> defaultdict[Any, Counter[str]]:
    """Count the configurations by category and set, without those that always belong to the training set."""
    counts: defaultdict[Any, Counter[str]] = defaultdict(Counter)
    for config_id, atoms in zip(ids, structures, strict=True):
        if config_id in sets and not is_always_training(atoms):
            for category in _list_categories({get_stratum(atoms)}):
                counts[category][sets[config_id]] += 1
    return counts


def _list_groups(numbers: Any, rng: np.random.Generator) -> list[list[int]]:
    """List the indices of the members of each group, with the groups in random order; `numbers` are group numbers."""
    return [np.flatnonzero(numbers == group).tolist() for group in rng.permutation(np.unique(numbers))]


def _list_categories(strata: Iterable[Stratum]) -> list[Any]:
    """List the categories of a group: its set of strata, their kinds, periodicities, inputs and pairs, and "all"."""
    strata = set(strata)
    pairs = {("pair", kind) for kind, _ in strata}
    return [frozenset(strata), *sorted(_name_categories(strata) | pairs), "all"]


def _name_categories(strata: Iterable[Stratum]) -> set[tuple[str, str]]:
    """Name the kinds, periodicities and inputs of strata, such as ("kind", "distorted") and ("periodicity", "2D")."""
    categories = set()
    for kind, input_name in strata:
        config_type, _, periodicity = kind.rpartition(" ")
        categories |= {("kind", config_type), ("periodicity", periodicity.strip("()")), ("input", input_name)}
    return categories


def describe_missing_categories(structures: Sequence[Atoms], sets: Mapping[int, str], group_by: Sequence[str]) -> str:
    """Describe the kinds, periodicities and inputs that the validation or the test set lacks, for a message.

    The text is empty if both sets have all of them. Configurations that always belong to the training set are ignored.

    Parameters
    ----------
    structures : sequence of ase.Atoms
        All configurations.
    sets : mapping of int to str
        Result of `assign_sets`.
    group_by : sequence of str
        Info keys; configurations with equal values of any of these keys form a group.
    """
    split_structures = [atoms for atoms in structures if not is_always_training(atoms)]
    numbers = assign_group_numbers(split_structures, group_by)
    groups: defaultdict[tuple[str, str], set[int]] = defaultdict(set)
    category_sets: defaultdict[tuple[str, str], set[str]] = defaultdict(set)
    for atoms, number in zip(split_structures, numbers.tolist(), strict=True):
        for category in _name_categories({get_stratum(atoms)}):
            groups[category].add(number)
            category_sets[category].add(sets[int(atoms.info["config_id"])])
    texts = []
    for (noun, name), numbers_of_groups in sorted(groups.items()):
        if name and {VALIDATE, TEST} - category_sets[noun, name]:
            n_groups = len(numbers_of_groups)
            texts.append(f"{noun} {name!r} ({n_groups} {'group' if n_groups == 1 else 'groups'})")
    return f"not in every set, because there are few groups: {', '.join(texts)}" if texts else ""


def get_stratum(atoms: Atoms) -> Stratum:
    """Return the stratum of a structure: its kind with the periodicity, and its input (empty if not recorded)."""
    return name_kind(atoms.info.get("config_type"), int(atoms.pbc.sum())), str(atoms.info.get("input", ""))


def name_kind(config_type: Any, n_periodic: int) -> str:
    """Name a kind of structure that is periodic in `n_periodic` directions, such as "distorted (2D)".

    Without a `config_type`, the kind is "structures".
    """
    return f"{config_type or 'structures'} ({n_periodic}D)"


def assign_group_numbers(structures: Sequence[Atoms], group_by: Sequence[str]) -> np.ndarray[Any, np.dtype[np.int64]]:
    """Assign group numbers ``(n,)``; input structures and single atoms are grouped with their duplicates only.

    `group_by` are info keys; configurations with equal values of any of these keys form a group.
    """
    ids = np.array([int(atoms.info["config_id"]) for atoms in structures])
    records: list[dict[str, Any]] = [{} if is_always_training(atoms) else dict(atoms.info) for atoms in structures]
    duplicates = assign_duplicates(structures) if len(structures) else ids
    records = [{**record, DUPLICATE_KEY: int(number)} for record, number in zip(records, duplicates, strict=True)]
    return assign_groups(ids, records, [*group_by, DUPLICATE_KEY])


def is_always_training(atoms: Atoms) -> bool:
    """Check whether a configuration always belongs to the training set: a single atom or an input structure."""
    return len(atoms) == 1 or str(atoms.info.get("config_type", "")) in TRAINING_CONFIG_TYPES
