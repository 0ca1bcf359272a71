"""`paretofit evaluate --md-speed`: how fast dynamics is with a potential."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

from ase.build import bulk

from paretofit.core import InputError
from paretofit.dataset.io import read_frames
from paretofit.potentials import MacePotential, is_mace, read_snap_files
from paretofit.validation import MdSpeed, measure_md_speed, measure_network_speed

if TYPE_CHECKING:
    from ase import Atoms


def evaluate_md_speed(potential: Path | str, structure: Path | str | None = None) -> MdSpeed:
    """Time LAMMPS with a potential, or ASE with a member of a MACE committee, on one core.

    Parameters
    ----------
    potential : path-like
        A SNAP potential's files, or a MACE committee's folder.
    structure : path-like, optional
        The structure to time it on, repeated to some 250 atoms; by default the first element's crystal.

    Raises
    ------
    InputError
        If a file cannot be used, or the element has no crystal that ASE knows.
    """
    given = None if structure is None else read_frames(Path(structure), None).atoms[0]
    if is_mace(Path(potential)):
        networks = MacePotential.read(potential)
        return measure_network_speed(networks, given or _crystal(networks.elements[0]))
    files = read_snap_files(Path(potential))
    return measure_md_speed(files.commands, files.elements, given or _crystal(files.elements[0]))


def _crystal(symbol: str) -> Atoms:
    try:
        atoms: Atoms = bulk(symbol)
    except (ValueError, KeyError, RuntimeError) as error:
        raise InputError(f"ASE knows no crystal of {symbol}; name a structure with --structure") from error
    return atoms
