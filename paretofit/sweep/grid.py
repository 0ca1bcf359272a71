"""The factors of a sweep and the subsets that its sampling methods draw."""

import zlib
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Literal, NamedTuple

import numpy as np

from paretofit.core import Array, InputError, check_choice
from paretofit.linear import LeverageScores, sample_configurations
from paretofit.pareto import MIXTURE_COLUMNS

LOO_COLUMNS = ["loo_energy", "loo_force", "loo_ref_energy", "loo_ref_force"]
Ridge = float | Literal["auto"]

# The score of each sampling method (None: uniform), and whether the method takes the highest scores without drawing.
SAMPLING_METHODS: dict[str, tuple[str | None, bool]] = {
    "random": (None, False),
    "leverage": ("regular", False),
    "block-leverage": ("block", False),
    "top-leverage": ("regular", True),
    "top-block-leverage": ("block", True),
}


class Subset(NamedTuple):
    """Training subset of the grid; `positions` are those of its configurations in the training set, ascending."""

    sampling: str
    repeat: int
    n_train: int
    positions: tuple[int, ...]


class Mixture(NamedTuple):
    """Training sets with labels of several levels.

    Attributes
    ----------
    name : str
        Name in the column ``level`` of the results.
    levels : tuple of str
        In order of cost; the fits predict the labels of the last one, the top level.
    lower_sizes : tuple of int
        Number of configurations at each level below the top one.
    top_sizes : tuple of int
        Numbers of configurations at the top level, each for a separate training set.
    sampling : str
        Method that draws the configurations of all levels but the first, a key of `SAMPLING_METHODS`.
    energy_weight : float
        Factor of the energy weight at all levels but the top one.
    """

    name: str
    levels: tuple[str, ...]
    lower_sizes: tuple[int, ...]
    top_sizes: tuple[int, ...]
    sampling: str
    energy_weight: float


@dataclass(frozen=True)
class SweepGrid:
    """The factors of the full factorial.

    Attributes
    ----------
    levels : sequence of str
        Convergence levels in order of cost; the last level is the reference.
    twojmax : sequence of int
        Angular orders 2Jmax of the models.
    weights : sequence of (float, float)
        Pairs w_E, w_F.
    sizes : sequence of int
        Numbers of configurations in a training subset.
    sampling_methods : sequence of str
        Keys of `SAMPLING_METHODS`.
    repetitions : int
        Number of draws of each random sampling method; a deterministic method has a single repetition.
    seed : int
        Seed of the draws.
    md_cost : mapping of int to float
        Microseconds for each atom and MD step by 2Jmax, where measured.
    ridge : sequence of float or "auto"
        Penalties of scaled coefficients; 0 for none, "auto" for the one with the smallest leave-one-out loss.
    leave_one_out : bool
        Whether leave-one-out errors of the training subset are computed, too.
    mixtures : sequence of Mixture
        Training sets with labels of several levels, which are also fitted for all 2Jmax and weights.
    """

    levels: Sequence[str]
    twojmax: Sequence[int]
    weights: Sequence[tuple[float, float]]
    sizes: Sequence[int]
    sampling_methods: Sequence[str] = ("random", "leverage", "block-leverage")
    repetitions: int = 10
    seed: int = 1
    md_cost: Mapping[int, float] = field(default_factory=dict)
    ridge: Sequence[Ridge] = (0.0,)
    leave_one_out: bool = False
    mixtures: Sequence[Mixture] = ()

    @property
    def level_names(self) -> list[str]:
        """Levels and mixtures in order of cost, the reference last: each mixture is before its top level."""
        names = []
        for level in self.levels:
            names += [mixture.name for mixture in self.mixtures if mixture.levels[-1] == level]
            names.append(level)
        return names

    def check(self, n_train: int) -> None:
        """Raise InputError if a value is invalid, or a subset needs more than `n_train` training configurations.

        `check_mixtures` checks the mixtures.
        """
        for name in ("levels", "twojmax", "weights", "sizes", "sampling_methods", "ridge"):
            values = getattr(self, name)
            if not values:
                raise InputError(f"'{name}' must have at least one entry; got none")
            if len(set(values)) != len(values):
                raise InputError(f"'{name}' must not have the same entry twice; got {list(values)}")
        self._check_numbers()
        for sampling in self.sampling_methods:
            check_choice("an entry of 'sampling_methods'", sampling, SAMPLING_METHODS)
        for size in self.sizes:
            if not 1 <= size <= n_train:
                raise InputError(
                    f"'sizes' must be between 1 and the number of training configurations, {n_train}; got {size}"
                )

    def _check_numbers(self) -> None:
        for pair in self.weights:
            if not all(np.isfinite(weight) and weight > 0 for weight in pair):
                raise InputError(f"'weights' must be positive numbers; got {pair[0]} : {pair[1]}")
        for ridge in self.ridge:
            if ridge != "auto" and not 0 <= ridge < np.inf:
                raise InputError(f"'ridge' must be non-negative numbers or 'auto'; got {ridge}")

    def count_fits(self) -> int:
        """Count the rows of the results table."""
        n_draws = sum(self.count_repetitions(sampling) for sampling in self.sampling_methods)
        n_models = len(self.twojmax) * len(self.weights) * len(self.ridge)
        return n_models * (len(self.levels) * len(self.sizes) * n_draws + self.count_mixture_draws())

    def count_mixture_draws(self) -> int:
        """Count the training sets of all mixtures."""
        return sum(len(mixture.top_sizes) * self.count_repetitions(mixture.sampling) for mixture in self.mixtures)

    def list_extra_columns(self) -> list[str]:
        """List the columns of the results table in addition to the standard ones."""
        ridge = ["ridge", "ridge_lambda"] if list(self.ridge) != [0.0] else []
        mixtures = list(MIXTURE_COLUMNS) if self.mixtures else []
        return ridge + (LOO_COLUMNS if self.leave_one_out else []) + mixtures

    def count_repetitions(self, sampling: str) -> int:
        """Count the repetitions of a sampling method; 1 for a deterministic method."""
        return 1 if SAMPLING_METHODS[sampling][1] else self.repetitions

    def draw_subsets(self, scores: LeverageScores | None, n_train: int) -> Iterator[Subset]:
        """Draw every subset of `n_train` configurations; those of one sampling method and repetition are nested.

        The random generator of each draw depends only on the seed, the name of the method and the repetition, so that
        adding a method or a size does not change other subsets.
        """
        for sampling in self.sampling_methods:
            for repeat in range(self.count_repetitions(sampling)):
                order = self.draw_order(sampling, repeat, scores, n_train, max(self.sizes))
                for size in self.sizes:
                    yield Subset(sampling, repeat, size, tuple(sorted(order[:size].tolist())))

    def draw_order(self, sampling: str, repeat: int, scores: LeverageScores | None, n_train: int, n: int) -> Array:
        """Draw `n` of the training configurations by a sampling method; return their positions in order of drawing.

        Only leverage sampling needs scores.
        """
        score_name, is_deterministic = SAMPLING_METHODS[sampling]
        drawing_scores = np.ones(n_train) if score_name is None else getattr(scores, score_name)
        seed = np.random.SeedSequence(self.seed, spawn_key=(zlib.crc32(sampling.encode()), repeat))
        return sample_configurations(drawing_scores, n, rng=None if is_deterministic else np.random.default_rng(seed))
