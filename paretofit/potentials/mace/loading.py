"""Loading MACE, which is an extra, and its networks, quietly and only when they are used."""

from __future__ import annotations

import importlib.util
import io
import logging
import os
import warnings
from contextlib import contextmanager, redirect_stderr, redirect_stdout
from pickle import UnpicklingError
from typing import TYPE_CHECKING, Any

from ase import Atoms

from paretofit.core import InputError, one_line, suggest_match

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping, Sequence

UNLOADABLE = OSError, RuntimeError, EOFError, AttributeError, LookupError, ValueError, ImportError, UnpicklingError


def check_mace(device: str = "cpu", options: Mapping[str, Any] | None = None) -> None:
    """Refuse what this machine cannot do, before anything is spent.

    Parameters
    ----------
    device : {"cpu", "cuda"}
    options : mapping, optional
        Further options of mace_run_train.

    Raises
    ------
    InputError
        If MACE is not installed, there is no such device, or mace_run_train has no such option or refuses its value.
    """
    if importlib.util.find_spec("mace") is None or importlib.util.find_spec("torch") is None:
        raise InputError("MACE is not installed; install it with: pip install 'paretofit[mace]'")
    if device == "cuda":
        import torch  # noqa: PLC0415  (seconds, and the extra)

        if not torch.cuda.is_available():
            built = "this build of torch has no CUDA" if torch.version.cuda is None else "torch finds no GPU here"
            raise InputError(f"'device: cuda' needs a GPU, and {built}; set 'device: cpu'")
    if options:
        build_option_arguments(options)


def build_option_arguments(options: Mapping[str, Any]) -> list[str]:
    """Further options as mace_run_train takes them.

    Raises
    ------
    InputError
        If it has no such option, or refuses the value.
    """
    if not options:
        return []
    with _quiet():
        from mace.tools import build_default_arg_parser  # noqa: PLC0415

        parser = build_default_arg_parser()
    actions = {word.lstrip("-"): action for action in parser._actions for word in action.option_strings}  # noqa: SLF001
    if unknown := sorted(set(options) - set(actions)):
        raise InputError(
            f"'options.{unknown[0]}' is no option of mace_run_train, whose --help lists them"
            f"{suggest_match(unknown[0], actions)}"
        )
    words = []
    for name, value in options.items():
        flag = actions[name].nargs == 0
        own = [f"--{name}"] if flag and value else [] if flag else [f"--{name}={value}"]
        said = io.StringIO()
        try:
            with redirect_stderr(said):
                parser.parse_args(["--name=check", *own])
        except SystemExit as error:
            reason = one_line(said.getvalue().strip().rpartition("error: ")[2])
            raise InputError(f"'options.{name}': mace_run_train refuses {value!r} ({reason})") from error
        words += own
    return words


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
            raise InputError(f"{models[0]} cannot be loaded as a MACE model: {one_line(error)}") from error


def compute_results(calculator: Any, atoms: Atoms) -> dict[str, Any]:
    """MACE's results for the bare structure: keys of its info, such as a charge, would be taken for input."""
    calculator.calculate(Atoms(atoms.numbers, atoms.positions, cell=atoms.cell, pbc=atoms.pbc))
    results: dict[str, Any] = calculator.results
    return results


@contextmanager
def limit_torch_threads() -> Iterator[None]:
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
    level, handlers = logging.root.manager.disable, list(logging.root.handlers)
    logging.disable(logging.WARNING)
    try:
        with warnings.catch_warnings(), open(os.devnull, "w") as nothing, redirect_stdout(nothing):  # noqa: PTH123
            warnings.simplefilter("ignore")
            yield
    finally:
        logging.disable(level)
        for handler in [one for one in logging.root.handlers if one not in handlers]:
            logging.root.removeHandler(handler)  # it would print what only belongs into our log
