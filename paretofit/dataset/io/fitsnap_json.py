"""Reader of FitSNAP's JSON files: a comment line, then ``{"Dataset": {"Data": [...], "EnergyStyle": ..., ...}}``.

Keys such as ``EnergyStyle`` specify the units, see `fitsnap_units`; unknown units raise an error. FitSNAP's
stress is positive in compression, ASE's is negative. The rows of ``Lattice`` are the cell vectors, in the same
coordinate system as the positions and forces.
"""

import json
from collections import Counter
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
from ase import Atoms
from ase.calculators.singlepoint import SinglePointCalculator
from ase.data import atomic_numbers

from paretofit.core import Array, InputError, join_lines, read_text
from paretofit.dataset.checks import abbreviate, as_float_array, convert_to_voigt
from paretofit.dataset.io.fitsnap_units import get_fitsnap_unit_factors

REQUIRED_KEYS = ("Lattice", "Positions", "AtomTypes")
PARSED_KEYS = {*REQUIRED_KEYS, "Energy", "Forces", "Stress", "NumAtoms"}
ZERO_STRESS_NOTE = "stresses that are exactly zero were treated as not computed"
STRESS_ASYMMETRY_TOLERANCE = 1e-4  # asymmetry of a tensor, relative to its largest component


def load_json(path: Path) -> Any:
    """Read a JSON file; a comment in the first line, as in FitSNAP's files, is skipped.

    Raises
    ------
    InputError
        If the file cannot be read or is not complete JSON.
    """
    text = read_text(path, "JSON file")
    if text[:1] and text[0] not in "{[":
        text = "\n" + text.partition("\n")[2]  # the empty line preserves the line numbers in messages
    try:
        return json.loads(text)
    except (ValueError, RecursionError) as error:
        raise InputError(f"{path} is not complete JSON: {join_lines(error)}; restore the file from a copy") from error


def is_fitsnap(content: Any) -> bool:
    """Return whether the content of a JSON file is a FitSNAP dataset."""
    return isinstance(content, Mapping) and "Dataset" in content


def parse_fitsnap_structures(
    path: Path, content: Mapping[str, Any], notes: Counter[str], *, keep_zero_stress: bool = False
) -> list[Atoms]:
    """Convert the content of a FitSNAP JSON file to structures with labels in ASE's units and signs.

    Parameters
    ----------
    path : Path
        Path for error messages.
    content : mapping
        From `load_json`; `is_fitsnap` must be true.
    notes : Counter
        Number of structures to which each note on the import applies, updated in place.
    keep_zero_stress : bool
        Accept stresses that are exactly zero, as FitSNAP does. By default, they are omitted, because FitSNAP's files
        contain zeros where no stress was computed.

    Returns
    -------
    list of ase.Atoms
        The calculator contains the energy in eV, the forces in eV/Å and the stress in eV/Å³ (negative in compression);
        the info contains the other keys of the file, ``Label`` as ``comment``, but not the units.

    Raises
    ------
    InputError
        If a key is missing, a value has the wrong shape, or a unit is unknown.
    """
    dataset = content["Dataset"]
    frames = dataset.get("Data") if isinstance(dataset, Mapping) else None
    if not isinstance(frames, list) or not frames or not all(isinstance(frame, Mapping) for frame in frames):
        raise InputError(f"{path} contains no structures: 'Dataset' requires a list 'Data' of at least one structure")
    factors = get_fitsnap_unit_factors(str(path), dataset)
    common_info = {key: value for key, value in dataset.items() if key != "Data" and not key.endswith("Style")}
    if "Label" in common_info:
        common_info["comment"] = common_info.pop("Label")
    return [
        _build_structure(f"{path}: structure {k}", frame, factors, common_info, None if keep_zero_stress else notes)
        for k, frame in enumerate(frames)
    ]


def _build_structure(
    context: str,
    frame: Mapping[str, Any],
    unit_factors: Mapping[str, float],
    common_info: Mapping[str, Any],
    notes: Counter[str] | None,
) -> Atoms:
    """Convert one entry of ``Data`` to a structure with its labels; with `notes` None, a stress of zero is accepted."""
    symbols = _parse_symbols(context, frame)
    n_atoms = len(symbols)

    def convert_array(key: str, shape: tuple[int, ...]) -> Array:
        """Return the array under a key in ASE's unit, after a check of its shape."""
        return np.asarray(as_float_array(frame[key], f"{context}: '{key}'", shape) * unit_factors[key])

    positions, cell = convert_array("Positions", (n_atoms, 3)), convert_array("Lattice", (3, 3))
    atoms = Atoms(symbols, positions=positions, cell=cell, pbc=True)
    results: dict[str, Any] = {}
    if frame.get("Energy") is not None:
        results["energy"] = float(convert_array("Energy", ()))
    if frame.get("Forces") is not None:
        results["forces"] = convert_array("Forces", (n_atoms, 3))
    if frame.get("Stress") is not None:
        stress = -convert_array("Stress", (3, 3))
        if stress.any() or notes is None:
            results["stress"] = convert_to_voigt(stress, f"{context}: 'Stress'", STRESS_ASYMMETRY_TOLERANCE)
        else:
            notes[ZERO_STRESS_NOTE] += 1
    if results:
        atoms.calc = SinglePointCalculator(atoms, **results)
    atoms.info = {**common_info, **{key: value for key, value in frame.items() if key not in PARSED_KEYS}}
    return atoms


def _parse_symbols(context: str, frame: Mapping[str, Any]) -> list[str]:
    """Return the chemical symbols of the atoms of a structure, after checking that the required keys are present."""
    missing_keys = [key for key in REQUIRED_KEYS if key not in frame]
    if missing_keys:
        raise InputError(
            f"{context} has no '{missing_keys[0]}'; a FitSNAP structure requires {', '.join(REQUIRED_KEYS)}"
        )
    symbols = frame["AtomTypes"]
    if not isinstance(symbols, list) or not symbols:
        raise InputError(f"{context}: 'AtomTypes' must be a list of chemical symbols; got {abbreviate(symbols)}")
    invalid_symbols = [symbol for symbol in symbols if not isinstance(symbol, str) or symbol not in atomic_numbers]
    if invalid_symbols:
        raise InputError(f"{context}: 'AtomTypes' must be chemical symbols; got {abbreviate(invalid_symbols[0])}")
    if float(as_float_array(frame.get("NumAtoms", len(symbols)), f"{context}: 'NumAtoms'", ())) != len(symbols):
        raise InputError(
            f"{context}: 'NumAtoms' is {frame['NumAtoms']} but 'AtomTypes' has {len(symbols)} entries; "
            "correct the number of atoms or the list"
        )
    return symbols
