"""Which frames of the dynamics are labelled: those whose error, by the calibrated disagreement, is above tolerance."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
import pandas as pd
from scipy.spatial import cKDTree

from paretofit.core import InputError
from paretofit.linear import select_d_optimal
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
MIN_CALIBRATION_POINTS = 3  # configurations with a label, for a calibration
CONFIDENT, BROKEN, DUPLICATE, WAITING, CHOSEN = "confident", "broken", "duplicate", "not drawn", "chosen"


@dataclass(frozen=True)
class Calibration:
    """From disagreements to errors, by property; meV/atom, meV/Å, meV/Å³.

    Attributes
    ----------
    curves : dict of str to Slope, Isotonic or QuantileLine
        Properties that are calibrated.
    thresholds : dict of str to float
        Disagreements above which errors are above tolerance.
    """

    curves: dict[str, Any]
    thresholds: dict[str, float]


def calibrate(disagreement: pd.DataFrame, error: pd.DataFrame, settings: SelectSettings) -> Calibration:
    """Calibrate each property on held-out labelled configurations, those that are not hopelessly off.

    Parameters
    ----------
    disagreement, error : DataFrame
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
        known = disagreement[name].notna() & error[name].notna()
        if known.sum() < MIN_CALIBRATION_POINTS:
            continue
        near = known & (error[name] <= NEAR * getattr(settings.tolerance, name))
        if (
            near.sum() >= 2 * MIN_CALIBRATION_POINTS
        ):  # a few that are far off would decide where nothing is to be decided
            known = near
        line: Any = CALIBRATIONS[settings.calibration](
            disagreement[name][known].to_numpy(), error[name][known].to_numpy()
        )
        lines[name] = line
        thresholds[name] = lines[name].threshold(getattr(settings.tolerance, name))
    if not {"energy", "forces"} & set(lines):
        raise InputError(
            f"the validation set has {len(disagreement)} labelled configurations, fewer than the {MIN_CALIBRATION_POINTS} that a calibration "
            "needs; label more candidates first, or raise 'learning.sets.validate'"
        )
    return Calibration(lines, thresholds)


def disagreements(assessments: Sequence[Assessment]) -> pd.DataFrame:
    """Disagreement of each structure by property: meV/atom, and the root mean square of meV/Å and meV/Å³."""
    rows = [
        [one.energy_std, np.sqrt(np.mean(one.forces_std**2)), np.sqrt(np.mean(one.stress_std**2))]
        for one in assessments
    ]
    return 1000 * pd.DataFrame(rows, columns=list(PROPERTIES), dtype=float)


def classify_frames(
    frames: Sequence[Atoms],
    assessments: Sequence[Assessment],
    calibration: Calibration,
    settings: SelectSettings,
    descriptors: Array,
    known_descriptors: Array,
) -> pd.DataFrame:
    """Say of every frame what it is: confident, broken, a duplicate, or a candidate.

    Parameters
    ----------
    frames : sequence of ase.Atoms
    assessments : sequence of Assessment
    calibration : Calibration
    settings : SelectSettings
    descriptors : (n, d) float64
        Mean descriptors of the frames.
    known_descriptors : (m, d) float64
        The same of what is labelled.

    Returns
    -------
    DataFrame
        ``energy_std, forces_std, stress_std, energy_expected`` and so on (errors as the disagreement foretells them),
        ``extrapolation_grade``, ``above`` (properties above tolerance), ``verdict``.
    """
    spread = disagreements(assessments)
    table = spread.add_suffix("_std")
    above, broken = [], np.array([is_too_close(atoms, settings.min_distance_ratio) for atoms in frames], dtype=bool)
    for name, line in calibration.curves.items():
        expected = line.error(spread[name].to_numpy())
        table[f"{name}_expected"] = expected
        broken |= expected > getattr(settings.discard_above, name)
        above.append(np.where(spread[name] > calibration.thresholds[name], name, ""))
    table["extrapolation_grade"] = [one.grade for one in assessments]
    table["above"] = [" ".join(filter(None, one)) for one in zip(*above, strict=True)]
    table["verdict"] = np.where(broken, BROKEN, np.where(table["above"] == "", CONFIDENT, WAITING))
    waiting = np.flatnonzero(table["verdict"] == WAITING)
    for k in waiting[_duplicates(descriptors[waiting], known_descriptors, settings.duplicate_tolerance)]:
        table.loc[k, "verdict"] = DUPLICATE
    return table


def select_frames(
    table: pd.DataFrame,
    descriptors: Array,
    known_descriptors: Array,
    settings: SelectSettings,
    rng: np.random.Generator,
) -> Array:
    """Positions of the frames to label, ascending: at random among the candidates, or as diverse as can be."""
    waiting = np.flatnonzero(table["verdict"] == WAITING)
    count = min(settings.max_selected, len(waiting))
    if settings.strategy == "random" or count == len(waiting):
        return np.sort(rng.permutation(waiting)[:count])
    order, _ = select_d_optimal(descriptors[waiting], count, known_descriptors)
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
