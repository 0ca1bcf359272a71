"""Quantum ESPRESSO's pw.x, with a folder of UPF pseudopotentials of your own."""

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
from paretofit.labelling.engines.command import (
    ProgramEngine,
    Pseudopotential,
    capture_output,
    check_smearing_order,
    make_engine_error,
    parse_xml_attributes,
    read_outcome,
    read_text_if_exists,
)
from paretofit.labelling.ladder import Level

INPUT = "espresso.pwi"
NOT_CONVERGED = ("convergence NOT achieved", "too many bands are not converged")
SMEARING = {"methfessel-paxton": "mp", "fermi-dirac": "fd", "gaussian": "gauss"}
UPF_1 = {  # header lines of the first version of UPF; the functional is four words, then a short name
    "z_valence": r"(?im)^ *(\S+) +Z valence",
    "pseudo_type": r"(?im)^ *(\w+) +.*pseudopotential",
    "functional": r"(?im)^ *((?:[A-Z0-9]+ +){3}[A-Z0-9]+) .*Exchange-Correlation",
}
SCF_SHARE = 0.01  # of the tolerance: pw.x estimates an error of second order, forces go with its square root


class Espresso(ProgramEngine):
    """Plane waves with norm-conserving, ultrasoft or PAW pseudopotentials (UPF)."""

    name: Literal["espresso"] = Field("espresso", description="Quantum ESPRESSO (pw.x), your UPF pseudopotentials")
    command: str | None = Field("pw.x", description="command line that starts pw.x")
    pseudopotentials: AbsoluteStudyPath | None = Field(None, description="folder of files SYMBOL*.UPF")
    density_cutoff: StrictPositiveFloat | None = Field(
        None,
        description="cutoff of the density in units of that of the wavefunctions; null: 8 with ultrasoft or PAW "
        "pseudopotentials, 4 without",
    )

    title: ClassVar[str] = "Quantum ESPRESSO"
    time_pattern: ClassVar[str] = r"PWSCF\s*:\s*((?:[\d.]+\s*[dhms]\s*)+)CPU"
    install_hint: ClassVar[str] = "apt install quantum-espresso, or give its 'command'"
    log_name: ClassVar[str] = "espresso.pwo"
    arguments: ClassVar[tuple[str, ...]] = ("-in", INPUT)

    def check_level(self, level: Level) -> None:
        """See `Engine.check_level`."""
        super().check_level(level)
        check_smearing_order(self, level)

    def version(self) -> str:
        """See `ProgramEngine.version`."""
        found = re.search(r"Program PWSCF\s+v\.\s*(\S+)", capture_output(self.command_line))
        return found[1] if found else "unknown"

    def find_pseudopotential(self, symbol: str) -> Pseudopotential:
        """See `ProgramEngine.potential`."""
        if self.pseudopotentials is None:
            raise InputError("the engine 'espresso' has no 'pseudopotentials'; name the folder of your UPF files")
        return _potential(self.find_file(self.pseudopotentials, symbol, (".UPF",)))

    def write(self, atoms: Atoms, level: Level, attempt: int, folder: Path) -> list[str]:
        """See `ProgramEngine.write`; the folder gets its own copies of the pseudopotentials."""
        potentials = self.find_pseudopotentials(atoms, level, "input_dft")
        for one in potentials.values():
            shutil.copyfile(one.path, folder / one.path.name)
        electrons = sum(potentials[symbol].valence_electrons for symbol in atoms.get_chemical_symbols())
        hard = all(one.kind == "norm-conserving" for one in potentials.values())
        ratio = self.density_cutoff or (4.0 if hard else 8.0)
        parameters = {**_parameters(level, attempt, electrons, ratio), **self.merge_options(level)}
        kpoints = level.kpoints(atoms)
        with (folder / INPUT).open("w") as stream:
            write_espresso_in(
                stream,
                atoms,
                input_data=_sections(parameters),
                pseudopotentials={symbol: one.path.name for symbol, one in potentials.items()},
                kpts=None if kpoints == (1, 1, 1) else kpoints,  # None: real wavefunctions at Gamma, half the work
            )
        return []

    def read(self, folder: Path, exit_status: int) -> Outcome:
        """See `ProgramEngine.read`."""
        output = read_text_if_exists(folder / self.log_name)
        for said in NOT_CONVERGED:
            if said in output:
                raise NotConvergedError(f"pw.x says: {said}")
        if exit_status or "JOB DONE" not in output:
            raise make_engine_error("pw.x", exit_status, output, r"%%%\n(.*?)\n\s*%%%")
        info: dict[str, Any] = {}
        if found := re.search(r"convergence has been achieved in\s+(\d+) iterations", output):
            info["iterations"] = int(found[1])
        if found := re.search(r"the Fermi energy is\s+(\S+) ev", output):
            info["fermi_ev"] = float(found[1])
        return read_outcome(folder / self.log_name, "espresso-out", info)  # its line "!    total energy" holds -TS


@lru_cache(maxsize=128)
def _potential(path: Path) -> Pseudopotential:
    """Read the header of a UPF file, version 2 (attributes) or 1 (lines)."""
    text = path.read_text(errors="replace")
    header = parse_xml_attributes(text, "PP_HEADER")
    if not header:
        block = text.partition("<PP_HEADER>")[2].partition("</PP_HEADER>")[0]
        header = {key: found[1] for key, line in UPF_1.items() if (found := re.search(line, block))}
    if "z_valence" not in header:
        raise InputError(f"{path} does not say its number of valence electrons: it is not a UPF file; name another")
    truth = {key: header.get(key, "").lower().startswith(("t", ".t")) for key in ("is_paw", "is_ultrasoft")}
    kind = "norm-conserving"
    if truth["is_ultrasoft"] or header.get("pseudo_type", "").strip() in {"US", "USPP"}:
        kind = "ultrasoft"
    if truth["is_paw"] or header.get("pseudo_type", "").strip() == "PAW":
        kind = "paw"
    valence = float(header["z_valence"].lower().replace("d", "e"))
    return Pseudopotential(path, valence, header.get("functional", "").strip(), kind)


def _parameters(level: Level, attempt: int, electrons: float, ratio: float) -> dict[str, Any]:
    """Variables of pw.x, energies in Ry."""
    smearing = level.smearing
    parameters = {
        "calculation": "scf",
        "pseudo_dir": "./",
        "outdir": "./",
        "disk_io": "none",
        "tprnfor": True,
        "tstress": True,
        "ecutwfc": require_cutoff(level) / Ry,
        "ecutrho": ratio * require_cutoff(level) / Ry,
        "conv_thr": SCF_SHARE * level.scf.energy_ev_per_electron * electrons / Ry,
        "electron_maxstep": level.scf.max_iterations * 2**attempt,
        **({"mixing_beta": 0.3 / 2 ** (attempt - 1), "mixing_ndim": 12} if attempt else {}),
    }
    if smearing.method == "fixed":
        return {**parameters, "occupations": "fixed"}
    width = smearing.width_ev / Ry
    return {**parameters, "occupations": "smearing", "smearing": SMEARING[smearing.method], "degauss": width}


def _sections(parameters: dict[str, Any]) -> Namelist:
    """Variables in the sections of the input file; ASE drops those it does not know without a word."""
    sections = Namelist(parameters)
    sections.to_nested("pw")
    placed = {key for section in sections.values() for key in section}
    for key in parameters:
        if key not in placed:
            raise InputError(
                f"the engine 'espresso' has no option '{key}'; options are variables of pw.x, without sections"
            )
    return sections
