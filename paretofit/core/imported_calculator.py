"""Import of ASE calculators by their dotted name, for labels, filters and comparisons."""

import json
from functools import lru_cache
from importlib import import_module
from typing import Any

from paretofit.core.errors import InputError
from paretofit.core.files import one_line


@lru_cache(maxsize=8)
def import_calculator(dotted_name: str, options_json: str) -> Any:
    """Create a calculator, or return the one of an earlier call in this process, because networks are slow to load.

    Parameters
    ----------
    dotted_name : str
        Name of a class or function with its module, such as ``"ase.calculators.emt.EMT"``.
    options_json : str
        Its keyword arguments as JSON, because the cache needs an argument that can be hashed.

    Raises
    ------
    InputError
        If the calculator cannot be imported or does not accept the options.
    """
    module, _, name = dotted_name.rpartition(".")
    try:
        factory = getattr(import_module(module), name)
    except Exception as error:  # the module does not exist, or its code raises any error
        reason = f"{one_line(error)}; install its package, or correct the name"
        raise InputError(f"the calculator '{dotted_name}' cannot be imported: {reason}") from error
    try:
        return factory(**json.loads(options_json))
    except Exception as error:  # the calculator's own checks may raise any error
        reason = f"does not accept the options {options_json}: {one_line(error)}"
        raise InputError(f"the calculator '{dotted_name}' {reason}") from error
