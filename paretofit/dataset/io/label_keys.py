"""Keys under which files of other programs hold labels, and keys that look like labels but are not used.

A key is a quantity with an optional prefix or suffix that all quantities of a label share: ``energy`` and ``forces``,
``REF_energy`` and ``REF_forces`` (MACE), ``energy``, ``force`` and ``virial`` (NEP), ``dft_energy`` and ``dft_force``.
"""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
from ase import Atoms
from ase.calculators.singlepoint import SinglePointCalculator

from paretofit.dataset.checks import as_float_array

MAX_ENTROPY_EV = 1e-6  # T S of energies that are equal to their free energies
QUANTITIES = ("energy", "forces", "stress")
STEMS = r"(?P<stem>energy|forces?|stress|virials?)"
KNOWN_PATTERN = re.compile(rf"(?P<prefix>(?:ref|dft|qm)_)?{STEMS}(?P<suffix>_(?:ref|dft|qm))?", re.IGNORECASE)
ANY_PATTERN = re.compile(rf"(?P<prefix>.*?){STEMS}(?P<suffix>.*)", re.IGNORECASE)
QUANTITY_OF_STEM = {"energy": "energy", "force": "forces", "forces": "forces"}  # the others are stresses
LABEL_PATTERN = re.compile(r"energ|forc|stress|virial", re.IGNORECASE)
UNIT_PATTERN = re.compile(
    r"(?:^|[_\W])(ha|hartree|ry|rydberg|kcal|kj|mev|bohr|au|gpa|kbar)(?=$|[_\W\d])", re.IGNORECASE
)
OTHER_VECTOR_PATTERN = re.compile(r"mom|vel|magn|dipole|pos", re.IGNORECASE)  # vectors that are no forces
# Keys of ASE's own and of this program, which are no labels.
IGNORED_KEYS = {
    "numbers", "positions", "spacegroup", "spacegroup_kinds", "unit_cell", "occupancy", "config_type", "source",
    "trajectory", "step", "parent", "family", "comment", "scf_converged", "seconds", "cpu_seconds", "wall_seconds",
    "cores",
}  # fmt: skip


def get_results(atoms: Atoms) -> dict[str, Any]:
    """Return the results of a structure's calculator that are not None."""
    results = atoms.calc.results if isinstance(atoms.calc, SinglePointCalculator) else {}
    return {key: value for key, value in results.items() if value is not None}


def list_keys(structures: Sequence[Atoms]) -> list[str]:
    """List the keys of the info and the arrays of structures in order of appearance."""
    return list(dict.fromkeys(key for atoms in structures for key in [*atoms.info, *atoms.arrays]))


def list_candidate_keys(structures: Sequence[Atoms], quantity: str) -> list[str]:
    """List the keys, in order of appearance, whose values have the shape of an energy, of forces or of a stress."""
    keys: dict[str, None] = {}  # an ordered set
    for atoms in structures:
        shapes_by_quantity: dict[str, list[tuple[int, ...]]] = {
            "energy": [()], "forces": [(len(atoms), 3)], "stress": [(6,), (9,), (3, 3)]
        }  # fmt: skip
        shapes = shapes_by_quantity[quantity]
        for key, value in [*get_results(atoms).items(), *atoms.info.items(), *atoms.arrays.items()]:
            is_number = isinstance(value, float | np.ndarray) and np.asarray(value).dtype.kind == "f"
            is_other = key in IGNORED_KEYS or OTHER_VECTOR_PATTERN.search(key)
            if is_number and not is_other and np.shape(value) in shapes:
                keys[key] = None
    # Names that contain the quantity are the likely ones; others are listed only if there are none.
    likely = [key for key in keys if re.search(quantity[:4], key, re.IGNORECASE)]
    return likely or list(keys)


def is_virial(key: str) -> bool:
    """Return whether a key holds virials (eV, -volume times the stress) instead of stresses."""
    return "virial" in key.lower()


def group_keys(keys: Sequence[str], pattern: re.Pattern[str] = KNOWN_PATTERN) -> dict[str, dict[str, str]]:
    """Group keys of labels by their prefix and suffix: ``{"ref_": {"energy": "REF_energy", ...}}``."""
    families: dict[str, dict[str, str]] = {}
    for key in keys:
        match = pattern.fullmatch(key)
        if match:
            affix = f"{match['prefix'] or ''}{match['suffix'] or ''}".lower()
            stem = match["stem"].lower()
            quantity = QUANTITY_OF_STEM.get(stem, "stress")
            family = families.setdefault(affix, {})
            if quantity not in family or is_virial(family[quantity]):
                family[quantity] = key
    return families


def describe_unused_keys(
    path: object, structures: Sequence[Atoms], used_keys: set[str], level: str = "LEVEL"
) -> list[str]:
    """Describe the keys that were not read as labels: those that look like labels, and those that are not stored.

    Parameters
    ----------
    path : path-like
    structures : sequence of ase.Atoms
        Without the labels that were read from their info and arrays.
    used_keys : set of str
        Results of calculators that were read.
    level : str
        Level of the file, for the advice.
    """
    info = Counter(key for atoms in structures for key in atoms.info)
    lost = Counter(key for atoms in structures for key in atoms.arrays)
    lost.update(key for atoms in structures for key in get_results(atoms) if key not in used_keys)
    labels = {key: count for key, count in (info + lost).items() if LABEL_PATTERN.search(key)}
    notes = [f"{path}: '{key}' ({count} structures) was not read{_advise(key, level)}" for key, count in labels.items()]
    others = {key: count for key, count in lost.items() if key not in labels and key not in IGNORED_KEYS}
    for title, counts in (("not stored", others), ("stored as metadata", info)):
        listed = [f"{key} ({count})" for key, count in counts.items() if key not in labels and key not in IGNORED_KEYS]
        if listed:
            notes.append(f"{path}: keys that are not labels, {title}: {', '.join(listed)}")
    return notes


def _advise(key: str, level: str) -> str:
    unit = UNIT_PATTERN.search(key)
    if unit:
        return f"; its name says {unit[1]}: convert it to eV, eV/Å or eV/Å³ first"
    lowered = key.lower()
    quantity = "forces" if "forc" in lowered else "energy" if "energ" in lowered else "stress"
    return f"; to read it as the {quantity}, add --{quantity}-key {level}={key}"


def choose_energy_result(structures: Sequence[Atoms]) -> tuple[str, str]:
    """Choose the result of the calculators that is the energy of all structures: the free energy if all have it.

    Returns
    -------
    key : str
        ``free_energy`` or ``energy``; empty if neither is there for all structures that have one of them.
    note : str
        A message if some structures have both and others only one of them.
    """
    results = [get_results(atoms) for atoms in structures]
    n_any = sum("energy" in values or "free_energy" in values for values in results)
    n_free, n_energy = (sum(key in values for values in results) for key in ("free_energy", "energy"))
    if n_free in {0, n_any}:
        return ("free_energy" if n_free else "energy"), ""
    counts = f"{n_free} of {n_any} structures have a free_energy, {n_energy} an energy"
    if n_energy == n_any:
        return "energy", f"{counts}: 'energy' was used for all, because the two differ by the electronic entropy"
    return "", counts


def determine_energy_kind(structures: Sequence[Atoms], key: str) -> str | None:
    """Determine the kind of energies that are a result of the calculators.

    Returns
    -------
    str or None
        ``free_energy`` if the key is this and the values differ from ``energy``, ``energy`` if there are no free
        energies; otherwise None, because both kinds are equal or the kind is unknown.
    """
    results = [values for values in map(get_results, structures) if key in values]
    if not results or key not in {"free_energy", "energy"}:
        return None
    if key == "free_energy":
        pairs = [as_float_array([values[key], values.get("energy", np.inf)], "'energy'") for values in results]
        return key if any(abs(free - energy) > MAX_ENTROPY_EV for free, energy in pairs) else None
    return None if any("free_energy" in values for values in results) else key


def choose_family(keys: Sequence[str], results: set[str], user_keys: Mapping[str, str]) -> Mapping[str, str]:
    """Choose the keys that belong together: those of the user's key, of the results, or the first family of keys."""
    if user_keys:
        families = group_keys(keys, ANY_PATTERN).values()
        return next((family for family in families if set(family.values()) & set(user_keys.values())), {})
    if results & {"energy", "free_energy", "forces"}:
        return group_keys(keys).get("", {})
    return next((family for family in group_keys(keys).values() if {"energy", "forces"} & family.keys()), {})
