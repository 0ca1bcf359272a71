"""Engines that compute labels, all behind one small interface."""

from typing import Annotated

from pydantic import Field

from paretofit.labelling.engines.abinit import Abinit
from paretofit.labelling.engines.ase_calculator import AseCalculator
from paretofit.labelling.engines.base import Engine, EngineError, NotConvergedError, Outcome
from paretofit.labelling.engines.espresso import Espresso
from paretofit.labelling.engines.gpaw import Gpaw
from paretofit.labelling.engines.vasp import Vasp

AnyEngine = Annotated[Gpaw | Abinit | Espresso | Vasp | AseCalculator, Field(discriminator="name")]

__all__ = [
    "Abinit",
    "AnyEngine",
    "AseCalculator",
    "Engine",
    "EngineError",
    "Espresso",
    "Gpaw",
    "NotConvergedError",
    "Outcome",
    "Vasp",
]
