"""Writing and reading of the LAMMPS files of a linear potential of any family (SNAP or POD)."""

from pathlib import Path

from paretofit.core import Array
from paretofit.descriptors import AnyBasis, PodBasis, ReferencePotential
from paretofit.potentials.pod_format import read_pod, write_pod
from paretofit.potentials.potential_files import PotentialFiles, resolve_potential_paths
from paretofit.potentials.snap_format import find_snap_files, read_snap, to_lammps_coefficients, write_snap


def write_linear_potential(
    folder: Path, name: str, basis: AnyBasis, coefficients: Array, *, reference: ReferencePotential | None = None
) -> PotentialFiles:
    """Write a fitted model of any family as a LAMMPS potential; parameters and errors are those of `write_snap`."""
    if isinstance(basis, PodBasis):
        return write_pod(folder, name, basis, coefficients, reference=reference)
    return write_snap(folder, name, basis, coefficients, reference=reference)


def read_linear_potential(path: Path) -> tuple[AnyBasis, Array, ReferencePotential | None]:
    """Read the basis, coefficients and reference potential of a linear potential of any family; see `read_snap`."""
    return read_pod(path) if _is_pod(path) else read_snap(path)


def find_potential_files(path: Path) -> PotentialFiles:
    """Return the paths of the files of an existing potential, after reading them as a check; see `read_snap`.

    If a ``.snapparam`` has a key that current versions of LAMMPS no longer accept, `PotentialFiles.parameters` is the
    path of a temporary copy without the key.
    """
    if not _is_pod(path):
        return find_snap_files(path)
    basis, _, reference = read_pod(path)
    return PotentialFiles(*resolve_potential_paths(path), list(basis.elements), reference, "pod")


def convert_for_comparison(basis: AnyBasis, coefficients: Array) -> Array:
    """Convert coefficients ``(p,)`` such that two vectors become equal if their LAMMPS files are equal.

    SNAP's coefficients are converted by `to_lammps_coefficients`, which averages those of equal components; POD's
    coefficients are returned unchanged.
    """
    return coefficients if isinstance(basis, PodBasis) else to_lammps_coefficients(basis, coefficients)


def _is_pod(path: Path) -> bool:
    """Return whether a file or directory belongs to a POD potential; errors are those of `resolve_potential_paths`."""
    return resolve_potential_paths(path)[0].suffix == ".podcoeff"
