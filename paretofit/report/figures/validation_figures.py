"""Figures of a validation: each a function of a table of curves that returns its axes.

Every table has the columns ``structure`` and ``potential``. Colours tell structures apart (or potentials, where
there is one structure), and the line tells potentials: the first solid, the second dashed.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np
from matplotlib.figure import Figure
from matplotlib.lines import Line2D

from paretofit.report.figures import style
from paretofit.report.figures.sweep_figures import CannotDrawError

if TYPE_CHECKING:
    from collections.abc import Sequence

    import pandas as pd
    from matplotlib.artist import Artist
    from matplotlib.axes import Axes

LINES = ("-", "--", ":", "-.")
COLOURS = ("#0072B2", "#D55E00", "#009E73", "#CC79A7", "#000000", "#E69F00", "#882255", "#999933", "#56B4E9")
WALL = 10.0  # eV: how much of a dimer's wall is shown
HIGH = 1.6  # eV/atom above the lowest that an equation of state shows


def plot_equations_of_state(eos: pd.DataFrame, *, ax: Axes | None = None) -> Axes:
    """Energy (eV/atom) against volume (Å³/atom), each potential from its lowest (paper 1, Fig. 7).

    Parameters
    ----------
    eos : DataFrame
        ``volume``, ``energy``, ``structure``, ``potential``.
    ax : where to draw; a new figure by default
    """
    _check(eos)
    shifted = eos.assign(energy=eos["energy"] - eos.groupby("potential")["energy"].transform("min"))
    with style.publication_style():
        ax = style.ensure_axes(ax, 1.05)
        _lines(ax, shifted, "volume", "energy", "structure")
        ax.set_ylim(-0.03, min(HIGH, float(shifted["energy"].max()) * 1.05))
        ax.set_xlabel("volume (Å³/atom)")
        ax.set_ylabel("energy above the lowest (eV/atom)")
        _legend(ax, shifted, "structure")
    return ax


def plot_phonon_dispersion(bands: pd.DataFrame, labels: pd.DataFrame, density: pd.DataFrame) -> np.ndarray:
    """Dispersion and density of states of one structure (paper 1, Fig. 8); imaginary frequencies are below zero.

    Parameters
    ----------
    bands, labels, density : DataFrame
        As `paretofit.validation.phonon_bands.PhononSpectrum` has them, with ``potential``. The path of a second potential is
        stretched onto the first one's.

    Returns
    -------
    (2,) array of Axes
    """
    _check(bands)
    with style.publication_style():
        figure = Figure(figsize=(style.PAGE_WIDTH_IN * 0.8, 2.9), layout="constrained")
        left, right = figure.subplots(1, 2, sharey=True, gridspec_kw={"width_ratios": [3, 1]})
        potentials = list(dict.fromkeys(bands["potential"]))
        ticks = labels[labels["potential"] == potentials[0]]
        for k, name in enumerate(potentials):
            _draw_bands(left, bands[bands["potential"] == name], ticks["distance"].max(), k)
            own = density[density["potential"] == name]
            right.plot(own["density"], own["frequency"], LINES[k % 4], color=COLOURS[k])
        at = ticks.groupby("distance", sort=True)["label"].agg(lambda names: "|".join(dict.fromkeys(names)))
        left.set_xticks(list(at.index), [text.replace("G", "Γ") for text in at], fontsize=6)
        left.set_xlim(0, ticks["distance"].max())
        left.set_ylabel("frequency (THz)")
        right.set_xlabel("states (1/THz/cell)")
        right.set_xlim(left=0)
        for ax in (left, right):
            ax.axhline(0, color="#888888", linewidth=0.6)
        handles = [_handle(name, COLOURS[k], LINES[k % 4]) for k, name in enumerate(potentials)]
        figure.legend(handles=handles, loc="outside lower center", ncols=2)
    return np.array([left, right])


def _draw_bands(ax: Axes, bands: pd.DataFrame, end: float, k: int) -> None:
    wide = bands.reset_index(drop=True)
    scale = end / wide["distance"].max()
    for _, mode in wide.groupby(["segment", "mode"]):
        ax.plot(mode["distance"] * scale, mode["frequency"], LINES[k % 4], color=COLOURS[k], linewidth=0.9)


def plot_interlayer(curve: pd.DataFrame, *, ax: Axes | None = None) -> Axes:
    """Energy (meV/atom) against the distance of layers (Å), without and with dispersion (paper 1, Fig. 6)."""
    _check(curve)
    with style.publication_style():
        ax = style.ensure_axes(ax)
        _lines(ax, curve, "distance", "energy", "dispersion")
        lowest = float(curve["energy"].min())
        ax.set_ylim(1.15 * min(lowest, -5.0), max(20.0, -1.2 * lowest))
        ax.axhline(0, color="#888888", linewidth=0.6)
        ax.set_xlabel("distance of the layers (Å)")
        ax.set_ylabel("energy from layers apart (meV/atom)")
        _legend(ax, curve, "dispersion", "dispersion: ")
    return ax


def plot_dimers(curve: pd.DataFrame, *, ax: Axes | None = None) -> Axes:
    """Energy (eV) of two atoms against their distance (Å): linear to 1 eV, logarithmic beyond."""
    _check(curve)
    with style.publication_style():
        ax = style.ensure_axes(ax)
        _lines(ax, curve, "distance", "energy", "structure")
        ax.set_yscale("symlog", linthresh=1.0)
        ax.axhline(0, color="#888888", linewidth=0.6)
        ax.set_xlabel("distance (Å)")
        ax.set_ylabel("energy from atoms apart (eV)")
        _legend(ax, curve, "structure")
    return ax


def plot_radial_distribution(rdf: pd.DataFrame, *, ax: Axes | None = None) -> Axes:
    """g(r) in the dynamics with thermostat."""
    _check(rdf)
    with style.publication_style():
        ax = style.ensure_axes(ax)
        _lines(ax, rdf, "distance", "g", "structure")
        ax.axhline(1, color="#888888", linewidth=0.6)
        ax.set_xlabel("distance (Å)")
        ax.set_ylabel("g(r)")
        ax.set_ylim(bottom=0)
        _legend(ax, rdf, "structure")
    return ax


def plot_energy_drift(energies: pd.DataFrame, *, ax: Axes | None = None) -> Axes:
    """Total energy (meV/atom, from its first value) against time (ps) without thermostat."""
    _check(energies)
    with style.publication_style():
        ax = style.ensure_axes(ax)
        _lines(ax, energies, "time", "energy", "structure")
        ax.set_xlabel("time (ps)")
        ax.set_ylabel("change of the total energy (meV/atom)")
        _legend(ax, energies, "structure")
    return ax


def plot_defects(table: pd.DataFrame, *, ax: Axes | None = None) -> Axes:
    """Formation energies (eV), a bar for each pair of relaxing and evaluating potential (paper 1, Table I)."""
    _check(table)
    ways = table[["relaxed_with", "evaluated_with"]].drop_duplicates().to_numpy().tolist()
    places = (table["structure"] + ": " + table["defect"]).to_numpy()
    if len(set(table["structure"])) == 1:
        places = table["defect"].to_numpy()
    names = list(dict.fromkeys(places))
    with style.publication_style():
        ax = style.ensure_axes(ax)
        width = 0.8 / len(ways)
        for k, (first, second) in enumerate(ways):
            own = (table["relaxed_with"] == first) & (table["evaluated_with"] == second)
            x = np.array([names.index(name) for name in places[own]]) + (k - (len(ways) - 1) / 2) * width
            label = style.escape_mathtext(f"relaxed: {first}, evaluated: {second}")
            ax.bar(x, table.loc[own, "energy"], width, color=COLOURS[k % len(COLOURS)], label=label)
        ax.set_xticks(range(len(names)), [style.escape_mathtext(name) for name in names])
        ax.grid(visible=False, axis="x")
        ax.set_ylabel("formation energy (eV)")
        style.get_parent_figure(ax).legend(loc="outside lower center", ncols=1)
    return ax


def _check(table: pd.DataFrame) -> None:
    if table.empty:
        raise CannotDrawError("There is nothing to draw.")


def _lines(ax: Axes, table: pd.DataFrame, x: str, y: str, kind: str) -> None:
    kinds, potentials = (list(dict.fromkeys(table[name])) for name in (kind, "potential"))
    for (name, potential, _), part in table.groupby([kind, "potential", "structure"], sort=False):
        k = potentials.index(potential) if len(kinds) == 1 else kinds.index(name)
        line = LINES[potentials.index(potential) % len(LINES)]
        ax.plot(part[x], part[y], line, color=COLOURS[k % len(COLOURS)])


def _legend(ax: Axes, table: pd.DataFrame, kind: str, prefix: str = "") -> None:
    kinds, potentials = (list(dict.fromkeys(table[name])) for name in (kind, "potential"))
    handles: list[Artist] = []
    if len(kinds) > 1:
        handles += [_handle(f"{prefix}{name}", COLOURS[k % len(COLOURS)], "-") for k, name in enumerate(kinds)]
    if len(potentials) > 1 or len(kinds) == 1:
        alone = len(kinds) == 1
        handles += [
            _handle(name, COLOURS[k] if alone else "#555555", LINES[k % len(LINES)])
            for k, name in enumerate(potentials)
        ]
    _below(ax, handles)


def _below(ax: Axes, handles: Sequence[Artist]) -> None:
    style.get_parent_figure(ax).legend(handles=list(handles), loc="outside lower center", ncols=2)


def _handle(name: str, colour: str, line: Any) -> Line2D:
    return Line2D([], [], color=colour, linestyle=line, label=style.escape_mathtext(name))
