"""Which error bars cover the true errors of a linear model: bootstrap, subsets, posterior, POPS, conformal intervals.

On fresh splits of real data by families into rows that train, rows that calibrate and rows that test, at a 2Jmax too
small for the data (4: the model is misspecified) and a rich one (8). Then outside the domain, with more and more
training data, and what a committee costs against one fit.
"""

from __future__ import annotations

from dataclasses import dataclass
from itertools import product
from typing import TYPE_CHECKING

import numpy as np
import pandas as pd
from common import ROOT, Options, Skip, Table, design_of, larger_dataset, seconds, shipped_dataset, spread, stage
from scipy.stats import spearmanr
from threadpoolctl import threadpool_limits

from paretofit import Dataset, SnapBasis, fit_wls
from paretofit.dataset import relatives, split_configurations
from paretofit.descriptors.atoms import atom_descriptors
from paretofit.kinds import RowKind
from paretofit.lammps_library import process_lammps
from paretofit.linear.calibration import calibrate_conformal
from paretofit.linear.committee import METHODS, CommitteeFit
from paretofit.linear.extrapolation import EnvironmentGrade, verdict
from paretofit.linear.whitening import RowBlock

if TYPE_CHECKING:
    from collections.abc import Iterator

ENERGY_WEIGHT = 12.25
WEIGHTS = np.array([ENERGY_WEIGHT, 1.0, 1.0])
KINDS = {"energy": RowKind.ENERGY, "force": RowKind.FORCE}
COVERAGE, Z = 0.9, 1.645  # standard deviations of a Gaussian that hold this share
CONSTANT = "constant width"
SPLITS, HALVES, MEMBERS, FEW = {4: 100, 8: 20}, 8, 50, 6
BLOCK_ROWS = 8192
ZERO = 1e-3  # of the median norm of force rows: a component that (nearly) vanishes by symmetry
SIZES = (30, 60, 120, 240)
TRIED = ("bootstrap", "posterior", "pops", CONSTANT)
VERDICTS = ("inside", "at the edge", "outside")


@dataclass(frozen=True)
class Problem:
    """Rows of one set at one 2Jmax.

    Attributes
    ----------
    X : (n, p) float64
    y : (n,) float64
        eV/atom, eV/Å.
    kind, configuration : (n,) int
    seen : (n,) bool
        False for force components that vanish by symmetry: they train, and nothing is judged by them.
    group : (n_configurations,) int
        Families.
    """

    X: np.ndarray
    y: np.ndarray
    kind: np.ndarray
    configuration: np.ndarray
    seen: np.ndarray
    group: np.ndarray

    def rows(self, configurations: np.ndarray, kind: RowKind | None = None) -> np.ndarray:
        """``(m,)``: rows of some configurations that train, or those of one kind that are judged."""
        own = np.isin(self.configuration, configurations)
        return np.flatnonzero(own if kind is None else own & self.seen & (self.kind == kind))


@dataclass(frozen=True)
class Held:
    """Rows of one kind that no member has seen: residual of the fit, spread of the members, configuration."""

    residual: np.ndarray
    spread: np.ndarray
    configuration: np.ndarray

    def of(self, configurations: np.ndarray) -> Held:
        """Those of some configurations."""
        own = np.isin(self.configuration, configurations)
        return Held(self.residual[own], self.spread[own], self.configuration[own])

    def mean(self, values: np.ndarray) -> float:
        """Mean over configurations of their means."""
        return float(np.average(values, weights=1.0 / np.bincount(self.configuration)[self.configuration]))

    def rms(self, values: np.ndarray) -> np.ndarray:
        """``(n_configurations,)``: root mean squares."""
        counts = np.bincount(self.configuration)
        return np.sqrt(np.bincount(self.configuration, values**2)[counts > 0] / counts[counts > 0])


def run(options: Options) -> list[Table]:
    """All tables."""
    orders = (4,) if options.quick else (4, 8)
    splits, few = ({4: 2}, 1) if options.quick else (SPLITS, FEW)
    shipped = {order: problem(shipped_dataset(), "shipped", "5", order, options) for order in orders}
    tables = [compared("shipped", shipped, splits)]
    try:
        larger = {order: problem(larger_dataset(options.work), "larger", "vasp", order, options) for order in orders}
        tables.append(compared("larger", larger, splits))
    except Skip as reason:
        tables.append(Table("The larger beryllium set", ["skipped"], [[str(reason)]]))
    tables += [outside(shipped, few, options), shrinking(shipped[4], few)]
    return [*tables, cost(tables[1].header != ["skipped"], (4,) if options.quick else (4, 6, 8), options)]


def problem(dataset: Dataset, name: str, level: str, twojmax: int, options: Options) -> Problem:
    """Rows, labels and families of a dataset."""
    design = design_of(dataset, name, options, 4 if options.quick else 8)
    X = np.ascontiguousarray(design.rows()[:, : design.columns_up_to(twojmax)])
    force = design.kind == RowKind.FORCE
    norm = np.linalg.norm(X, axis=1)
    seen = ~force | (norm > ZERO * np.median(norm[force]))
    group = relatives(dataset.ids, dataset.info_records, ["parent", "trajectory"])
    return Problem(X, design.targets[level], design.kind, design.configuration, seen, group)


def three(group: np.ndarray, seed: int) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Configurations that train (60 %), calibrate and test (20 % each)."""
    split = split_configurations(group, 0.6, seed)
    return split.train, *halved(group, split.test, seed)


def halved(group: np.ndarray, rest: np.ndarray, seed: int) -> tuple[np.ndarray, np.ndarray]:
    """Two halves of some configurations, by families."""
    half = split_configurations(group[rest], 0.5, seed)
    return rest[half.train], rest[half.test]


def fitted(problem: Problem, train: np.ndarray, rng: np.random.Generator) -> CommitteeFit:
    """Fit some configurations."""
    rows = problem.rows(train)
    X, y, kind, configuration = (
        values[rows] for values in (problem.X, problem.y[:, None], problem.kind, problem.configuration)
    )

    def blocks() -> Iterator[RowBlock]:
        for start in range(0, len(X), BLOCK_ROWS):
            own = slice(start, start + BLOCK_ROWS)
            yield RowBlock(X[own], y[own], kind[own], configuration[own], np.ones(len(X[own]), dtype=bool))

    return CommitteeFit.of(blocks, problem.group, WEIGHTS, rng)


def held(problem: Problem, fit: CommitteeFit, members: np.ndarray, configurations: np.ndarray, kind: RowKind) -> Held:
    """Residuals and spreads of some configurations; the committee is centred on the fit."""
    rows = problem.rows(configurations, kind)
    X = problem.X[rows]
    return Held(
        problem.y[rows] - X @ fit.coefficients,
        (X @ (members - members.mean(axis=0)).T).std(axis=1),
        problem.configuration[rows],
    )


def constant(one: Held) -> Held:
    """The same residuals with one spread for all."""
    return Held(one.residual, np.ones_like(one.residual), one.configuration)


def half_width(calibrate: Held, test: Held) -> np.ndarray:
    """Of the conformal intervals; a configuration counts as one, however many force components it has."""
    found = calibrate_conformal(calibrate.spread, calibrate.residual, COVERAGE, calibrate.configuration)
    return found.half_width(test.spread)


def judged(calibrate: Held, test: Held) -> dict[str, float]:
    """What there is to say of one spread."""
    width, error = half_width(calibrate, test), np.abs(test.residual)
    equal = np.ptp(test.spread) == 0
    return {
        "rmse": 1e3 * float(np.sqrt(np.mean(error**2))),
        "bare": np.nan if equal else test.mean(error <= Z * test.spread),
        "coverage": test.mean(error <= width),
        "component": float(np.mean(error <= width)),
        "width": 1e3 * test.mean(width),
        "median": 1e3 * float(np.median([width[test.configuration == k].mean() for k in set(test.configuration)])),
        "rank": np.nan if equal else float(spearmanr(test.rms(test.spread), test.rms(error)).statistic),
    }


def compared(name: str, problems: dict[int, Problem], splits: dict[int, int]) -> Table:
    """Coverage, sharpness and rank correlation by method."""
    found = []
    for twojmax, one in problems.items():
        with stage(f"{splits[twojmax]} splits of the {name} set at 2Jmax = {twojmax}"):
            for seed in range(splits[twojmax]):
                methods = [m for m in METHODS if m != "subset" or seed < FEW or twojmax < 8]
                found += [{"twojmax": twojmax, **row} for row in one_split(one, seed, methods)]
    first = next(iter(problems.values()))
    families = len(np.unique(first.group))
    table = Table(
        f"The {name} set: {len(first.group)} configurations in {families} families, {len(first.y)} rows",
        ["2Jmax", "of", "RMSE", "method", "splits", "bare", "conformal", "by component", "width", "median", "rank"],
        notes=[
            (
                f"Mean over fresh splits by families: 60 % train, the others are divided {HALVES} times in halves that "
                f"calibrate and test; ± standard deviation over all of these. {MEMBERS} members, centred on the fit; "
                f"w_E/w_F = {ENERGY_WEIGHT:g}; RMSE and widths in meV/atom and meV/Å."
            ),
            (
                f"bare: share of errors within ± {Z} standard deviations of the members, nominally 0.90. conformal: "
                "within intervals calibrated to 0.90, a configuration counting as one; by component: the same, each "
                "force component counting as one. width, median: half widths of these, mean and median over "
                "configurations. rank: Spearman, root mean squared spread of a configuration with its error."
            ),
            (
                "constant width: no committee, the same interval for all. Force components that vanish by symmetry "
                f"({(~first.seen).sum()} rows with a norm below {ZERO:g} of the median) train but are not judged: "
                "they are covered by any interval."
            ),
        ],
    )
    for (twojmax, kind, method), own in pd.DataFrame(found).groupby(["twojmax", "kind", "method"], sort=False):
        mean, deviation = own.mean(numeric_only=True), own["coverage"].std()
        table.add(
            twojmax, kind, f"{mean['rmse']:.1f}", method, own["seed"].nunique(), share(mean["bare"]),
            f"{mean['coverage']:.3f} ± {deviation:.3f}", share(mean["component"]),
            f"{mean['width']:.1f}", f"{mean['median']:.1f}", share(mean["rank"]),
        )  # fmt: skip
    return table


def one_split(problem: Problem, seed: int, methods: list[str]) -> list[dict[str, object]]:
    """A row for each kind and method."""
    rng = np.random.default_rng(seed)
    split = split_configurations(problem.group, 0.6, seed)
    fit = fitted(problem, split.train, rng)
    halves = [halved(problem.group, split.test, HALVES * seed + k) for k in range(HALVES)]
    found = []
    for method in methods:
        members = fit.members(MEMBERS, rng, method=method)
        rest = {kind: held(problem, fit, members, split.test, number) for kind, number in KINDS.items()}
        for kind, (calibrate, test) in product(KINDS, halves):
            pair = rest[kind].of(calibrate), rest[kind].of(test)
            found.append({"seed": seed, "kind": kind, "method": method, **judged(*pair)})
            if method == methods[-1]:
                found.append({"seed": seed, "kind": kind, "method": CONSTANT, **judged(*map(constant, pair))})
    return sorted(found, key=lambda row: row["kind"])


def outside(shipped: dict[int, Problem], splits: int, options: Options) -> Table:
    """The same intervals for `beryllium_far`, by what the grade says."""
    near_set, far_set = shipped_dataset(), Dataset(ROOT / "data" / "beryllium_far.h5")
    found = []
    for twojmax, near in shipped.items():
        far = problem(far_set, "far", "5", twojmax, options)
        environments = [descriptors(one, twojmax) for one in (near_set, far_set)]
        with stage(f"{splits} splits and the far set at 2Jmax = {twojmax}"):
            for seed in range(splits):
                found += [{"twojmax": twojmax, **row} for row in far_split(near, far, environments, seed)]
    table = Table(
        f"Outside the domain: trained and calibrated on the shipped set, tested on beryllium_far ({len(far.group)})",
        ["2Jmax", "tested on", "grade", "share", "of", "RMSE", *TRIED],
        notes=[
            (
                f"Coverage of the conformal intervals of 0.90 by method, a configuration counting as one; {splits} "
                "splits taken together. meV/atom, meV/Å. test: the test part of the shipped set."
            ),
            (
                "grade: the highest of the configuration's atoms with respect to the atoms that train (linear "
                "components and a constant): inside up to 1, at the edge up to 2. share: of the configurations."
            ),
        ],
    )
    keys = ["twojmax", "set", "verdict", "kind"]
    for key, own in pd.DataFrame(found).groupby(keys, sort=False):
        total = own.sum(numeric_only=True)
        rmse = 1e3 * np.sqrt(total["squares"] / total["rows"])
        *before, kind = key
        table.add(
            *before, share(own["share"].mean()), kind, f"{rmse:.1f}", *(share(total[m] / total["n"]) for m in TRIED)
        )
    return table


def descriptors(dataset: Dataset, twojmax: int) -> list[np.ndarray]:
    """Linear components of the atoms of each configuration."""
    basis = SnapBasis(elements=["Be"], twojmax=twojmax)
    return [atom_descriptors(process_lammps(), basis, atoms) for atoms in dataset]


def far_split(
    near: Problem, far: Problem, environments: list[list[np.ndarray]], seed: int
) -> Iterator[dict[str, object]]:
    """A row for each set, verdict and kind: sums of coverages over configurations, and of squared errors over rows."""
    rng = np.random.default_rng(seed)
    train, calibrate, test = three(near.group, seed)
    fit = fitted(near, train, rng)
    committees = {method: fit.members(MEMBERS, rng, method=method) for method in TRIED[:-1]}
    grade = EnvironmentGrade.of(np.concatenate([environments[0][k] for k in train]))
    tried = {"test": (near, test, environments[0]), "far": (far, np.arange(len(far.group)), environments[1])}
    for name, (one, own, atoms) in tried.items():
        said = np.array([verdict(grade(atoms[k]).max()) for k in own])
        chosen = {"all": own, **{wanted: own[said == wanted] for wanted in VERDICTS}}
        for wanted, kind in product([key for key in chosen if len(chosen[key])], KINDS):
            row: dict[str, object] = {"set": name, "verdict": wanted, "kind": kind}
            for method, members in committees.items():
                a = held(near, fit, members, calibrate, KINDS[kind])
                b = held(one, fit, members, chosen[wanted], KINDS[kind])
                n = len(np.unique(b.configuration))
                row[method] = n * b.mean(np.abs(b.residual) <= half_width(a, b))
                row[CONSTANT] = n * b.mean(np.abs(b.residual) <= half_width(constant(a), constant(b)))
            row |= {"n": n, "rows": len(b.residual), "squares": float(b.residual @ b.residual)}
            yield {**row, "share": len(chosen[wanted]) / len(own)}


def shrinking(problem: Problem, splits: int) -> Table:
    """Error and spreads against the number of training configurations."""
    table = Table(
        "More data at 2Jmax = 4: the error and the spreads",
        ["configurations", "of", "RMSE", *METHODS, *(f"{method} / RMSE" for method in METHODS)],
        notes=[
            (
                f"The shipped set; root mean squares over the test set (meV/atom, meV/Å), median over {splits} "
                f"splits; spread: standard deviation of {MEMBERS} members."
            )
        ],
    )
    with stage(f"{splits} splits with {SIZES[0]} to {SIZES[-1]} configurations"):
        found = [row for seed in range(splits) for row in grown(problem, seed)]
    for (size, kind), own in pd.DataFrame(found).groupby(["size", "kind"]):
        middle = own[["rmse", *METHODS]].median()
        table.add(
            size,
            kind,
            *(f"{middle[key]:.3g}" for key in middle.index),
            *(f"{middle[m] / middle['rmse']:.2f}" for m in METHODS),
        )
    return table


def grown(problem: Problem, seed: int) -> Iterator[dict[str, object]]:
    """A row for each size and kind, of one split."""
    rng = np.random.default_rng(seed)
    train, _, test = three(problem.group, seed)
    train = rng.permutation(train)
    for size in SIZES:
        fit = fitted(problem, train[:size], rng)
        committees = {method: fit.members(MEMBERS, rng, method=method) for method in METHODS}
        for kind, number in KINDS.items():
            row: dict[str, object] = {"size": size, "kind": kind}
            for method, members in committees.items():
                one = held(problem, fit, members, test, number)
                row[method] = 1e3 * float(np.sqrt(np.mean(one.spread**2)))
                row["rmse"] = 1e3 * float(np.sqrt(np.mean(one.residual**2)))
            yield row


def cost(both: bool, orders: tuple[int, ...], options: Options) -> Table:
    """Seconds of committees as ratios to one plain fit."""
    table = Table(
        "What 100 members cost, in plain fits",
        ["set", "2Jmax", "rows", "fit_wls, s", "all moments", *(f"100 members: {method}" for method in METHODS)],
        notes=[
            (
                "The training part (60 %). fit_wls: one plain fit (QR) of it; the others as ratios "
                "to its median. all moments: `CommitteeFit.of`, once for every committee. One thread on both sides; "
                "minimum / median / maximum."
            )
        ],
    )
    sets = {"shipped": (shipped_dataset(), "5")}
    if both:
        sets["larger"] = (larger_dataset(options.work), "vasp")
    for (name, (dataset, level)), twojmax in product(sets.items(), orders):
        own = problem(dataset, name, level, twojmax, options)
        with stage(f"cost with the {name} set at 2Jmax = {twojmax}"), threadpool_limits(1):
            rows, plain, times = priced(own, options.repeats)
        table.add(
            name, twojmax, rows, " / ".join(spread(plain)), *(" / ".join(spread(t / np.median(plain))) for t in times)
        )
    return table


def priced(problem: Problem, repeats: int) -> tuple[int, np.ndarray, list[np.ndarray]]:
    """Rows, seconds of a plain fit, and those of all moments and of 100 members by each method."""
    rng = np.random.default_rng(0)
    train = three(problem.group, 0)[0]
    rows = problem.rows(train)
    arrays = problem.X[rows], problem.y[rows], problem.kind[rows]
    plain = seconds(lambda: fit_wls(*arrays, energy_weight=ENERGY_WEIGHT), repeats)
    moments = seconds(lambda: fitted(problem, train, rng), repeats)
    fit = fitted(problem, train, rng)
    return (
        len(rows),
        plain,
        [moments, *(seconds(lambda m=m: fit.members(100, rng, method=m), repeats) for m in METHODS)],
    )


def share(value: float) -> str:
    """A share or a correlation."""
    return "–" if np.isnan(value) else f"{value:.2f}"
