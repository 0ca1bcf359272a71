"""Reader of VASP's OUTCAR and vasprun.xml: every complete ionic step with its force-consistent energy and its cost.

ASE reads the structures and labels. This module also determines whether the calculation finished, whether the
electronic loops converged, and the CPU time.
"""

import re
from collections import Counter
from pathlib import Path

import ase.io
from ase import Atoms
from ase.io.formats import open_with_compression

from paretofit.core import InputError, one_line
from paretofit.dataset.io.convergence import flag_unconverged, mark_steps
from paretofit.dataset.io.run_costs import add_run_costs

UNFINISHED_NOTE = "unfinished calculations, whose complete steps were imported"
STEP_MARK = "FREE ENERGIE OF THE ION-ELECTRON SYSTEM"
CONVERGED_MARK = "aborting loop because EDIFF is reached"
# Other ends of a loop: "aborting loop EDIFF was not reached (unconverged)", "aborting loop because hard stop was set".
ABORT_MARK = "aborting loop"
MAX_ITERATIONS_PATTERN = re.compile(r"NELM\s*=\s*(\d+)")
ITERATION_PATTERN = re.compile(r"Iteration\s+\d+\(\s*(\d+)\)")
END_OF_OUTCAR = "Total CPU time used"
END_OF_XML = "</modeling>"


def read_vasp_structures(path: Path, file_format: str, notes: Counter[str]) -> list[Atoms]:
    """Read all complete ionic steps of a VASP calculation, with their core time if the file has it.

    Parameters
    ----------
    path : Path
        An OUTCAR or vasprun.xml, possibly compressed.
    file_format : str
        ASE's name of the format: ``vasp-out`` or ``vasp-xml``.
    notes : Counter
        Numbers of unfinished calculations and of steps that did not converge, updated in place.

    Raises
    ------
    InputError
        If the file cannot be read or contains no complete energy.
    """
    reason = ""
    try:
        steps = ase.io.read(path, index=":", format=file_format, do_not_split_by_at_sign=True)
    except Exception as error:  # noqa: BLE001  (the parsers of ASE's readers raise any exception)
        steps, reason = [], one_line(error)
    structures = [atoms for atoms in (steps if isinstance(steps, list) else [steps]) if _has_energy(atoms)]
    if not structures:
        raise InputError(
            f"{path} is unfinished or corrupt: it contains no complete energy{f' ({reason})' if reason else ''}; "
            "finish the calculation, or remove the file"
        )
    if file_format == "vasp-out":
        is_finished = add_outcar_details(path, structures, notes)
    else:
        flag_unconverged(path, file_format, structures, notes)
        is_finished = _ends_with(path, END_OF_XML)
    if not is_finished:
        notes[UNFINISHED_NOTE] += 1
    if len(structures) > 1:
        for step, atoms in enumerate(structures):
            atoms.info["step"] = step
    return structures


def add_outcar_details(path: Path, structures: list[Atoms], notes: Counter[str]) -> bool:
    """Add its core time and, if it did not converge, ``scf_converged: False`` to the info of each step.

    Parameters
    ----------
    path : Path
        An OUTCAR.
    structures : list of ase.Atoms
        The ionic steps, from this OUTCAR or from the vasprun.xml in the same directory.
    notes : Counter
        Number of steps that did not converge, updated in place.

    Returns
    -------
    bool
        Whether the calculation finished.
    """
    converged, is_finished = _scan_outcar(path)
    mark_steps(structures, converged, notes)
    add_run_costs(path, "vasp-out", structures)
    return is_finished


def _has_energy(atoms: Atoms) -> bool:
    return atoms.calc is not None and atoms.calc.results.get("free_energy") is not None


def _scan_outcar(path: Path) -> tuple[list[bool], bool]:
    """Return whether the electronic loop of each step converged, and whether the calculation finished.

    A loop did not converge if it ended for another reason than EDIFF, or if it used all NELM iterations without
    reporting that it reached EDIFF.
    """
    converged: list[bool] = []
    is_ediff_reached, is_aborted, max_iterations, iteration, is_finished = False, False, None, 0.0, False
    with open_with_compression(str(path), "rb") as stream:
        for raw_line in stream:
            line = raw_line.decode("latin-1")  # accepts any byte, as job scripts may write binary data into the file
            if CONVERGED_MARK in line:
                is_ediff_reached = True
            elif ABORT_MARK in line:
                is_aborted = True
            elif STEP_MARK in line:
                is_within_limit = max_iterations is None or iteration < max_iterations
                converged.append(is_ediff_reached or (is_within_limit and not is_aborted))
                is_ediff_reached = is_aborted = False
            elif "Iteration" in line:
                iteration = _match_number(ITERATION_PATTERN, line) or iteration
            elif max_iterations is None and "NELM" in line:
                max_iterations = _match_number(MAX_ITERATIONS_PATTERN, line)
            elif END_OF_OUTCAR in line:
                is_finished = True
    return converged, is_finished


def _match_number(pattern: re.Pattern[str], line: str) -> float | None:
    match = pattern.search(line)
    return float(match[1]) if match else None


def _ends_with(path: Path, text: str) -> bool:
    last_line = b""
    with open_with_compression(str(path), "rb") as stream:
        for line in stream:
            last_line = line.strip() or last_line
    return last_line.endswith(text.encode())
