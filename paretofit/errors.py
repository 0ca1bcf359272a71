"""Earlier path of `paretofit.core.InputError`."""

from paretofit.core import InputError  # noqa: F401  (a name for scripts)
