"""Earlier path of `paretofit.potentials.StructureLabels`."""

from paretofit.potentials.prediction import StructureLabels as Labels  # noqa: F401  (a name for scripts)
