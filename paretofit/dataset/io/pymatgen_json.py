"""Reader of labelled structures in pymatgen's JSON form, as in the public data sets mlearn and MPtrj.

A record is a mapping with a ``structure``; its labels are in the record itself or in its ``outputs``. Records are in
lists or mappings of any depth. Stresses are those of VASP: in kbar, positive in compression.
"""

from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import numpy as np
from ase import Atoms, units
from ase.calculators.singlepoint import SinglePointCalculator
from ase.data import atomic_numbers

from paretofit.core import Array, InputError
from paretofit.dataset.checks import abbreviate, as_float_array, convert_to_voigt

LABEL_KEYS = {  # keys in order of preference
    "energy": ("energy", "uncorrected_total_energy", "total_energy"),
    "forces": ("forces", "force"),
    "stress": ("virial_stress", "stress"),
}
KBAR = 1e3 * units.bar  # eV/Å³
VASP_ORDER = [0, 1, 2, 4, 5, 3]  # positions of xx, yy, zz, yz, xz, xy in VASP's xx, yy, zz, xy, yz, zx
STRESS_ASYMMETRY_TOLERANCE = 1e-3  # asymmetry of a tensor, relative to its largest component


def is_pymatgen(content: Any) -> bool:
    """Return whether the content of a JSON file has records with a structure in pymatgen's form."""
    return next(_find_records(content), None) is not None


def parse_pymatgen_structures(path: Path, content: Any) -> list[Atoms]:
    """Convert records to structures with labels in ASE's units and signs.

    Parameters
    ----------
    path : Path
        Path for error messages.
    content : list or mapping
        From `paretofit.dataset.io.fitsnap_json.load_json`.

    Returns
    -------
    list of ase.Atoms
        The calculator contains the energy in eV, the forces in eV/Å and the stress in eV/Å³ (negative in compression);
        the info contains the other keys of the record and its ``outputs``, with ``group`` as ``config_type``.

    Raises
    ------
    InputError
        If a site has partial occupancies or an unknown element, or a value has the wrong shape.
    """
    return [_build_structure(f"{path}: structure {k}", record) for k, record in enumerate(_find_records(content))]


def _find_records(content: Any) -> Iterator[Mapping[str, Any]]:
    """Yield the records in lists and mappings of any depth, in the order of the file."""
    if isinstance(content, Mapping):
        structure = content.get("structure")
        if isinstance(structure, Mapping) and {"lattice", "sites"} <= structure.keys():
            yield content
            return
        content = list(content.values())
    if isinstance(content, list):
        for entry in content:
            yield from _find_records(entry)


def _build_structure(context: str, record: Mapping[str, Any]) -> Atoms:
    """Convert a record to a structure with its labels; see `parse_pymatgen_structures`."""
    structure = record["structure"]
    lattice = structure["lattice"]
    cell = as_float_array(lattice.get("matrix"), f"{context}: the 'matrix' of its lattice", (3, 3))
    sites = structure["sites"]
    symbols = [_get_symbol(context, site) for site in sites]
    fractional_positions = [as_float_array(site.get("abc"), f"{context}: 'abc' of a site", (3,)) for site in sites]
    pbc = lattice.get("pbc", True)
    atoms = Atoms(symbols, scaled_positions=np.array(fractional_positions).reshape(-1, 3), cell=cell, pbc=pbc)
    outputs = record.get("outputs")
    labels = outputs if isinstance(outputs, Mapping) else record
    keys = {
        quantity: next((name for name in names if labels.get(name) is not None), None)
        for quantity, names in LABEL_KEYS.items()
    }
    results: dict[str, Any] = {}
    if keys["energy"]:
        results["energy"] = float(as_float_array(labels[keys["energy"]], f"{context}: '{keys['energy']}'", ()))
    if keys["forces"]:
        results["forces"] = as_float_array(labels[keys["forces"]], f"{context}: '{keys['forces']}'", (len(atoms), 3))
    if keys["stress"]:
        results["stress"] = _convert_stress(labels[keys["stress"]], f"{context}: '{keys['stress']}'")
    if results:
        atoms.calc = SinglePointCalculator(atoms, **results)
    used_keys = {"structure", "outputs", "num_atoms", "element", *filter(None, keys.values())}
    atoms.info = {key: value for key, value in {**record, **labels}.items() if key not in used_keys}
    if "group" in atoms.info:
        atoms.info["config_type"] = atoms.info.pop("group")
    return atoms


def _get_symbol(context: str, site: Mapping[str, Any]) -> str:
    """Return the chemical symbol of a site; raise `InputError` for partial occupancies and unknown elements."""
    species = site.get("species")
    if not isinstance(species, list) or len(species) != 1 or species[0].get("occu", 1) != 1:
        raise InputError(f"{context}: each site must have one element with occupancy 1; got {abbreviate(species)}")
    symbol = species[0].get("element")
    if symbol not in atomic_numbers:
        raise InputError(f"{context}: unknown element {abbreviate(symbol)}; correct the symbol")
    return str(symbol)


def _convert_stress(value: Any, name: str) -> Array:
    """Convert VASP's stress (kbar, positive in compression) to ``(6,)`` in ASE's unit, order and sign."""
    components = as_float_array(value, name)
    if components.shape == (6,):
        return np.asarray(-KBAR * components[VASP_ORDER])
    if components.shape != (3, 3):
        raise InputError(f"{name} must be 6 numbers (xx, yy, zz, xy, yz, zx) or 3 x 3; got shape {components.shape}")
    return -KBAR * convert_to_voigt(components, name, STRESS_ASYMMETRY_TOLERANCE)
