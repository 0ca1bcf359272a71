"""Electronic convergence of each ionic step, from the outputs of DFT codes that do not fail without it."""

import re
from collections import Counter
from collections.abc import Iterator, Sequence
from pathlib import Path

from ase import Atoms
from ase.io.formats import open_with_compression

UNCONVERGED_NOTE = "steps whose electronic loop did not converge, imported with scf_converged: false"
FLAG = "scf_converged"
# For each format: a line that ends a converged loop, and one that ends a loop that reached its limit.
MARKS = {
    "espresso-out": ("convergence has been achieved", "convergence NOT achieved"),
    "abinit-out": ("is converged", "was not enough SCF cycles to converge"),
    "gpaw-out": ("Converged in", "Did not converge"),
}
XML_SETTING = re.compile(r'name="(NELM|EDIFF)"[^>]*>\s*([-+.\dEe]+)')
XML_ENERGY = re.compile(r'name="e_fr_energy">\s*([-+.\dEe]+)')


def flag_unconverged(path: Path, file_format: str, structures: Sequence[Atoms], notes: Counter[str]) -> None:
    """Set ``scf_converged: False`` in the info of structures whose electronic loop reached its limit.

    Parameters
    ----------
    path : Path
        An output, possibly compressed.
    file_format : str
        ASE's name of the format.
    structures : sequence of ase.Atoms
        The structures of the output that have an energy.
    notes : Counter
        Counts of messages, updated in place.
    """
    if file_format == "vasp-xml":
        converged = list(_scan_vasprun(path))
    elif file_format in MARKS:
        converged = _scan_marks(path, *MARKS[file_format])
        if len(converged) != len(structures) and not all(converged):  # a mark is printed only in some cases
            converged = [True] * (len(structures) - 1) + [False]
    else:
        return
    mark_steps(structures, converged, notes)


def mark_steps(structures: Sequence[Atoms], converged: Sequence[bool], notes: Counter[str]) -> None:
    """Flag the structures whose entry in `converged` is False, and count each once."""
    for atoms, is_converged in zip(structures, converged, strict=False):
        if not is_converged and atoms.info.get(FLAG) is not False:
            atoms.info[FLAG] = False
            notes[UNCONVERGED_NOTE] += 1


def _scan_marks(path: Path, success: str, failure: str) -> list[bool]:
    with open_with_compression(str(path), "rb") as stream:
        lines = (raw.decode("latin-1") for raw in stream)
        return [failure not in line for line in lines if success in line or failure in line]


def _scan_vasprun(path: Path) -> Iterator[bool]:
    """Yield for each ionic step of a vasprun.xml whether its electronic loop converged.

    VASP does not write it: a loop has not converged if it has NELM iterations, the last two of which differ by more
    than EDIFF.
    """
    settings: dict[str, float] = {}
    energies: list[float] = []
    n_iterations, is_inside = 0, False
    with open_with_compression(str(path), "rb") as stream:
        for raw in stream:
            line = raw.decode("latin-1")
            if "<scstep>" in line:
                n_iterations, is_inside = n_iterations + 1, True
            elif "</scstep>" in line:
                is_inside = False
            elif "</calculation>" in line:
                is_limit = n_iterations >= settings.get("NELM", float("inf"))
                changes = abs(energies[-1] - energies[-2]) if len(energies) > 1 else float("inf")
                yield not is_limit or changes <= settings.get("EDIFF", 0.0)
                n_iterations, energies = 0, []
            elif is_inside and (match := XML_ENERGY.search(line)):
                energies.append(float(match[1]))
            else:
                settings |= {name: float(value) for name, value in XML_SETTING.findall(line)}
