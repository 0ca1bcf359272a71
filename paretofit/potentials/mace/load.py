"""Loading MACE, which is an extra, and its networks, quietly and only when they are used."""

from __future__ import annotations

import importlib.util
import logging
import os
import warnings
from contextlib import contextmanager, redirect_stdout
from pickle import UnpicklingError
from typing import TYPE_CHECKING, Any

from ase import Atoms

from paretofit.errors import InputError, suggestion

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

UNLOADABLE = OSError, RuntimeError, EOFError, AttributeError, LookupError, ValueError, ImportError, UnpicklingError


def check_mace(device: str = "cpu", options: Sequence[str] = ()) -> None:
    """Refuse what this machine cannot do, before anything is spent.

    Raises
    ------
    InputError
        If MACE is not installed, there is no such device, or mace_run_train has no such option.
    """
    if importlib.util.find_spec("mace") is None or importlib.util.find_spec("torch") is None:
        raise InputError("MACE is not installed; install it with: pip install 'paretofit[mace]'")
    if device == "cuda":
        import torch  # noqa: PLC0415  (seconds, and the extra)

        if not torch.cuda.is_available():
            built = "this build of torch has no CUDA" if torch.version.cuda is None else "torch finds no GPU here"
            raise InputError(f"'device: cuda' needs a GPU, and {built}; set 'device: cpu'")
    if options:
        with _quiet():
            from mace.tools import build_default_arg_parser  # noqa: PLC0415

            known = {one.lstrip("-") for action in build_default_arg_parser()._actions  # noqa: SLF001
                     for one in action.option_strings}  # fmt: skip
        if unknown := sorted(set(options) - known):
            raise InputError(
                f"'options.{unknown[0]}' is no option of mace_run_train{suggestion(unknown[0], known)}; see "
                "mace_run_train --help"
            )


def load_calculator(models: Sequence[str], device: str, dtype: str, **more: Any) -> Any:
    """MACE's ASE calculator of some networks; `more` is handed on to it.

    Raises
    ------
    InputError
        If MACE is not installed, or a file is none of its models.
    """
    check_mace(device)
    with _quiet():
        from mace.calculators import MACECalculator  # noqa: PLC0415  (must come before e3nn)

        try:
            return MACECalculator(model_paths=list(models), device=device, default_dtype=dtype, **more)
        except UNLOADABLE as error:
            raise InputError(f"{models[0]} cannot be loaded as a MACE model: {error}") from error


def evaluated(calculator: Any, atoms: Atoms) -> dict[str, Any]:
    """MACE's results for the bare structure: keys of its info, such as a charge, would be taken for input."""
    calculator.calculate(Atoms(atoms.numbers, atoms.positions, cell=atoms.cell, pbc=atoms.pbc))
    results: dict[str, Any] = calculator.results
    return results


@contextmanager
def one_thread() -> Iterator[None]:
    """Networks of this size gain nothing from threads, and numbers are not to depend on how many there are."""
    import torch  # noqa: PLC0415  (the extra)

    before = torch.get_num_threads()
    torch.set_num_threads(1)
    try:
        yield
    finally:
        torch.set_num_threads(before)


@contextmanager
def _quiet() -> Iterator[None]:
    """Without what MACE and torch print and warn of when they are loaded."""
    level = logging.root.manager.disable
    logging.disable(logging.WARNING)
    try:
        with warnings.catch_warnings(), open(os.devnull, "w") as nothing, redirect_stdout(nothing):  # noqa: PTH123
            warnings.simplefilter("ignore")
            yield
    finally:
        logging.disable(level)
