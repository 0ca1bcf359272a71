"""The runs that bracket the published study: how large they are, the whole study's size, and what one run took."""

from __future__ import annotations

import math
from dataclasses import dataclass

from paretofit.descriptors import SnapBasis

FILES = ("design", "reduction", "journal")
STAGES = ("describe", "reduce", "sweep", "analyse", "report")
SIZES = (100, 200, 350, 500, 750, 1000, 1500, 2250, 3000, 5000, 7500, 10_000)
WEIGHTS = (5, 10, 12.25, 50, 150, 300)
SAMPLINGS = ("random", "leverage", "block-leverage")
ATOMS, N_LEVELS = 50, 6


def scaled_sizes(n_train: int) -> list[int]:
    """The twelve sizes brought down to a smaller training half: 100 stays, all of 10,000 become all of `n_train`.

    A factor for all would make subsets that have fewer rows than the model has columns, which the real study has not,
    and which are fitted another way.
    """
    smallest = min(SIZES[0], max(2, n_train // 3))
    power = math.log(n_train / smallest) / math.log(SIZES[-1] / SIZES[0])
    return [round(smallest * (size / SIZES[0]) ** power) for size in SIZES]


@dataclass(frozen=True)
class Plan:
    """A study to run.

    Attributes
    ----------
    n : int
        Configurations, half of which train.
    twojmax : tuple of int
    repetitions : int
    n_sizes : int
        Of the twelve subset sizes, the largest.
    """

    n: int
    twojmax: tuple[int, ...]
    repetitions: int = 1
    n_sizes: int = len(SIZES)

    @property
    def sizes(self) -> list[int]:
        """Configurations of every subset, the whole training half included."""
        return scaled_sizes(self.n // 2)[-self.n_sizes :]

    @property
    def columns(self) -> int:
        """Number of columns of the design."""
        return SnapBasis(elements=["Be"], twojmax=max(self.twojmax)).n_features

    def size(self, rows: int) -> Size:
        """What the formulas need; all draws share the fits to the whole training half."""
        draws = len(SAMPLINGS) * self.repetitions
        cells = draws * len(self.sizes) * len(WEIGHTS)
        subsets = draws * (len(self.sizes) - 1) + 1
        grown = draws * max(self.sizes[:-1]) * rows // self.n
        return Size(self.n, rows, self.columns, grown, subsets * len(WEIGHTS), cells * len(self.twojmax) * N_LEVELS)


@dataclass(frozen=True)
class Size:
    """How large a study is.

    Attributes
    ----------
    configurations, rows, columns : int
    grown : int
        Rows that the moments of all draws grow by.
    factors : int
        Cholesky factors: subsets times weights.
    fits : int
    """

    configurations: int
    rows: int
    columns: int
    grown: int
    factors: int
    fits: int

    @property
    def reduction(self) -> float:
        """Work of the reduction."""
        return float(self.rows) * self.columns**2

    @property
    def sweep(self) -> tuple[float, float, float]:
        """Work of the sweep, by what it grows with: moments, factors, fits."""
        return float(self.grown) * self.columns**2, float(self.factors) * self.columns**3, float(self.fits)


WHOLE_PLAN = Plan(20_000, (4, 6, 8, 10), 50)
WHOLE = WHOLE_PLAN.size(WHOLE_PLAN.n * (1 + 3 * ATOMS))
PLANS = {
    "A1": Plan(20_000, (4, 6, 8)),
    "A3": Plan(6_667, (4, 6, 8)),
    "A9": Plan(2_222, (4, 6, 8)),
    "B1": Plan(4_500, (4, 6, 8, 10)),
    "B3": Plan(1_500, (4, 6, 8, 10)),
    "B9": Plan(500, (4, 6, 8, 10)),
    "C1": Plan(1_000, (1, 2, 3, 4), 50),
}
QUICK = {"A1": Plan(60, (2,), n_sizes=2), "B1": Plan(30, (2, 4), n_sizes=2)}


@dataclass
class Measured:
    """Measurements of a run.

    Attributes
    ----------
    plan : Plan
    cores : int
    rows : int
    fits : int
    seconds : dict of str to float
        Wall clock by stage.
    cpu : dict of str to float
        CPU seconds by stage, and under "" of what is before and after, of all processes; seen once a second, so that
        short stages may be missing.
    memory : dict of str to float
        MB by stage: the main process, its peak until the stage's end.
    memory_of_all : dict of str to float
        MB by stage: all processes at once, what they share counted once, seen once a second; not of short stages.
    files : dict of str to int
        Bytes: design, reduction, journal, and the whole folder without the dataset.
    solvers : dict of str to [int, int]
        Number of fits and largest subset by solver.
    """

    plan: Plan
    cores: int
    rows: int
    fits: int
    seconds: dict[str, float]
    cpu: dict[str, float]
    memory: dict[str, float]
    memory_of_all: dict[str, float]
    files: dict[str, int]
    solvers: dict[str, list[int]]

    @property
    def size(self) -> Size:
        """Of its study."""
        return self.plan.size(self.rows)

    def clock(self, name: str, *, cpu: bool = False) -> float:
        """Seconds of a stage: wall clock, or CPU if it was measured."""
        return (self.cpu.get(name, 0.0) if cpu else 0.0) or self.seconds[name]

    def largest_memory(self, name: str) -> float:
        """Memory of a stage (MB): of all processes if measured, else of the main process, with mapped files."""
        return self.memory_of_all.get(name, self.memory[name])
