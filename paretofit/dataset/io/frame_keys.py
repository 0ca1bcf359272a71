"""Choice of the keys of the labels of each structure of a file, which need not be the same for all of them."""

from __future__ import annotations

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

Family = Mapping[str, str]


def choose_frame_keys(
    path: object, structures: Sequence[Atoms], user_keys: Mapping[str, str], level: str
) -> tuple[list[dict[str, str]], list[str]]:
    """Choose the keys of energy, forces and stress in the results, info or arrays of each structure.

    All keys of a structure belong to the results of its calculator or to one family, such as ``REF_energy`` and
    ``REF_forces``: the family that is complete in most structures, or another one where that is not there. A user's
    key holds for all structures; then the keys of the other quantities are those with the same prefix and suffix.

    Parameters
    ----------
    path : path-like
        File, for the notes.
    structures : sequence of ase.Atoms
    user_keys : mapping of quantity to str
    level : str

    Returns
    -------
    keys : list of mapping of quantity to str
    notes : list of str
        Messages about keys that the user did not specify.

    Raises
    ------
    InputError
        If the results of some structures have only free energies and those of others only energies.
    """
    families = [_list_families(atoms, user_keys) for atoms in structures]
    order = _order_families(families)
    label_keys = []
    for atoms, frame_families in zip(structures, families, strict=True):
        family = _select_family(frame_families, order, user_keys)
        implied = {q: key for q, key in family.items() if q not in user_keys and _is_usable(q, key, atoms)}
        label_keys.append({quantity: quantity for quantity in QUANTITIES} | implied | dict(user_keys))
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


def _list_families(atoms: Atoms, user_keys: Mapping[str, str]) -> dict[str, dict[str, str]]:
    """Return the families of keys of a structure by their prefix and suffix; results have neither."""
    families = group_keys(list_keys([atoms]), ANY_PATTERN if user_keys else KNOWN_PATTERN)
    if user_keys:
        return families
    results = get_results(atoms)
    result_family = {q: q for q in QUANTITIES if q in results or (q == "energy" and "free_energy" in results)}
    if result_family:
        families = {"": {**families.pop("", {}), **result_family}, **families}
    return families


def _order_families(families: Sequence[Mapping[str, Family]]) -> list[str]:
    """Return the families in the order of preference: complete in most structures, then in order of appearance."""
    counts: Counter[str] = Counter()
    for frame_families in families:
        for affix, family in frame_families.items():
            counts[affix] += {"energy", "forces"} <= family.keys()
    return [affix for affix, _ in counts.most_common()]


def _select_family(families: Mapping[str, Family], order: Sequence[str], user_keys: Mapping[str, str]) -> Family:
    """Select the family of the user's keys, or the preferred one with energy and forces, one of them, or none."""
    if user_keys:
        return next((family for family in families.values() if set(family.values()) & set(user_keys.values())), {})
    for required in ({"energy", "forces"}, {"energy"}, {"forces"}):
        for affix in order:
            if affix in families and required <= families[affix].keys():
                return families[affix]
    return {}


def _is_usable(quantity: str, key: str, atoms: Atoms) -> bool:
    """Return whether a key can be read unasked: the order of the six numbers of a virial is not certain."""
    shapes = [(3, 3), (9,)] if is_virial(key) else [(3, 3), (9,), (6,)]
    return quantity != "stress" or get_number_shape(lookup_value(atoms, key)) in shapes


def _choose_energy_results(
    path: object, structures: Sequence[Atoms], label_keys: Sequence[dict[str, str]]
) -> list[str]:
    """Choose between free energies and energies of the results, in place; return a note if only some have both."""
    is_result = [keys["energy"] == "energy" and "energy" not in atoms.info
                 for atoms, keys in zip(structures, label_keys, strict=True)]  # fmt: skip
    results = [get_results(atoms) for atoms, flag in zip(structures, is_result, strict=True) if flag]
    n_any = sum("energy" in values or "free_energy" in values for values in results)
    n_free, n_energy = (sum(key in values for values in results) for key in ("free_energy", "energy"))
    counts = f"{path}: {n_free} of {n_any} structures have a free_energy, {n_energy} an energy"
    if 0 < n_free < n_any and n_energy < n_any:
        raise InputError(f"{counts}; the two must not be mixed: choose one with --energy-key")
    if n_free and n_free == n_any:
        for keys in (keys for keys, flag in zip(label_keys, is_result, strict=True) if flag):
            keys["energy"] = "free_energy"
    is_mixed = 0 < n_free < n_any
    reason = "'energy' was used for all, because the two differ by the electronic entropy"
    return [f"{counts}: {reason}"] if is_mixed else []


def _describe_choice(
    path: object,
    structures: Sequence[Atoms],
    label_keys: Sequence[Mapping[str, str]],
    user_keys: Mapping[str, str],
) -> list[str]:
    """Return notes on keys that the user did not specify, on quantities under several keys, and on conversions."""
    texts, notes = [], []
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
            texts += [f"{key} ({count} structures)" for key, count in counts.items()]
        elif counts and not are_results and quantity not in user_keys:
            texts += list(counts)
    return ([f"{path}: labels were taken from {', '.join(texts)}"] if texts else []) + notes


def has_volume(atoms: Atoms) -> bool:
    """Return whether a structure is periodic in three directions, so that a virial gives a stress."""
    return bool(atoms.pbc.all() and atoms.cell.rank == 3)


def _describe_unused_energies(
    path: object, structures: Sequence[Atoms], label_keys: Sequence[Mapping[str, str]], level: str
) -> list[str]:
    """Return a note if structures whose ``energy`` was used have another known energy, such as ``REF_energy``."""
    for atoms, keys in zip(structures, label_keys, strict=True):
        if keys["energy"] in {"energy", "free_energy"} and lookup_value(atoms, keys["energy"]) is not None:
            families = group_keys(list_keys([atoms]))
            other = next((family["energy"] for affix, family in families.items() if affix and "energy" in family), "")
            if other:
                advice = f"to use '{other}', add --energy-key {level}={other}"
                return [f"{path} has '{other}' and 'energy'; 'energy' was used; {advice}"]
    return []
