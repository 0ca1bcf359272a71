"""FitSNAP's JSON files: a line of comment, then ``{"Dataset": {"Data": [...], "EnergyStyle": ..., ...}}``.

The units are named in the file (``...Style``) and converted; a unit that is not known is refused, not guessed.
Stress is positive in compression there and negative in ASE. Rows of ``Lattice`` are cell vectors, in the frame of
the positions and forces.
"""

import json
from collections import Counter
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
from ase import Atoms, units
from ase.calculators.singlepoint import SinglePointCalculator
from ase.data import atomic_numbers

from paretofit.core import Array, InputError, one_line, suggest_match
from paretofit.dataset.checks import abbreviate, as_float_array

ENERGIES = {
    "electronvolt": 1.0,
    "ev": 1.0,
    "hartree": units.Hartree,
    "rydberg": units.Rydberg,
    "kcal/mol": units.kcal / units.mol,
    "kj/mol": units.kJ / units.mol,
}
LENGTHS = {"angstrom": 1.0, "bohr": units.Bohr, "nanometer": units.nm}
FORCES = {
    "electronvoltperangstrom": 1.0,
    "ev/angstrom": 1.0,
    "hartreeperbohr": units.Hartree / units.Bohr,
    "rydbergperbohr": units.Rydberg / units.Bohr,
}
STRESSES = {"bar": units.bar, "kbar": 1e3 * units.bar, "gpa": units.GPa, "pascal": units.Pascal, "pa": units.Pascal}
STYLES: dict[str, tuple[str, dict[str, float]]] = {
    "Lattice": ("angstrom", LENGTHS),
    "Positions": ("angstrom", LENGTHS),
    "Energy": ("electronvolt", ENERGIES),
    "Forces": ("electronvoltperangstrom", FORCES),
    "Stress": ("bar", STRESSES),
    "AtomType": ("chemicalsymbol", {"chemicalsymbol": 1.0}),
}
REQUIRED = ("Lattice", "Positions", "AtomTypes")
TAKEN = {*REQUIRED, "Energy", "Forces", "Stress", "NumAtoms"}
ZERO_STRESS = "stresses that are exactly zero were taken as not computed"
ASYMMETRY = 1e-4  # of the largest component


def load_json(path: Path) -> Any:
    """The content of a JSON file, without the line of comment that FitSNAP's files begin with.

    Raises
    ------
    InputError
        If the file cannot be read or is not complete JSON.
    """
    try:
        text = path.read_text(encoding="utf-8")
    except (OSError, UnicodeDecodeError) as error:
        raise InputError(f"{path} cannot be read: {one_line(error)}; name a file of UTF-8 text") from error
    if text[:1] and text[0] not in "{[":
        text = "\n" + text.partition("\n")[2]  # an empty line keeps the line numbers of messages
    try:
        return json.loads(text)
    except (ValueError, RecursionError) as error:
        raise InputError(f"{path} is not complete JSON: {one_line(error)}; restore the file from a copy") from error


def is_fitsnap(content: Any) -> bool:
    """Whether a JSON file's content is a FitSNAP dataset."""
    return isinstance(content, Mapping) and "Dataset" in content


def parse_fitsnap_structures(
    path: Path, content: Mapping[str, Any], notes: Counter[str], *, keep_zero_stress: bool = False
) -> list[Atoms]:
    """Structures of a FitSNAP JSON file with their labels in ASE's units and signs.

    Parameters
    ----------
    path : Path
        For messages.
    content : mapping
        From `load_json`.
    notes : Counter
        What deserves to be said of the import is counted here.
    keep_zero_stress : bool
        Take stresses that are exactly zero as labels, as FitSNAP does; by default they were not computed.

    Returns
    -------
    list of ase.Atoms
        Energy in eV, forces in eV/Å, stress in eV/Å³ (negative in compression) in a calculator; what else the
        file says of a structure in its info.

    Raises
    ------
    InputError
        If something is missing, of the wrong shape, or in a unit that is not known.
    """
    dataset = content["Dataset"]
    frames = dataset.get("Data") if isinstance(dataset, Mapping) else None
    if not isinstance(frames, list) or not frames or not all(isinstance(one, Mapping) for one in frames):
        raise InputError(f"{path} holds no structures: 'Dataset' needs a list 'Data' with at least one")
    factors = _factors(path, dataset)
    common = {key: value for key, value in dataset.items() if key != "Data" and not key.endswith("Style")}
    if "Label" in common:
        common["comment"] = common.pop("Label")
    return [
        _structure(f"{path}: structure {k}", one, factors, common, None if keep_zero_stress else notes)
        for k, one in enumerate(frames)
    ]


def _factors(path: Path, dataset: Mapping[str, Any]) -> dict[str, float]:
    """For each quantity the number that takes its unit to ASE's."""
    factors: dict[str, float] = {}
    for name, (default, known) in STYLES.items():
        style = dataset.get(f"{name}Style", default)
        key = style.strip().lower() if isinstance(style, str) else ""
        if key not in known:
            raise InputError(
                f"{path}: '{name}Style' is {abbreviate(style)}, which cannot be converted; it must be one of "
                f"{', '.join(known)}{suggest_match(key, known)}"
            )
        factors[name] = known[key]
    return factors


def _structure(
    where: str,
    frame: Mapping[str, Any],
    factors: Mapping[str, float],
    common: Mapping[str, Any],
    notes: Counter[str] | None,
) -> Atoms:
    symbols = _symbols(where, frame)
    n = len(symbols)

    def numbers(key: str, shape: tuple[int, ...]) -> Array:
        return np.asarray(as_float_array(frame[key], f"{where}: '{key}'", shape) * factors[key])

    atoms = Atoms(symbols, positions=numbers("Positions", (n, 3)), cell=numbers("Lattice", (3, 3)), pbc=True)
    results: dict[str, Any] = {}
    if frame.get("Energy") is not None:
        results["energy"] = float(numbers("Energy", ()))
    if frame.get("Forces") is not None:
        results["forces"] = numbers("Forces", (n, 3))
    if frame.get("Stress") is not None:
        stress = -numbers("Stress", (3, 3))
        if stress.any() or notes is None:
            results["stress"] = _symmetric(stress, where)
        else:
            notes[ZERO_STRESS] += 1
    if results:
        atoms.calc = SinglePointCalculator(atoms, **results)
    atoms.info = {**common, **{key: value for key, value in frame.items() if key not in TAKEN}}
    return atoms


def _symbols(where: str, frame: Mapping[str, Any]) -> list[str]:
    missing = [key for key in REQUIRED if key not in frame]
    if missing:
        raise InputError(f"{where} has no '{missing[0]}'; a FitSNAP structure needs {', '.join(REQUIRED)}")
    symbols = frame["AtomTypes"]
    if not isinstance(symbols, list) or not symbols:
        raise InputError(f"{where}: 'AtomTypes' must be a list of chemical symbols; got {abbreviate(symbols)}")
    unknown = [symbol for symbol in symbols if not isinstance(symbol, str) or symbol not in atomic_numbers]
    if unknown:
        raise InputError(f"{where}: 'AtomTypes' must be chemical symbols; got {abbreviate(unknown[0])}")
    if float(as_float_array(frame.get("NumAtoms", len(symbols)), f"{where}: 'NumAtoms'", ())) != len(symbols):
        raise InputError(f"{where}: 'NumAtoms' is {frame['NumAtoms']} but 'AtomTypes' has {len(symbols)} entries")
    return symbols


def _symmetric(stress: Array, where: str) -> Array:
    """``(6,)``: a tensor in ASE's Voigt order."""
    if np.abs(stress - stress.T).max() > ASYMMETRY * np.abs(stress).max():
        raise InputError(f"{where}: 'Stress' must be a symmetric 3 x 3 tensor; got {abbreviate(stress.tolist())}")
    mean = (stress + stress.T) / 2
    return np.asarray(mean.ravel()[[0, 4, 8, 5, 2, 1]])
