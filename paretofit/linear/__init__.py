"""Weighted least squares, leverage and sampling: pure arrays, no atoms."""

from paretofit.linear.leverage import LeverageScores, leverage_scores
from paretofit.linear.loo import leave_one_out
from paretofit.linear.reduced_leverage import reduced_leverage
from paretofit.linear.reduction import Reduction
from paretofit.linear.ridge import choose_ridge
from paretofit.linear.sampling import sample_configurations
from paretofit.linear.weight_path import WeightPath, weight_path
from paretofit.linear.wls import Fit, fit_wls, row_weights

__all__ = [
    "Fit",
    "LeverageScores",
    "Reduction",
    "WeightPath",
    "choose_ridge",
    "fit_wls",
    "leave_one_out",
    "leverage_scores",
    "reduced_leverage",
    "row_weights",
    "sample_configurations",
    "weight_path",
]
