"""Weighted least squares, leverage and sampling: pure arrays, no atoms."""

from paretofit.linear.leverage import LeverageScores, leverage_scores
from paretofit.linear.reduction import Reduction, reduced_leverage
from paretofit.linear.sampling import sample_configurations
from paretofit.linear.wls import Fit, fit_wls, row_weights

__all__ = [
    "Fit",
    "LeverageScores",
    "Reduction",
    "fit_wls",
    "leverage_scores",
    "reduced_leverage",
    "row_weights",
    "sample_configurations",
]
