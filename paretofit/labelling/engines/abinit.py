"""ABINIT, with the PAW data that GPAW uses, so that the two can be compared, or with a folder of your own."""

import gzip
import math
import re
from functools import lru_cache
from importlib.util import find_spec
from pathlib import Path
from typing import Any, ClassVar, Literal

from ase import Atoms
from ase.io.abinit import read_abinit_outputs, write_abinit_in
from pydantic import Field

from paretofit.core import AbsoluteStudyPath, InputError
from paretofit.labelling.engines.base import NotConvergedError, Outcome, require_cutoff
from paretofit.labelling.engines.command import (
    ProgramEngine,
    Pseudopotential,
    capture_output,
    check_smearing_order,
    make_engine_error,
    parse_xml_attributes,
    read_text_if_exists,
)
from paretofit.labelling.ladder import Level

NOT_CONVERGED = "was not enough scf cycles to converge"  # in capitals or not, by version; ASE looks for small ones only
OCCUPATIONS = {"fixed": 1, "fermi-dirac": 3, "methfessel-paxton": 6, "gaussian": 7}  # 4 and 5 are cold smearing
TOLERANCES = {"toldfe", "toldff", "tolrff", "tolvrs", "tolwfr"}  # ABINIT takes exactly one
QUIET = {"prtwf": 0, "prtden": 0, "prtebands": 0, "prtgsr": 0, "prteig": 1}  # ASE reads the file of eigenvalues


class Abinit(ProgramEngine):
    """Plane waves with PAW data (XML) or norm-conserving pseudopotentials (psp8)."""

    name: Literal["abinit"] = Field("abinit", description="ABINIT, plane waves, by default the PAW data of gpaw-data")
    command: str | None = Field("abinit", description="command line that starts ABINIT")
    pseudopotentials: AbsoluteStudyPath | None = Field(
        None, description="folder of files SYMBOL*.xml, SYMBOL*.xml.gz or SYMBOL*.psp8; null: gpaw-data's for PBE"
    )

    title: ClassVar[str] = "ABINIT"
    time_pattern: ClassVar[str] = r"[Oo]verall time at end \(sec\) : cpu=\s*([\d.]+)"
    install_hint: ClassVar[str] = "apt install abinit, or give its 'command'"
    log_name: ClassVar[str] = "abinit.log"
    arguments: ClassVar[tuple[str, ...]] = ("abinit.in",)

    def check_level(self, level: Level) -> None:
        """See `Engine.check_level`."""
        super().check_level(level)
        check_smearing_order(self, level)

    def version(self) -> str:
        """See `ProgramEngine.version`."""
        return capture_output([*self.command_line, "--version"]).strip() or "unknown"

    def find_pseudopotential(self, symbol: str) -> Pseudopotential:
        """See `ProgramEngine.potential`."""
        if self.pseudopotentials is not None:
            return _potential(self.find_file(self.pseudopotentials, symbol, (".xml", ".xml.gz", ".psp8")))
        data = find_spec("gpaw_data")
        if data is None or data.origin is None:
            raise InputError(
                "the engine 'abinit' has no 'pseudopotentials'; name a folder of PAW files (SYMBOL*.xml), or "
                "pip install gpaw-data"
            )
        setups = Path(data.origin).parent / "setups"
        if symbol not in self.files and not (setups / f"{symbol}.PBE.gz").is_file():
            raise InputError(
                f"gpaw-data has no PAW data for {symbol}; name a folder of files SYMBOL*.xml or SYMBOL*.psp8 as "
                "'pseudopotentials'"
            )
        named = self if symbol in self.files else self.model_copy(update={"files": {symbol: f"{symbol}.PBE.gz"}})
        return _potential(named.find_file(setups, symbol, (".PBE.gz",)))

    def write(self, atoms: Atoms, level: Level, attempt: int, folder: Path) -> list[str]:
        """See `ProgramEngine.write`; the folder gets its own copies of the pseudopotentials."""
        potentials = self.find_pseudopotentials(atoms, level, "ixc")
        if len({one.kind for one in potentials.values()}) > 1:
            raise InputError(
                "the engine 'abinit' cannot mix PAW (xml) and norm-conserving (psp8) files; choose one kind"
            )
        copies = [_copy(one.path, symbol, folder) for symbol, one in potentials.items()]
        electrons = sum(potentials[symbol].valence_electrons for symbol in atoms.get_chemical_symbols())
        paw = all(one.kind == "paw" for one in potentials.values())
        options = self.merge_options(level)
        parameters = {**_parameters(atoms, level, attempt, electrons), **(_paw(level) if paw else {})}
        if TOLERANCES & options.keys():
            del parameters["tolvrs"]
        # With 'pawxml' ASE leaves 'ixc' out, and ABINIT takes the functional from the pseudopotentials.
        parameters |= {**options, "pps": "pawxml"}
        with (folder / "abinit.in").open("w") as stream:
            write_abinit_in(stream, atoms, parameters, species=sorted(set(atoms.numbers)), pseudos=copies)
        return []

    def read(self, folder: Path, exit_status: int) -> Outcome:
        """See `ProgramEngine.read`."""
        output, log = read_text_if_exists(folder / "abinit.abo"), read_text_if_exists(folder / self.log_name)
        if NOT_CONVERGED in (output + log).lower():
            steps = len(re.findall(r"^ ETOT", log, re.MULTILINE))
            raise NotConvergedError(f"ABINIT was not converged after {steps} iterations")
        if exit_status or "Calculation completed" not in output:
            raise make_engine_error("ABINIT", exit_status, log, r"--- !(?:ERROR|BUG)\n.*?message: \|\n(.*?)\n\.\.\.")
        results = read_abinit_outputs(folder, "abinit")
        info: dict[str, Any] = {"iterations": len(re.findall(r"^ ETOT", output, re.MULTILINE))}
        if "fermilevel" in results:
            info["fermi_ev"] = float(results["fermilevel"])
        # 'etotal' holds -TS, so the forces are its derivative.
        return Outcome(float(results["energy"]), results["forces"], results["stress"], info)


@lru_cache(maxsize=128)
def _potential(path: Path) -> Pseudopotential:
    if path.suffix == ".psp8":
        lines = path.read_text().splitlines()
        return Pseudopotential(path, float(lines[1].split()[1]), lines[2].split()[1], "norm-conserving")
    text = _xml(path).decode(errors="replace")
    atom, functional = parse_xml_attributes(text, "atom"), parse_xml_attributes(text, "xc_functional")
    if "valence" not in atom:
        raise InputError(f"{path} has no <atom valence=...>: it is not a PAW file in XML; name another under 'files'")
    return Pseudopotential(path, float(atom["valence"]), functional.get("name", ""), "paw")


def _xml(path: Path) -> bytes:
    return gzip.decompress(path.read_bytes()) if path.suffix == ".gz" else path.read_bytes()


def _copy(path: Path, symbol: str, folder: Path) -> str:
    """Copy a pseudopotential, uncompressed, under a name that says its format; return the name."""
    name = f"{symbol}.psp8" if path.suffix == ".psp8" else f"{symbol}.xml"
    (folder / name).write_bytes(_xml(path))
    return name


def _parameters(atoms: Atoms, level: Level, attempt: int, electrons: float) -> dict[str, Any]:
    """ABINIT's variables; ASE writes energies in eV."""
    return {
        "ecut": require_cutoff(level),
        "kptopt": 1,
        "ngkpt": list(level.kpoints(atoms)),
        "nshiftk": 1,
        "shiftk": [0, 0, 0],
        "chksymtnons": 0,  # accept any crystal, also one whose symmetry does not fit the FFT mesh
        **_occupations(level, electrons),
        # The squared residual of the potential: with its square root at the density's tolerance, 1e-5, the forces
        # of 8 atoms of beryllium are within 1e-6 eV/Å and energies within 3e-6 eV/atom of the converged ones.
        "tolvrs": level.scf.density_electrons**2,
        "nstep": level.scf.max_iterations * 2**attempt,
        "optforces": 1,
        "optstress": 1,
        **({"diemix": 0.3 / 2 ** (attempt - 1), "npulayit": 12} if attempt else {}),
        **QUIET,
    }


def _paw(level: Level) -> dict[str, Any]:
    # pawxcdev 0: on-site exchange-correlation on an angular grid, as GPAW has it; ABINIT's expansion in moments
    # (the default, 1) moves forces by up to 0.013 eV/Å in 8 atoms of beryllium, and this by 0.004.
    return {"pawecutdg": 2 * require_cutoff(level), "iscf": 17, "pawxcdev": 0}


def _occupations(level: Level, electrons: float) -> dict[str, Any]:
    smearing = level.smearing
    if smearing.method == "fixed":
        return {"occopt": OCCUPATIONS["fixed"]}
    bands = math.ceil(0.6 * electrons) + 4  # as many empty ones as GPAW has
    return {"occopt": OCCUPATIONS[smearing.method], "tsmear": smearing.width_ev, "nband": bands}
