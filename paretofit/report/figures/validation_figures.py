"""Figures of a validation; each function draws a table of `PropertyResult.curves` and returns the axes.

Except in `plot_defects`, every table has the columns ``structure`` and ``potential``. Colours distinguish structures,
or potentials if there is only one structure; line styles distinguish potentials: lines of the first are solid, those of
the second dashed. Every function raises `CannotDrawError` if its table is empty.
"""

from typing import Any

import numpy as np
import pandas as pd
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.lines import Line2D

from paretofit.report.figures import style

LINE_STYLES = ("-", "--", ":", "-.")
COLOURS = tuple(style.COLOURS[index] for index in (4, 5, 2, 3, 6, 0, 7, 8, 1))  # dark and distinct colours first
SIZE_UNITS = {"volume": "Å³", "area": "Å²", "length": "Å"}
MAX_LABEL_LENGTH = 30  # number of characters of all labels of an axis; longer labels would overlap, and are slanted
MAX_EOS_ENERGY = 1.6  # eV/atom above the lowest energy, upper limit of the axis


def plot_equations_of_state(eos: pd.DataFrame, *, size: str = "volume") -> Axes:
    """Plot energy (eV/atom, relative to the lowest of each potential) against volume, area or length.

    The figure corresponds to Bidoggia et al. (2025), Fig. 7.

    Parameters
    ----------
    eos : DataFrame
        The column `size`, and ``energy`` (eV/atom).
    size : str
        Column of the x axis: ``volume`` (Å³/atom), ``area`` of sheets (Å²/atom) or ``length`` of wires (Å/atom).
    """
    _require_rows(eos)
    shifted = eos.assign(energy=eos["energy"] - eos.groupby("potential")["energy"].transform("min"))
    labels = (f"{size} ({SIZE_UNITS[size]}/atom)", "energy above the lowest (eV/atom)")
    ax = _plot_curves(shifted, (size, "energy"), labels, height=1.05)
    ax.set_ylim(-0.03, min(MAX_EOS_ENERGY, float(shifted["energy"].max()) * 1.05))
    return ax


def plot_phonon_dispersion(bands: pd.DataFrame, special_points: pd.DataFrame, density: pd.DataFrame) -> np.ndarray:
    """Plot the phonon dispersion and density of states of a structure; imaginary frequencies are negative.

    The figure corresponds to Bidoggia et al. (2025), Fig. 8. The paths of all potentials are scaled to the length of
    the path of the first one.

    Parameters
    ----------
    bands : DataFrame
        ``segment``, ``distance`` (1/Å, along the path), ``mode`` and ``frequency`` (THz).
    special_points : DataFrame
        ``distance`` (1/Å) and name, ``label``, of the special points of the path.
    density : DataFrame
        Density of states: ``frequency`` (THz) and ``density`` (1/THz per primitive cell).

    Returns
    -------
    (2,) array of Axes
        Dispersion, density of states.
    """
    _require_rows(bands)
    with style.use_publication_style():
        figure = Figure(figsize=(style.PAGE_WIDTH_IN * 0.8, 2.9), layout="constrained")
        left, right = figure.subplots(1, 2, sharey=True, gridspec_kw={"width_ratios": [3, 1]})
        potentials = list(dict.fromkeys(bands["potential"]))
        ticks = special_points[special_points["potential"] == potentials[0]]
        for index, name in enumerate(potentials):
            line_style = _select_colour_and_line_style(index)
            rows = bands[bands["potential"] == name]
            distance = rows["distance"] * (ticks["distance"].max() / rows["distance"].max())
            for _, mode in rows.assign(distance=distance).groupby(["segment", "mode"]):
                left.plot(mode["distance"], mode["frequency"], linewidth=0.9, **line_style)
            states = density[density["potential"] == name]
            right.plot(states["density"], states["frequency"], **line_style)
        # The path jumps between two points whose labels have the same distance.
        joined_labels = ticks.groupby("distance", sort=True)["label"].agg(lambda names: "|".join(dict.fromkeys(names)))
        left.set_xticks(list(joined_labels.index), [text.replace("G", "Γ") for text in joined_labels], fontsize=6)
        left.set(xlim=(0, ticks["distance"].max()), ylabel="frequency (THz)")
        right.set_xlabel("states (1/THz/cell)")
        right.set_xlim(left=0)
        for ax in (left, right):
            ax.axhline(0, color="#888888", linewidth=0.6)
        handles = _build_potential_handles(potentials)
        figure.legend(handles=handles, loc="outside lower center", ncols=2)
    return np.array([left, right])


def plot_vibrations(vibrations: pd.DataFrame) -> Axes:
    """Plot the frequencies of the vibrations of molecules, in ascending order.

    Parameters
    ----------
    vibrations : DataFrame
        ``mode`` (number from 1) and ``frequency`` (THz; imaginary frequencies are negative).
    """
    return _plot_curves(vibrations, ("mode", "frequency"), ("vibration", "frequency (THz)"), baseline=0.0)


def plot_interlayer(curve: pd.DataFrame) -> Axes:
    """Plot energy against interlayer distance, with a colour for each method of dispersion.

    The figure corresponds to Bidoggia et al. (2025), Fig. 6.

    Parameters
    ----------
    curve : DataFrame
        ``distance`` (Å), ``energy`` (meV/atom, relative to separate layers) and ``dispersion`` (method or ``none``).
    """
    labels = ("interlayer distance (Å)", "energy relative to separate layers (meV/atom)")
    ax = _plot_curves(curve, ("distance", "energy"), labels, baseline=0.0, kind="dispersion")
    # The axis shows the well and the approach to zero, but not the steep repulsion.
    lowest = float(curve["energy"].min())
    ax.set_ylim(1.15 * min(lowest, -5.0), max(20.0, -1.2 * lowest))
    return ax


def plot_dimers(curve: pd.DataFrame) -> Axes:
    """Plot energy against distance of two atoms; the energy axis is linear within ±1 eV, and logarithmic beyond.

    Parameters
    ----------
    curve : DataFrame
        ``distance`` (Å) and ``energy`` (eV, relative to separate atoms).
    """
    labels = ("distance (Å)", "energy relative to separate atoms (eV)")
    ax = _plot_curves(curve, ("distance", "energy"), labels, baseline=0.0)
    ax.set_yscale("symlog", linthresh=1.0)
    return ax


def plot_radial_distribution(rdf: pd.DataFrame) -> Axes:
    """Plot the radial distribution function g(r) of dynamics with a thermostat.

    Parameters
    ----------
    rdf : DataFrame
        ``distance`` r (Å) and ``g``.
    """
    ax = _plot_curves(rdf, ("distance", "g"), ("distance (Å)", "g(r)"), baseline=1.0)
    ax.set_ylim(bottom=0)
    return ax


def plot_energy_drift(energies: pd.DataFrame) -> Axes:
    """Plot the change of the total energy against time in dynamics without a thermostat.

    Parameters
    ----------
    energies : DataFrame
        ``time`` (ps) and ``energy`` (meV/atom, relative to the first sample).
    """
    return _plot_curves(energies, ("time", "energy"), ("time (ps)", "change of the total energy (meV/atom)"))


def _plot_curves(
    table: pd.DataFrame, columns: tuple[str, str], labels: tuple[str, str], *,
    baseline: float | None = None, kind: str = "structure", height: float = 0.95,
) -> Axes:  # fmt: skip
    """Plot a curve for each structure, potential and value of the column `kind`, with a legend.

    `columns` and `labels` are those of the x and y axis; `baseline` is the position of a horizontal line, if any; and
    `height` is the height of the figure, as a multiple of its width.
    """
    _require_rows(table)
    with style.use_publication_style():
        ax = style.ensure_axes(None, height)
        kinds, potentials = (list(dict.fromkeys(table[name])) for name in (kind, "potential"))
        for (name, potential, _), curve in table.groupby([kind, "potential", "structure"], sort=False):
            potential_index = potentials.index(potential)
            colour_index = potential_index if len(kinds) == 1 else kinds.index(name)
            colour = COLOURS[colour_index % len(COLOURS)]
            ax.plot(curve[columns[0]], curve[columns[1]], _select_line_style(potential_index), color=colour)
        if baseline is not None:
            ax.axhline(baseline, color="#888888", linewidth=0.6)
        ax.set(xlabel=labels[0], ylabel=labels[1])
        prefix = "" if kind == "structure" else f"{kind}: "
        _add_legend(ax, [f"{prefix}{name}" for name in kinds], potentials)
    return ax


def plot_defects(table: pd.DataFrame) -> Axes:
    """Plot formation energies (eV) of defects, with a bar for each pair of the relaxing and the evaluating potential.

    The values correspond to Bidoggia et al. (2025), Table I.

    Parameters
    ----------
    table : DataFrame
        ``defect``, ``structure``, ``relaxed_with`` and ``evaluated_with`` (potentials), and ``energy`` (eV).
    """
    _require_rows(table)
    pairs = table[["relaxed_with", "evaluated_with"]].drop_duplicates().to_numpy().tolist()
    defects = table["defect"].to_numpy()
    if len(set(table["structure"])) > 1:
        defects = (table["structure"] + ": " + table["defect"]).to_numpy()
    names = list(dict.fromkeys(defects))
    with style.use_publication_style():
        ax = style.ensure_axes(None)
        width = 0.8 / len(pairs)
        for index, (relaxed_with, evaluated_with) in enumerate(pairs):
            mask = (table["relaxed_with"] == relaxed_with) & (table["evaluated_with"] == evaluated_with)
            offset = (index - (len(pairs) - 1) / 2) * width  # the bars of a defect are centred around its position
            x = np.array([names.index(name) for name in defects[mask]]) + offset
            label = style.escape_mathtext(f"relaxed: {relaxed_with}, evaluated: {evaluated_with}")
            ax.bar(x, table.loc[mask, "energy"], width, color=COLOURS[index % len(COLOURS)], label=label)
        slant: dict[str, Any] = {"rotation": 30, "ha": "right"} if sum(map(len, names)) > MAX_LABEL_LENGTH else {}
        ax.set_xticks(range(len(names)), [style.escape_mathtext(name) for name in names], **slant)
        ax.grid(visible=False, axis="x")
        ax.set_ylabel("formation energy (eV)")
        style.get_parent_figure(ax).legend(loc="outside lower center", ncols=1)
    return ax


def _require_rows(table: pd.DataFrame) -> None:
    """Raise `CannotDrawError` if a table is empty."""
    if table.empty:
        raise style.CannotDrawError("There is nothing to draw.")


def _add_legend(ax: Axes, kinds: list[str], potentials: list[str]) -> None:
    """Add a legend of kinds by colour and of potentials by line style.

    With a single kind, only the potentials are listed, by colour and line style. With several kinds, a single potential
    is not listed.
    """
    if len(kinds) == 1:
        handles = _build_potential_handles(potentials)
    else:
        handles = [_build_handle(name, COLOURS[index % len(COLOURS)]) for index, name in enumerate(kinds)]
        if len(potentials) > 1:
            handles += [
                _build_handle(name, "#555555", _select_line_style(index)) for index, name in enumerate(potentials)
            ]
    style.get_parent_figure(ax).legend(handles=handles, loc="outside lower center", ncols=2)


def _select_line_style(index: int) -> str:
    """Select the line style of the potential with an index."""
    return LINE_STYLES[index % len(LINE_STYLES)]


def _select_colour_and_line_style(index: int) -> dict[str, str]:
    """Select the colour and the line style of the potential with an index, where colours distinguish potentials."""
    return {"color": COLOURS[index % len(COLOURS)], "linestyle": _select_line_style(index)}


def _build_potential_handles(potentials: list[str]) -> list[Line2D]:
    """Build the legend entries of potentials that differ in colour and line style."""
    return [_build_handle(name, **_select_colour_and_line_style(index)) for index, name in enumerate(potentials)]


def _build_handle(name: str, color: str, linestyle: Any = "-") -> Line2D:
    """Build a legend entry; the names of the parameters are those of matplotlib."""
    return Line2D([], [], color=color, linestyle=linestyle, label=style.escape_mathtext(name))
