"""Which error bars cover the true errors of a linear model: bootstrap, subsets, posterior, POPS, conformal intervals.

On random splits of real data by groups into training, calibration and test set, at a 2Jmax that is too small for the
data (4: the model is misspecified) and at a large one (8). Then far from the training set, with growing training sets,
and the cost of a committee relative to one fit.
"""

from __future__ import annotations

from itertools import product
from typing import TYPE_CHECKING

import numpy as np
import pandas as pd
from common import ROOT, Options, Skip, Table, seconds, shipped_dataset, spread, stage
from scipy.stats import spearmanr
from threadpoolctl import threadpool_limits
from uncertainty_sets import (
    ENERGY_WEIGHT,
    KINDS,
    UNITS,
    ZERO,
    Held,
    Problem,
    basis_of,
    fitted,
    halved,
    held,
    larger_with_stress,
    problem,
    three,
)

from paretofit import Dataset, fit_wls
from paretofit.core import get_shared_lammps
from paretofit.dataset import split_configurations
from paretofit.descriptors import compute_atom_descriptors
from paretofit.potentials.assessment import MIN_ATOMS_PER_COLUMN
from paretofit.uncertainty import COMMITTEE_METHODS, EnvironmentGrade, calibrate_conformal, classify_grade
from paretofit.uncertainty.committee import MIN_RELATIVE_LEVERAGE
from paretofit.uncertainty.conformal import MIN_RELATIVE_SPREAD
from paretofit.uncertainty.extrapolation import EXTRAPOLATION_GRADE, STRONG_EXTRAPOLATION_GRADE

if TYPE_CHECKING:
    from collections.abc import Iterator

COVERAGE, Z = 0.9, 1.645  # standard deviations of a Gaussian that hold this share
CONSTANT = "constant width"
SPLITS, HALVES, MEMBERS, FEW = {4: 100, 8: 20}, 8, 50, 6
SIZES = (30, 60, 120, 240)
TRIED = ("bootstrap", "posterior", "pops", CONSTANT)
WIDTHS = ("width", "median", "rank")
GRADE_CLASSES = ("interpolation", "extrapolation", "strong extrapolation")


def run(options: Options) -> list[Table]:
    """Compute all tables."""
    orders = (4,) if options.quick else (4, 8)
    splits, few = ({4: 2}, 1) if options.quick else (SPLITS, FEW)
    shipped = {order: problem(shipped_dataset(), "shipped", "5", order, options) for order in orders}
    tables = [compared("shipped", shipped, splits)]
    try:
        larger = {order: problem(larger_with_stress(options), "larger", "vasp", order, options) for order in orders}
        tables.append(compared("larger", larger, splits))
    except Skip as reason:
        tables.append(Table("The larger beryllium set", ["skipped"], [[str(reason)]]))
    tables += [outside(shipped, few, options), shrinking(shipped[4], few)]
    return [*tables, cost(tables[1].header != ["skipped"], (4,) if options.quick else (4, 6, 8), options)]


def half_width(calibrate: Held, test: Held) -> np.ndarray:
    """Half width of the conformal intervals; all components of a configuration count as one."""
    intervals = calibrate_conformal(calibrate.spread, calibrate.residual, COVERAGE, calibrate.configuration)
    return intervals.compute_half_width(test.spread)


def evaluate_spread(calibrate: Held, test: Held, unit: float) -> dict[str, float]:
    """Coverage, width and rank correlation of a spread."""
    calibrate_all, calibrate, test = calibrate, calibrate.without_vanishing(), test.without_vanishing()
    width, error = half_width(calibrate, test), np.abs(test.residual)
    equal = np.ptp(test.spread) == 0
    return {
        "rmse": unit * float(np.sqrt(np.mean(error**2))),
        "bare": np.nan if equal else test.mean(error <= Z * test.spread),
        "coverage": test.mean(error <= width),
        "all": np.nan if equal else test.mean(error <= half_width(calibrate_all, test)),
        "component": float(np.mean(error <= width)),
        "width": unit * test.mean(width),
        "median": unit * float(np.median(test.means(width))),
        "rank": np.nan if equal else float(spearmanr(test.means(test.spread**2), test.means(error**2)).statistic),
    }


def compared(name: str, problems: dict[int, Problem], splits: dict[int, int]) -> Table:
    """Coverage, sharpness and rank correlation by method."""
    records = []
    for twojmax, problem_at_twojmax in problems.items():
        with stage(f"{splits[twojmax]} splits of the {name} set at 2Jmax = {twojmax}"):
            for seed in range(splits[twojmax]):
                methods = [m for m in COMMITTEE_METHODS if m != "subset" or seed < FEW or twojmax < 8]
                records += [{"twojmax": twojmax, **row} for row in one_split(problem_at_twojmax, seed, methods)]
    first = next(iter(problems.values()))
    groups, rows = len(np.unique(first.group)), int(np.isfinite(first.y).sum())
    table = Table(
        f"The {name} set: {len(first.group)} configurations in {groups} groups, {rows} labels",
        ["2Jmax", "of", "RMSE", "method", "splits", "bare", "conformal", "by all rows", "by component", *WIDTHS],
        notes=notes_of(name, first),
    )
    for (twojmax, kind, method), group in pd.DataFrame(records).groupby(["twojmax", "kind", "method"], sort=False):
        mean, deviation = group.mean(numeric_only=True), group["coverage"].std()
        table.add(
            twojmax, kind, sized(mean["rmse"], kind), method, group["seed"].nunique(), share(mean["bare"]),
            f"{mean['coverage']:.3f} ± {deviation:.3f}", share(mean["all"]), share(mean["component"]),
            sized(mean["width"], kind), sized(mean["median"], kind), share(mean["rank"]),
        )  # fmt: skip
    return table


def notes_of(name: str, first: Problem) -> list[str]:
    """Notes below the table of a set."""
    vanishing = " and ".join(f"{first.vanishing(KINDS[kind])} {kind}" for kind in ("force", "stress"))
    stresses = len(np.unique(first.configuration[first.labelled(first.configuration, KINDS["stress"])]))
    records = [
        (
            f"Mean over random splits by groups: 60 % are the training set, the others are divided {HALVES} times into "
            f"calibration and test set; ± standard deviation over all of these. {MEMBERS} members, centred on the fit; "
            f"w_E/w_F = {ENERGY_WEIGHT:g}; stresses do not train, and {stresses} of {len(first.group)} configurations "
            "have them. RMSE and widths in meV/atom, meV/Å and GPa."
        ),
        (
            "Each configuration is a separate group, since the data contain no group keys: frames of one molecular "
            "dynamics run may be in both parts of a split."
        ),
        (
            f"bare: share of errors within ± {Z} standard deviations of the members, nominally 0.90. conformal: "
            "within intervals calibrated to 0.90, a configuration counting as one; by component: the same, each "
            "component counting as one. width, median: half widths of these, mean and median over "
            "configurations. rank: Spearman, root mean squared spread of a configuration with its error."
        ),
        (
            f"Components that vanish by symmetry ({vanishing} rows with a norm below {ZERO:g} of their kind's median) "
            "are excluded from calibration and test: any interval covers them. by all rows: conformal, if they are "
            f"included, like the rest, as in `fit --committee`, where spreads below {MIN_RELATIVE_SPREAD:g} of the "
            "median are set apart; tested as before. constant width: no committee, the same interval for all."
        ),
        f"pops: from rows with at least {MIN_RELATIVE_LEVERAGE:g} of the mean leverage.",
    ]
    if name == "larger":
        records.append(
            "Mean widths and RMSE are dominated by a few configurations of equations of state far up in energy: read "
            "the medians. The files say that stresses are in bar; they are in kbar (their median ratio "
            "to what a model of energies and forces at 2Jmax = 8 foretells is then 1.00), and are taken so here."
        )
    return records


def one_split(problem: Problem, seed: int, methods: list[str]) -> list[dict[str, object]]:
    """A row for each kind and method."""
    rng = np.random.default_rng(seed)
    split = split_configurations(problem.group, 0.6, seed)
    fit = fitted(problem, split.train, rng)
    halves = [halved(problem.group, split.test, HALVES * seed + k) for k in range(HALVES)]
    records = []
    for method in methods:
        members = fit.draw_members(MEMBERS, rng, method=method)
        rest = {kind: held(problem, fit, members, split.test, number) for kind, number in KINDS.items()}
        for kind, (calibrate, test) in product(KINDS, halves):
            pair = rest[kind].of(calibrate), rest[kind].of(test)
            records.append({"seed": seed, "kind": kind, "method": method, **evaluate_spread(*pair, UNITS[kind])})
            if method == methods[-1]:
                alike = (part.constant() for part in pair)
                records.append({"seed": seed, "kind": kind, "method": CONSTANT, **evaluate_spread(*alike, UNITS[kind])})
    return sorted(records, key=lambda row: row["kind"])


def outside(shipped: dict[int, Problem], splits: int, options: Options) -> Table:
    """Intervals for `beryllium_far` by extrapolation grade."""
    near_set, far_set = shipped_dataset(), Dataset(ROOT / "data" / "beryllium_far.h5")
    records = []
    for twojmax, near in shipped.items():
        far = problem(far_set, "far", "5", twojmax, options)
        environments = [descriptors(data, twojmax) for data in (near_set, far_set)]
        with stage(f"{splits} splits and the far set at 2Jmax = {twojmax}"):
            for seed in range(splits):
                group = far_split(near, far, environments, seed)
                records += [{**row, "twojmax": twojmax, "by": f"{row['by']} at 2Jmax = {twojmax}"} for row in group]
    table = Table(
        f"Outside the domain: trained and calibrated on the shipped set, tested on beryllium_far ({len(far.group)})",
        ["2Jmax", "tested on", "grade", "share", "of", "RMSE", *TRIED],
        notes=[
            (
                f"Coverage of the conformal intervals of 0.90 by method, a configuration counting as one; {splits} "
                "splits taken together. meV/atom, meV/Å, GPa. test: the test part of the shipped set."
            ),
            (
                "grade: the highest of the configuration's atoms with respect to the training set: interpolation up to "
                f"{EXTRAPOLATION_GRADE:g}, extrapolation up to {STRONG_EXTRAPOLATION_GRADE:g}. share: of the "
                "configurations. By the features of the quadratic model where there are "
                f"{MIN_ATOMS_PER_COLUMN} atoms for each column, else by a constant and the linear "
                f"components, as `fit --committee` does: {'; '.join(dict.fromkeys(row['by'] for row in records))}."
            ),
        ],
    )
    keys = ["twojmax", "set", "verdict", "kind"]
    for key, group in pd.DataFrame(records).groupby(keys, sort=False):
        total = group.sum(numeric_only=True)
        *before, kind = key
        rmse = UNITS[kind] * np.sqrt(total["squares"] / total["rows"])
        table.add(
            *before,
            share(group["share"].mean()),
            kind,
            sized(rmse, kind),
            *(share(total[m] / total["n"]) for m in TRIED),
        )
    return table


def descriptors(dataset: Dataset, twojmax: int) -> list[np.ndarray]:
    """Linear components of the atoms of each configuration."""
    return [compute_atom_descriptors(get_shared_lammps(), basis_of(twojmax), atoms) for atoms in dataset]


def far_split(
    near: Problem, far: Problem, environments: list[list[np.ndarray]], seed: int
) -> Iterator[dict[str, object]]:
    """A row for each set, grade and kind: sums of coverages over configurations, and of squared errors over rows."""
    rng = np.random.default_rng(seed)
    train, calibrate, test = three(near.group, seed)
    fit = fitted(near, train, rng)
    committees = {method: fit.draw_members(MEMBERS, rng, method=method) for method in TRIED[:-1]}
    atoms, columns = np.concatenate([environments[0][k] for k in train]), near.X.shape[1]
    grade = EnvironmentGrade.from_descriptors(atoms, quadratic=len(atoms) >= MIN_ATOMS_PER_COLUMN * columns)
    by = f"{'quadratic' if grade.quadratic else 'linear'} (about {round(len(atoms), -2)} atoms for {columns} columns)"
    tried = {"test": (near, test, environments[0]), "far": (far, np.arange(len(far.group)), environments[1])}
    for name, (tested_problem, indices, atoms) in tried.items():
        grades = np.array([classify_grade(grade(atoms[k]).max()) for k in indices])
        chosen = {"all": indices, **{wanted: indices[grades == wanted] for wanted in GRADE_CLASSES}}
        for wanted, kind in product([key for key in chosen if len(chosen[key])], KINDS):
            row: dict[str, object] = {"set": name, "verdict": wanted, "kind": kind}
            for method, members in committees.items():
                a = held(near, fit, members, calibrate, KINDS[kind])
                b = held(tested_problem, fit, members, chosen[wanted], KINDS[kind]).without_vanishing()
                n = len(np.unique(b.configuration))
                for key, pair in {method: (a.without_vanishing(), b), CONSTANT: (a.constant(), b.constant())}.items():
                    row[key] = n and n * b.mean(np.abs(b.residual) <= half_width(*pair))
            row |= {"n": n, "rows": len(b.residual), "squares": float(b.residual @ b.residual), "by": by}
            yield {**row, "share": len(chosen[wanted]) / len(indices)}


def shrinking(problem: Problem, splits: int) -> Table:
    """Errors and spreads as functions of the number of training configurations."""
    table = Table(
        "More data at 2Jmax = 4: the error and the spreads",
        ["configurations", "of", "RMSE", *COMMITTEE_METHODS, *(f"{method} / RMSE" for method in COMMITTEE_METHODS)],
        notes=[
            (
                f"The shipped set; root mean squares over the test set (meV/atom, meV/Å), median over {splits} "
                f"splits; spread: standard deviation of {MEMBERS} members."
            )
        ],
    )
    with stage(f"{splits} splits with {SIZES[0]} to {SIZES[-1]} configurations"):
        records = [row for seed in range(splits) for row in grown(problem, seed)]
    for (size, kind), group in pd.DataFrame(records).groupby(["size", "kind"]):
        middle = group[["rmse", *COMMITTEE_METHODS]].median()
        table.add(
            size,
            kind,
            *(f"{middle[key]:.3g}" for key in middle.index),
            *(f"{middle[m] / middle['rmse']:.2f}" for m in COMMITTEE_METHODS),
        )
    return table


def grown(problem: Problem, seed: int) -> Iterator[dict[str, object]]:
    """A row for each size and kind of a split."""
    rng = np.random.default_rng(seed)
    train, _, test = three(problem.group, seed)
    train = rng.permutation(train)
    for size in SIZES:
        fit = fitted(problem, train[:size], rng)
        committees = {method: fit.draw_members(MEMBERS, rng, method=method) for method in COMMITTEE_METHODS}
        for kind in ("energy", "force"):
            row: dict[str, object] = {"size": size, "kind": kind}
            for method, members in committees.items():
                test_set = held(problem, fit, members, test, KINDS[kind]).without_vanishing()
                row[method] = 1e3 * float(np.sqrt(np.mean(test_set.spread**2)))
                row["rmse"] = 1e3 * float(np.sqrt(np.mean(test_set.residual**2)))
            yield row


def cost(with_larger_set: bool, orders: tuple[int, ...], options: Options) -> Table:
    """Seconds of committees, relative to a single fit."""
    table = Table(
        "Cost of 100 members, in single fits",
        [
            "set",
            "2Jmax",
            "rows",
            "fit_wls, s",
            "all moments",
            *(f"100 members: {method}" for method in COMMITTEE_METHODS),
        ],
        notes=[
            (
                "The training part (60 %). fit_wls: one plain fit (QR) of it; the others as ratios "
                "to its median. all moments: `CommitteeFit.of`, once for every committee. One thread on both sides; "
                "minimum / median / maximum."
            )
        ],
    )
    sets = {"shipped": (shipped_dataset(), "5")}
    if with_larger_set:
        sets["larger"] = (larger_with_stress(options), "vasp")
    for (name, (dataset, level)), twojmax in product(sets.items(), orders):
        set_problem = problem(dataset, name, level, twojmax, options)
        with stage(f"cost with the {name} set at 2Jmax = {twojmax}"), threadpool_limits(1):
            rows, plain, times = priced(set_problem, options.repeats)
        table.add(
            name, twojmax, rows, " / ".join(spread(plain)), *(" / ".join(spread(t / np.median(plain))) for t in times)
        )
    return table


def priced(problem: Problem, repeats: int) -> tuple[int, np.ndarray, list[np.ndarray]]:
    """Rows, seconds of a single fit, and those of all moments and of 100 members by each method."""
    rng = np.random.default_rng(0)
    train = three(problem.group, 0)[0]
    rows = problem.training_rows(train)
    arrays = problem.X[rows], problem.y[rows], problem.kind[rows]
    plain = seconds(lambda: fit_wls(*arrays, energy_weight=ENERGY_WEIGHT), repeats)
    moments = seconds(lambda: fitted(problem, train, rng), repeats)
    fit = fitted(problem, train, rng)
    return (
        len(rows),
        plain,
        [moments, *(seconds(lambda m=m: fit.draw_members(100, rng, method=m), repeats) for m in COMMITTEE_METHODS)],
    )


def share(value: float) -> str:
    """Format a fraction or a correlation."""
    return "–" if np.isnan(value) else f"{value:.2f}"


def sized(value: float, kind: str) -> str:
    """Format an error or a width: meV/atom, meV/Å or GPa."""
    return f"{value:.2f}" if kind == "stress" else f"{value:.1f}"
