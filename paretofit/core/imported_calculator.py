"""Import of ASE calculators by their dotted name, for labels, filters and comparisons."""

import json
from functools import lru_cache
from importlib import import_module
from typing import Any

from paretofit.core.errors import InputError
from paretofit.core.files import one_line


@lru_cache(maxsize=8)
def import_calculator(dotted_name: str, options_json: str) -> Any:
    """Return a calculator, cached for each process and set of options because networks are slow to load."""
    module, _, name = dotted_name.rpartition(".")
    try:
        factory = getattr(import_module(module), name)
    except Exception as error:  # no such module, or any error of its code
        raise InputError(
            f"the calculator '{dotted_name}' cannot be imported: {one_line(error)}; install its package, or correct "
            "the name"
        ) from error
    try:
        return factory(**json.loads(options_json))
    except Exception as error:  # any error of the calculator's own checks
        raise InputError(
            f"the calculator '{dotted_name}' does not accept the options {options_json}: {one_line(error)}"
        ) from error
