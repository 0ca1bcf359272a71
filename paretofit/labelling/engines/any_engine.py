"""Union of all engines, from which a study selects one by its name."""

from typing import Annotated

from pydantic import Field

from paretofit.labelling.engines.abinit import Abinit
from paretofit.labelling.engines.ase_calculator import AseCalculator
from paretofit.labelling.engines.espresso import Espresso
from paretofit.labelling.engines.gpaw import Gpaw
from paretofit.labelling.engines.vasp import Vasp

AnyEngine = Annotated[Gpaw | Abinit | Espresso | Vasp | AseCalculator, Field(discriminator="name")]
