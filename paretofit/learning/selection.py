"""Selection of the MD frames to label: frames whose error, predicted from the disagreement, is above tolerance."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import pandas as pd
from ase import Atoms, units
from scipy.spatial import cKDTree

from paretofit.core import Array, InputError
from paretofit.learning.learn_settings import SelectSettings
from paretofit.linear import select_d_optimal
from paretofit.structures import cut_out_environment, is_too_close
from paretofit.uncertainty import CALIBRATIONS, Assessment, compute_weighted_quantiles, score_detection

PROPERTIES = ("energy", "forces", "stress")
SCALES = np.array([1000.0, 1000.0, 1 / units.GPa])  # factors from eV/atom, eV/Å and eV/Å³ to `UNITS`
UNITS = {"energy": "meV/atom", "forces": "meV/Å", "stress": "GPa"}
MIN_CALIBRATION_POINTS = 3  # number of labelled configurations that the calibration of a property requires
# ratio to the median error; points with smaller errors, those of forces that vanish by symmetry, are not used
MIN_RELATIVE_ERROR = 1e-3
SIMILARITY_WIDTH = 1.5  # standard deviation of the Gaussian weight of a point, in the logarithm of the disagreement
# constant that is added to the Gaussian weight (at most 1), so that a calibration never depends on only a few points
MIN_POINT_WEIGHT = 0.02
BATCH_WEIGHT = 0.5  # ratio of the total weight of the frames of earlier batches to the total weight of other points
BOUND_COVERAGE = 0.9  # share of the errors of frames that should be below their upper bounds
CROSS_VALIDATION, HELD_OUT, NEW_BATCH = "cross-validation", "held out", "new batch"  # sources of points
CUT_OUT_KEY = "cut_out"  # info key of a configuration cut out of a frame: the central atom and the size of the frame
# Verdicts on frames, see `classify_frames`. A candidate is stored as "not drawn", because the candidates that are drawn
# for labelling become `CHOSEN`.
CONFIDENT, UNPHYSICAL, DUPLICATE, CANDIDATE, CHOSEN = "confident", "unphysical", "duplicate", "not drawn", "chosen"


@dataclass(frozen=True)
class Calibration:
    """Calibration from disagreements to errors (meV/atom, meV/Å, GPa) of the properties that can be calibrated.

    Attributes
    ----------
    curves : dict of str to SlopeCalibration, IsotonicCalibration or QuantileCalibration
        Functions that predict the error from the disagreement.
    thresholds : dict of str to float
        Disagreements above which the predicted errors are above tolerance.
    bound_factors : dict of str to float
        Ratios of the upper bound of an error to the predicted error; a share of `BOUND_COVERAGE` of the errors should
        be below their bounds.
    n_points : dict of str to int
        Number of labelled configurations to which each curve is fitted.
    """

    curves: dict[str, Any]
    thresholds: dict[str, float]
    bound_factors: dict[str, float]
    n_points: dict[str, int]

    def predict(self, name: str, disagreement: Array) -> tuple[Array, Array]:
        """Predict the errors of a property and their upper bounds, ``(n,)`` each, from disagreements ``(n,)``.

        The property must be in `curves`.
        """
        expected_error = self.curves[name].predict_error(disagreement)
        return expected_error, self.bound_factors[name] * expected_error


def calibrate(
    points: pd.DataFrame, settings: SelectSettings, frame_disagreement: pd.DataFrame | None = None
) -> Calibration:
    """Calibrate each property on labelled configurations that the committee was not trained on.

    Parameters
    ----------
    points : DataFrame
        ``source``, and by property ``*_std`` and ``*_committee_error``: disagreement and error of a committee
        (equations 1 and 2 of Bidoggia et al., 2025); NaN without a label.
    settings : SelectSettings
    frame_disagreement : DataFrame, optional
        Disagreements of the frames whose errors will be predicted, columns `PROPERTIES`. Points with similar
        disagreements have larger weights, see `compute_point_weights`; by default, disagreements do not affect weights.

    Returns
    -------
    Calibration
        Only points with a disagreement and an error above zero are used, and no points with tiny errors (see
        `MIN_RELATIVE_ERROR`). Properties with fewer than `MIN_CALIBRATION_POINTS` such points are missing.

    Raises
    ------
    InputError
        If neither energies nor forces can be calibrated.
    """
    curves: dict[str, Any] = {}
    thresholds: dict[str, float] = {}
    bound_factors: dict[str, float] = {}
    n_points: dict[str, int] = {}
    for name in PROPERTIES:
        disagreement, error = (
            points[f"{name}_{suffix}"].to_numpy(dtype=float) for suffix in ("std", "committee_error")
        )
        is_usable = (disagreement > 0) & (error > 0)
        if is_usable.any():
            is_usable &= error > MIN_RELATIVE_ERROR * np.median(error[is_usable])
        if is_usable.sum() < MIN_CALIBRATION_POINTS:
            continue
        disagreement, error = disagreement[is_usable], error[is_usable]
        target_disagreement = None if frame_disagreement is None else frame_disagreement[name].to_numpy()
        weights = compute_point_weights(points["source"].to_numpy()[is_usable], disagreement, target_disagreement)
        curve: Any = CALIBRATIONS[settings.calibration](disagreement, error, weights)
        ratios = error / curve.predict_error(disagreement)
        curves[name], n_points[name] = curve, int(is_usable.sum())
        thresholds[name] = curve.find_threshold(getattr(settings.tolerance, name))
        bound_factors[name] = compute_weighted_quantiles(ratios, weights, [_compute_bound_quantile(weights)])[0]
    if not {"energy", "forces"} & set(curves):
        raise InputError(
            f"{len(points)} labelled configurations can calibrate the committee, fewer than the "
            f"{MIN_CALIBRATION_POINTS} that a calibration requires; label more candidates first, or increase "
            "'learning.sets.validation'"
        )
    return Calibration(curves, thresholds, bound_factors, n_points)


def _compute_bound_quantile(weights: Array) -> float:
    """Compute which quantile of the ratios of true to predicted error bounds the ratio of a new frame.

    `weights` are those of the points, ``(n,)``; the bound should hold for a share of `BOUND_COVERAGE` of new frames.
    The new frame counts as one more point, with an infinite ratio and the largest weight of a point (weighted split
    conformal prediction: R. J. Tibshirani et al., NeurIPS 32, 2019). The 0.5 is subtracted because
    `compute_weighted_quantiles` places the rank of a point at the middle of its weight.
    """
    return min(1.0, BOUND_COVERAGE + (BOUND_COVERAGE - 0.5) * float(weights.max() / weights.sum()))


def compute_point_weights(source: Array, disagreement: Array, frame_disagreement: Array | None) -> Array:
    """Compute the weights of calibration points from their sources and similarity to the disagreements of frames.

    The similarity is a Gaussian function of the logarithm of the disagreement, centred on the median disagreement of
    the frames.

    The ratio of error to disagreement depends on the disagreement: it is near 1 for structures far from the training
    set, where members differ more than they err in common, and larger for structures close to the training set. Frames
    of earlier batches were chosen in the same way as the new frames, but there are few batches, and the errors within a
    batch have much in common. The frames of all batches together therefore have a fixed share of the weight.

    Measured on ten batches of C, Ni-Al, W and Be after the first iteration (tests/benchmarks/RESULTS.md), the median
    true error of forces was within a factor of 1.3 of the predicted one, and 95 % of the errors were below their
    bounds. The median true error of energies was within a factor of 1.5 of the predicted one in six batches and 5.1
    times the predicted one in another, and 84 % of the errors were below their bounds. Four alternatives made no
    difference: weights by input, one weight for each trajectory, an error that does not depend on the disagreement, and
    more weight for earlier batches. The reason is that frames of a trajectory have most of their energy error in common
    (intraclass correlation of log(error / disagreement) 0.8 for C, 0.6 for Ni-Al; standard deviation between
    trajectories 0.6).

    Parameters
    ----------
    source : (n,) str
        `CROSS_VALIDATION`, `HELD_OUT` or `NEW_BATCH`.
    disagreement : (n,) float64
        Disagreements of the points, positive.
    frame_disagreement : (m,) float64 or None
        Disagreements of the frames whose errors will be predicted, in the same unit; without them, similarity is not
        considered.

    Returns
    -------
    (n,) float64
        Positive weights, not normalised.
    """
    weights = np.ones(len(disagreement))
    if frame_disagreement is not None:
        is_usable = np.isfinite(frame_disagreement) & (frame_disagreement > 0)
        if is_usable.any():
            distance = np.log(disagreement / np.median(frame_disagreement[is_usable])) / SIMILARITY_WIDTH
            weights = np.exp(-0.5 * distance**2) + MIN_POINT_WEIGHT
    is_batch = source == NEW_BATCH
    if is_batch.any() and not is_batch.all():
        weights[is_batch] *= BATCH_WEIGHT * weights[~is_batch].sum() / weights[is_batch].sum()
    return np.asarray(weights)


def summarise_calibration(
    calibration: Calibration, points: pd.DataFrame, settings: SelectSettings
) -> dict[str, dict[str, float | None]]:
    """Summarise a calibration for the record of the selection.

    Returns
    -------
    dict of str to dict
        By property: ``threshold`` (of the disagreement), ``slope`` and ``confidence`` (half width of its 95 %
        confidence interval; both None for other curves than a slope), ``bound_factor``, ``points`` (number of labelled
        configurations), and ``true_positive_rate`` and ``positive_predictive_value`` of the threshold (None if
        undefined).
    """
    record = {}
    for name, curve in calibration.curves.items():
        labelled = points[points[f"{name}_std"].notna() & points[f"{name}_committee_error"].notna()]
        disagreement, error = (labelled[f"{name}_{suffix}"].to_numpy() for suffix in ("std", "committee_error"))
        rates = score_detection(disagreement, error, calibration.thresholds[name], getattr(settings.tolerance, name))
        true_positive_rate, predictive_value = (None if np.isnan(rate) else rate for rate in rates)
        record[name] = {
            "threshold": calibration.thresholds[name],
            "slope": getattr(curve, "slope", None),
            "confidence": getattr(curve, "slope_half_width", None),
            "bound_factor": calibration.bound_factors[name],
            "points": calibration.n_points[name],
            "true_positive_rate": true_positive_rate,
            "positive_predictive_value": predictive_value,
        }
    return record


def tabulate_disagreements(assessments: Sequence[Assessment]) -> pd.DataFrame:
    """Tabulate the disagreement of each property (meV/atom, meV/Å, GPa), the root mean square over its components.

    The table has a row per structure and the columns `PROPERTIES`.
    """
    rows = [
        [
            assessment.energy_std,
            np.sqrt(np.mean(assessment.forces_std**2)),
            np.sqrt(np.mean(assessment.stress_std**2)),
        ]
        for assessment in assessments
    ]
    # the shape is stated for an empty table
    return pd.DataFrame(SCALES * np.reshape(np.array(rows, dtype=float), (-1, 3)), columns=list(PROPERTIES))


def classify_frames(
    frames: Sequence[Atoms],
    assessments: Sequence[Assessment],
    calibration: Calibration,
    settings: SelectSettings,
    descriptors: Array,
    known_descriptors: Array,
) -> pd.DataFrame:
    """Classify every frame as unphysical, confident, a duplicate or a candidate for labelling.

    A frame has the first verdict that applies:

    - unphysical: two atoms are too close (``min_distance_ratio``), or a predicted error exceeds ``discard_above``;
    - confident: no disagreement exceeds the threshold of its property, which belongs to an error of ``tolerance``;
    - duplicate: the mean descriptors are those of a labelled configuration or of an earlier candidate, within
      ``duplicate_tolerance``;
    - candidate: any other frame.

    The disagreements and errors of properties that are not calibrated are not checked.

    Parameters
    ----------
    frames : sequence of ase.Atoms
    assessments : sequence of Assessment
        Assessments of the frames by the committee.
    calibration : Calibration
    settings : SelectSettings
    descriptors : (n, d) float64
        Mean descriptors of the frames.
    known_descriptors : (m, d) float64
        Mean descriptors of the labelled configurations.

    Returns
    -------
    DataFrame
        A row per frame: by property ``*_std`` (disagreement) and, if calibrated, ``*_expected`` (error predicted from
        the disagreement) and ``*_bound`` (upper bound of the error), meV/atom, meV/Å, GPa; ``extrapolation_grade``,
        ``above`` (properties above tolerance, separated by spaces), ``verdict`` (`UNPHYSICAL`, `CONFIDENT`, `DUPLICATE`
        or `CANDIDATE`). A property without a disagreement, such as the stress of a molecule, is not above tolerance.
    """
    disagreement = tabulate_disagreements(assessments)
    table = disagreement.add_suffix("_std")
    is_unphysical = np.array([is_too_close(atoms, settings.min_distance_ratio) for atoms in frames], dtype=bool)
    names_above = []
    for name in calibration.curves:
        expected_error, table[f"{name}_bound"] = calibration.predict(name, disagreement[name].to_numpy())
        table[f"{name}_expected"] = expected_error
        is_unphysical |= expected_error > getattr(settings.discard_above, name)
        names_above.append(np.where(disagreement[name] > calibration.thresholds[name], name, ""))
    table["extrapolation_grade"] = [assessment.grade for assessment in assessments]
    table["above"] = [" ".join(filter(None, names)) for names in zip(*names_above, strict=True)]
    table["verdict"] = np.where(is_unphysical, UNPHYSICAL, np.where(table["above"] == "", CONFIDENT, CANDIDATE))
    candidate_rows = np.flatnonzero(table["verdict"] == CANDIDATE)
    is_duplicate = _find_duplicates(descriptors[candidate_rows], known_descriptors, settings.duplicate_tolerance)
    table.loc[candidate_rows[is_duplicate], "verdict"] = DUPLICATE
    return table


def select_frames(
    table: pd.DataFrame,
    descriptors: Array,
    known_descriptors: Array,
    settings: SelectSettings,
    rng: np.random.Generator,
) -> Array:
    """Select the frames to label among the candidates, at random or for diversity; return their rows, sorted.

    Parameters
    ----------
    table : DataFrame
        Table of `classify_frames`, in which candidates have the verdict `CANDIDATE`.
    descriptors : (n, d) float64
        Mean descriptors of the frames.
    known_descriptors : (m, d) float64
        Mean descriptors of the labelled configurations.
    settings : SelectSettings
    rng : numpy.random.Generator
        Generator for the random selection.

    Returns
    -------
    (n_selected,) int64
        Positions of the rows in the table.
    """
    candidate_rows = np.flatnonzero(table["verdict"] == CANDIDATE)
    n_selected = min(settings.max_selected, len(candidate_rows))
    if settings.strategy == "random" or n_selected == len(candidate_rows):
        return np.sort(rng.permutation(candidate_rows)[:n_selected])
    order, _ = select_d_optimal(descriptors[candidate_rows], n_selected, known_descriptors)
    return np.sort(candidate_rows[order])


def build_configuration(frame: Atoms, grades: Array, config_id: int, iteration: int, settings: SelectSettings) -> Atoms:
    """Build the configuration to label from a frame, or from the environment of an atom if the frame is too large.

    Parameters
    ----------
    frame : ase.Atoms
    grades : (n_atoms,) float64
        Extrapolation grades; the environment of the atom with the highest grade is cut out.
    config_id, iteration : int
        Id of the configuration, and number of the iteration that labels it, for the info.
    settings : SelectSettings
        ``cut_out`` limits the size of frames that have a periodic direction.

    Returns
    -------
    ase.Atoms
        Copy without a calculator; `CUT_OUT_KEY` in its info marks an environment that was cut out.
    """
    atoms: Atoms = frame.copy()
    atoms.calc = None
    info = {**frame.info, "config_id": config_id, "iteration": iteration, "config_type": "md"}
    if settings.cut_out is not None and len(frame) > settings.cut_out.max_atoms and frame.pbc.any():
        center = int(np.nanargmax(grades))
        atoms = cut_out_environment(atoms, center, settings.cut_out.radius)
        if len(atoms) < len(frame):
            info[CUT_OUT_KEY] = f"atom {center} of {len(frame)}"
    atoms.info = info
    return atoms


def _find_duplicates(descriptors: Array, known_descriptors: Array, tolerance: float) -> Array:
    """Flag structures that duplicate a known structure, or an earlier structure that is not flagged, ``(n,)`` bool.

    Two structures are duplicates if their mean descriptors differ by at most `tolerance` times the norm of those of the
    later one. With a tolerance of 0, no structure is flagged.
    """
    is_duplicate = np.zeros(len(descriptors), dtype=bool)
    if not len(descriptors) or tolerance == 0:
        return is_duplicate
    n_known = len(known_descriptors)
    tree = cKDTree(np.vstack([known_descriptors.reshape(-1, descriptors.shape[1]), descriptors]))
    neighbour_lists = tree.query_ball_point(descriptors, tolerance * np.linalg.norm(descriptors, axis=1))
    for position, neighbours in enumerate(neighbour_lists):
        # the indices of a tree: known structures, then the structures themselves
        is_duplicate[position] = any(
            index < n_known or (index - n_known < position and not is_duplicate[index - n_known])
            for index in neighbours
        )
    return is_duplicate
