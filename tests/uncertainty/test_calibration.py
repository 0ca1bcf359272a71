"""Disagreement, calibration and conformal intervals against direct computation and their nominal coverage."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from paretofit import InputError
from paretofit.uncertainty import calibrate_conformal, get_min_calibration_size, map_detection_scores, score_detection
from paretofit.uncertainty.calibration import (
    calibrate_isotonic,
    calibrate_quantile,
    calibrate_slope,
    compute_committee_error,
    compute_disagreement,
)


@pytest.fixture
def committee():
    rng = np.random.default_rng(0)
    return rng.normal(size=(6, 40)), rng.normal(size=40), np.repeat(np.arange(8), 5)


def test_disagreement_and_error_equal_their_definitions(committee):
    members, labels, configuration = committee
    mean = members.mean(axis=0)
    direct = [np.sqrt(sum((member[k] - mean[k]) ** 2 for member in members) / 6) for k in range(40)]
    assert compute_disagreement(members) == pytest.approx(direct)
    error = compute_committee_error(members, labels)
    assert error**2 == pytest.approx(compute_disagreement(members) ** 2 + (mean - labels) ** 2)
    together = compute_disagreement(members, configuration)
    assert together == pytest.approx([np.sqrt(np.mean(np.square(direct[5 * k : 5 * k + 5]))) for k in range(8)])
    shuffled = np.random.default_rng(1).permutation(40)
    assert compute_disagreement(members[:, shuffled], configuration[shuffled]) == pytest.approx(together)
    assert compute_disagreement(members + labels) == pytest.approx(direct)


def test_slope_confidence_intervals_cover_the_true_slope():
    rng = np.random.default_rng(2)
    inside = 0
    for _ in range(200):
        error = rng.uniform(0.1, 2.0, 60)
        line = calibrate_slope(np.abs(0.4 * error + 0.05 * rng.normal(size=60)), error)
        inside += abs(line.slope - 0.4) < line.slope_half_width
        assert line.rms_residual == pytest.approx(0.05, rel=0.4)
    assert 0.9 < inside / 200 <= 1.0
    assert line.find_threshold(2.0) == pytest.approx(2.0 * line.slope)
    assert line.predict_error(np.array([line.slope])) == pytest.approx([1.0])


@pytest.mark.parametrize("calibrate", [calibrate_slope, calibrate_isotonic, calibrate_quantile])
def test_a_single_configuration_far_off_does_not_decide(calibrate):
    """Thirty configurations with τ = ε/2, and one whose error is a thousand times the others' at the same ratio."""
    rng = np.random.default_rng(3)
    error = rng.uniform(0.5, 2.0, 30)
    spread = 0.5 * error * np.exp(0.1 * rng.normal(size=30))
    plain = calibrate(spread, error)
    for far_spread, far_error in ((1000.0, 1000.0), (1000.0, 1e6), (0.01, 1000.0)):
        disturbed = calibrate(np.append(spread, far_spread), np.append(error, far_error))
        assert disturbed.predict_error(np.array([0.5])) == pytest.approx(plain.predict_error(np.array([0.5])), rel=0.1)


def test_weighted_configurations_count_as_repeated_ones():
    rng = np.random.default_rng(4)
    spread, error, counts = rng.uniform(0.1, 1, 25), rng.uniform(0.1, 1, 25), rng.integers(1, 4, 25)
    repeated = np.repeat(spread, counts), np.repeat(error, counts)
    for calibrate in (calibrate_isotonic, calibrate_slope):
        weighted = calibrate(spread, error, counts.astype(float)).predict_error(np.array([0.5]))
        assert weighted == pytest.approx(calibrate(*repeated).predict_error(np.array([0.5])), rel=0.1)
    alone = calibrate_slope(spread, error, (counts == 1).astype(float))
    assert alone == calibrate_slope(spread[counts == 1], error[counts == 1])


def test_detection_rates_equal_direct_counts():
    spread, error = np.array([0.1, 0.5, 0.9, 0.2]), np.array([0.2, 2.0, 0.3, 3.0])
    assert score_detection(spread, error, 0.4, 1.0) == (0.5, 0.5)
    assert score_detection(spread, error, 0.0, 1.0) == (1.0, 0.5)
    rate, predictive = score_detection(spread, error, 5.0, 9.0)
    assert np.isnan(rate)
    assert np.isnan(predictive)


@pytest.mark.parametrize("coverage", [0.5, 0.8, 0.9])
def test_intervals_have_nominal_coverage_for_uninformative_spreads(coverage):
    rng = np.random.default_rng(3)
    covered = []
    for _ in range(400):
        residual = rng.standard_t(3, 61) * np.exp(rng.normal(size=61))
        spread = np.exp(rng.normal(size=61))  # independent of the residual
        q = calibrate_conformal(spread[:60], residual[:60], coverage)
        covered.append(abs(residual[60]) <= q.compute_half_width(spread[60]))
    assert np.mean(covered) == pytest.approx(coverage, abs=0.06)


@given(st.integers(9, 60), st.integers(0, 1000))
@settings(max_examples=50)
def test_the_factor_is_the_quantile_of_the_scores(n, seed):
    rng = np.random.default_rng(seed)
    spread, residual = rng.uniform(0.1, 1, n), rng.normal(size=n)
    q = calibrate_conformal(spread, residual, 0.9)
    scores = np.abs(residual) / np.maximum(spread, 0.1 * np.median(spread))
    assert (scores <= q.factor).sum() == int(np.ceil((n + 1) * 0.9 - 1e-9))


def test_invalid_input_is_refused(committee):
    members, labels, _ = committee
    ones = np.ones(5)
    cases = [
        (lambda: compute_disagreement(members[:1]), "at least two members; got 1"),
        (lambda: compute_committee_error(members[0], labels), r"must have the shape \(members, values\); got \(40,\)"),
        (lambda: compute_committee_error(members, labels[:3]), "a label for each of 40 values; got 3"),
        (lambda: calibrate_slope(ones, ones[:4]), "an error for each disagreement; got 5 and 4"),
        (lambda: calibrate_slope(ones, ones * np.nan), "errors must be finite and non-negative; 5 of 5 are not"),
        (lambda: calibrate_conformal(ones, ones * np.nan, 0.5), "spreads and residuals must be finite"),
        (lambda: calibrate_conformal(ones, ones, 0.5, ones[:2]), "got 5 spreads, 5 residuals and 2 groups"),
        (lambda: score_detection(ones, ones, np.nan, 1.0), "must be at least zero; got nan"),
        (lambda: calibrate_slope(ones[:2], ones[:2]), "at least 3 disagreements with errors; got 2"),
        (lambda: calibrate_slope(0 * ones, ones), "all disagreements are zero"),
        (lambda: calibrate_slope(ones, -ones), "errors must be finite and non-negative"),
        (lambda: calibrate_slope(ones, ones).find_threshold(0.0), "must be positive; got 0.0"),
        (lambda: score_detection(ones, ones, -1.0, 1.0), "must be at least zero; got -1.0 and 1.0"),
        (
            lambda: calibrate_conformal(ones, ones, 0.9),
            "requires 9 held-out configurations or groups for its calibration; there are 5",
        ),
        (lambda: calibrate_conformal(0 * ones, ones, 0.5), "spreads above zero; are the members identical"),
        (lambda: calibrate_conformal(ones, ones, 1.0), "between 0 and 1; got 1.0"),
        (lambda: get_min_calibration_size(1.0), "between 0 and 1; got 1.0"),
    ]
    for call, message in cases:
        with pytest.raises(InputError, match=message):
            call()


class TestOtherCalibrations:
    def pairs(self, n=400):
        rng = np.random.default_rng(5)
        spread = rng.uniform(0.1, 2.0, n)
        return spread, spread**2 * rng.uniform(0.5, 1.5, n)

    def test_isotonic_regression_is_monotonic_and_recovers_the_curve(self):
        spread, error = self.pairs()
        calibration = calibrate_isotonic(spread, error)
        assert (np.diff(calibration.expected_error) >= 0).all()
        assert calibration.predict_error(np.array([0.5, 1.5])) == pytest.approx([0.25, 2.25], rel=0.2)
        limit = calibration.find_threshold(1.0)
        assert 0.85 < limit < 1.15
        largest = calibration.disagreement[-1], calibration.expected_error[-1]
        # Above the data, errors are proportional to the spread.
        assert calibration.find_threshold(100.0) == pytest.approx(largest[0] * 100 / largest[1])
        assert calibration.predict_error(np.array([2 * largest[0]])) == pytest.approx([2 * largest[1]])
        step_calibration = calibrate_isotonic(np.array([1.0, 2.0, 3.0, 4.0]), np.array([0.1, 0.2, 5.0, 6.0]))
        flagged = np.array([1.0, 2.0, 3.0, 4.0]) > step_calibration.find_threshold(1.0)
        assert flagged.tolist() == [False, False, True, True]
        tied_calibration = calibrate_isotonic(np.array([1.0, 1.0, 1.0, 2.0]), np.array([1.0, 2.0, 4.0, 6.0]))
        assert tied_calibration.predict_error(np.array([1.0]))[0] == pytest.approx(2.0)  # the geometric mean

    @pytest.mark.parametrize("share", [0.5, 0.9])
    def test_the_quantile_line_minimises_the_pinball_loss_of_logarithms(self, share):
        spread, error = self.pairs(401)
        calibration = calibrate_quantile(spread, error, quantile=share)

        def loss(factor):
            residual = np.log(error) - np.log(factor * spread)
            return np.sum(np.where(residual > 0, share * residual, (share - 1) * residual))

        assert loss(calibration.factor) <= min(loss(calibration.factor * scale) for scale in (0.97, 0.99, 1.01, 1.03))
        assert calibration.find_threshold(2.0) == pytest.approx(2.0 / calibration.factor)
        assert calibration.predict_error(np.array([2.0])) == pytest.approx([2.0 * calibration.factor])

    def test_conformal_calibration_counts_groups_instead_of_values(self):
        """A configuration of many components must not outweigh others, and few configurations cannot calibrate."""
        rng = np.random.default_rng(6)
        group = np.repeat(np.arange(12), [200, *[3] * 11])
        residual = rng.normal(size=len(group)) * np.where(group == 0, 10.0, 1.0)
        pooled, grouped = (calibrate_conformal(np.ones(len(group)), residual, 0.8, groups) for groups in (None, group))
        assert grouped.factor < 0.6 * pooled.factor
        inside = [np.mean(np.abs(residual[group == k]) <= grouped.factor) for k in range(12)]
        assert sum(inside) / 13 == pytest.approx(0.8, abs=0.03)
        with pytest.raises(InputError, match="requires 19 held-out configurations or groups .*; there are 12"):
            calibrate_conformal(np.ones(len(group)), residual, 0.95, group)

    def test_intervals_have_nominal_coverage_when_many_spreads_nearly_vanish(self):
        """As in crystals: 40 % of the components of each configuration are small by symmetry, with small residuals."""
        rng = np.random.default_rng(9)
        group = np.repeat(np.arange(120), 20)
        spread = np.exp(0.3 * rng.normal(size=len(group)))
        small = np.arange(len(group)) % 5 < 2
        spread[small] *= rng.choice([1e-3, 1e-5], small.sum())
        residual = 2 * spread * rng.normal(size=len(group))
        calibrating = group < 60
        intervals = calibrate_conformal(spread[calibrating], residual[calibrating], 0.9, group[calibrating])
        inside = np.abs(residual) <= intervals.compute_half_width(spread)
        assert inside[~calibrating & ~small].mean() == pytest.approx(0.9, abs=0.03)
        assert inside[small].all()
        residual[small] = 5.0  # large residuals at small spreads must widen the intervals
        recalibrated_intervals = calibrate_conformal(
            spread[calibrating], residual[calibrating], 0.9, group[calibrating]
        )
        assert np.mean(np.abs(residual) <= recalibrated_intervals.compute_half_width(spread)) >= 0.89

    def test_a_spread_of_zero_is_raised_to_the_minimum(self):
        spread = np.r_[np.zeros(5), np.ones(45)]
        intervals = calibrate_conformal(spread, np.linspace(-1, 1, 50), 0.9)
        assert intervals.min_spread == pytest.approx(0.1)
        assert intervals.compute_half_width(np.zeros(1))[0] == pytest.approx(0.1 * intervals.factor)

    def test_detection_map_equals_detection_rates_on_a_grid(self):
        spread, error = self.pairs(50)
        rate, predictive = map_detection_scores(spread, error, np.array([0.5, 1.0]), np.array([0.3, 1.0, 2.0]))
        assert rate.shape == (2, 3)
        assert (rate[1, 2], predictive[1, 2]) == score_detection(spread, error, 1.0, 2.0)

    def test_invalid_pairs_are_refused(self):
        ones = np.ones(5)
        with pytest.raises(InputError, match="quantile of the errors below the line must be between 0 and 1; got 1.0"):
            calibrate_quantile(ones, ones, quantile=1.0)
        with pytest.raises(InputError, match="all errors are zero"):
            calibrate_isotonic(ones, 0 * ones)
        with pytest.raises(InputError, match="must be positive; got -1"):
            calibrate_isotonic(ones, ones).find_threshold(-1)


def test_chance_agreement_of_few_members_does_not_widen_intervals():
    """Coverage stays, and the median width approaches that of intervals of equal width."""
    rng = np.random.default_rng(4)
    widths = {}
    for members in (None, 2):
        inside, half_widths = [], []
        for _ in range(60):
            scale = np.full(400, 1.0)
            spread = np.abs(rng.normal(0, scale)) / np.sqrt(2)
            residual = rng.normal(0, 3.0, 400)
            intervals = calibrate_conformal(spread[:200], residual[:200], 0.9, n_members=members)
            half = intervals.compute_half_width(spread[200:])
            inside.append(np.abs(residual[200:]) <= half)
            half_widths.append(np.median(half))
        assert np.mean(inside) > 0.885
        widths[members] = np.median(half_widths)
    assert widths[2] < 0.5 * widths[None]
    assert widths[2] < 1.5 * 3.0 * 1.645
    many = calibrate_conformal(spread, residual, n_members=50)
    assert many == calibrate_conformal(spread, residual)
