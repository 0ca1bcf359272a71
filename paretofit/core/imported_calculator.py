"""ASE calculators by their dotted name, as users write them: for labels, filters and comparisons."""

import json
from functools import lru_cache
from importlib import import_module
from typing import Any

from paretofit.core.errors import InputError
from paretofit.core.files import one_line


@lru_cache(maxsize=8)
def import_calculator(dotted_name: str, options_json: str) -> Any:
    """One calculator for each process and set of keywords; networks are slow to load."""
    module, _, name = dotted_name.rpartition(".")
    try:
        factory = getattr(import_module(module), name)
    except Exception as error:  # no module of that name, or whatever its own code raises
        raise InputError(
            f"the calculator '{dotted_name}' cannot be imported: {one_line(error)}; install its package, or correct the path"
        ) from error
    try:
        return factory(**json.loads(options_json))
    except Exception as error:  # whatever the calculator's own checks raise
        raise InputError(
            f"the calculator '{dotted_name}' does not take the options {options_json}: {one_line(error)}"
        ) from error
