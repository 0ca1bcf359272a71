"""Who trains, who calibrates and who judges: drawn once for each family, and kept for ever."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np

from paretofit.dataset import assign_groups

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from ase import Atoms

TRAIN, VALIDATE, TEST = "train", "validate", "test"
ALWAYS = ("input", "supercell", "molecule", "isolated")  # config_types that always train: inputs as they are
NEARER = ("family", "trajectory")  # instead of parents, where nearly all have the same


def assign_sets(
    structures: Sequence[Atoms],
    known_sets: Mapping[int, str],
    shares: Mapping[str, float],
    group_by: Sequence[str],
    rng: np.random.Generator,
) -> dict[int, str]:
    """Give every configuration without a set one, by its ``config_id``.

    Free atoms, cells of one atom and input structures train. Others follow their relatives, and frames of the dynamics
    the structure that they started from; new families go, in random order, where most is missing to the shares.

    Parameters
    ----------
    structures : sequence of ase.Atoms
        All there are.
    known_sets : mapping of int to str
        Sets that were given before.
    shares : mapping of str to float
        Of "train", "validate" and "test".
    group_by : sequence of str
        Keys of equal values of relatives, from `choose_group_keys`.
    rng : numpy.random.Generator
    """
    ids = [int(atoms.info["config_id"]) for atoms in structures]
    family = assign_group_numbers(structures, group_by)
    found = dict(known_sets)
    members: dict[int, list[int]] = {}
    for k, number in enumerate(family.tolist()):
        members.setdefault(number, []).append(k)
    counts = {name: sum(one == name for one in found.values()) for name in shares}
    for number in rng.permutation(sorted(members)).tolist():
        own = members[number]
        new = [k for k in own if ids[k] not in found]
        free = [k for k in new if not trains_always(structures[k])]
        for k in set(new) - set(free):
            found[ids[k]] = TRAIN
            counts[TRAIN] += 1
        if not free:
            continue
        before = [found[ids[k]] for k in own if ids[k] in known_sets]
        starts = [found.get(int(structures[k].info.get("started_from", -1))) for k in free]
        before += [one for one in starts if one is not None]  # frames go with what they started from
        total = sum(counts.values()) + len(free)
        chosen = before[0] if before else max(shares, key=lambda name: shares[name] * total - counts[name])
        for k in free:
            found[ids[k]] = chosen
        counts[chosen] += len(free)
    return found


def choose_group_keys(structures: Sequence[Atoms], group_by: Sequence[str]) -> list[str]:
    """The keys that tell relatives, decided once: ``parent`` gives way to ``family`` where more than half share one."""
    numbers = assign_group_numbers(structures, group_by)
    if "parent" in group_by and len(numbers) > 1 and np.bincount(numbers).max() > len(numbers) / 2:
        return list(dict.fromkeys([*(key for key in group_by if key != "parent"), *NEARER]))
    return list(group_by)


def assign_group_numbers(structures: Sequence[Atoms], group_by: Sequence[str]) -> np.ndarray[Any, np.dtype[np.int64]]:
    """``(n,)``: relatives share a number; those that always train are nobody's relatives."""
    ids = np.array([int(atoms.info["config_id"]) for atoms in structures])
    records: list[dict[str, Any]] = [{} if trains_always(atoms) else dict(atoms.info) for atoms in structures]
    return assign_groups(ids, records, group_by)


def trains_always(atoms: Atoms) -> bool:
    """Whether it is a free atom, a cell of one atom, or an input structure."""
    return len(atoms) == 1 or str(atoms.info.get("config_type", "")) in ALWAYS
