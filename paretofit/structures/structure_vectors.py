"""Mean descriptors of a structure, for comparing structures."""

from collections.abc import Callable, Sequence

from ase import Atoms

from paretofit.core import Array, get_shared_lammps
from paretofit.dataset.quality import fingerprint_geometry
from paretofit.descriptors import SnapBasis, compute_mean_descriptors
from paretofit.structures.filters import get_radius

DUPLICATE_TWOJMAX = 4
MIN_COMPARISON_CUTOFF_A = 4.8  # cutoff of descriptors for the detection of duplicates and for the map


def make_comparison_basis(elements: Sequence[str], twojmax: int, cutoff: float | None = None) -> SnapBasis:
    """Make a linear SNAP basis that distinguishes elements by their weights, to compare structures.

    The default cutoff is the larger of 4.8 Å and twice the largest sum of two covalent radii, so that bonds that are
    stretched by 60 % are included.
    """
    if cutoff is None:
        cutoff = max(MIN_COMPARISON_CUTOFF_A, 4 * max(get_radius(symbol, None) for symbol in elements))
    weights = [1.0 - 0.5 * k / len(elements) for k in range(len(elements))]
    return SnapBasis(
        elements=list(elements),
        twojmax=twojmax,
        quadratic=False,
        rcutfac=cutoff,
        radelem=[0.5] * len(elements),
        wj=weights,
    )


def make_mean_descriptor(elements: Sequence[str]) -> Callable[[Atoms], Array]:
    """Make a function that returns the mean descriptors of a structure, and caches them."""
    lammps, basis = get_shared_lammps(), make_comparison_basis(elements, DUPLICATE_TWOJMAX)
    cache: dict[str, Array] = {}

    def describe(atoms: Atoms) -> Array:
        key = fingerprint_geometry(atoms)
        if key not in cache:
            cache[key] = compute_mean_descriptors(lammps, basis, atoms)
        return cache[key]

    return describe
