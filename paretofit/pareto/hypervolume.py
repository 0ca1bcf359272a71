"""The dominated hypervolume of a front: a single number by which fronts are compared."""

from collections.abc import Sequence

import moocore
import numpy as np
import pandas as pd

from paretofit.core import InputError
from paretofit.pareto.columns import check_objectives, extract_numbers, find_finite_rows


def compute_hypervolume(frame: pd.DataFrame, objectives: Sequence[str], reference: Sequence[float]) -> float:
    """Compute the volume between a front and a reference point; a larger volume means a better front.

    The volume is the Lebesgue measure of {z : x <= z <= r for some row x}, where r is the reference point. Rows that
    are dominated, or worse than the reference in some objective, do not contribute.

    Parameters
    ----------
    frame : DataFrame, (n_rows, n_columns)
        Any table, not necessarily a front.
    objectives : sequence of str
        Columns to minimise, with finite values.
    reference : sequence of float
        Reference point, in the order and the units of `objectives`.

    Returns
    -------
    float
        Volume in the product of the objectives' units; 0.0 if no row is below the reference.

    Raises
    ------
    InputError
        As in `pareto_front`, or if the reference does not consist of one finite number for each objective.

    Notes
    -----
    E. Zitzler and L. Thiele, IEEE Trans. Evol. Comput. 3, 257 (1999); computed by moocore, in
    O(n log n) for three objectives or fewer, O(n^2) for four, and O(n^(m-2)) at worst above, where n is the number of
    rows of the front.

    Examples
    --------
    >>> table = pd.DataFrame({"cost": [1.0, 2.0], "error": [2.0, 1.0]})
    >>> compute_hypervolume(table, ["cost", "error"], [3.0, 3.0])
    3.0
    """
    objectives = check_objectives(frame, objectives)
    corner = _check_reference_point(reference, objectives)
    values = extract_numbers(frame, objectives)
    find_finite_rows(values, drop_missing=False)
    points = values.to_numpy(dtype=np.float64)
    points = points[moocore.is_nondominated(points, keep_weakly=False)]
    return float(moocore.hypervolume(points, ref=corner))


def _check_reference_point(reference: Sequence[float], objectives: Sequence[str]) -> np.ndarray:
    try:
        corner = np.asarray(reference, dtype=np.float64)
    except (TypeError, ValueError):
        raise InputError(f"the reference point must consist of numbers; got {reference!r}") from None
    if corner.shape != (len(objectives),):
        raise InputError(
            f"the reference point must have one number for each of the {len(objectives)} objectives "
            f"({', '.join(objectives)}); got {corner.size}"
        )
    if not np.isfinite(corner).all():
        raise InputError(f"the reference point must be finite; got {corner.tolist()}")
    return corner
