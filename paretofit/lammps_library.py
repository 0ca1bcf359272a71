"""Earlier path of `paretofit.core.create_lammps`."""

from paretofit.core import create_lammps as lammps_instance  # noqa: F401  (a name for scripts)
