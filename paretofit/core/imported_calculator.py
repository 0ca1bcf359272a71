"""Import of ASE calculators by their dotted name, for labels, filters and comparisons."""

import json
from functools import lru_cache
from importlib import import_module
from types import FunctionType
from typing import Any, get_type_hints

from ase.calculators.calculator import BaseCalculator

from paretofit.core.errors import InputError
from paretofit.core.files import join_lines


@lru_cache(maxsize=8)
def import_calculator(dotted_name: str, options_json: str) -> Any:
    """Create an ASE calculator, or return the object that an earlier call with the same arguments created.

    The last 8 calculators are cached, because neural networks take long to load. Callers share them, and with them
    their results; call ``import_calculator.cache_clear()`` after a calculator has failed.

    Parameters
    ----------
    dotted_name : str
        Name of a subclass of ASE's ``BaseCalculator`` with its module, such as ``"ase.calculators.emt.EMT"``, or of a
        function whose annotation says that it returns one. Nothing else is called, because a study from another person
        could name any function of any module.
    options_json : str
        Keyword arguments of the class or function, as a JSON object, because the cache requires hashable arguments.

    Raises
    ------
    InputError
        If the name cannot be imported or is not that of a calculator, or if the calculator does not accept the options.
    """
    module, _, name = dotted_name.rpartition(".")
    try:
        factory = getattr(import_module(module), name)
    except Exception as error:  # the module does not exist, or its code raises any error
        reason = f"{join_lines(error)}; install its package, or correct the name"
        raise InputError(f"the calculator '{dotted_name}' cannot be imported: {reason}") from error
    if not _is_calculator_factory(factory):
        raise InputError(
            f"'{dotted_name}' is not a calculator, so it is not called: it must be a class that inherits from "
            "ase.calculators.calculator.BaseCalculator, or a function that is annotated to return one"
        )
    try:
        return factory(**json.loads(options_json))
    except Exception as error:  # the calculator's own checks may raise any error
        reason = f"does not accept the options {options_json}: {join_lines(error)}"
        raise InputError(f"the calculator '{dotted_name}' {reason}; correct the options or the installation") from error


def _is_calculator_factory(factory: object) -> bool:
    """Return whether an object is a subclass of `BaseCalculator`, or a Python function annotated to return one."""
    created_class = factory
    if isinstance(factory, FunctionType):
        try:
            created_class = get_type_hints(factory).get("return")
        except Exception:  # noqa: BLE001  (annotations are evaluated, which may raise any error)
            return False
    return isinstance(created_class, type) and issubclass(created_class, BaseCalculator)
