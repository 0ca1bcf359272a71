"""Do models learn what is wrong with their labels: figures, table and words on residuals against label errors.

After Figures S4 to S7 of Baghishov et al., Digital Discovery (2025). Also the two figures that stand beside those of
the results: training errors over weights (Fig. 4a) and the energy error against DFT cost (Fig. S8).
"""

from collections.abc import Iterator, Sequence
from typing import Any, Literal

import numpy as np
import pandas as pd
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.lines import Line2D
from matplotlib.patheffects import withStroke

from paretofit.report.figures import axes as axes_tools
from paretofit.report.figures import style
from paretofit.report.figures.drawing import FigurePlan
from paretofit.report.figures.front_figures import add_cost_column, plot_front_panels
from paretofit.report.figures.sweep_figures import (
    ENERGY_LABEL,
    FORCE_LABEL,
    CannotDrawError,
    annotate_weights,
    draw_level_line,
    select_path_curve,
    select_tradeoff_rows,
)
from paretofit.report.page.sweep_page import ReportTable
from paretofit.report.tables.summaries import compute_fronts_by_twojmax, compute_medians, describe_subset
from paretofit.report.wording import format_count, format_levels, format_number, format_ratio, join_items

Kind = Literal["energy", "force"]
UNITS: dict[str, str] = {"energy": "meV/atom", "force": "meV/Å"}
CLEAR = 3.0  # times 1/√n, the spread of the correlation of n unrelated pairs: above it a correlation counts
_SHOWN = 0.98  # share of the points that the limits of a panel span in each direction
_MANY = 500  # points of a panel, which then are paler
_EXACT = 1e-6  # times the median: training errors below it are rounding, where a model has as many features as rows
_HALO = [withStroke(linewidth=2.2, foreground="white")]
_GUIDES: dict[str, dict[str, Any]] = {
    "residual = label error: ignored": {"color": "#444444", "linestyle": "--", "linewidth": 0.9},
    "residual = 0: learned": {"color": "#444444", "linestyle": ":", "linewidth": 1.1},
    "least squares": {"color": "black", "linestyle": "-", "linewidth": 1.1},
}


def plot_label_noise(points: pd.DataFrame, table: pd.DataFrame, levels: Sequence[str], kind: Kind) -> np.ndarray:
    """Residual of a model on its own level against the error of the labels: a row of panels per level.

    Parameters
    ----------
    points : DataFrame
        ``weight_ratio``, ``level``, ``kind``, ``error`` and ``residual`` (meV/atom, meV/Å) of test rows.
    table : DataFrame
        A row per weight, level and kind, both as `paretofit.sweep.noise.correlate_label_noise` gives them.
    levels : names by cost, the last is the reference
    kind : what to draw, energies per atom or force components

    Returns
    -------
    (n_levels, n_weights) array of Axes, cheapest level and smallest w_E/w_F first
    """
    own = points.assign(level=points["level"].astype(str))[(points["kind"] == kind).to_numpy(dtype=bool)]
    some = own[np.isfinite(own[["error", "residual"]].to_numpy(dtype=float)).all(axis=1)]
    present = [level for level in levels if level in set(some["level"])]
    if not present:
        raise CannotDrawError(f"There are no residuals of the {'energies' if kind == 'energy' else 'forces'} to draw.")
    ratios = sorted(set(some["weight_ratio"]))
    with style.publication_style():
        size = (style.PAGE_WIDTH_IN if len(ratios) > 1 else style.COLUMN_WIDTH_IN, 1.55 * len(present) + 0.5)
        axes = Figure(figsize=size, layout="constrained").subplots(len(present), len(ratios), squeeze=False)
        for row, level in zip(axes, present, strict=True):
            for ax, ratio in zip(row, ratios, strict=True):
                part = some[(some["level"] == level) & (some["weight_ratio"] == ratio)]
                told = table[(table["kind"] == kind) & (table["weight_ratio"] == ratio)]
                _draw_noise(ax, part, told[told["level"].astype(str) == level], level, levels)
                ax.set_title(
                    f"level {style.escape_mathtext(level)}, $w_E/w_F$ = {format_ratio(ratio)}", loc="left", fontsize=7
                )
            row[0].set_ylabel(f"residual ({UNITS[kind]})")
        for ax in axes[-1]:
            ax.set_xlabel(f"label error ({UNITS[kind]})")
        handles = [Line2D([], [], label=label, **line) for label, line in _GUIDES.items()]
        style.get_parent_figure(axes).align_ylabels(axes[:, 0])
        style.get_parent_figure(axes).legend(
            handles=handles, loc="outside lower center", ncols=3 if len(ratios) > 1 else 1
        )
    return axes


def _draw_noise(ax: Axes, part: pd.DataFrame, told: pd.DataFrame, level: str, levels: Sequence[str]) -> None:
    """One panel: the points, the two lines between which a model can be, and the line through the points."""
    x, y = part["error"].to_numpy(dtype=float), part["residual"].to_numpy(dtype=float)
    wide, high = _reach(x), _reach(y)
    ax.set_xlim(-wide, wide)
    ax.set_ylim(-high, high)
    outside = int(np.count_nonzero(~axes_tools.find_inside_axes(ax, x, y)))
    if outside:
        ax.set_title(f"{format_count(outside, 'point')} outside", loc="right", fontsize=6, color="#666666")
    ax.scatter(
        x, y, s=5, color=style.level_colour(level, levels), alpha=0.7 if len(x) < _MANY else 0.4, linewidths=0,
        rasterized=True,
    )  # fmt: skip
    ends = np.array([-wide, wide])
    lines = dict(zip(_GUIDES, (ends, 0.0 * ends), strict=False))
    if len(x) and len(told) and np.isfinite(told["slope"].iloc[0]):
        slope = float(told["slope"].iloc[0])
        lines["least squares"] = y.mean() + slope * (ends - x.mean())
        ax.text(
            0.02, 0.97, f"r = {_signed(told['correlation'].iloc[0])}, slope {_signed(slope)}",
            transform=ax.transAxes, verticalalignment="top", fontsize=7, path_effects=_HALO, zorder=5,
        )  # fmt: skip
    for name, values in lines.items():
        ax.plot(ends, values, **_GUIDES[name])


def _reach(values: np.ndarray) -> float:
    """The limit of an axis around zero that holds most values, and a little more."""
    if not values.size:
        return 1.0
    return 1.15 * float(np.quantile(np.abs(values), _SHOWN)) or float(np.abs(values).max()) or 1.0


def plot_training_tradeoff(
    results: pd.DataFrame, levels: Sequence[str], path_table: pd.DataFrame | None = None
) -> Axes:
    """Energy against force RMSE on the training set at the largest 2Jmax and subset: a line over weights per level.

    Parameters
    ----------
    results : DataFrame, a row per fit (meV/atom, meV/Å)
    levels : names by cost, the last is the reference
    path_table : DataFrame, as `paretofit.sweep.weight_paths` gives it; drawn instead of straight lines where it
        has the level

    Returns
    -------
    Axes
    """
    rows = select_tradeoff_rows(results, levels)
    rows = rows[rows["twojmax"] == rows["twojmax"].max()].sort_values("weight_ratio")
    x, y = rows["train_energy"].to_numpy(dtype=float), rows["train_force"].to_numpy(dtype=float)
    shown = _above_rounding(x) & _above_rounding(y)
    if not shown.any():
        raise CannotDrawError("No fit has training errors above rounding.")
    curves = None if path_table is None else path_table[path_table["twojmax"] == rows["twojmax"].iloc[0]]
    with style.publication_style():
        ax = style.ensure_axes(None)
        for level in levels:
            part = rows[rows["level"] == level]
            if len(part):
                curve = None if curves is None else select_path_curve(curves, level, "train", part["weight_ratio"])
                ends = part[["level", "train_energy", "train_force"]].set_axis(["level", "x", "y"], axis=1)
                draw_level_line(ax, ends, levels, reference=True, curve=curve)
        axes_tools.set_axes_limits(ax, x[shown], y[shown], np.inf, np.inf)
        axes_tools.annotate_outside(ax, x, y, list(rows["level"]), "level")
        annotate_weights(ax, rows.assign(ref_energy=x, ref_force=y), levels)
        ax.set_title(f"2Jmax = {rows['twojmax'].iloc[0]}", loc="left")
        ax.set_xlabel(f"training {ENERGY_LABEL}")
        ax.set_ylabel(f"training {FORCE_LABEL}")
        inside = set(rows["level"][axes_tools.find_inside_axes(ax, x, y)])
        handles = style.build_level_handles(levels, list(rows["level"]), inside)
        style.get_parent_figure(ax).legend(handles=handles, loc="outside lower center", ncols=3)
    return ax


def _above_rounding(values: np.ndarray) -> np.ndarray:
    """``(n,)`` bool: finite, and not only what rounding leaves of an exact fit."""
    finite = values[np.isfinite(values)]
    above: np.ndarray = np.isfinite(values) & (values > _EXACT * (np.median(finite) if finite.size else 0.0))
    return above


def plot_energy_error_against_cost(front: pd.DataFrame, levels: Sequence[str]) -> np.ndarray:
    """Energy RMSE against DFT cost of the points on the front, coloured by force RMSE; a panel per 2Jmax.

    Parameters and returns as in `paretofit.report.figures.front_figures.plot_front_by_cost`.
    """
    frame, unit = add_cost_column(front)
    return plot_front_panels(
        frame, levels, None,
        x=("cost", f"DFT cost ({unit})"), y=("ref_energy", f"test {ENERGY_LABEL}"), face=("ref_force", FORCE_LABEL),
    )  # fmt: skip


def plan_noise_figures(
    results: pd.DataFrame,
    levels: Sequence[str],
    path_table: pd.DataFrame | None,
    points: pd.DataFrame,
    table: pd.DataFrame,
) -> Iterator[FigurePlan]:
    """The figures of this module with their captions.

    Parameters
    ----------
    results : DataFrame, a row per fit
    levels : names by cost, the last is the reference
    path_table : DataFrame or None, as in `plot_training_tradeoff`
    points, table : DataFrame, as in `plot_label_noise`; where they are empty its figures are left out

    Yields
    ------
    FigurePlan
    """
    yield FigurePlan(
        "training_tradeoff", lambda: plot_training_tradeoff(results, levels, path_table),
        lambda: _training_caption(results, levels, path_table), wide=False,
    )  # fmt: skip
    yield FigurePlan(
        "energy_against_cost", lambda: plot_energy_error_against_cost(compute_fronts_by_twojmax(compute_medians(results, levels)), levels),
        lambda: "The fronts in energy error, force error and DFT cost, for each 2Jmax on its own, as energy RMSE "
        "against DFT cost of the training labels, face colour by force RMSE, shape and rim by level. "
        f"{axes_tools.OUTSIDE_NOTE}",
    )  # fmt: skip
    if points.empty or table.empty:
        return
    yield FigurePlan(
        "label_noise_energy", lambda: plot_label_noise(points, table, levels, "energy"),
        lambda: _noise_caption(points, table, levels, "energy"),
    )  # fmt: skip
    yield FigurePlan(
        "label_noise_force", lambda: plot_label_noise(points, table, levels, "force"),
        lambda: _noise_caption(points, table, levels, "force"),
    )  # fmt: skip


def _training_caption(results: pd.DataFrame, levels: Sequence[str], paths: pd.DataFrame | None) -> str:
    rows = select_tradeoff_rows(results, levels)
    rows = rows[rows["twojmax"] == rows["twojmax"].max()]
    known = paths is not None and (paths["twojmax"] == rows["twojmax"].iloc[0]).any()
    curve = " The lines are fits at every ratio between." if known else ""
    return (
        "Energy against force RMSE on the training set, each level on its own labels, for w_E/w_F "
        f"{format_ratio(rows['weight_ratio'].min())} to {format_ratio(rows['weight_ratio'].max())} at 2Jmax = "
        f"{rows['twojmax'].iloc[0]}, trained on {describe_subset(rows)}.{curve}"
    )


def _noise_caption(points: pd.DataFrame, table: pd.DataFrame, levels: Sequence[str], kind: Kind) -> str:
    rows, drawn = table[table["kind"] == kind], points[points["kind"] == kind]
    n = int(rows["n"].max())
    most = int(drawn.groupby(["weight_ratio", "level"]).size().max())
    noun = "energy" if kind == "energy" else "force component"
    count = format_count(n, noun, "energies" if kind == "energy" else None)
    some = "" if most >= n else f" {most:,} of them are drawn."
    return (
        f"Residual of the model (label minus prediction, on its own level) against the error of the label (less level "
        f"{levels[-1]}), {count} of the test set at {_models(rows)}, trained on the whole training set.{some} Each "
        f"panel has limits of its own, which leave out about {format_number(100 * (1 - _SHOWN))} % of the points in each "
        "direction. r: Pearson's correlation."
    )


def _models(table: pd.DataFrame) -> str:
    return f"2Jmax = {join_items(sorted(set(table['twojmax'])))}"


def build_label_noise_table(table: pd.DataFrame) -> ReportTable:
    """Correlation and slope of residuals on label errors, a row per weighting, level and kind of row."""
    sides = {"n": "test rows", "label_error": "label error", "residual": "residual"}
    unit = " (meV/atom or meV/Å)"
    shown = table.rename(columns={name: text + ("" if name == "n" else unit) for name, text in sides.items()})
    note = (
        "Residuals of a model on the test set, on the level that it was trained on, against what is wrong with the "
        "labels there (level less reference): Pearson's correlation, the slope of the residual on the label error (1: "
        "the model ignores the error, 0: it learns the error), and the root mean squares of both about their means. "
        f"The components of one configuration's forces are not independent.{_strongest(table)}"
    )
    return ReportTable("Residuals against label errors", note, "label_noise", shown)


def _strongest(table: pd.DataFrame) -> str:
    known = table[table["correlation"].notna()]
    if known.empty:
        return ""
    top = known.iloc[int(known["correlation"].abs().to_numpy(dtype=float).argmax())]
    what = "energies" if top["kind"] == "energy" else "forces"
    return (
        f" The strongest correlation is {_signed(top['correlation'])}, of {what} at level {top['level']} and w_E/w_F = "
        f"{format_ratio(top['weight_ratio'])}."
    )


def describe_label_noise(table: pd.DataFrame) -> str:
    """What the correlations say: how strong they are, whether models ignore part of the error, and what weights do."""
    known = table[np.isfinite(table[["correlation", "slope"]].to_numpy(dtype=float)).all(axis=1)]
    if known.empty:
        return "No residual can be compared with a label error."
    known = known.assign(level=known["level"].astype(str))
    sentences = [f"The models are those of {_models(known)}."]
    sentences += [_strengths(kind, rows) for kind, rows in known.groupby("kind", sort=False)]
    sentences += [_ignored(known), _weighting(known), _drowned(known)]
    return " ".join(text for text in sentences if text)


def _strengths(kind: object, rows: pd.DataFrame) -> str:
    """The correlations of energies or forces by level, for each weighting."""
    said: list[str] = []
    for ratio, part in rows.groupby("weight_ratio"):
        values = join_items(_signed(value) for value in part["correlation"])
        where = f" at {format_levels(list(part['level']))}" if not said else ""
        said.append(f"{values}{where} with w_E/w_F = {format_ratio(float(str(ratio)))}")
    what = "energies" if kind == "energy" else "force components"
    return f"Residuals and label errors of {what} correlate by {'; by '.join(said)}."


def _ignored(known: pd.DataFrame) -> str:
    """Whether models ignore part of the error, and how much by the slope."""
    clear = known[known["correlation"] > CLEAR / np.sqrt(known["n"].to_numpy(dtype=float))]
    cases = f"{len(clear)} of {format_count(len(known), 'case')}"
    if clear.empty:
        return f"The correlation is clearly positive (above {CLEAR:g}/√n) in none: models learn the labels' error too."
    low, high = clear["slope"].min(), clear["slope"].max()
    span = (
        f"{format_number(low, 2)} of it"
        if len(clear) == 1
        else f"{format_number(low, 2)} to {format_number(high, 2)} of it"
    )
    return (
        f"The correlation is clearly positive (above {CLEAR:g}/√n) in {cases}: there models ignore part of the labels' "
        f"error, by the slope {span}."
    )


def _weighting(known: pd.DataFrame) -> str:
    """In how many cases the higher force weight ignores more of the error."""
    ratios = sorted(set(known["weight_ratio"]))
    if len(ratios) != 2:
        return ""
    wide = known.pivot_table(index=["level", "kind"], columns="weight_ratio", values="correlation").dropna()
    if wide.empty:
        return ""
    more = int((wide[ratios[0]] > wide[ratios[1]]).sum())
    return (
        f"With the higher force weight, w_E/w_F = {format_ratio(ratios[0])}, the correlation is higher in {more} of "
        f"{format_count(len(wide), 'pair')}."
    )


def _drowned(known: pd.DataFrame) -> str:
    """Where the model's own error is so large that the labels' hardly shows."""
    own = known[known["residual"] > 3 * known["label_error"]]
    if own.empty:
        return ""
    named = [
        f"{'energies' if kind == 'energy' else 'forces'} of {format_levels(list(dict.fromkeys(rows['level'])))} at "
        f"w_E/w_F = {format_ratio(float(str(ratio)))}"
        for (kind, ratio), rows in own.groupby(["kind", "weight_ratio"], sort=False)
    ]
    return (
        "The residuals are more than 3 times as large as the label errors, which hardly show in them, for "
        f"{join_items(named)}."
    )


def _signed(value: float) -> str:
    """Two decimals with a minus sign in place of a hyphen."""
    return f"{float(value):.2f}".replace("-", "−")
