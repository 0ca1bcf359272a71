"""Weighted least squares, leverage and sampling: pure arrays, no atoms."""

from paretofit.linear.leverage import LeverageScores, leverage_scores
from paretofit.linear.sampling import sample_configurations
from paretofit.linear.wls import Fit, fit_wls, row_weights

__all__ = ["Fit", "LeverageScores", "fit_wls", "leverage_scores", "row_weights", "sample_configurations"]
