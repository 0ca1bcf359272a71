"""Loading of MACE, an optional dependency, and of its networks, only when they are needed and without their output."""

import importlib.util
import io
import logging
import os
import warnings
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager, redirect_stderr, redirect_stdout
from pickle import UnpicklingError
from typing import Any

from ase import Atoms

from paretofit.core import InputError, join_lines, suggest_match

# Errors of torch and MACE for files that are not networks.
LOAD_ERRORS = OSError, RuntimeError, EOFError, AttributeError, LookupError, ValueError, ImportError, UnpicklingError


def check_mace(device: str = "cpu", options: Mapping[str, Any] | None = None) -> None:
    """Check that MACE and the device are available, before any expensive step.

    Parameters
    ----------
    device : {"cpu", "cuda"}
    options : mapping, optional
        Further options of mace_run_train, by name without dashes.

    Raises
    ------
    InputError
        If MACE or the device is not available, or mace_run_train does not accept an option or its value.
    """
    if importlib.util.find_spec("mace") is None or importlib.util.find_spec("torch") is None:
        raise InputError("MACE is not installed; install it with: pip install 'paretofit[mace]'")
    if device == "cuda":
        import torch  # noqa: PLC0415  (the import takes seconds, and MACE is optional)

        if not torch.cuda.is_available():
            reason = "this build of torch has no CUDA" if torch.version.cuda is None else "torch finds no GPU"
            raise InputError(f"'device: cuda' requires a GPU, but {reason}; set 'device: cpu'")
    if options:
        build_option_arguments(options)


def build_option_arguments(options: Mapping[str, Any]) -> list[str]:
    """Check further options of mace_run_train, and format them as command-line arguments.

    An option without an argument is omitted if its value is false.

    Raises
    ------
    InputError
        If mace_run_train has no such option, or rejects the value.
    """
    if not options:
        return []
    with _suppress_output():
        from mace.tools import build_default_arg_parser  # noqa: PLC0415  (the import takes seconds, and MACE is optional)

        parser = build_default_arg_parser()
    actions = {
        option_string.lstrip("-"): action
        for action in parser._actions  # noqa: SLF001  (argparse has no public list of options)
        for option_string in action.option_strings
    }
    if unknown_options := sorted(set(options) - set(actions)):
        raise InputError(
            f"'options.{unknown_options[0]}' is not an option of mace_run_train; see mace_run_train --help"
            f"{suggest_match(unknown_options[0], actions)}"
        )
    arguments = []
    for name, value in options.items():
        flag_arguments = [f"--{name}"] if value else []
        option_arguments = flag_arguments if actions[name].nargs == 0 else [f"--{name}={value}"]
        stderr = io.StringIO()
        try:
            with redirect_stderr(stderr):
                parser.parse_args(["--name=check", *option_arguments])  # --name is required
        except SystemExit as error:
            reason = join_lines(stderr.getvalue().strip().rpartition("error: ")[2])
            raise InputError(f"'options.{name}': mace_run_train rejects {value!r} ({reason})") from error
        arguments += option_arguments
    return arguments


def load_calculator(models: Sequence[str], device: str, dtype: str, **keywords: Any) -> Any:
    """Load MACE's ASE calculator for the networks in `models`, which are unpickled.

    Whether the networks are trusted is not checked here; see `check_trust`. `dtype` is "float32" or "float64";
    `keywords` are passed to the constructor of the calculator.

    Raises
    ------
    InputError
        If MACE or the device is not available, or a file is not a MACE model.
    """
    check_mace(device)
    with _suppress_output():
        from mace.calculators import MACECalculator  # noqa: PLC0415  (MACE must be imported before e3nn)

        try:
            return MACECalculator(model_paths=list(models), device=device, default_dtype=dtype, **keywords)
        except LOAD_ERRORS as error:
            raise InputError(
                f"{models[0]} cannot be loaded as a MACE model: {join_lines(error)}; choose the file of a MACE network"
            ) from error


def compute_results(calculator: Any, atoms: Atoms) -> dict[str, Any]:
    """Compute MACE's results for a structure, by name as in ASE.

    The structure is copied without its ``info``, because MACE would use entries such as a charge.
    """
    calculator.calculate(Atoms(atoms.numbers, atoms.positions, cell=atoms.cell, pbc=atoms.pbc))
    results: dict[str, Any] = calculator.results
    return results


@contextmanager
def limit_torch_threads() -> Iterator[None]:
    """Limit torch to one thread inside this context, so that results do not depend on the number of threads.

    Small networks would not be faster with more threads.
    """
    import torch  # noqa: PLC0415  (torch is optional)

    n_threads = torch.get_num_threads()
    torch.set_num_threads(1)
    try:
        yield
    finally:
        torch.set_num_threads(n_threads)


@contextmanager
def _suppress_output() -> Iterator[None]:
    """Suppress standard output, warnings, and log messages up to WARNING while MACE and torch are loaded."""
    level, old_handlers = logging.root.manager.disable, list(logging.root.handlers)
    logging.disable(logging.WARNING)
    try:
        with warnings.catch_warnings(), open(os.devnull, "w") as null, redirect_stdout(null):  # noqa: PTH123  (a device)
            warnings.simplefilter("ignore")
            yield
    finally:
        logging.disable(level)
        new_handlers = [handler for handler in logging.root.handlers if handler not in old_handlers]
        for handler in new_handlers:  # a handler that MACE has added would print the log messages of paretofit
            logging.root.removeHandler(handler)
