"""`paretofit evaluate --md-speed`: speed of molecular dynamics with a potential."""

from __future__ import annotations

from pathlib import Path

from ase import Atoms

from paretofit.core import InputError
from paretofit.dataset.io import read_frames
from paretofit.potentials import MacePotential, is_mace, read_snap_files
from paretofit.validation import MdSpeed, build_reference_crystal, measure_md_speed, measure_network_speed


def evaluate_md_speed(
    potential: Path | str, structure: Path | str | None = None, *, allow_pickle: bool = False
) -> MdSpeed:
    """Measure the MD speed of a potential in LAMMPS, or of a member of a MACE committee in ASE, on one core.

    Parameters
    ----------
    potential : path-like
        Files of a SNAP potential, or folder of a MACE committee.
    structure : path-like, optional
        Structure of the measurement, repeated to about 250 atoms; by default the crystal of the first element.
    allow_pickle : bool
        Accept MACE networks that were not trained by this user on this computer. Loading them can run any code.

    Raises
    ------
    InputError
        If a file cannot be used, or ASE has no reference crystal of the element.
    """
    if is_mace(Path(potential)):
        committee = MacePotential.read(potential, allow_pickle=allow_pickle)
        return measure_network_speed(committee, _load_crystal(structure, committee.elements[0]))
    files = read_snap_files(Path(potential))
    return measure_md_speed(files.commands, files.elements, _load_crystal(structure, files.elements[0]))


def _load_crystal(path: Path | str | None, symbol: str) -> Atoms:
    """Read a structure, or build the crystal of an element."""
    atoms = build_reference_crystal(symbol) if path is None else read_frames(Path(path), None).atoms[0]
    if atoms is None:
        raise InputError(f"ASE has no reference crystal of {symbol}; specify a structure with --structure")
    return atoms
