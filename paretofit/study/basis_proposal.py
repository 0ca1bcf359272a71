"""Proposal of a cutoff, and of further bases to compare, for a dataset."""

from collections.abc import Sequence

import numpy as np
from ase import Atoms

from paretofit.dataset import Dataset
from paretofit.dataset.quality import compute_neighbour_distance, find_shell_gaps
from paretofit.descriptors import MAX_POD_SIZE, SnapBasis

# ratio of the cutoff to the distance of nearest neighbours, so that it includes the second shell
MIN_CUTOFF_RATIO = 1.7
MAX_SAMPLED_STRUCTURES = 100  # number of structures for the distances of neighbours
# Cutoffs of further bases relative to the proposed one: the range, and the value if there is no gap between shells
SHORT_RANGE, LONG_RANGE = (0.72, 0.93), (1.07, 1.4)
SHORT_RATIO, LONG_RATIO = 0.85, 1.15


def propose_cutoff(data: Dataset) -> tuple[float, str]:
    """Propose the cutoff of a pair of atoms, Å, and give the reason.

    The cutoff is the default of `SnapBasis`, or 1.7 times the distance of nearest neighbours if that is larger: without
    the second shell, large atoms such as alkali metals have too few neighbours.
    """
    distances = np.array([compute_neighbour_distance(atoms) for atoms in _sample_structures(data)])
    default = float(SnapBasis.model_fields["rcutfac"].default)
    if not np.isfinite(distances).any():
        return default, "the default, because no atoms have neighbours"
    distance = float(np.nanmedian(distances))
    if MIN_CUTOFF_RATIO * distance <= default:
        return default, f"the default, {default / distance:.2f} times the distance of nearest neighbours"
    cutoff = float(f"{MIN_CUTOFF_RATIO * distance:.3g}")
    return cutoff, f"{MIN_CUTOFF_RATIO:g} times the distance of nearest neighbours, which is {distance:.2f} Å"


def propose_bases(data: Dataset, cutoff: float, twojmax: Sequence[int]) -> list[str]:
    """Propose further bases as YAML: two other cutoffs (Å), the linear form, which affords a larger 2Jmax, and POD.

    A cutoff between two shells of neighbours hardly divides a shell, so that errors depend little on its exact value.
    """
    gaps = find_shell_gaps(_sample_structures(data), LONG_RANGE[1] * cutoff) / cutoff
    short = gaps[(gaps >= SHORT_RANGE[0]) & (gaps <= SHORT_RANGE[1])]
    longer = gaps[(gaps >= LONG_RANGE[0]) & (gaps <= LONG_RANGE[1])]
    ratios = {
        "short": (short.max(), True) if len(short) else (SHORT_RATIO, False),
        "long": (longer.min(), True) if len(longer) else (LONG_RATIO, False),
    }
    bases = [
        f"{{name: {name}, rcutfac: {ratio * cutoff:.3g}}}    # "
        f"{'between shells of neighbours' if is_gap else f'{ratio:g} times the cutoff above: no gap between shells'}"
        for name, (ratio, is_gap) in ratios.items()
    ]
    larger_sizes = [*twojmax, max(twojmax) + 2]
    return [
        *bases,
        f"{{name: linear, quadratic: false, twojmax: {larger_sizes}}}",
        f"{{name: pod, family: pod, twojmax: {list_pod_sizes(larger_sizes)}}}",
    ]


def list_pod_sizes(twojmax: Sequence[int]) -> list[int]:
    """List the sizes of POD models with about the MD cost of quadratic SNAP models."""
    return sorted({min(size + 2, MAX_POD_SIZE) for size in twojmax})


def _sample_structures(data: Dataset) -> list[Atoms]:
    return list(data.select(np.unique(np.linspace(0, len(data) - 1, MAX_SAMPLED_STRUCTURES).astype(int))))
