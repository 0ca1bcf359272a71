"""Engine for any ASE calculator that can be imported, such as an empirical potential or a pretrained network."""

import json
from collections.abc import Iterable
from contextlib import suppress
from pathlib import Path
from typing import Any, Literal

from ase import Atoms
from ase.calculators.calculator import CalculationFailed, PropertyNotImplementedError, SCFError
from pydantic import Field, field_validator

from paretofit.core import InputError, copy_without_constraints, import_calculator, join_lines
from paretofit.labelling.engines.base import Engine, EngineError, NotConvergedError, Outcome, get_installed_version
from paretofit.labelling.ladder import Level


class AseCalculator(Engine):
    """Calculator class, or function annotated to return a calculator, with its keywords in `options`."""

    name: Literal["ase"] = Field("ase", description="Any ASE calculator.")
    calculator: str = Field(description="Import path of the calculator class, such as ase.calculators.emt.EMT.")

    @field_validator("calculator")
    @classmethod
    def _check_import_path(cls, path: str) -> str:
        """Raise ValueError if a path has no module and name; whether it can be imported is checked by `check`."""
        if "." not in path.strip("."):
            raise ValueError(f"'{path}' is not an import path such as ase.calculators.emt.EMT")
        return path

    def check(self, elements: Iterable[str]) -> None:
        """See `Engine.check`; elements are not checked, because a calculator does not list those that it supports."""
        del elements
        self._create_calculator(Level(name="check"))

    def check_level(self, level: Level) -> None:
        """See `Engine.check_level`; a level must not set a cutoff or a k-point spacing, which calculators ignore."""
        for key in ("cutoff_ev", "kspacing_per_angstrom"):
            if getattr(level, key) is not None:
                raise InputError(
                    f"level '{level.name}' has '{key}', which an ASE calculator does not read; set the keywords of the "
                    "calculator in the 'options' of the level"
                )

    def make_level_metadata(self, level: Level) -> dict[str, Any]:
        """See `Engine.make_level_metadata`; a calculator uses only the options of a level."""
        return {"options": level.options} if level.options else {}

    def warm_up(self, level: Level) -> None:
        """See `Engine.warm_up`; the calculator is created, and reused for the labels of this level."""
        self._create_calculator(level)

    def describe_version(self, elements: Iterable[str]) -> str:
        """See `Engine.describe_version`."""
        del elements
        package = self.calculator.split(".", 1)[0]
        return f"{self.calculator} ({package} {get_installed_version(package)})"

    def count_electrons(self, atoms: Atoms) -> float:
        """Return the number of atoms instead of electrons, because the cost of a potential is proportional to it."""
        return float(len(atoms))

    def compute(self, atoms: Atoms, level: Level, attempt: int, folder: Path) -> Outcome:
        """See `Engine.compute`."""
        del attempt
        atoms = copy_without_constraints(atoms)
        atoms.calc = self._create_calculator(level)
        if hasattr(atoms.calc, "directory"):
            atoms.calc.directory = str(folder)  # workers must not overwrite each other's files
        try:
            return _compute_outcome(atoms)
        except SCFError as error:
            raise NotConvergedError(join_lines(error)) from error
        except CalculationFailed as error:
            raise EngineError(join_lines(error)) from error
        except Exception:
            import_calculator.cache_clear()  # the state of the calculator is unknown after an error
            raise

    def _create_calculator(self, level: Level) -> Any:
        """Return the calculator with the options of the engine and of a level, which have priority.

        The calculator is created once, and shared by later calls with the same options.
        """
        return import_calculator(self.calculator, json.dumps({**self.options, **level.options}, sort_keys=True))


def _compute_outcome(atoms: Atoms) -> Outcome:
    """Compute energy, forces and stress; the stress is None if it is not implemented or a direction is not periodic."""
    energy = stress = None
    with suppress(PropertyNotImplementedError):
        energy = atoms.get_potential_energy(force_consistent=True)
    if energy is None:
        energy = atoms.get_potential_energy()  # potentials have no smearing, and thus a single energy
    if atoms.pbc.all():
        with suppress(NotImplementedError):  # includes ASE's PropertyNotImplementedError
            stress = atoms.get_stress()
    return Outcome(float(energy), atoms.get_forces(), stress)
