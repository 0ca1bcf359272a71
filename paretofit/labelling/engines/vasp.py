"""VASP on this machine, or its input files for another machine, whose output is imported later."""

import os
import re
from functools import lru_cache
from itertools import groupby
from pathlib import Path
from typing import Any, ClassVar, Literal

from ase import Atoms
from ase.io.vasp import write_vasp
from pydantic import Field

from paretofit.core import AbsoluteStudyPath, InputError, join_lines
from paretofit.labelling.engines.base import NotConvergedError, Outcome, require_cutoff
from paretofit.labelling.engines.command import ProgramEngine, Pseudopotential, read_if_exists
from paretofit.labelling.ladder import Level, SmearingSettings

POTCAR_PATH_VARIABLE = "VASP_PP_PATH"  # environment variable, as in ASE, with the parent directory of potpaw_PBE
CONVERGED_MESSAGE = "aborting loop because EDIFF is reached"
# List of the parts of the POTCAR that the user has to add, one per line; the name is that of pymatgen.
POTCAR_LIST_FILE = "POTCAR.spec"


class Vasp(ProgramEngine):
    """VASP, with program and POTCAR files of the user."""

    name: Literal["vasp"] = Field("vasp", description="VASP with your own program and POTCAR files.")
    command: str | None = Field(None, description="Command line that starts VASP, such as mpirun -n 16 vasp_std.")
    pseudopotentials: AbsoluteStudyPath | None = Field(
        None, description="Directory of SYMBOL/POTCAR; null: potpaw_PBE in $VASP_PP_PATH."
    )
    files: dict[str, str] = Field({}, description="Subdirectory by element, if it is not the symbol, such as Be_sv.")

    title: ClassVar[str] = "VASP"
    time_pattern: ClassVar[str] = r"Total CPU time used \(sec\):\s*([\d.]+)"
    install_hint: ClassVar[str] = (
        "specify the command that runs VASP, or write input files and run VASP on another machine"
    )
    log_name: ClassVar[str] = "vasp.out"

    def get_version(self) -> str:
        """Return "": only the output of VASP contains its version, which `read` stores with each label."""
        return ""

    def find_pseudopotential(self, symbol: str) -> Pseudopotential:
        """See `ProgramEngine.find_pseudopotential`."""
        folder = self._find_folder()
        if folder is None:
            raise InputError(
                "the engine 'vasp' has no 'pseudopotentials'; specify the directory that contains SYMBOL/POTCAR, or "
                f"set {POTCAR_PATH_VARIABLE} to the parent directory of potpaw_PBE"
            )
        path = folder / self.files.get(symbol, symbol) / "POTCAR"
        if not path.is_file():
            raise InputError(f"the engine 'vasp' has no file {path}; add it, or specify its directory under 'files'")
        return _read_header(path)

    def write(self, atoms: Atoms, level: Level, attempt: int, folder: Path) -> list[str]:
        """See `ProgramEngine.write`.

        The order of the atoms is kept, because forces are read in this order: an element that occurs in two blocks is
        listed twice in POSCAR and POTCAR. Without a directory of POTCAR files, `POTCAR_LIST_FILE` is written instead.
        """
        blocks = [(symbol, len(list(block))) for symbol, block in groupby(atoms.get_chemical_symbols())]
        with (folder / "POSCAR").open("w") as stream:
            write_vasp(stream, atoms, symbol_count=blocks, vasp5=True)
        keywords = {**_translate_level(level, attempt), **self.merge_options(level)}
        _write_incar_and_kpoints(atoms, level, keywords, blocks, folder)
        if self._find_folder() is not None:
            potcars = [self.find_pseudopotential(symbol).path.read_text() for symbol, _ in blocks]
            (folder / "POTCAR").write_text("".join(potcars))
            return []
        names = [self.files.get(symbol, symbol) for symbol, _ in blocks]
        (folder / POTCAR_LIST_FILE).write_text("".join(f"{name}\n" for name in names))
        return [f"POTCAR of {', '.join(names)}"]

    def read(self, folder: Path, exit_status: int) -> Outcome:
        """See `ProgramEngine.read`."""
        output = read_if_exists(folder / "OUTCAR")
        if exit_status or "General timing" not in output:
            log = read_if_exists(folder / self.log_name)
            raise self.build_error(exit_status, log + output, r"\n([^\n]*(?:ERROR|Error|BAD NEWS|LAPACK)[^\n]*)")
        iterations = len(re.findall(r"- Iteration ", output))
        if CONVERGED_MESSAGE not in output:
            raise NotConvergedError(f"VASP did not converge within {iterations} iterations (NELM)")
        info: dict[str, Any] = {"iterations": iterations, "version": output.split(maxsplit=1)[0]}
        if energies := re.findall(r"E-fermi\s*:\s*(\S+)", output):
            info["fermi_ev"] = float(energies[-1])
        return self.read_outcome(folder / "vasprun.xml", "vasp-xml", info)

    def _find_folder(self) -> Path | None:
        """Return the directory of POTCAR files; None if neither the setting nor the environment variable is set."""
        parent = os.environ.get(POTCAR_PATH_VARIABLE)
        return self.pseudopotentials or (Path(parent) / "potpaw_PBE" if parent else None)


@lru_cache(maxsize=128)
def _read_header(path: Path) -> Pseudopotential:
    """Read the number of valence electrons from a POTCAR, once per process; its functional is not read.

    Raise InputError if there is no such number.
    """
    text = path.read_text(errors="replace")
    match = re.search(r"ZVAL\s*=\s*([\d.]+)", text)
    if match is None:
        raise InputError(f"{path} has no ZVAL, so it is not a POTCAR; specify another directory under 'files'")
    return Pseudopotential(path, float(match[1]), "", "paw")


def _translate_level(level: Level, attempt: int) -> dict[str, Any]:
    """Translate a level, except its functional and k-points, to keywords of INCAR, with their names in ASE."""
    return {
        "prec": "Accurate",
        "encut": require_cutoff(level),
        # The tolerance per electron is used for the whole cell, because errors of forces scale with the square root of
        # the tolerance.
        "ediff": level.scf.energy_ev_per_electron,
        "nelm": level.scf.max_iterations * 2**attempt,
        "algo": "Normal",
        **_translate_smearing(level.smearing),
        "lreal": False,
        "ibrion": -1,
        "nsw": 0,
        "isif": 2,
        "lwave": False,
        "lcharg": False,
        # gentler mixing than by default, and more so with each further attempt
        **({"amix": 0.1 / 2 ** (attempt - 1), "bmix": 1e-4} if attempt else {}),
    }


def _translate_smearing(smearing: SmearingSettings) -> dict[str, Any]:
    """Translate the smearing to keywords of INCAR."""
    if smearing.method == "fixed":
        return {"ismear": 0, "sigma": 0.01}  # close to fixed: VASP reads fixed occupations from a file only
    ismear_by_method = {"methfessel-paxton": smearing.order, "gaussian": 0, "fermi-dirac": -1}
    return {"ismear": ismear_by_method[smearing.method], "sigma": smearing.width_ev}


def _write_incar_and_kpoints(
    atoms: Atoms, level: Level, keywords: dict[str, Any], blocks: list[tuple[str, int]], folder: Path
) -> None:
    """Write INCAR and KPOINTS.

    ASE's ``write_input``, which writes all files, is not used, because it sorts the atoms and requires a POTCAR.
    """
    from ase.calculators.vasp.create_input import GenerateVaspInput  # noqa: PLC0415  (imports matplotlib)

    writer = GenerateVaspInput()
    writer.spinpol = keywords.get("ispin") == 2
    writer.sort = list(range(len(atoms)))
    writer.symbol_count = blocks
    try:
        writer.set(xc=level.functional, kpts=level.get_kpoint_mesh(atoms), gamma=True)
        writer.set(**keywords)
        writer.write_incar(atoms, directory=str(folder))
        writer.write_kpoints(atoms, directory=str(folder))
    except (ValueError, TypeError, NotImplementedError) as error:
        raise InputError(
            f"level '{level.name}' cannot be written for VASP: {join_lines(error)}; correct 'functional' or the options"
        ) from error
