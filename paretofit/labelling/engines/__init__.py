"""Engines that compute labels, all behind one small interface."""

from typing import Annotated

from pydantic import Field

from paretofit.labelling.engines.ase_calculator import AseCalculator
from paretofit.labelling.engines.base import Engine, EngineError, NotConvergedError, Outcome
from paretofit.labelling.engines.gpaw import Gpaw

AnyEngine = Annotated[Gpaw | AseCalculator, Field(discriminator="name")]

__all__ = ["AnyEngine", "AseCalculator", "Engine", "EngineError", "Gpaw", "NotConvergedError", "Outcome"]
