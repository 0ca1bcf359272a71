"""Loading of MACE, an optional dependency, and of its networks, without output and only when they are needed."""

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

LOAD_ERRORS = OSError, RuntimeError, EOFError, AttributeError, LookupError, ValueError, ImportError, UnpicklingError


def check_mace(device: str = "cpu", options: Mapping[str, Any] | None = None) -> None:
    """Check that MACE and the device are available, before any expensive step.

    Parameters
    ----------
    device : {"cpu", "cuda"}
    options : mapping, optional
        Further options of mace_run_train.

    Raises
    ------
    InputError
        If MACE or the device is not available, or mace_run_train does not accept an option or its value.
    """
    if importlib.util.find_spec("mace") is None or importlib.util.find_spec("torch") is None:
        raise InputError("MACE is not installed; install it with: pip install 'paretofit[mace]'")
    if device == "cuda":
        import torch  # noqa: PLC0415  (takes seconds, and is an extra)

        if not torch.cuda.is_available():
            reason = "this build of torch has no CUDA" if torch.version.cuda is None else "torch finds no GPU"
            raise InputError(f"'device: cuda' requires a GPU, but {reason}; set 'device: cpu'")
    if options:
        build_option_arguments(options)


def build_option_arguments(options: Mapping[str, Any]) -> list[str]:
    """Check further options of mace_run_train, and format them as command-line arguments.

    Raises
    ------
    InputError
        If mace_run_train has no such option, or rejects the value.
    """
    if not options:
        return []
    with _suppress_output():
        from mace.tools import build_default_arg_parser  # noqa: PLC0415  (takes seconds, and is an extra)

        parser = build_default_arg_parser()
    flags = [(flag, action) for action in parser._actions for flag in action.option_strings]  # noqa: SLF001  (no other way)
    actions = {flag.lstrip("-"): action for flag, action in flags}
    if unknown_options := sorted(set(options) - set(actions)):
        raise InputError(
            f"'options.{unknown_options[0]}' is not an option of mace_run_train; see mace_run_train --help"
            f"{suggest_match(unknown_options[0], actions)}"
        )
    arguments = []
    for name, value in options.items():
        is_flag = actions[name].nargs == 0
        option_arguments = [f"--{name}"] if is_flag and value else [] if is_flag else [f"--{name}={value}"]
        stderr = io.StringIO()
        try:
            with redirect_stderr(stderr):
                parser.parse_args(["--name=check", *option_arguments])
        except SystemExit as error:
            reason = join_lines(stderr.getvalue().strip().rpartition("error: ")[2])
            raise InputError(f"'options.{name}': mace_run_train rejects {value!r} ({reason})") from error
        arguments += option_arguments
    return arguments


def load_calculator(models: Sequence[str], device: str, dtype: str, **keywords: Any) -> Any:
    """Load MACE's ASE calculator for networks; `keywords` are passed to its constructor.

    Raises
    ------
    InputError
        If MACE is not installed, or a file is not a MACE model.
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
    """Compute MACE's results for a structure without its ``info``, because MACE would use entries such as a charge."""
    calculator.calculate(Atoms(atoms.numbers, atoms.positions, cell=atoms.cell, pbc=atoms.pbc))
    results: dict[str, Any] = calculator.results
    return results


@contextmanager
def limit_torch_threads() -> Iterator[None]:
    """Limit torch to one thread, so that results do not depend on the number; small networks would not be faster."""
    import torch  # noqa: PLC0415  (an extra)

    n_threads = torch.get_num_threads()
    torch.set_num_threads(1)
    try:
        yield
    finally:
        torch.set_num_threads(n_threads)


@contextmanager
def _suppress_output() -> Iterator[None]:
    """Suppress output, warnings and log messages of MACE and torch while they are loaded."""
    level, handlers = logging.root.manager.disable, list(logging.root.handlers)
    logging.disable(logging.WARNING)
    try:
        with warnings.catch_warnings(), open(os.devnull, "w") as null, redirect_stdout(null):  # noqa: PTH123  (a device)
            warnings.simplefilter("ignore")
            yield
    finally:
        logging.disable(level)
        for handler in [handler for handler in logging.root.handlers if handler not in handlers]:
            logging.root.removeHandler(handler)  # a handler added by MACE would print our log messages
