"""VASP, where you have it; or the input files for it, to be run on a cluster and imported later."""

import os
import re
from functools import lru_cache
from itertools import groupby
from pathlib import Path
from typing import Any, ClassVar, Literal

from ase import Atoms
from ase.calculators.vasp.create_input import GenerateVaspInput
from ase.io.vasp import write_vasp
from pydantic import Field

from paretofit.core import AbsoluteStudyPath, InputError, one_line
from paretofit.labelling.engines.base import NotConvergedError, Outcome, require_cutoff
from paretofit.labelling.engines.command import (
    ProgramEngine,
    Pseudopotential,
    make_engine_error,
    read_outcome,
    read_text_if_exists,
)
from paretofit.labelling.ladder import Level, SmearingSettings

PSEUDOPOTENTIALS = "VASP_PP_PATH"  # as ASE and others call the folder above potpaw_PBE
CONVERGED = "aborting loop because EDIFF is reached"
SYMBOLS = "POTCAR.spec"  # as pymatgen calls it: one line for each part of the POTCAR that is to be put there


class Vasp(ProgramEngine):
    """VASP with your own program and POTCAR files."""

    name: Literal["vasp"] = Field("vasp", description="VASP, your own program and POTCAR files")
    command: str | None = Field(None, description="command line that starts VASP, such as mpirun -n 16 vasp_std")
    pseudopotentials: AbsoluteStudyPath | None = Field(
        None, description="folder of SYMBOL/POTCAR; null: the folder potpaw_PBE in the environment's VASP_PP_PATH"
    )
    files: dict[str, str] = Field({}, description="folder by element, where it is not the symbol, such as Be_sv")

    title: ClassVar[str] = "VASP"
    time_pattern: ClassVar[str] = r"Total CPU time used \(sec\):\s*([\d.]+)"
    install_hint: ClassVar[str] = (
        "give the command that runs VASP here, or write its input files and run them elsewhere"
    )
    log_name: ClassVar[str] = "vasp.out"

    def version(self) -> str:
        """See `ProgramEngine.version`; VASP tells only in its output, so it is kept with each label."""
        return ""

    def find_pseudopotential(self, symbol: str) -> Pseudopotential:
        """See `ProgramEngine.potential`."""
        folder = self._folder()
        if folder is None:
            raise InputError(
                "the engine 'vasp' has no 'pseudopotentials'; name the folder that holds SYMBOL/POTCAR, or set "
                f"{PSEUDOPOTENTIALS} to the one above potpaw_PBE"
            )
        path = folder / self.files.get(symbol, symbol) / "POTCAR"
        if not path.is_file():
            raise InputError(f"the engine 'vasp' has no file {path}; put it there, or name its folder under 'files'")
        return _potential(path)

    def write(self, atoms: Atoms, level: Level, attempt: int, folder: Path) -> list[str]:
        """See `ProgramEngine.write`.

        Atoms keep their order, as labels are told apart by it: an element that comes twice is named twice in
        POSCAR and POTCAR. Where no folder of POTCARs is known, their list is written in place of a POTCAR.
        """
        runs = [(symbol, len(list(run))) for symbol, run in groupby(atoms.get_chemical_symbols())]
        with (folder / "POSCAR").open("w") as stream:
            write_vasp(stream, atoms, symbol_count=runs, vasp5=True)
        _write_incar(atoms, level, {**_parameters(level, attempt), **self.merge_options(level)}, runs, folder)
        if self._folder() is not None:
            parts = [self.find_pseudopotential(symbol).path.read_text() for symbol, _ in runs]
            (folder / "POTCAR").write_text("".join(parts))
            return []
        wanted = [self.files.get(symbol, symbol) for symbol, _ in runs]
        (folder / SYMBOLS).write_text("".join(f"{name}\n" for name in wanted))
        return [f"POTCAR of {', '.join(wanted)}"]

    def read(self, folder: Path, exit_status: int) -> Outcome:
        """See `ProgramEngine.read`."""
        output = read_text_if_exists(folder / "OUTCAR")
        if exit_status or "General timing" not in output:
            said = r"\n([^\n]*(?:ERROR|Error|BAD NEWS|LAPACK)[^\n]*)"
            raise make_engine_error("VASP", exit_status, read_text_if_exists(folder / self.log_name) + output, said)
        iterations = len(re.findall(r"- Iteration ", output))
        if CONVERGED not in output:
            raise NotConvergedError(f"VASP was not converged after {iterations} iterations (NELM)")
        info: dict[str, Any] = {"iterations": iterations, "version": output.split(maxsplit=1)[0]}
        if found := re.findall(r"E-fermi\s*:\s*(\S+)", output):
            info["fermi_ev"] = float(found[-1])
        return read_outcome(folder / "vasprun.xml", "vasp-xml", info)

    def _folder(self) -> Path | None:
        above = os.environ.get(PSEUDOPOTENTIALS)
        return self.pseudopotentials or (Path(above) / "potpaw_PBE" if above else None)


@lru_cache(maxsize=128)
def _potential(path: Path) -> Pseudopotential:
    text = path.read_text(errors="replace")
    found = re.search(r"ZVAL\s*=\s*([\d.]+)", text)
    if found is None:
        raise InputError(f"{path} does not say ZVAL: it is not a POTCAR; name the folder of another under 'files'")
    return Pseudopotential(path, float(found[1]), "", "paw")


def _parameters(level: Level, attempt: int) -> dict[str, Any]:
    """Keywords of INCAR, as ASE names them."""
    return {
        "prec": "Accurate",
        "encut": require_cutoff(level),
        # For the whole cell: the tolerance of a single electron, as forces go with the square root of the energy's.
        "ediff": level.scf.energy_ev_per_electron,
        "nelm": level.scf.max_iterations * 2**attempt,
        "algo": "Normal",
        **_smearing(level.smearing),
        "lreal": False,
        "ibrion": -1,
        "nsw": 0,
        "isif": 2,
        "lwave": False,
        "lcharg": False,
        **({"amix": 0.1 / 2 ** (attempt - 1), "bmix": 1e-4} if attempt else {}),
    }


def _smearing(smearing: SmearingSettings) -> dict[str, Any]:
    if smearing.method == "fixed":
        return {"ismear": 0, "sigma": 0.01}  # VASP has no fixed occupations but those of an earlier run
    numbers = {"methfessel-paxton": smearing.order, "gaussian": 0, "fermi-dirac": -1}
    return {"ismear": numbers[smearing.method], "sigma": smearing.width_ev}


def _write_incar(
    atoms: Atoms, level: Level, keywords: dict[str, Any], runs: list[tuple[str, int]], folder: Path
) -> None:
    """Write INCAR and KPOINTS by ASE's writer, which otherwise sorts the atoms and insists on a POTCAR."""
    writer = GenerateVaspInput()
    writer.spinpol = keywords.get("ispin") == 2
    writer.sort = list(range(len(atoms)))
    writer.symbol_count = runs
    try:
        writer.set(xc=level.functional, kpts=level.kpoints(atoms), gamma=True)
        writer.set(**keywords)
        writer.write_incar(atoms, directory=str(folder))
        writer.write_kpoints(atoms, directory=str(folder))
    except (ValueError, TypeError, NotImplementedError) as error:
        raise InputError(
            f"level '{level.name}' cannot be written for VASP: {one_line(error)}; correct 'functional' or the options"
        ) from error
