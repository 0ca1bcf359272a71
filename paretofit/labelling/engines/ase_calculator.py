"""Any ASE calculator, by import path: empirical potentials, pretrained networks, codes of your own."""

import json
from collections.abc import Iterable
from pathlib import Path
from typing import Any, Literal

from ase import Atoms
from ase.calculators.calculator import CalculationFailed, PropertyNotImplementedError, SCFError
from pydantic import Field, field_validator

from paretofit.core import import_calculator, one_line
from paretofit.labelling.engines.base import Engine, EngineError, NotConvergedError, Outcome, installed_version
from paretofit.labelling.ladder import Level


class AseCalculator(Engine):
    """A calculator class (or a function that returns a calculator) and its keywords."""

    name: Literal["ase"] = Field("ase", description="any ASE calculator")
    calculator: str = Field(description="import path, such as ase.calculators.emt.EMT")

    @field_validator("calculator")
    @classmethod
    def _dotted(cls, value: str) -> str:
        if "." not in value.strip("."):
            raise ValueError(f"'{value}' is not an import path such as ase.calculators.emt.EMT")
        return value

    def check(self, elements: Iterable[str]) -> None:
        """See `Engine.check`; which elements a calculator knows shows only when it computes."""
        del elements
        self._make(Level(name="check"))

    def make_level_metadata(self, level: Level) -> dict[str, Any]:
        """See `Engine.recorded`: a calculator is told nothing but its keywords."""
        return {"options": level.options} if level.options else {}

    def warm_up(self, level: Level) -> None:
        """See `Engine.warm_up`."""
        self._make(level)

    def describe_version(self, elements: Iterable[str]) -> str:
        """See `Engine.description`."""
        del elements
        package = self.calculator.split(".", 1)[0]
        return f"{self.calculator} ({package} {installed_version(package)})"

    def count_electrons(self, atoms: Atoms) -> float:
        """The number of atoms: what the cost of a potential goes with."""
        return float(len(atoms))

    def compute(self, atoms: Atoms, level: Level, attempt: int, folder: Path) -> Outcome:
        """See `Engine.compute`."""
        del attempt
        atoms = atoms.copy()
        atoms.calc = self._make(level)
        if hasattr(atoms.calc, "directory"):
            atoms.calc.directory = str(folder)  # workers must not write over each other's files
        try:
            return _results(atoms)
        except SCFError as error:
            raise NotConvergedError(one_line(error)) from error
        except CalculationFailed as error:
            raise EngineError(one_line(error)) from error
        except Exception:
            import_calculator.cache_clear()  # what has stumbled may be left in any state
            raise

    def _make(self, level: Level) -> Any:
        return import_calculator(self.calculator, json.dumps({**self.options, **level.options}, sort_keys=True))


def _results(atoms: Atoms) -> Outcome:
    try:
        energy = atoms.get_potential_energy(force_consistent=True)
    except PropertyNotImplementedError:
        energy = None
    if energy is None:
        energy = atoms.get_potential_energy()
    try:
        stress = atoms.get_stress() if atoms.pbc.all() else None
    except (PropertyNotImplementedError, NotImplementedError):
        stress = None
    return Outcome(float(energy), atoms.get_forces(), stress)
