"""Keys under which files of other programs store labels, and keys that look like labels but are not used.

A key is the stem of a quantity with an optional prefix and suffix that all quantities of a label share: ``energy`` and
``forces``, ``REF_energy`` and ``REF_forces`` (MACE), ``energy``, ``force`` and ``virial`` (NEP), ``dft_energy`` and
``dft_force``.
"""

import re
from collections import Counter
from collections.abc import Collection, Mapping, Sequence
from typing import Any

import numpy as np
from ase import Atoms
from ase.calculators.singlepoint import SinglePointCalculator

from paretofit.dataset.checks import as_float_array

MAX_ENTROPY_EV = 1e-6  # largest difference T S at which an energy counts as equal to the free energy
QUANTITIES = ("energy", "forces", "stress")
STEMS = r"(?P<stem>energy|forces?|stress|virials?)"
KNOWN_PATTERN = re.compile(rf"(?P<prefix>(?:ref|dft|qm)_)?{STEMS}(?P<suffix>_(?:ref|dft|qm))?", re.IGNORECASE)
ANY_PATTERN = re.compile(rf"(?P<prefix>.*?){STEMS}(?P<suffix>.*)", re.IGNORECASE)
QUANTITY_OF_STEM = {"energy": "energy", "force": "forces", "forces": "forces"}  # all other stems are of the stress
LABEL_PATTERN = re.compile(r"energ|forc|stress|virial", re.IGNORECASE)
# Short names count as keys of a label only if their values have the shape of the quantity.
SHORT_NAMES = {
    "energy": re.compile(
        r"[eu]0?|pe|(?:dft|ref|qm)_?e|(?:e|u)_?(?:tot(?:al)?|pot|dft|ref|qm)|tote(?:n|_?e)|e_?p(?:er_?)?a(?:tom)?",
        re.IGNORECASE,
    ),
    "forces": re.compile(r"f|(?:dft|ref|qm)_?f|f_?(?:xyz|dft|ref|qm)|fx_fy_fz|f_x_f_y_f_z|.*grad.*", re.IGNORECASE),
}
PER_ATOM_PATTERN = re.compile(r"per_?atom|/atom|_pa$|^epa$", re.IGNORECASE)
GRADIENT_PATTERN = re.compile(r"grad", re.IGNORECASE)
VOIGT_ORDER = "xx, yy, zz, yz, xz, xy"
# Units in the name of a key, of values that must be converted before they are imported.
UNIT_PATTERN = re.compile(
    r"(?:^|[_\W])(ha|hartree|ry|rydberg|kcal|kj|mev|bohr|au|gpa|kbar)(?=$|[_\W\d])", re.IGNORECASE
)
OTHER_VECTOR_PATTERN = re.compile(r"mom|vel|magn|dipole|pos", re.IGNORECASE)  # vectors that are not forces
# Keys of ASE and of paretofit that are not labels.
IGNORED_KEYS = {
    "numbers", "positions", "spacegroup", "spacegroup_kinds", "unit_cell", "occupancy", "config_type", "source",
    "trajectory", "step", "parent", "family", "comment", "scf_converged", "seconds", "cpu_seconds", "wall_seconds",
    "cores", "config_name",
}  # fmt: skip


def get_results(atoms: Atoms) -> dict[str, Any]:
    """Return the results of a structure's calculator that are not None."""
    results = atoms.calc.results if isinstance(atoms.calc, SinglePointCalculator) else {}
    return {key: value for key, value in results.items() if value is not None}


def list_keys(structures: Sequence[Atoms]) -> list[str]:
    """List the keys of the info and the arrays of structures in order of appearance."""
    return list(dict.fromkeys(key for atoms in structures for key in [*atoms.info, *atoms.arrays]))


def list_candidate_keys(structures: Sequence[Atoms], quantity: str) -> list[str]:
    """List the keys, in order of appearance, whose floats have the shape of `quantity`, one of `QUANTITIES`.

    Keys that are known to hold something else are omitted.
    """
    keys: dict[str, None] = {}  # an ordered set
    for atoms in structures:
        shapes: dict[str, list[Any]] = {"energy": [()], "forces": [(len(atoms), 3)], "stress": [(6,), (9,), (3, 3)]}
        for key, value in [*get_results(atoms).items(), *atoms.info.items(), *atoms.arrays.items()]:
            is_number = isinstance(value, float | np.ndarray) and np.asarray(value).dtype.kind == "f"
            is_other = key in IGNORED_KEYS or OTHER_VECTOR_PATTERN.search(key)
            if is_number and not is_other and np.shape(value) in shapes[quantity]:
                keys[key] = None
    # Other keys are listed only if no key contains the name of the quantity. Four letters are compared, so that 'force'
    # matches 'forces', too.
    likely_keys = [key for key in keys if re.search(quantity[:4], key, re.IGNORECASE)]
    return likely_keys or list(keys)


def is_virial(key: str) -> bool:
    """Return whether the values under a key are virials (eV, minus the volume times the stress) instead of stresses."""
    return "virial" in key.lower()


def is_per_atom(key: str) -> bool:
    """Return whether the values under a key are energies per atom instead of total energies."""
    return PER_ATOM_PATTERN.search(key) is not None


def is_gradient(key: str) -> bool:
    """Return whether the values under a key are gradients of the energy, that is, the negative forces."""
    return GRADIENT_PATTERN.search(key) is not None


def describe_conversion(quantity: str, key: str) -> str:
    """Describe how energies or forces under a key become those of a label; empty for stresses and if unchanged."""
    if quantity == "energy" and is_per_atom(key):
        return "energies per atom, multiplied by the number of atoms"
    if quantity == "forces" and is_gradient(key):
        return "gradients of the energy, multiplied by -1"
    return ""


def group_keys(keys: Sequence[str], pattern: re.Pattern[str] = KNOWN_PATTERN) -> dict[str, dict[str, str]]:
    """Group keys of labels by affix, in lower case: ``{"ref_": {"energy": "REF_energy", ...}}``.

    Keys that do not match the pattern are omitted. In a group with several keys of a quantity, the first one counts,
    but a later key replaces a virial.
    """
    key_groups: dict[str, dict[str, str]] = {}
    for key in keys:
        match = pattern.fullmatch(key)
        if match:
            affix = f"{match['prefix'] or ''}{match['suffix'] or ''}".lower()
            stem = match["stem"].lower()
            quantity = QUANTITY_OF_STEM.get(stem, "stress")
            group = key_groups.setdefault(affix, {})
            if quantity not in group or is_virial(group[quantity]):
                group[quantity] = key
    return key_groups


def describe_unused_keys(
    path: object,
    structures: Sequence[Atoms],
    used_keys: Sequence[Collection[str]],
    level: str = "LEVEL",
    user_keys: Mapping[str, str] | None = None,
) -> list[str]:
    """Describe the keys that were not read as labels.

    Parameters
    ----------
    path : path-like
        File, for the notes.
    structures : sequence of ase.Atoms
        Structures from whose info and arrays the labels that were read have been removed.
    used_keys : sequence of collection of str
        For each structure, the results of its calculator that were read.
    level : str
        Level of the file, for the advice.
    user_keys : mapping of quantity to str, optional
        Keys that the user chose.

    Returns
    -------
    list of str
        A note with advice for each key that looks like a label; a note that lists the remaining keys of arrays and
        results, which are not stored; and one that lists those of info, which become metadata.
    """
    info_counts, lost_counts, quantities = Counter[str](), Counter[str](), dict[str, str]()
    voigt_keys: set[str] = set()
    for atoms, used_results in zip(structures, used_keys, strict=True):
        results = {key: value for key, value in get_results(atoms).items() if key not in used_results}
        info_counts.update(list(atoms.info))
        lost_counts.update([*atoms.arrays, *results])
        for key, value in {**atoms.info, **atoms.arrays, **results}.items():
            if quantity := guess_quantity(key, value, len(atoms)):
                quantities[key] = quantity
                voigt_keys |= {key} if get_number_shape(value) == (6,) else set()
    counts = info_counts + lost_counts
    notes = []
    for key, quantity in quantities.items():
        advice = _describe_remedy(key, quantity, level, (user_keys or {}).get(quantity), is_voigt=key in voigt_keys)
        notes.append(f"{path}: '{key}' ({counts[key]} structures) was not read{advice}")
    for title, other_counts in (("not stored", lost_counts), ("stored as metadata", info_counts)):
        listed_keys = [
            f"{key} ({count})"
            for key, count in other_counts.items()
            if key not in quantities and key not in IGNORED_KEYS
        ]
        if listed_keys:
            notes.append(f"{path}: keys that are not labels, {title}: {', '.join(listed_keys)}")
    return notes


def guess_quantity(key: str, value: Any, n_atoms: int) -> str:
    """Guess the quantity of a key from its name and the shape of its value; "" if it does not look like a label."""
    if key in IGNORED_KEYS:
        return ""
    shapes = {"energy": (), "forces": (n_atoms, 3)}
    for quantity, pattern in SHORT_NAMES.items():
        if pattern.fullmatch(key) and get_number_shape(value) == shapes[quantity]:
            return quantity
    if not LABEL_PATTERN.search(key):
        return ""
    for stem, quantity in (("forc", "forces"), ("energ", "energy")):
        if stem in key.lower():
            return quantity
    return "stress"


def get_number_shape(value: Any) -> tuple[int, ...] | None:
    """Return the shape of a number or an array of numbers; None for anything else, such as text or nested lists."""
    is_number = isinstance(value, float | int | np.number | np.ndarray) and not isinstance(value, bool)
    return np.shape(value) if is_number and np.asarray(value).dtype.kind in "fiu" else None


def _describe_remedy(key: str, quantity: str, level: str, user_key: str | None, *, is_voigt: bool) -> str:
    """Return the end of a note on an unused key: why it was not read, or how to read it.

    `user_key` is the key that the user chose for the quantity, if any; `is_voigt` means that a value has six numbers.
    """
    unit = UNIT_PATTERN.search(key)
    if unit:
        return f"; its name says {unit[1]}: convert it to eV, eV/Å or eV/Å³ first"
    if user_key is not None:
        return f", because --{quantity}-key chose '{user_key}'"
    conversion = f"{VOIGT_ORDER} of six numbers" if is_voigt else describe_conversion(quantity, key)
    details = f" ({conversion})" if conversion else ""
    return f"; to read it as the {quantity}{details}, add --{quantity}-key {level}={key}"


def determine_energy_kind(structures: Sequence[Atoms], keys: Sequence[str]) -> str | None:
    """Determine the kind of the energies that were read from the results of the calculators.

    Parameters
    ----------
    structures : sequence of ase.Atoms
    keys : sequence of str
        Key of the energy of each structure.

    Returns
    -------
    str or None
        ``free_energy`` if this key was read and a value differs from ``energy``; ``energy`` if this key was read and
        there are no free energies; otherwise None, because both kinds are equal or the kind is unknown.
    """
    pairs = [(key, get_results(atoms)) for atoms, key in zip(structures, keys, strict=True)]
    pairs = [(key, results) for key, results in pairs if key in {"free_energy", "energy"} and key in results]
    if not pairs:
        return None
    key = pairs[0][0]  # `choose_frame_keys` never mixes the two keys
    if key == "free_energy":
        # A free energy without an energy counts as different.
        energies = [as_float_array([results[key], results.get("energy", np.inf)], "'energy'") for _, results in pairs]
        return key if any(abs(free_energy - energy) > MAX_ENTROPY_EV for free_energy, energy in energies) else None
    return None if any("free_energy" in results for _, results in pairs) else key
