"""Earlier path of `paretofit.potentials.mace.MaceSettings`."""

from paretofit.potentials.mace.mace_settings import MaceSettings  # noqa: F401  (a name for scripts)
