"""Which frames of the dynamics are labelled: those whose error, by the calibrated disagreement, is above tolerance."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
import pandas as pd
from scipy.spatial import cKDTree

from paretofit.core import InputError
from paretofit.linear import d_optimal
from paretofit.structures import is_too_close
from paretofit.uncertainty import CALIBRATIONS

if TYPE_CHECKING:
    from collections.abc import Sequence

    from ase import Atoms

    from paretofit.core import Array
    from paretofit.learning.learn_settings import SelectSettings
    from paretofit.uncertainty import Assessment

PROPERTIES = ("energy", "forces", "stress")
NEAR = 30.0  # times the tolerance: errors beyond do not calibrate, if there are enough others
FEWEST = 3  # configurations with a label, for a calibration
CONFIDENT, BROKEN, DUPLICATE, WAITING, CHOSEN = "confident", "broken", "duplicate", "not drawn", "chosen"


@dataclass(frozen=True)
class Calibration:
    """From disagreements to errors, by property; meV/atom, meV/Å, meV/Å³.

    Attributes
    ----------
    lines : dict of str to Slope, Isotonic or QuantileLine
        Properties that are calibrated.
    thresholds : dict of str to float
        Disagreements above which errors are above tolerance.
    """

    lines: dict[str, Any]
    thresholds: dict[str, float]


def calibrate(spread: pd.DataFrame, error: pd.DataFrame, settings: SelectSettings) -> Calibration:
    """Calibrate each property on held-out labelled configurations, those that are not hopelessly off.

    Parameters
    ----------
    spread, error : DataFrame
        Columns "energy", "forces", "stress": disagreements and errors of the committee (equations 1 and 2 of
        Bidoggia et al., 2025); NaN where there is no label.
    settings : SelectSettings

    Raises
    ------
    InputError
        If neither energies nor forces can be calibrated.
    """
    lines: dict[str, Any] = {}
    thresholds: dict[str, float] = {}
    for name in PROPERTIES:
        known = spread[name].notna() & error[name].notna()
        if known.sum() < FEWEST:
            continue
        near = known & (error[name] <= NEAR * getattr(settings.tolerance, name))
        if near.sum() >= 2 * FEWEST:  # a few that are far off would decide where nothing is to be decided
            known = near
        line: Any = CALIBRATIONS[settings.calibration](spread[name][known].to_numpy(), error[name][known].to_numpy())
        lines[name] = line
        thresholds[name] = lines[name].threshold(getattr(settings.tolerance, name))
    if not {"energy", "forces"} & set(lines):
        raise InputError(
            f"the validation set has {len(spread)} labelled configurations, fewer than the {FEWEST} that a calibration "
            "needs; label more candidates first, or raise 'learning.sets.validate'"
        )
    return Calibration(lines, thresholds)


def disagreements(assessed: Sequence[Assessment]) -> pd.DataFrame:
    """Disagreement of each structure by property: meV/atom, and the root mean square of meV/Å and meV/Å³."""
    rows = [
        [one.energy_std, np.sqrt(np.mean(one.forces_std**2)), np.sqrt(np.mean(one.stress_std**2))] for one in assessed
    ]
    return 1000 * pd.DataFrame(rows, columns=list(PROPERTIES), dtype=float)


def judge_frames(
    frames: Sequence[Atoms],
    assessed: Sequence[Assessment],
    calibration: Calibration,
    settings: SelectSettings,
    described: Array,
    known: Array,
) -> pd.DataFrame:
    """Say of every frame what it is: confident, broken, a duplicate, or a candidate.

    Parameters
    ----------
    frames : sequence of ase.Atoms
    assessed : sequence of Assessment
    calibration : Calibration
    settings : SelectSettings
    described : (n, d) float64
        Mean descriptors of the frames.
    known : (m, d) float64
        The same of what is labelled.

    Returns
    -------
    DataFrame
        ``energy_std, forces_std, stress_std, energy_expected`` and so on (errors as the disagreement foretells them),
        ``extrapolation_grade``, ``above`` (properties above tolerance), ``verdict``.
    """
    spread = disagreements(assessed)
    table = spread.add_suffix("_std")
    above, broken = [], np.array([is_too_close(atoms, settings.closest) for atoms in frames], dtype=bool)
    for name, line in calibration.lines.items():
        expected = line.error(spread[name].to_numpy())
        table[f"{name}_expected"] = expected
        broken |= expected > getattr(settings.broken, name)
        above.append(np.where(spread[name] > calibration.thresholds[name], name, ""))
    table["extrapolation_grade"] = [one.grade for one in assessed]
    table["above"] = [" ".join(filter(None, one)) for one in zip(*above, strict=True)]
    table["verdict"] = np.where(broken, BROKEN, np.where(table["above"] == "", CONFIDENT, WAITING))
    waiting = np.flatnonzero(table["verdict"] == WAITING)
    for k in waiting[_duplicates(described[waiting], known, settings.duplicate)]:
        table.loc[k, "verdict"] = DUPLICATE
    return table


def choose(
    table: pd.DataFrame, described: Array, known: Array, settings: SelectSettings, rng: np.random.Generator
) -> Array:
    """Positions of the frames to label, ascending: at random among the candidates, or as diverse as can be."""
    waiting = np.flatnonzero(table["verdict"] == WAITING)
    count = min(settings.most, len(waiting))
    if settings.how == "random" or count == len(waiting):
        return np.sort(rng.permutation(waiting)[:count])
    order, _ = d_optimal(described[waiting], count, known)
    return np.sort(waiting[order])


def _duplicates(described: Array, known: Array, tolerance: float) -> Array:
    """Which of some structures are like a known one, or an earlier one among them that is not itself like another."""
    found = np.zeros(len(described), dtype=bool)
    if not len(described) or tolerance == 0:
        return found
    tree = cKDTree(np.vstack([known.reshape(-1, described.shape[1]), described]))
    near = tree.query_ball_point(described, tolerance * np.linalg.norm(described, axis=1))
    for k, others in enumerate(near):
        found[k] = any(one < len(known) or (one - len(known) < k and not found[one - len(known)]) for one in others)
    return found
