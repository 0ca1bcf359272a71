"""GPAW in plane-wave mode: the default engine."""

from collections.abc import Iterable
from functools import cache
from importlib import import_module
from importlib.util import find_spec
from pathlib import Path
from typing import Any, ClassVar, Literal

from ase import Atoms
from pydantic import Field

from paretofit.core import InputError, copy_without_constraints, join_lines
from paretofit.labelling.engines.base import Engine, NotConvergedError, Outcome, get_installed_version, require_cutoff
from paretofit.labelling.ladder import Level, SmearingSettings

LOG_FILE = "gpaw.txt"
INSTALL_HINT = "the engine 'gpaw' is not installed; install it with: CC=g++ pip install \"paretofit[dft]\""


class Gpaw(Engine):
    """GPAW with plane waves and the PAW data of gpaw-data."""

    needs_cell: ClassVar[bool] = True

    name: Literal["gpaw"] = Field("gpaw", description="GPAW in plane-wave mode, with the PAW data of gpaw-data.")

    def check(self, elements: Iterable[str]) -> None:
        """See `Engine.check`."""
        for symbol in elements:
            _count_valence_electrons(symbol)

    def check_level(self, level: Level) -> None:
        """See `Engine.check_level`; GPAW must be installed, because its functionals depend on the installation."""
        require_cutoff(level)
        if find_spec("gpaw") is None:
            raise InputError(INSTALL_HINT)
        from gpaw.xc import XC  # noqa: PLC0415  (an extra)

        try:
            XC(level.functional)
        except (NameError, ValueError, ImportError) as error:
            raise InputError(
                f"level '{level.name}' requests the functional {level.functional}, which the installed GPAW does not "
                f"support ({join_lines(error)}); without libxc, it supports LDA, PBE, revPBE, RPBE and PW91"
            ) from error

    def warm_up(self, level: Level) -> None:
        """See `Engine.warm_up`."""
        del level
        import_module("gpaw")

    def describe_version(self, elements: Iterable[str]) -> str:
        """See `Engine.describe_version`."""
        valence = ", ".join(f"{symbol}: {_count_valence_electrons(symbol):g} valence electrons" for symbol in elements)
        data = f"gpaw-data {get_installed_version('gpaw-data')} PAW setups ({valence})"
        return f"GPAW {get_installed_version('gpaw')}, plane waves, {data}"

    def count_electrons(self, atoms: Atoms) -> float:
        """See `Engine.count_electrons`."""
        return float(sum(_count_valence_electrons(symbol) for symbol in atoms.get_chemical_symbols()))

    def compute(self, atoms: Atoms, level: Level, attempt: int, folder: Path) -> Outcome:
        """See `Engine.compute`."""
        from gpaw import GPAW, KohnShamConvergenceError  # noqa: PLC0415  (an extra)

        # before `pbc` is set below, because the mesh has one point along directions without periodicity
        kpoints = {"size": level.get_kpoint_mesh(atoms), "gamma": True}
        atoms = copy_without_constraints(atoms)
        atoms.pbc = True  # plane waves are periodic
        parameters = {**_translate_level(level, attempt), "kpts": kpoints, **self.options, **level.options}
        atoms.calc = GPAW(**parameters, txt=str(folder / LOG_FILE))
        try:
            energy = atoms.get_potential_energy(force_consistent=True)
        except KohnShamConvergenceError as error:
            raise NotConvergedError(str(error)) from error
        info = {
            "iterations": int(atoms.calc.get_number_of_iterations()),
            "fermi_ev": float(atoms.calc.get_fermi_level()),
        }
        return Outcome(energy, atoms.get_forces(), atoms.get_stress(), info)


@cache
def _count_valence_electrons(symbol: str) -> float:
    """Read the number of valence electrons of an element from its PAW data, once per process.

    Raise `InputError` if GPAW or the PAW data of the element are not installed.
    """
    if find_spec("gpaw") is None:
        raise InputError(INSTALL_HINT)
    from gpaw.setup_data import SetupData  # noqa: PLC0415  (an extra)

    try:
        n_valence: Any = SetupData(symbol, "PBE").Nv
    except (RuntimeError, FileNotFoundError) as error:
        raise InputError(
            f"the engine 'gpaw' has no PAW data for {symbol}; add data with 'gpaw install-data' or GPAW_SETUP_PATH"
        ) from error
    return float(n_valence)


def _translate_level(level: Level, attempt: int) -> dict[str, Any]:
    """Translate a level, except its k-points, to keywords of GPAW for an attempt (0: the first)."""
    scf = level.scf
    # for further attempts; GPAW's defaults for periodic systems are beta 0.05, nmaxold 5 and weight 50
    gentle_mixing = {"beta": 0.02 / 2 ** (attempt - 1), "nmaxold": 8, "weight": 100.0}
    return {
        "mode": {"name": "pw", "ecut": level.cutoff_ev},
        "xc": level.functional,
        "occupations": _translate_smearing(level.smearing),
        "convergence": {"energy": scf.energy_ev_per_electron, "density": scf.density_electrons},
        "maxiter": scf.max_iterations * 2**attempt,
        **({"mixer": gentle_mixing} if attempt else {}),
    }


def _translate_smearing(smearing: SmearingSettings) -> dict[str, Any]:
    """Translate the smearing to GPAW's keyword ``occupations``."""
    if smearing.method == "gaussian":  # equivalent to Methfessel-Paxton smearing of order 0
        return {"name": "methfessel-paxton", "order": 0, "width": smearing.width_ev}
    if smearing.method == "fixed":
        return {"name": "fixed-uniform"}
    order = {"order": smearing.order} if smearing.method == "methfessel-paxton" else {}
    return {"name": smearing.method, "width": smearing.width_ev, **order}
