"""Draws of configurations without replacement in which a smaller subset is a prefix of a larger one."""

import numpy as np

from paretofit.core import Array, InputError


def sample_configurations(scores: Array, n: int, *, rng: np.random.Generator | None = None) -> Array:
    """Draw configurations one by one without replacement, with probabilities proportional to their scores.

    Parameters
    ----------
    scores : (n_configurations,) float64
        Non-negative scores: leverages, or equal numbers for uniform sampling. Configurations with a score of zero are
        drawn last, in random order.
    n : int
        Number of configurations to draw, at most all of them.
    rng : numpy.random.Generator, optional
        Without a generator, the configurations with the `n` highest scores are chosen, ties in order of position.

    Returns
    -------
    (n,) int64
        Positions, in the order drawn. With a generator in the same state, the draw of a smaller `n` is
        a prefix of the draw of a larger one, and has the distribution of a separate draw.

    Raises
    ------
    InputError
        If `n` is out of range, or a score is negative or not finite.

    Notes
    -----
    Successive sampling: configurations are sorted by exponential random variables with the rates `scores`
    (P. S. Efraimidis and P. G. Spirakis, Inf. Process. Lett. 97, 181 (2006)).

    Examples
    --------
    >>> import numpy as np
    >>> sample_configurations(np.array([0.1, 0.7, 0.2]), 2)
    array([1, 2])
    """
    values = np.asarray(scores, dtype=np.float64)
    if values.ndim != 1 or not (np.isfinite(values).all() and (values >= 0).all()):
        raise InputError("scores must be finite, non-negative numbers, one for each configuration")
    if not 1 <= n <= len(values):
        raise InputError(f"n must be at least 1 and at most the number of configurations, {len(values)}; got {n}")
    if rng is None:
        return np.argsort(-values, kind="stable")[:n]
    exponential_draws = rng.exponential(size=len(values))
    is_positive = values > 0
    with np.errstate(over="ignore"):  # tiny scores may overflow to infinity; lexsort still ranks them before zeros
        arrival_times = np.divide(exponential_draws, values, out=np.full(len(values), np.inf), where=is_positive)
    return np.lexsort((exponential_draws, arrival_times, ~is_positive))[:n]
