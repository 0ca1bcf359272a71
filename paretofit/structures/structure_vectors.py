"""Mean descriptors of a structure, which serve to compare structures."""

from collections.abc import Callable, Sequence

from ase import Atoms

from paretofit.core import Array, get_shared_lammps
from paretofit.dataset.quality import fingerprint_geometry
from paretofit.descriptors import SnapBasis, compute_mean_descriptors
from paretofit.structures.filters import get_radius

DUPLICATE_TWOJMAX = 4  # 2Jmax of the descriptors for the detection of duplicates and for maps of structures
MIN_COMPARISON_CUTOFF_A = 4.8  # minimum of the default cutoff of these descriptors


def build_comparison_basis(elements: Sequence[str], twojmax: int, cutoff: float | None = None) -> SnapBasis:
    """Build a linear SNAP basis for comparisons of structures; elements differ in their weights.

    `cutoff` is in Å. By default, it is twice the largest sum of two covalent radii, so that bonds that are stretched by
    60 % are included, but at least 4.8 Å.
    """
    if cutoff is None:
        cutoff = max(MIN_COMPARISON_CUTOFF_A, 4 * max(get_radius(symbol, None) for symbol in elements))
    weights = [1.0 - 0.5 * k / len(elements) for k in range(len(elements))]  # distinct, between 0.5 and 1
    return SnapBasis(
        elements=list(elements),
        twojmax=twojmax,
        quadratic=False,
        rcutfac=cutoff,
        radelem=[0.5] * len(elements),
        wj=weights,
    )


def build_mean_descriptor_function(elements: Sequence[str]) -> Callable[[Atoms], Array]:
    """Build a function that returns the mean descriptors of a structure with these elements, ``(n_features,) float64``.

    The function caches the descriptors of every structure; for an equal geometry, it returns the same array.
    """
    lammps, basis = get_shared_lammps(), build_comparison_basis(elements, DUPLICATE_TWOJMAX)
    cache: dict[str, Array] = {}

    def describe(atoms: Atoms) -> Array:
        key = fingerprint_geometry(atoms)
        if key not in cache:
            cache[key] = compute_mean_descriptors(lammps, basis, atoms)
        return cache[key]

    return describe
