"""Input of a sweep, from a prepared study and its design matrix."""

from __future__ import annotations

from dataclasses import replace

import numpy as np

from paretofit.descriptors import DesignMatrix
from paretofit.study.group_factors import compute_group_factors
from paretofit.study.preparation import PreparedStudy
from paretofit.sweep import SweepInput


def build_sweep_input(prepared: PreparedStudy, design: DesignMatrix) -> SweepInput:
    """Build the input of a study's sweep: labelled, constrained design matrix, costs, group weights and split."""
    study = prepared.study
    labelled_design = design.with_labels(prepared.dataset, prepared.grid.levels)
    labelled_design = prepared.reference_energies.constrain(labelled_design)
    if study.cost.label_seconds != "recorded":
        seconds = {
            level: np.full(design.n_configurations, study.cost.label_seconds[level]) for level in prepared.grid.levels
        }
        labelled_design = replace(labelled_design, seconds=seconds)
    weights = compute_group_factors(prepared, labelled_design)
    labelled_design = labelled_design if weights is None else labelled_design.with_row_weights(weights)
    twojmax = max(study.twojmax) if study.leverage.twojmax is None else study.leverage.twojmax
    return SweepInput(
        labelled_design,
        prepared.split.train,
        prepared.split.test,
        (study.leverage.energy_weight, study.leverage.force_weight),
        labelled_design.columns_up_to(twojmax),
        prepared.split.groups,
    )
