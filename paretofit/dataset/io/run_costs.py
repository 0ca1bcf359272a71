"""Core time of DFT calculations from their outputs: the elapsed time of each step times the number of cores."""

import re
from collections.abc import Sequence
from pathlib import Path

from ase import Atoms
from ase.io.formats import open_with_compression

CORES_PATTERNS = {
    "vasp-out": re.compile(r"running on\s+(\d+)\s+total cores|running\s+(\d+)\s+mpi-ranks"),
    "espresso-out": re.compile(r"running on\s+(\d+)\s+processor"),
}
LOOP_PATTERN = re.compile(r"LOOP\+:\s+cpu time\s*[\d.]+:\s+real time\s*([\d.]+)")
TOTAL_PATTERN = re.compile(r"Total CPU time used \(sec\):\s*(\d+\.\d*)")
PWSCF_PATTERN = re.compile(r"^\s*PWSCF\s+:.*CPU\s+(.*)WALL")
DURATION_PATTERN = re.compile(r"(\d+(?:\.\d*)?)\s*([dhms])")
DURATION_SECONDS = {"d": 86400.0, "h": 3600.0, "m": 60.0, "s": 1.0}
ABINIT_PATTERN = re.compile(r"Overall time at end \(sec\).*cpu=\s*([\d.]+)")  # summed over the processes


def add_run_costs(path: Path, file_format: str, structures: Sequence[Atoms]) -> None:
    """Add ``cpu_seconds``, the core time of each step, and ``cores`` to the info of structures, if the output has them.

    Parameters
    ----------
    path : Path
        Output of VASP (OUTCAR), pw.x or ABINIT, possibly compressed; outputs of other programs are left alone.
    file_format : str
        ASE's name of the format.
    structures : sequence of ase.Atoms
        The ionic steps.
    """
    if file_format not in {"vasp-out", "espresso-out", "abinit-out"} or not structures:
        return
    cores, steps, total = _scan_output(path, file_format)
    if len(steps) >= len(structures):
        seconds = [cores * step for step in steps]
    elif total is not None:
        seconds = [(total if file_format == "abinit-out" else cores * total) / len(structures)] * len(structures)
    else:  # a run that crashed: the steps that finished have a time
        seconds = [cores * step for step in steps]
    for atoms, value in zip(structures, seconds, strict=False):
        atoms.info["cpu_seconds"] = value
        atoms.info["cores"] = cores


def _scan_output(path: Path, file_format: str) -> tuple[int, list[float], float | None]:
    """Return the number of cores, the elapsed time of each step and that of the run, in seconds."""
    cores, steps, total = 1, [], None
    cores_pattern = CORES_PATTERNS.get(file_format)
    with open_with_compression(str(path), "rb") as stream:
        for raw in stream:
            line = raw.decode("latin-1")  # job scripts may write other bytes into the file
            if cores_pattern and cores == 1 and (match := cores_pattern.search(line)):
                cores = int(next(filter(None, match.groups())))
            elif match := LOOP_PATTERN.search(line):
                steps.append(float(match[1]))
            elif match := TOTAL_PATTERN.search(line) or ABINIT_PATTERN.search(line):
                total = float(match[1])
            elif match := PWSCF_PATTERN.search(line):
                total = sum(float(n) * DURATION_SECONDS[unit] for n, unit in DURATION_PATTERN.findall(match[1]))
    return cores, steps, total
