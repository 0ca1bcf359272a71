"""VASP's OUTCAR and vasprun.xml: every complete ionic step, its force-consistent energy, and what it cost.

ASE reads the numbers. This adds what ASE does not say: that a file is unfinished, that an electronic loop did not
converge, and the seconds.
"""

import re
from collections import Counter
from pathlib import Path

import ase.io
from ase import Atoms
from ase.io.formats import open_with_compression

from paretofit.core import InputError, one_line

UNFINISHED = "unfinished calculations, whose complete steps were taken"
UNCONVERGED = "steps whose electronic loop did not converge, kept with scf_converged: false"
STEP = "FREE ENERGIE OF THE ION-ELECTRON SYSTEM"
CONVERGED = "aborting loop because EDIFF is reached"
LIMIT = re.compile(r"NELM\s*=\s*(\d+)")
ITERATION = re.compile(r"Iteration\s+\d+\(\s*(\d+)\)")
CPU = re.compile(r"Total CPU time used \(sec\):\s*(\d+\.\d*)")
END_OF_XML = "</modeling>"


def read_vasp_structures(path: Path, file_format: str, notes: Counter[str]) -> list[Atoms]:
    """All complete ionic steps of a VASP calculation, with ``cpu_seconds`` in their info where the file says it.

    Parameters
    ----------
    path : Path
        An OUTCAR or vasprun.xml, which may be compressed.
    file_format : str
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
        read = ase.io.read(path, index=":", format=file_format, do_not_split_by_at_sign=True)
    except Exception as error:  # noqa: BLE001  (ASE's readers raise whatever their format's parser meets)
        read, reason = [], one_line(error)
    structures = [one for one in (read if isinstance(read, list) else [read]) if _has_energy(one)]
    if not structures:
        raise InputError(
            f"{path} is unfinished or damaged: it holds no complete energy{f' ({reason})' if reason else ''}; let the "
            "calculation end, or leave it out"
        )
    if file_format == "vasp-out":
        add_outcar_details(path, structures, notes)
    finished = "cpu_seconds" in structures[0].info if file_format == "vasp-out" else _ends_with(path, END_OF_XML)
    if not finished:
        notes[UNFINISHED] += 1
    if len(structures) > 1:
        for step, atoms in enumerate(structures):
            atoms.info["step"] = step
    return structures


def add_outcar_details(path: Path, structures: list[Atoms], notes: Counter[str]) -> None:
    """Put into the info of each ionic step its part of the CPU time, and whether it did not converge.

    Parameters
    ----------
    path : Path
        The OUTCAR.
    structures : list of ase.Atoms
        The steps, from this OUTCAR or from the vasprun.xml beside it.
    notes : Counter
    """
    converged, seconds = _scan(path)
    for atoms, good in zip(structures, converged, strict=False):
        if seconds is not None:
            atoms.info["cpu_seconds"] = seconds / len(structures)
        if not good:
            atoms.info["scf_converged"] = False
            notes[UNCONVERGED] += 1


def _has_energy(atoms: Atoms) -> bool:
    return atoms.calc is not None and atoms.calc.results.get("free_energy") is not None


def _scan(path: Path) -> tuple[list[bool], float | None]:
    """Whether the electronic loop of each step of an OUTCAR converged, and the CPU time of the whole.

    A loop that has used all of its NELM iterations and does not say that it reached EDIFF has not converged.
    """
    converged: list[bool] = []
    reached, limit, iteration, seconds = False, None, 0.0, None
    with open_with_compression(str(path), "rb") as stream:
        for raw in stream:
            line = raw.decode("latin-1")  # whatever a job script wrote in between
            if CONVERGED in line:
                reached = True
            elif STEP in line:
                converged.append(reached or limit is None or iteration < limit)
                reached = False
            elif "Iteration" in line:
                iteration = _number(ITERATION, line) or iteration
            elif limit is None and "NELM" in line:
                limit = _number(LIMIT, line)
            elif "CPU time" in line:
                seconds = _number(CPU, line) or seconds
    return converged, seconds


def _number(pattern: re.Pattern[str], line: str) -> float | None:
    found = pattern.search(line)
    return float(found[1]) if found else None


def _ends_with(path: Path, text: str) -> bool:
    last = b""
    with open_with_compression(str(path), "rb") as stream:
        for line in stream:
            last = line.strip() or last
    return last.endswith(text.encode())
