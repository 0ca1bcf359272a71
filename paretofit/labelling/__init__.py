"""Labels from real engines at every level of a convergence ladder, resumably, each with what it cost."""

from paretofit.labelling.label import LabelPlan, compute_labels, plan_labels, write_labels
from paretofit.labelling.ladder import PAPER, Level, SelfConsistency, Smearing, kpoint_mesh
from paretofit.labelling.settings import LabelSettings

__all__ = [
    "PAPER",
    "LabelPlan",
    "LabelSettings",
    "Level",
    "SelfConsistency",
    "Smearing",
    "compute_labels",
    "kpoint_mesh",
    "plan_labels",
    "write_labels",
]
