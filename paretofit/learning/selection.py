"""Selection of the MD frames to label: frames whose error, predicted from the disagreement, is above tolerance."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import pandas as pd
from ase import Atoms
from scipy.spatial import cKDTree

from paretofit.core import Array, InputError
from paretofit.learning.learn_settings import SelectSettings
from paretofit.linear import select_d_optimal
from paretofit.structures import is_too_close
from paretofit.uncertainty import CALIBRATIONS, Assessment, score_detection

PROPERTIES = ("energy", "forces", "stress")
OUTLIER_RATIO = 30.0  # of an error to the tolerance; larger errors are excluded from a calibration if possible
MIN_CALIBRATION_POINTS = 3  # labelled configurations
CONFIDENT, BROKEN, DUPLICATE, WAITING, CHOSEN = "confident", "broken", "duplicate", "not drawn", "chosen"


@dataclass(frozen=True)
class Calibration:
    """Calibration from disagreements to errors, by property; meV/atom, meV/Å, meV/Å³.

    Attributes
    ----------
    curves : dict of str to Slope, Isotonic or QuantileLine
        Curves of the properties that can be calibrated.
    thresholds : dict of str to float
        Disagreements above which the predicted errors are above tolerance.
    """

    curves: dict[str, Any]
    thresholds: dict[str, float]


def calibrate(disagreement: pd.DataFrame, error: pd.DataFrame, settings: SelectSettings) -> Calibration:
    """Calibrate each property on held-out labelled configurations, without outliers.

    Parameters
    ----------
    disagreement, error : DataFrame
        Columns "energy", "forces", "stress": disagreements and errors of the committee (equations 1 and 2 of
        Bidoggia et al., 2025); NaN without a label.
    settings : SelectSettings

    Raises
    ------
    InputError
        If neither energies nor forces can be calibrated.
    """
    curves: dict[str, Any] = {}
    thresholds: dict[str, float] = {}
    for name in PROPERTIES:
        tolerance = getattr(settings.tolerance, name)
        is_labelled = disagreement[name].notna() & error[name].notna()
        if is_labelled.sum() < MIN_CALIBRATION_POINTS:
            continue
        # a few outliers far above the tolerance, where accuracy is irrelevant, would dominate the fit
        is_inlier = is_labelled & (error[name] <= OUTLIER_RATIO * tolerance)
        is_point = is_inlier if is_inlier.sum() >= 2 * MIN_CALIBRATION_POINTS else is_labelled
        fit_curve = CALIBRATIONS[settings.calibration]
        curves[name] = fit_curve(disagreement[name][is_point].to_numpy(), error[name][is_point].to_numpy())
        thresholds[name] = curves[name].find_threshold(tolerance)
    if not {"energy", "forces"} & set(curves):
        raise InputError(
            f"the validation set has {len(disagreement)} labelled configurations, fewer than the "
            f"{MIN_CALIBRATION_POINTS} that a calibration requires; label more candidates first, or increase "
            "'learning.sets.validation'"
        )
    return Calibration(curves, thresholds)


def calibrate_on_validation_set(
    validation_errors: pd.DataFrame, settings: SelectSettings
) -> tuple[Calibration, dict[str, dict[str, float | None]]]:
    """Calibrate on the rows of ``errors.csv`` that belong to the validation set.

    Returns
    -------
    calibration : Calibration
    record : dict of str to dict
        By property: ``threshold``, ``slope`` and ``confidence`` of the curve, and ``true_positive_rate`` and
        ``positive_predictive_value`` of the threshold.
    """
    disagreement, error = (
        validation_errors[[f"{name}_{suffix}" for name in PROPERTIES]].set_axis(list(PROPERTIES), axis=1)
        for suffix in ("std", "committee_error")
    )
    calibration = calibrate(disagreement, error, settings)
    record = {}
    for name, curve in calibration.curves.items():
        is_labelled = disagreement[name].notna() & error[name].notna()
        points = disagreement[name][is_labelled].to_numpy(), error[name][is_labelled].to_numpy()
        rates = score_detection(*points, calibration.thresholds[name], getattr(settings.tolerance, name))
        true_positive_rate, predictive_value = (None if np.isnan(rate) else rate for rate in rates)
        record[name] = {
            "threshold": calibration.thresholds[name],
            "slope": getattr(curve, "slope", None),
            "confidence": getattr(curve, "confidence", None),
            "true_positive_rate": true_positive_rate,
            "positive_predictive_value": predictive_value,
        }
    return calibration, record


def tabulate_disagreements(assessments: Sequence[Assessment]) -> pd.DataFrame:
    """Tabulate the disagreements of each structure (meV/atom, meV/Å, meV/Å³), as root mean squares of components."""
    rows = [
        [assessment.energy_std, *(np.sqrt(np.mean(std**2)) for std in (assessment.forces_std, assessment.stress_std))]
        for assessment in assessments
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
    """Classify every frame as confident, broken (unphysical), duplicate, or not drawn (a candidate for labelling).

    Parameters
    ----------
    frames : sequence of ase.Atoms
    assessments : sequence of Assessment
    calibration : Calibration
    settings : SelectSettings
    descriptors : (n, d) float64
        Mean descriptors of the frames.
    known_descriptors : (m, d) float64
        Mean descriptors of the labelled configurations.

    Returns
    -------
    DataFrame
        A row per frame: ``energy_std, forces_std, stress_std``, ``energy_expected`` and so on (errors predicted from
        the disagreement), ``extrapolation_grade``, ``above`` (properties above tolerance), ``verdict``.
    """
    disagreement = tabulate_disagreements(assessments)
    table = disagreement.add_suffix("_std")
    is_broken = np.array([is_too_close(atoms, settings.min_distance_ratio) for atoms in frames], dtype=bool)
    names_above = []
    for name, curve in calibration.curves.items():
        predicted_error = curve.predict_error(disagreement[name].to_numpy())
        table[f"{name}_expected"] = predicted_error
        is_broken |= predicted_error > getattr(settings.discard_above, name)
        names_above.append(np.where(disagreement[name] > calibration.thresholds[name], name, ""))
    table["extrapolation_grade"] = [assessment.grade for assessment in assessments]
    table["above"] = [" ".join(filter(None, names)) for names in zip(*names_above, strict=True)]
    table["verdict"] = np.where(is_broken, BROKEN, np.where(table["above"] == "", CONFIDENT, WAITING))
    candidates = np.flatnonzero(table["verdict"] == WAITING)
    is_duplicate = _find_duplicates(descriptors[candidates], known_descriptors, settings.duplicate_tolerance)
    table.loc[candidates[is_duplicate], "verdict"] = DUPLICATE
    return table


def select_frames(
    table: pd.DataFrame,
    descriptors: Array,
    known_descriptors: Array,
    settings: SelectSettings,
    rng: np.random.Generator,
) -> Array:
    """Select frames to label among the candidates, at random or for diversity; return their row indices, sorted."""
    candidates = np.flatnonzero(table["verdict"] == WAITING)
    count = min(settings.max_selected, len(candidates))
    if settings.strategy == "random" or count == len(candidates):
        return np.sort(rng.permutation(candidates)[:count])
    order, _ = select_d_optimal(descriptors[candidates], count, known_descriptors)
    return np.sort(candidates[order])


def _find_duplicates(descriptors: Array, known_descriptors: Array, tolerance: float) -> Array:
    """Flag structures that duplicate a known structure or an earlier one that is not a duplicate: ``(n,)`` bool."""
    is_duplicate = np.zeros(len(descriptors), dtype=bool)
    if not len(descriptors) or tolerance == 0:
        return is_duplicate
    n_known = len(known_descriptors)
    tree = cKDTree(np.vstack([known_descriptors.reshape(-1, descriptors.shape[1]), descriptors]))
    neighbour_lists = tree.query_ball_point(descriptors, tolerance * np.linalg.norm(descriptors, axis=1))
    for k, neighbours in enumerate(neighbour_lists):
        is_duplicate[k] = any(
            index < n_known or (index - n_known < k and not is_duplicate[index - n_known]) for index in neighbours
        )
    return is_duplicate
