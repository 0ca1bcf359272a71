"""ASE calculators by their dotted name, as users write them: for labels, filters and comparisons."""

import json
from functools import lru_cache
from importlib import import_module
from typing import Any

from paretofit.core.errors import InputError
from paretofit.core.files import one_line


@lru_cache(maxsize=8)
def imported_calculator(path: str, options: str) -> Any:
    """One calculator for each process and set of keywords; networks are slow to load."""
    module, _, name = path.rpartition(".")
    try:
        factory = getattr(import_module(module), name)
    except Exception as error:  # no module of that name, or whatever its own code raises
        raise InputError(
            f"the calculator '{path}' cannot be imported: {one_line(error)}; install its package, or correct the path"
        ) from error
    try:
        return factory(**json.loads(options))
    except Exception as error:  # whatever the calculator's own checks raise
        raise InputError(f"the calculator '{path}' does not take the options {options}: {one_line(error)}") from error
