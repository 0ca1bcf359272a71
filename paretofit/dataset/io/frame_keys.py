"""Choice of label keys for each structure of a file; structures of one file may have different keys."""

from collections import Counter
from collections.abc import Mapping, Sequence
from typing import Any

from ase import Atoms

from paretofit.core import InputError
from paretofit.dataset.io.label_keys import (
    ANY_PATTERN,
    KNOWN_PATTERN,
    QUANTITIES,
    VOIGT_ORDER,
    describe_conversion,
    get_number_shape,
    get_results,
    group_keys,
    is_virial,
    list_keys,
)

KeyGroup = Mapping[str, str]
"""Keys of the quantities of a label that have the same affix, that is, prefix and suffix."""


def choose_frame_keys(
    path: object, structures: Sequence[Atoms], user_keys: Mapping[str, str], level: str
) -> tuple[list[dict[str, str]], list[str]]:
    """Choose the keys of energy, forces and stress in the results, info or arrays of each structure.

    All keys of a structure belong to one group: the results of its calculator, or keys with the same prefix and suffix,
    such as ``REF_energy`` and ``REF_forces``. The group that has energy and forces in most structures is preferred; a
    structure without this group uses another one. A key that the user chose applies to all structures, and the keys of
    the other quantities are then those with the same prefix and suffix.

    Parameters
    ----------
    path : path-like
        File, for the notes.
    structures : sequence of ase.Atoms
    user_keys : mapping of quantity to str
        Keys that the user chose.
    level : str
        Level of the file, for the advice in the notes.

    Returns
    -------
    keys : list of mapping of quantity to str
        Keys of each structure; a quantity without a key is read from the results under its own name.
    notes : list of str
        Messages about keys that the user did not specify.

    Raises
    ------
    InputError
        If the results of some structures have only free energies and those of others only energies.
    """
    key_groups = [_list_key_groups(atoms, user_keys) for atoms in structures]
    group_order = _order_key_groups(key_groups)
    label_keys = []
    for atoms, frame_groups in zip(structures, key_groups, strict=True):
        group = _select_group(frame_groups, group_order, user_keys)
        usable_keys = {quantity: key for quantity, key in group.items() if _is_usable(quantity, key, atoms)}
        label_keys.append({quantity: quantity for quantity in QUANTITIES} | usable_keys | dict(user_keys))
    notes = [] if "energy" in user_keys else _choose_energy_results(path, structures, label_keys)
    notes += _describe_choice(path, structures, label_keys, user_keys)
    if not user_keys:
        notes += _describe_unused_energies(path, structures, label_keys, level)
    return label_keys, notes


def lookup_value(atoms: Atoms, key: str) -> Any:
    """Return a value from the info, the arrays or the results of the calculator, or None."""
    for mapping in (atoms.info, atoms.arrays):
        if key in mapping:
            return mapping[key]
    return get_results(atoms).get(key)


def _list_key_groups(atoms: Atoms, user_keys: Mapping[str, str]) -> dict[str, dict[str, str]]:
    """Return the groups of keys of a structure by affix; the results of its calculator are in the group ``""``.

    If the user chose keys, any affix forms a group, and the results are not included; otherwise only known affixes do.
    """
    key_groups = group_keys(list_keys([atoms]), ANY_PATTERN if user_keys else KNOWN_PATTERN)
    if user_keys:
        return key_groups
    results = get_results(atoms)
    known_keys = results.keys() | ({"energy"} if "free_energy" in results else set())
    result_group = {quantity: quantity for quantity in QUANTITIES if quantity in known_keys}
    if result_group:
        key_groups = {"": {**key_groups.pop("", {}), **result_group}, **key_groups}
    return key_groups


def _order_key_groups(key_groups: Sequence[Mapping[str, KeyGroup]]) -> list[str]:
    """Return the affixes of the groups by the number of structures with energy and forces, then by first appearance."""
    counts: Counter[str] = Counter()
    for frame_groups in key_groups:
        for affix, group in frame_groups.items():
            counts[affix] += {"energy", "forces"} <= group.keys()
    return [affix for affix, _ in counts.most_common()]


def _select_group(groups: Mapping[str, KeyGroup], group_order: Sequence[str], user_keys: Mapping[str, str]) -> KeyGroup:
    """Return the group with a key of the user or, without such keys, the first in `group_order` with energy and forces.

    If no group has energy and forces, return the first with an energy, else the first with forces, else an empty group.
    """
    if user_keys:
        return next((group for group in groups.values() if set(group.values()) & set(user_keys.values())), {})
    for required_quantities in ({"energy", "forces"}, {"energy"}, {"forces"}):
        for affix in group_order:
            if affix in groups and required_quantities <= groups[affix].keys():
                return groups[affix]
    return {}


def _is_usable(quantity: str, key: str, atoms: Atoms) -> bool:
    """Return whether a key may be read by default.

    A stress must have nine numbers, or six; a virial must have nine, because the order of six numbers is uncertain.
    Keys of other quantities may always be read.
    """
    shapes = [(3, 3), (9,)] if is_virial(key) else [(3, 3), (9,), (6,)]
    return quantity != "stress" or get_number_shape(lookup_value(atoms, key)) in shapes


def _choose_energy_results(
    path: object, structures: Sequence[Atoms], label_keys: Sequence[dict[str, str]]
) -> list[str]:
    """Set the energy key of all results in `label_keys` to ``free_energy`` if all have one, else leave it ``energy``.

    Return a note if only some results have a free energy; raise `InputError` if, in addition, some have no energy.
    """
    results = [
        (get_results(atoms), keys)
        for atoms, keys in zip(structures, label_keys, strict=True)
        if keys["energy"] == "energy" and "energy" not in atoms.info
    ]
    n_with_energy = sum("energy" in values or "free_energy" in values for values, _ in results)
    n_free, n_energy = (sum(key in values for values, _ in results) for key in ("free_energy", "energy"))
    counts = f"{path}: {n_free} of {n_with_energy} structures have a free_energy, {n_energy} an energy"
    if 0 < n_free < n_with_energy:
        if n_energy < n_with_energy:
            raise InputError(f"{counts}; the two must not be mixed: choose one with --energy-key")
        return [f"{counts}: 'energy' was used for all, because the two differ by the electronic entropy"]
    for _, keys in results if n_free else ():
        keys["energy"] = "free_energy"
    return []


def _describe_choice(
    path: object,
    structures: Sequence[Atoms],
    label_keys: Sequence[Mapping[str, str]],
    user_keys: Mapping[str, str],
) -> list[str]:
    """Return notes on keys that the user did not specify, on quantities under several keys, and on conversions.

    The first note lists the keys; results and keys of the user are listed only for a quantity with several keys.
    """
    key_texts, notes = [], []
    for quantity in QUANTITIES:
        counts: Counter[str] = Counter()
        are_results = True
        for atoms, keys in zip(structures, label_keys, strict=True):
            value = lookup_value(atoms, keys[quantity])
            if value is None or (quantity == "stress" and is_virial(keys[quantity]) and not has_volume(atoms)):
                continue
            counts[keys[quantity]] += 1
            are_results &= keys[quantity] in get_results(atoms)
            if quantity == "stress" and get_number_shape(value) == (6,) and keys[quantity] in atoms.info:
                note = f"{path}: the six numbers of '{keys[quantity]}' were read in the order {VOIGT_ORDER}"
                notes += [note] if note not in notes else []
        for key in counts:
            conversion = describe_conversion(quantity, key)
            notes += [f"{path}: '{key}' was read as {conversion}"] if conversion else []
        if len(counts) > 1:
            key_texts += [f"{key} ({count} structures)" for key, count in counts.items()]
        elif counts and not are_results and quantity not in user_keys:
            key_texts += list(counts)
    return ([f"{path}: labels were taken from {', '.join(key_texts)}"] if key_texts else []) + notes


def has_volume(atoms: Atoms) -> bool:
    """Return whether a structure is periodic in three directions with a volume, so that a stress is defined."""
    return bool(atoms.pbc.all() and atoms.cell.rank == 3)


def _describe_unused_energies(
    path: object, structures: Sequence[Atoms], label_keys: Sequence[Mapping[str, str]], level: str
) -> list[str]:
    """Return a note if structures whose ``energy`` was used have another known energy, such as ``REF_energy``."""
    for atoms, keys in zip(structures, label_keys, strict=True):
        if keys["energy"] in {"energy", "free_energy"} and lookup_value(atoms, keys["energy"]) is not None:
            key_groups = group_keys(list_keys([atoms]))
            unused_key = next(
                (group["energy"] for affix, group in key_groups.items() if affix and "energy" in group), ""
            )
            if unused_key:
                advice = f"to use '{unused_key}', add --energy-key {level}={unused_key}"
                return [f"{path} has '{unused_key}' and 'energy'; 'energy' was used; {advice}"]
    return []
