"""Details in outputs of DFT codes that ASE does not read: convergence of electronic loops, core time, unfinished runs.

ASE reads the structures and labels. The core time of an ionic step is its elapsed time multiplied by the number of
cores.
"""

import math
import re
from collections import Counter
from collections.abc import Iterator, Sequence
from pathlib import Path

import ase.io
from ase import Atoms
from ase.io.formats import open_with_compression

from paretofit.core import InputError, join_lines

UNFINISHED_NOTE = "unfinished calculations, whose complete steps were imported"
UNCONVERGED_NOTE = "steps whose electronic loop did not converge, imported with scf_converged: false"
CONVERGENCE_KEY = "scf_converged"
END_MARKS = {"vasp-out": "Total CPU time used", "vasp-xml": "</modeling>", "espresso-out": "JOB DONE"}
# For each format: text in the line after a converged electronic loop, and in the line after one at its limit.
LOOP_MARKS = {
    "espresso-out": ("convergence has been achieved", "convergence NOT achieved"),
    "abinit-out": ("is converged", "was not enough SCF cycles to converge"),
    "gpaw-out": ("Converged in", "Did not converge"),
}
XML_SETTING = re.compile(r'name="(NELM|EDIFF)"[^>]*>\s*([-+.\dEe]+)')
XML_ENERGY = re.compile(r'name="e_fr_energy">\s*([-+.\dEe]+)')
VASP_STEP_MARK = "FREE ENERGIE OF THE ION-ELECTRON SYSTEM"
VASP_CONVERGED_MARK = "aborting loop because EDIFF is reached"
# Other ends of a loop: "aborting loop EDIFF was not reached (unconverged)", "aborting loop because hard stop was set".
VASP_ABORT_MARK = "aborting loop"
MAX_ITERATIONS_PATTERN = re.compile(r"NELM\s*=\s*(\d+)")
ITERATION_PATTERN = re.compile(r"Iteration\s+\d+\(\s*(\d+)\)")
CORES_PATTERNS = {
    "vasp-out": re.compile(r"running on\s+(\d+)\s+total cores|running\s+(\d+)\s+mpi-ranks"),
    "espresso-out": re.compile(r"running on\s+(\d+)\s+processor"),
    "abinit-out": re.compile(r"(?!)"),  # matches nothing, because ABINIT's CPU time is already a sum over processes
}
STEP_TIME_PATTERN = re.compile(r"LOOP\+:\s+cpu time\s*[\d.]+:\s+real time\s*([\d.]+)")
TOTAL_TIME_PATTERN = re.compile(
    r"Total CPU time used \(sec\):\s*(\d+\.\d*)|Overall time at end \(sec\).*cpu=\s*([\d.]+)"  # VASP, ABINIT
)
PWSCF_PATTERN = re.compile(r"^\s*PWSCF\s+:.*CPU\s+(.*)WALL")
DURATION_PATTERN = re.compile(r"(\d+(?:\.\d*)?)\s*([dhms])")
DURATION_SECONDS = {"d": 86400.0, "h": 3600.0, "m": 60.0, "s": 1.0}


def read_vasp_structures(path: Path, file_format: str, notes: Counter[str]) -> list[Atoms]:
    """Read all complete ionic steps of a VASP calculation, with their force-consistent energies.

    If there are several steps, the info of each contains its number, from 0, as ``step``.

    Parameters
    ----------
    path : Path
        An OUTCAR or vasprun.xml, possibly compressed.
    file_format : str
        ASE's name of the format: ``vasp-out`` or ``vasp-xml``.
    notes : Counter
        Number of unfinished calculations, under `UNFINISHED_NOTE`, updated in place.

    Raises
    ------
    InputError
        If the file cannot be read or contains no ionic step with a free energy.
    """
    steps, reason = list[Atoms](), ""
    try:
        steps.extend(ase.io.iread(path, format=file_format, do_not_split_by_at_sign=True))
    except Exception as error:  # noqa: BLE001  (the parsers of ASE's readers raise any exception)
        # The steps that were read before the error are rejected, too, because the last of them may be corrupt.
        steps, reason = [], f" ({join_lines(error)})"
    structures = [atoms for atoms in steps if atoms.calc and atoms.calc.results.get("free_energy") is not None]
    if not structures:
        raise InputError(
            f"{path} is unfinished or corrupt: it contains no ionic step with a free energy{reason}; finish the "
            "calculation, or remove the file"
        )
    if not is_finished(path, file_format):
        notes[UNFINISHED_NOTE] += 1
    if len(structures) > 1:
        for step, atoms in enumerate(structures):
            atoms.info["step"] = step
    return structures


def is_finished(path: Path, file_format: str) -> bool:
    """Return whether an output of VASP or pw.x has the line that a finished run writes at its end."""
    return any(END_MARKS[file_format] in line for line in _read_lines(path))


def add_output_details(path: Path, file_format: str, structures: Sequence[Atoms], notes: Counter[str]) -> None:
    """Add the cost of each ionic step, and whether its electronic loop did not converge, to the info of its structure.

    The keys are ``cpu_seconds`` (core time), ``cores`` and, if the loop did not converge, ``scf_converged: False``.

    Parameters
    ----------
    path : Path
        An output, possibly compressed. Nothing is added if its format has no such details.
    file_format : str
        ASE's name of the format.
    structures : sequence of ase.Atoms
        The ionic steps that have an energy, from this output or from the vasprun.xml in the same directory; their info
        is updated in place.
    notes : Counter
        Number of steps that did not converge, under `UNCONVERGED_NOTE`, updated in place.
    """
    # The lists may differ in length, because an unfinished run may lack details or a structure of its last step.
    for atoms, is_converged in zip(structures, _scan_loops(path, file_format, len(structures)), strict=False):
        if not is_converged and atoms.info.get(CONVERGENCE_KEY) is not False:
            atoms.info[CONVERGENCE_KEY] = False
            notes[UNCONVERGED_NOTE] += 1
    if file_format in CORES_PATTERNS and structures:
        cores, seconds = _scan_costs(path, file_format, len(structures))
        for atoms, core_seconds in zip(structures, seconds, strict=False):
            atoms.info.update(cpu_seconds=core_seconds, cores=cores)


def _read_lines(path: Path) -> Iterator[str]:
    """Yield the lines of an output in Latin-1, which decodes any bytes that job scripts may have written into it."""
    with open_with_compression(str(path), "rb") as stream:
        for line in stream:
            yield line.decode("latin-1")


def _scan_loops(path: Path, file_format: str, n_steps: int) -> list[bool]:
    """Return whether the electronic loop of each ionic step converged; empty if the format does not report it.

    `n_steps` is the number of ionic steps that have an energy.
    """
    if file_format == "vasp-xml":
        return list(_scan_vasprun_loops(path))
    if file_format == "vasp-out":
        return list(_scan_outcar_loops(path))
    if file_format not in LOOP_MARKS:
        return []
    success, failure = LOOP_MARKS[file_format]
    is_converged = [failure not in line for line in _read_lines(path) if success in line or failure in line]
    if len(is_converged) != n_steps and not all(is_converged):
        return [True] * (n_steps - 1) + [False]  # some marks are missing: assume that the last step did not converge
    return is_converged


def _scan_vasprun_loops(path: Path) -> Iterator[bool]:
    """Yield for each ionic step of a vasprun.xml whether its electronic loop converged.

    The file does not record convergence. A loop counts as not converged if it has NELM iterations and the energies of
    the last two differ by more than EDIFF.
    """
    settings: dict[str, float] = {}
    energies: list[float] = []
    n_iterations, is_in_iteration = 0, False
    for line in _read_lines(path):
        if "<scstep>" in line:
            n_iterations, is_in_iteration = n_iterations + 1, True
        elif "</scstep>" in line:
            is_in_iteration = False
        elif "</calculation>" in line:
            is_at_limit = n_iterations >= settings.get("NELM", math.inf)
            last_change = abs(energies[-1] - energies[-2]) if len(energies) > 1 else math.inf
            yield not is_at_limit or last_change <= settings.get("EDIFF", 0.0)
            n_iterations, energies = 0, []
        elif is_in_iteration and (match := XML_ENERGY.search(line)):
            energies.append(float(match[1]))
        else:
            settings |= {name: float(value) for name, value in XML_SETTING.findall(line)}


def _scan_outcar_loops(path: Path) -> Iterator[bool]:
    """Yield for each ionic step of an OUTCAR whether its electronic loop converged.

    A loop did not converge if VASP aborted it for a reason other than EDIFF, or if it used all NELM iterations and
    VASP did not report that EDIFF was reached.
    """
    is_ediff_reached, is_aborted, max_iterations, iteration = False, False, math.inf, 0
    for line in _read_lines(path):
        if VASP_CONVERGED_MARK in line:
            is_ediff_reached = True
        elif VASP_ABORT_MARK in line:
            is_aborted = True
        elif VASP_STEP_MARK in line:
            yield is_ediff_reached or (iteration < max_iterations and not is_aborted)
            is_ediff_reached = is_aborted = False
        elif "Iteration" in line and (match := ITERATION_PATTERN.search(line)):
            iteration = int(match[1])
        elif max_iterations == math.inf and (match := MAX_ITERATIONS_PATTERN.search(line)):
            max_iterations = int(match[1])


def _scan_costs(path: Path, file_format: str, n_steps: int) -> tuple[int, list[float]]:
    """Return the number of cores and the core time (s) of each step.

    If the total time of a run is known but not that of every step, each step gets an equal share of the total. In the
    output of a crashed run, only the first steps may have times.
    """
    cores, step_times, total_s = 1, list[float](), math.nan
    for line in _read_lines(path):
        if cores == 1 and (match := CORES_PATTERNS[file_format].search(line)):
            cores = int(match[match.lastindex or 1])
        elif match := STEP_TIME_PATTERN.search(line):
            step_times.append(float(match[1]))
        elif match := TOTAL_TIME_PATTERN.search(line):
            total_s = float(match[match.lastindex or 1])
        elif match := PWSCF_PATTERN.search(line):
            total_s = sum(float(number) * DURATION_SECONDS[unit] for number, unit in DURATION_PATTERN.findall(match[1]))
    if len(step_times) < n_steps and not math.isnan(total_s):
        return cores, [cores * total_s / n_steps] * n_steps
    return cores, [cores * step_time for step_time in step_times]
