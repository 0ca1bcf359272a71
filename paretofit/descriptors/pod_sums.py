"""Proper orthogonal descriptors of a configuration from LAMMPS, their sums, and the derivatives of these sums."""

import atexit
import shutil
import tempfile
from functools import cache
from pathlib import Path
from typing import Any

import numpy as np
from ase import Atoms

from paretofit.core import Array, InputError, write_text
from paretofit.descriptors.features import sum_features
from paretofit.descriptors.lammps_frame import extract_per_atom, load_configuration
from paretofit.descriptors.pod_basis import PodBasis

STRAIN = 1e-3  # step of the central differences of sixth order; their relative error is about 1e-11
# Coefficient of the value at each number of steps in the difference.
STENCIL = {-3: -1 / 60, -2: 3 / 20, -1: -3 / 4, 1: 3 / 4, 2: -3 / 20, 3: 1 / 60}
VOIGT = ((0, 0), (1, 1), (2, 2), (1, 2), (0, 2), (0, 1))  # axes of the strain components, in ASE's order


@cache
def _write_parameters(text: str) -> Path:
    """Write a temporary parameter file, once for each text, and return its path.

    The file is removed when the process ends.
    """
    folder = Path(tempfile.mkdtemp(prefix="paretofit-pod-"))
    atexit.register(shutil.rmtree, folder, ignore_errors=True)
    write_text(folder / "param.pod", text)
    return folder / "param.pod"


def _define_compute(lammps: Any, basis: PodBasis, style: str) -> None:
    """Define the compute "rows" of a style in LAMMPS; raise `InputError` if this LAMMPS does not have the style."""
    if not lammps.has_style("compute", style):
        raise InputError(f"this LAMMPS has no 'compute {style}'; install one with the package ML-POD, or use SNAP")
    path = _write_parameters(basis.format_parameters())
    lammps.command(f'compute rows all {style} "{path}" "" {" ".join(basis.elements)}')


def extract_pod_values(lammps: Any, basis: PodBasis, n_atoms: int) -> Array:
    """Return the descriptors of each atom of the loaded configuration, ``(n_atoms, K)``, in LAMMPS's order."""
    _define_compute(lammps, basis, "pod/atom")
    # LAMMPS evaluates a per-atom compute only if an output uses it; here, the printed sum uses it.
    lammps.commands_string("compute sum all reduce sum c_rows[1]\nthermo_style custom step c_sum\nrun 0 post no")
    return extract_per_atom(lammps, lammps.numpy.extract_compute("rows", 1, 2), n_atoms)


def compute_pod_sums(lammps: Any, basis: PodBasis) -> tuple[Array, Array]:
    """Return the sums of all atoms' features, and minus the derivatives of these sums, of the loaded configuration.

    The columns are in nested order, without constants. The derivatives, ``(3N, n_features - n_elements)``, 1/Å, are
    with respect to the positions in LAMMPS's frame.
    """
    _define_compute(lammps, basis, "pod/global")
    lammps.commands_string("thermo_style custom step c_rows[1][1]\nrun 0 post no")
    # LAMMPS's array has a row of sums and 3N rows of derivatives, and for each element a constant and K other columns.
    pod_array = np.array(lammps.numpy.extract_compute("rows", 0, 2))
    n_rows = len(pod_array)
    features = pod_array.reshape(n_rows, len(basis.elements), -1)[:, :, 1:].reshape(n_rows, -1)
    ordered_features = features[:, basis.column_order]
    return ordered_features[0], ordered_features[1:]


def compute_pod_strain_derivatives(lammps: Any, basis: PodBasis, atoms: Atoms) -> Array:
    """Derivatives of the sums of all features with respect to strain, ``(6, n_features - n_elements)``, Voigt order.

    They are central differences of sixth order, because LAMMPS's computes have no virial. The system in LAMMPS is
    replaced.
    """
    derivatives = []
    for a, b in VOIGT:
        derivative = np.zeros(len(basis.column_order))
        for step, factor in STENCIL.items():
            strain = np.zeros((3, 3))
            # A shear changes two equal entries, each by half.
            strain[a, b] = strain[b, a] = step * STRAIN * (1.0 if a == b else 0.5)
            strained_atoms = atoms.copy()
            strained_atoms.set_cell(atoms.cell[:] @ (np.eye(3) + strain), scale_atoms=True)
            with load_configuration(lammps, basis, strained_atoms) as (types, _):
                descriptors = extract_pod_values(lammps, basis, len(atoms))
            derivative += factor / STRAIN * sum_features(basis, descriptors, types)
        derivatives.append(derivative)
    return np.array(derivatives)
