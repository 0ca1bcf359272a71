"""Proposal of a cutoff, and of further bases to compare, for a dataset."""

from collections.abc import Sequence

import numpy as np
from ase import Atoms

from paretofit.dataset import Dataset
from paretofit.dataset.quality import compute_neighbour_distance, find_shell_gaps
from paretofit.descriptors import MAX_POD_SIZE, SnapBasis

# ratio of the cutoff to the distance of nearest neighbours; with smaller ratios, it may exclude the second shell
MIN_CUTOFF_RATIO = 1.7
MAX_SAMPLED_STRUCTURES = 100  # number of structures whose distances between neighbours are computed
# Cutoffs of further bases relative to the proposed cutoff: the range, and the ratio if no gap between shells is in it
SHORT_RANGE, LONG_RANGE = (0.72, 0.93), (1.07, 1.4)
SHORT_RATIO, LONG_RATIO = 0.85, 1.15


def propose_cutoff(dataset: Dataset) -> tuple[float, str]:
    """Propose the cutoff of a pair of atoms (Å), and describe the reason in a few words.

    The cutoff is the default of `SnapBasis`, or 1.7 times the distance of nearest neighbours if that is larger: without
    the second shell, large atoms such as alkali metals have too few neighbours.
    """
    distances = np.array([compute_neighbour_distance(atoms) for atoms in _sample_structures(dataset)])
    default = float(SnapBasis.model_fields["rcutfac"].default)
    if not np.isfinite(distances).any():
        return default, "the default, because no atoms have neighbours"
    distance = float(np.nanmedian(distances))
    if MIN_CUTOFF_RATIO * distance <= default:
        return default, f"the default, {default / distance:.2f} times the distance of nearest neighbours"
    cutoff = float(f"{MIN_CUTOFF_RATIO * distance:.3g}")
    return cutoff, f"{MIN_CUTOFF_RATIO:g} times the distance of nearest neighbours, which is {distance:.2f} Å"


def propose_bases(dataset: Dataset, cutoff: float, twojmax: Sequence[int]) -> list[str]:
    """Propose four further bases as YAML mappings: two other cutoffs, the linear form, and POD.

    The cutoffs lie between two shells of neighbours where possible, because errors then depend little on their exact
    values. The linear form has fewer coefficients than the quadratic one, so that a larger 2Jmax is affordable.

    Parameters
    ----------
    dataset : Dataset
    cutoff : float
        Cutoff of the first basis, Å.
    twojmax : sequence of int
        Values of 2Jmax of the study.
    """
    gap_ratios = find_shell_gaps(_sample_structures(dataset), LONG_RANGE[1] * cutoff) / cutoff
    short_ratios = gap_ratios[(gap_ratios >= SHORT_RANGE[0]) & (gap_ratios <= SHORT_RANGE[1])]
    long_ratios = gap_ratios[(gap_ratios >= LONG_RANGE[0]) & (gap_ratios <= LONG_RANGE[1])]
    ratios = {
        "short": (short_ratios.max(), True) if len(short_ratios) else (SHORT_RATIO, False),
        "long": (long_ratios.min(), True) if len(long_ratios) else (LONG_RATIO, False),
    }
    cutoff_variants = [
        f"{{name: {name}, rcutfac: {ratio * cutoff:.3g}}}    # "
        f"{'between shells of neighbours' if is_gap else f'{ratio:g} times the cutoff above: no gap between shells'}"
        for name, (ratio, is_gap) in ratios.items()
    ]
    larger_sizes = [*twojmax, max(twojmax) + 2]
    return [
        *cutoff_variants,
        f"{{name: linear, quadratic: false, twojmax: {larger_sizes}}}",
        f"{{name: pod, family: pod, twojmax: {list_pod_sizes(larger_sizes)}}}",
    ]


def list_pod_sizes(twojmax: Sequence[int]) -> list[int]:
    """List the sizes of POD models whose MD cost is about that of quadratic SNAP models with the given 2Jmax."""
    return sorted({min(size + 2, MAX_POD_SIZE) for size in twojmax})


def _sample_structures(dataset: Dataset) -> list[Atoms]:
    """Read at most `MAX_SAMPLED_STRUCTURES` structures, evenly spread over the dataset."""
    return list(dataset.select(np.unique(np.linspace(0, len(dataset) - 1, MAX_SAMPLED_STRUCTURES).astype(int))))
