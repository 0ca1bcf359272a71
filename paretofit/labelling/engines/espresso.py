"""Quantum ESPRESSO (pw.x), with a directory of UPF pseudopotentials."""

import re
import shutil
from functools import lru_cache
from pathlib import Path
from typing import Any, ClassVar, Literal

from ase import Atoms
from ase.io.espresso import write_espresso_in
from ase.io.espresso_namelist.namelist import Namelist
from ase.units import Ry
from pydantic import Field

from paretofit.core import AbsoluteStudyPath, InputError, StrictPositiveFloat
from paretofit.labelling.engines.base import NotConvergedError, Outcome, require_cutoff
from paretofit.labelling.engines.command import ProgramEngine, Pseudopotential, parse_xml_attributes, read_if_exists
from paretofit.labelling.ladder import Level

INPUT_FILE = "espresso.pwi"
NOT_CONVERGED_MESSAGES = ("convergence NOT achieved", "too many bands are not converged")
SMEARING = {"methfessel-paxton": "mp", "fermi-dirac": "fd", "gaussian": "gauss"}
# header lines of UPF version 1; the functional consists of four words, followed by a short name
UPF_1_PATTERNS = {
    "z_valence": r"(?im)^ *(\S+) +Z valence",
    "pseudo_type": r"(?im)^ *(\w+) +.*pseudopotential",
    "functional": r"(?im)^ *((?:[A-Z0-9]+ +){3}[A-Z0-9]+) .*Exchange-Correlation",
}
# The energy error, which pw.x estimates, is of second order in the error of the density. Errors of forces are of first
# order, and therefore require a smaller tolerance than the energy.
SCF_TOLERANCE_FACTOR = 0.01


class Espresso(ProgramEngine):
    """Quantum ESPRESSO, with norm-conserving, ultrasoft or PAW pseudopotentials (UPF)."""

    name: Literal["espresso"] = Field("espresso", description="Quantum ESPRESSO (pw.x) with UPF pseudopotentials.")
    command: str | None = Field("pw.x", description="Command line that starts pw.x.")
    pseudopotentials: AbsoluteStudyPath | None = Field(None, description="Directory of files SYMBOL*.UPF.")
    density_cutoff: StrictPositiveFloat | None = Field(
        None,
        description="Ratio of the density cutoff to the wavefunction cutoff; null: 8 with ultrasoft or PAW "
        "pseudopotentials, otherwise 4.",
    )

    title: ClassVar[str] = "Quantum ESPRESSO"
    time_pattern: ClassVar[str] = r"PWSCF\s*:\s*((?:[\d.]+\s*[dhms]\s*)+)CPU"
    install_hint: ClassVar[str] = "install it with 'apt install quantum-espresso', or specify its 'command'"
    log_name: ClassVar[str] = "espresso.pwo"
    max_smearing_order: ClassVar[int] = 1
    arguments: ClassVar[tuple[str, ...]] = ("-in", INPUT_FILE)

    def get_version(self) -> str:
        """See `ProgramEngine.get_version`."""
        match = re.search(r"Program PWSCF\s+v\.\s*(\S+)", self.capture_output())
        return match[1] if match else "unknown"

    def find_pseudopotential(self, symbol: str) -> Pseudopotential:
        """See `ProgramEngine.find_pseudopotential`."""
        if self.pseudopotentials is None:
            raise InputError("the engine 'espresso' has no 'pseudopotentials'; specify the directory of your UPF files")
        return _read_header(self.find_file(self.pseudopotentials, symbol, (".UPF",)))

    def write(self, atoms: Atoms, level: Level, attempt: int, folder: Path) -> list[str]:
        """See `ProgramEngine.write`; pseudopotentials are copied to the directory."""
        potentials = self.find_pseudopotentials(atoms, level, "input_dft")
        for potential in potentials.values():
            shutil.copyfile(potential.path, folder / potential.path.name)
        is_norm_conserving = all(potential.kind == "norm-conserving" for potential in potentials.values())
        ratio = self.density_cutoff or (4.0 if is_norm_conserving else 8.0)
        parameters = _translate_level(level, attempt, self.count_electrons(atoms), ratio) | self.merge_options(level)
        kpoints = level.get_kpoint_mesh(atoms)
        with (folder / INPUT_FILE).open("w") as stream:
            write_espresso_in(
                stream,
                atoms,
                input_data=_sort_into_sections(parameters),
                pseudopotentials={symbol: potential.path.name for symbol, potential in potentials.items()},
                kpts=None if kpoints == (1, 1, 1) else kpoints,  # None: real wavefunctions at Gamma, at half the cost
            )
        return []

    def read(self, folder: Path, exit_status: int) -> Outcome:
        """See `ProgramEngine.read`."""
        output = read_if_exists(folder / self.log_name)
        for message in NOT_CONVERGED_MESSAGES:
            if message in output:
                raise NotConvergedError(f"pw.x ended with: {message}")
        if exit_status or "JOB DONE" not in output:
            raise self.build_error(exit_status, output, r"%%%\n(.*?)\n\s*%%%")
        info: dict[str, Any] = {}
        if match := re.search(r"convergence has been achieved in\s+(\d+) iterations", output):
            info["iterations"] = int(match[1])
        if match := re.search(r"the Fermi energy is\s+(\S+) ev", output):
            info["fermi_ev"] = float(match[1])
        # ASE reads the line "!    total energy" of the output, which includes -TS.
        return self.read_outcome(folder / self.log_name, "espresso-out", info)


@lru_cache(maxsize=128)
def _read_header(path: Path) -> Pseudopotential:
    """Read the header of a UPF file, once per process: XML attributes (version 2) or lines of text (version 1).

    Raise InputError if it has no number of valence electrons.
    """
    text = path.read_text(errors="replace")
    header = parse_xml_attributes(text, "PP_HEADER")
    if not header:
        block = text.partition("<PP_HEADER>")[2].partition("</PP_HEADER>")[0]
        header = {key: match[1] for key, line in UPF_1_PATTERNS.items() if (match := re.search(line, block))}
    if "z_valence" not in header:
        raise InputError(f"{path} has no number of valence electrons, so it is not a UPF file; specify another file")
    # logical values of Fortran: T, true, .TRUE.
    flags = {key: header.get(key, "").lower().startswith(("t", ".t")) for key in ("is_paw", "is_ultrasoft")}
    pseudo_type, kind = header.get("pseudo_type", "").strip(), "norm-conserving"
    if flags["is_ultrasoft"] or pseudo_type in {"US", "USPP"}:
        kind = "ultrasoft"
    if flags["is_paw"] or pseudo_type == "PAW":
        kind = "paw"
    n_valence = float(header["z_valence"].lower().replace("d", "e"))  # Fortran writes exponents as D
    return Pseudopotential(path, n_valence, header.get("functional", "").strip(), kind)


def _translate_level(level: Level, attempt: int, n_electrons: float, density_cutoff_ratio: float) -> dict[str, Any]:
    """Translate a level, except its functional and k-points, to input variables of pw.x, with energies in Ry."""
    smearing = level.smearing
    parameters = {
        "calculation": "scf",
        "pseudo_dir": "./",
        "outdir": "./",
        "disk_io": "none",
        "tprnfor": True,
        "tstress": True,
        "ecutwfc": require_cutoff(level) / Ry,
        "ecutrho": density_cutoff_ratio * require_cutoff(level) / Ry,
        "conv_thr": SCF_TOLERANCE_FACTOR * level.scf.energy_ev_per_electron * n_electrons / Ry,
        "electron_maxstep": level.scf.max_iterations * 2**attempt,
        # gentler mixing than by default, and more so with each further attempt
        **({"mixing_beta": 0.3 / 2 ** (attempt - 1), "mixing_ndim": 12} if attempt else {}),
    }
    if smearing.method == "fixed":
        return {**parameters, "occupations": "fixed"}
    width = smearing.width_ev / Ry
    return {**parameters, "occupations": "smearing", "smearing": SMEARING[smearing.method], "degauss": width}


def _sort_into_sections(parameters: dict[str, Any]) -> Namelist:
    """Assign variables to sections of the input file; raise `InputError` for unknown variables, which ASE drops."""
    sections = Namelist(parameters)
    sections.to_nested("pw")
    variables = {key for section in sections.values() for key in section}
    for key in parameters:
        if key not in variables:
            raise InputError(
                f"the engine 'espresso' has no option '{key}'; options must be variables of pw.x, without sections"
            )
    return sections
