"""ABINIT, by default with the PAW data of GPAW, so that labels of both codes can be compared."""

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
from paretofit.labelling.engines.command import ProgramEngine, Pseudopotential, parse_xml_attributes, read_if_exists
from paretofit.labelling.ladder import Level

NOT_CONVERGED_MESSAGE = "was not enough scf cycles to converge"  # in lower case; versions of ABINIT differ in case
# values of occopt; 4 and 5, cold smearing, have no method in the ladder
OCCUPATIONS = {"fixed": 1, "fermi-dirac": 3, "methfessel-paxton": 6, "gaussian": 7}
TOLERANCES = {"toldfe", "toldff", "tolrff", "tolvrs", "tolwfr"}  # tolerances of which ABINIT accepts exactly one
# no output files except that of the eigenvalues, which ASE reads
MINIMAL_OUTPUT = {"prtwf": 0, "prtden": 0, "prtebands": 0, "prtgsr": 0, "prteig": 1}


class Abinit(ProgramEngine):
    """ABINIT, with PAW data (XML) or norm-conserving pseudopotentials (psp8)."""

    name: Literal["abinit"] = Field("abinit", description="ABINIT, by default with the PAW data of gpaw-data.")
    command: str | None = Field("abinit", description="Command line that starts ABINIT.")
    pseudopotentials: AbsoluteStudyPath | None = Field(
        None,
        description="Directory of files SYMBOL*.xml, SYMBOL*.xml.gz or SYMBOL*.psp8; null: gpaw-data's files for PBE.",
    )

    title: ClassVar[str] = "ABINIT"
    time_pattern: ClassVar[str] = r"[Oo]verall time at end \(sec\) : cpu=\s*([\d.]+)"
    install_hint: ClassVar[str] = "install it with 'apt install abinit', or specify its 'command'"
    log_name: ClassVar[str] = "abinit.log"
    max_smearing_order: ClassVar[int] = 1
    arguments: ClassVar[tuple[str, ...]] = ("abinit.in",)

    def get_version(self) -> str:
        """See `ProgramEngine.get_version`."""
        return self.capture_output("--version").strip() or "unknown"

    def find_pseudopotential(self, symbol: str) -> Pseudopotential:
        """See `ProgramEngine.find_pseudopotential`."""
        if self.pseudopotentials is not None:
            return _read_header(self.find_file(self.pseudopotentials, symbol, (".xml", ".xml.gz", ".psp8")))
        data_package = find_spec("gpaw_data")
        if data_package is None or data_package.origin is None:
            raise InputError(
                "the engine 'abinit' has no 'pseudopotentials'; specify a directory of PAW files (SYMBOL*.xml), or "
                "pip install gpaw-data"
            )
        folder = Path(data_package.origin).parent / "setups"
        if symbol in self.files:
            return _read_header(self.find_file(folder, symbol, ()))
        path = folder / f"{symbol}.PBE.gz"
        if not path.is_file():
            raise InputError(
                f"gpaw-data has no PAW data for {symbol}; specify a directory of files SYMBOL*.xml or SYMBOL*.psp8 as "
                "'pseudopotentials'"
            )
        return _read_header(path)

    def write(self, atoms: Atoms, level: Level, attempt: int, folder: Path) -> list[str]:
        """See `ProgramEngine.write`; pseudopotentials are copied to the directory."""
        potentials = self.find_pseudopotentials(atoms, level, "ixc")
        kinds = {potential.kind for potential in potentials.values()}
        if len(kinds) > 1:
            raise InputError(
                "the engine 'abinit' cannot mix PAW (xml) and norm-conserving (psp8) files; choose one kind"
            )
        files = [_copy_uncompressed(potential.path, symbol, folder) for symbol, potential in potentials.items()]
        options = self.merge_options(level)
        parameters = _translate_level(atoms, level, attempt, self.count_electrons(atoms))
        if kinds == {"paw"}:
            # With pawxcdev 0, on-site exchange-correlation is computed on an angular grid, as in GPAW. Forces of 8 Be
            # atoms then change by up to 0.004 eV/Å, but with the default, 1 (moments), by up to 0.013 eV/Å.
            parameters |= {"pawecutdg": 2 * require_cutoff(level), "iscf": 17, "pawxcdev": 0}
        if TOLERANCES & options.keys():  # the user's tolerance replaces that of the level
            del parameters["tolvrs"]
        # With 'pawxml', ASE does not write 'ixc', and ABINIT takes the functional from the pseudopotentials.
        parameters |= {**options, "pps": "pawxml"}
        with (folder / "abinit.in").open("w") as stream:
            write_abinit_in(stream, atoms, parameters, species=sorted(set(atoms.numbers)), pseudos=files)
        return []

    def read(self, folder: Path, exit_status: int) -> Outcome:
        """See `ProgramEngine.read`."""
        output, log = read_if_exists(folder / "abinit.abo"), read_if_exists(folder / self.log_name)
        if NOT_CONVERGED_MESSAGE in (output + log).lower():
            steps = len(re.findall(r"^ ETOT", log, re.MULTILINE))
            raise NotConvergedError(f"ABINIT did not converge within {steps} iterations")
        if exit_status or "Calculation completed" not in output:
            raise self.build_error(exit_status, log, r"--- !(?:ERROR|BUG)\n.*?message: \|\n(.*?)\n\.\.\.")
        results = read_abinit_outputs(folder, "abinit")
        info: dict[str, Any] = {"iterations": len(re.findall(r"^ ETOT", output, re.MULTILINE))}
        if "fermilevel" in results:
            info["fermi_ev"] = float(results["fermilevel"])
        # 'etotal' includes -TS, so the forces are its derivatives.
        return Outcome(float(results["energy"]), results["forces"], results["stress"], info)


@lru_cache(maxsize=128)
def _read_header(path: Path) -> Pseudopotential:
    """Read the number of valence electrons and the functional from a psp8 or PAW file, once per process.

    Raise InputError if the file has no number of valence electrons.
    """
    if path.suffix == ".psp8":
        lines = path.read_text(errors="replace").splitlines()  # the 2nd is "zatom zion ...", the 3rd "pspcod pspxc ..."
        try:
            return Pseudopotential(path, float(lines[1].split()[1]), lines[2].split()[1], "norm-conserving")
        except (IndexError, ValueError):
            problem = "has no 'zatom zion' in its second line and 'pspcod pspxc' in its third, so it is not a psp8 file"
            raise InputError(f"{path} {problem}; specify another file under 'files'") from None
    text = _read_uncompressed(path).decode(errors="replace")
    atom, functional = parse_xml_attributes(text, "atom"), parse_xml_attributes(text, "xc_functional")
    if "valence" not in atom:
        problem = "has no <atom valence=...>, so it is not a PAW file in XML"
        raise InputError(f"{path} {problem}; specify another file under 'files'")
    return Pseudopotential(path, float(atom["valence"]), functional.get("name", ""), "paw")


def _read_uncompressed(path: Path) -> bytes:
    """Read a file, which is decompressed if its suffix is ".gz"."""
    return gzip.decompress(path.read_bytes()) if path.suffix == ".gz" else path.read_bytes()


def _copy_uncompressed(path: Path, symbol: str, folder: Path) -> str:
    """Write an uncompressed copy, SYMBOL.psp8 or SYMBOL.xml, of a pseudopotential; return the file name."""
    name = f"{symbol}.psp8" if path.suffix == ".psp8" else f"{symbol}.xml"
    (folder / name).write_bytes(_read_uncompressed(path))
    return name


def _translate_level(atoms: Atoms, level: Level, attempt: int, n_electrons: float) -> dict[str, Any]:
    """Translate a level, except its functional, to input variables of ABINIT, with energies in eV as ASE expects."""
    return {
        "ecut": require_cutoff(level),
        "kptopt": 1,
        "ngkpt": list(level.get_kpoint_mesh(atoms)),
        "nshiftk": 1,
        "shiftk": [0, 0, 0],
        "chksymtnons": 0,  # allows crystals whose symmetry is not compatible with the FFT mesh
        **_translate_smearing(level, n_electrons),
        # tolvrs limits the squared residual of the potential. With the square of the default tolerance of the density,
        # 1e-5, forces of 8 atoms of beryllium are converged within 1e-6 eV/Å and energies within 3e-6 eV/atom.
        "tolvrs": level.scf.density_electrons**2,
        "nstep": level.scf.max_iterations * 2**attempt,
        "optforces": 1,
        "optstress": 1,
        # gentler mixing than by default, and more so with each further attempt
        **({"diemix": 0.3 / 2 ** (attempt - 1), "npulayit": 12} if attempt else {}),
        **MINIMAL_OUTPUT,
    }


def _translate_smearing(level: Level, n_electrons: float) -> dict[str, Any]:
    """Translate the smearing of a level to input variables of ABINIT, with enough empty bands."""
    smearing = level.smearing
    if smearing.method == "fixed":
        return {"occopt": OCCUPATIONS["fixed"]}
    # n_electrons / 2 bands are occupied; as in GPAW, 20 % more bands and 4 further ones hold the smeared occupations
    n_bands = math.ceil(0.6 * n_electrons) + 4
    return {"occopt": OCCUPATIONS[smearing.method], "tsmear": smearing.width_ev, "nband": n_bands}
