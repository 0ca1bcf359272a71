"""Any ASE calculator with an import path, such as an empirical potential, a pretrained network or a custom code."""

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
    """A calculator class (or a function that is annotated to return a calculator) and its keywords."""

    name: Literal["ase"] = Field("ase", description="Any ASE calculator.")
    calculator: str = Field(description="Import path of the calculator class, such as ase.calculators.emt.EMT.")

    @field_validator("calculator")
    @classmethod
    def _check_import_path(cls, value: str) -> str:
        if "." not in value.strip("."):
            raise ValueError(f"'{value}' is not an import path such as ase.calculators.emt.EMT")
        return value

    def check(self, elements: Iterable[str]) -> None:
        """See `Engine.check`; the elements are ignored, because a calculator does not list those that it supports."""
        del elements
        self._create_calculator(Level(name="check"))

    def check_level(self, level: Level) -> None:
        """See `Engine.check_level`; a calculator has neither plane waves nor k-points of the ladder."""
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
        """See `Engine.warm_up`."""
        self._create_calculator(level)

    def describe_version(self, elements: Iterable[str]) -> str:
        """See `Engine.describe_version`."""
        del elements
        package = self.calculator.split(".", 1)[0]
        return f"{self.calculator} ({package} {get_installed_version(package)})"

    def count_electrons(self, atoms: Atoms) -> float:
        """Return the number of atoms, because the cost of a potential is proportional to it."""
        return float(len(atoms))

    def compute(self, atoms: Atoms, level: Level, attempt: int, folder: Path) -> Outcome:
        """See `Engine.compute`."""
        del attempt
        atoms = copy_without_constraints(atoms)
        atoms.calc = self._create_calculator(level)
        if hasattr(atoms.calc, "directory"):
            atoms.calc.directory = str(folder)  # workers must not overwrite each other's files
        try:
            return _read_results(atoms)
        except SCFError as error:
            raise NotConvergedError(join_lines(error)) from error
        except CalculationFailed as error:
            raise EngineError(join_lines(error)) from error
        except Exception:
            import_calculator.cache_clear()  # the state of the calculator is unknown after an error
            raise

    def _create_calculator(self, level: Level) -> Any:
        return import_calculator(self.calculator, json.dumps({**self.options, **level.options}, sort_keys=True))


def _read_results(atoms: Atoms) -> Outcome:
    energy = stress = None
    with suppress(PropertyNotImplementedError):
        energy = atoms.get_potential_energy(force_consistent=True)
    if energy is None:
        energy = atoms.get_potential_energy()
    if atoms.pbc.all():
        with suppress(NotImplementedError):  # includes ASE's PropertyNotImplementedError
            stress = atoms.get_stress()
    return Outcome(float(energy), atoms.get_forces(), stress)
