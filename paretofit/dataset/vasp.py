"""VASP's OUTCAR and vasprun.xml: every complete ionic step, its force-consistent energy, and what it cost.

ASE reads the numbers. This adds what ASE does not say: that a file is unfinished, that an electronic loop did not
converge, and the seconds.
"""

from collections import Counter
from pathlib import Path

import ase.io
from ase import Atoms
from ase.io.formats import open_with_compression

from paretofit.errors import InputError
from paretofit.files import one_line

UNFINISHED = "unfinished calculations: their complete steps were taken"
UNCONVERGED = "steps whose electronic loop did not converge (info scf_converged: False)"
STEP = "FREE ENERGIE OF THE ION-ELECTRON SYSTEM"
CONVERGED = "aborting loop because EDIFF is reached"
CPU = "Total CPU time used (sec):"
END_OF_XML = "</modeling>"


def vasp_structures(path: Path, kind: str, notes: Counter[str]) -> list[Atoms]:
    """All complete ionic steps of a VASP calculation, with ``cpu_seconds`` in their info where the file says it.

    Parameters
    ----------
    path : Path
        An OUTCAR or vasprun.xml, which may be compressed.
    kind : str
        ASE's name of the format: ``vasp-out`` or ``vasp-xml``.
    notes : Counter
        Unfinished calculations and steps that did not converge are counted here.

    Raises
    ------
    InputError
        If the file holds no energy, because the calculation is not finished, or cannot be read.
    """
    reason = ""
    try:
        read = ase.io.read(path, index=":", format=kind)
    except Exception as error:  # noqa: BLE001  (ASE's readers raise whatever their format's parser meets)
        read, reason = [], one_line(error)
    structures = [one for one in (read if isinstance(read, list) else [read]) if _has_energy(one)]
    if not structures:
        raise InputError(
            f"{path} is unfinished or damaged: it holds no complete energy{f' ({reason})' if reason else ''}; let the "
            "calculation end, or leave it out"
        )
    if kind == "vasp-out":
        _outcar_details(path, structures, notes)
    elif not _ends_with(path, END_OF_XML):
        notes[UNFINISHED] += 1
    if len(structures) > 1:
        for step, atoms in enumerate(structures):
            atoms.info["step"] = step
    return structures


def cpu_seconds(path: Path) -> float | None:
    """The total CPU time that an OUTCAR states at its end; None where it does not."""
    return _scan(path)[1]


def _has_energy(atoms: Atoms) -> bool:
    return atoms.calc is not None and atoms.calc.results.get("free_energy") is not None


def _outcar_details(path: Path, structures: list[Atoms], notes: Counter[str]) -> None:
    """Put into each step's info whether it converged, and its part of the CPU time."""
    converged, seconds = _scan(path)
    if seconds is None:
        notes[UNFINISHED] += 1
    known = any(converged)  # a file that never says so may have been shortened
    for atoms, good in zip(structures, converged, strict=False):
        if seconds is not None:
            atoms.info["cpu_seconds"] = seconds / len(structures)
        if known and not good:
            atoms.info["scf_converged"] = False
            notes[UNCONVERGED] += 1


def _scan(path: Path) -> tuple[list[bool], float | None]:
    """Whether the electronic loop of each step of an OUTCAR converged, and the CPU time of the whole."""
    converged: list[bool] = []
    reached, seconds = False, None
    with open_with_compression(str(path), "rt") as stream:
        for line in stream:
            if CONVERGED in line:
                reached = True
            elif STEP in line:
                converged.append(reached)
                reached = False
            elif CPU in line:
                seconds = _number(line.partition(CPU)[2])
    return converged, seconds


def _number(text: str) -> float | None:
    try:
        return float(text)
    except ValueError:  # Fortran's asterisks
        return None


def _ends_with(path: Path, text: str) -> bool:
    last = ""
    with open_with_compression(str(path), "rt") as stream:
        for line in stream:
            last = line.strip() or last
    return last.endswith(text)
