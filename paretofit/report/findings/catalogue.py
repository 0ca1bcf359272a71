"""All findings of a study, in the order of the report."""

from collections.abc import Sequence

import pandas as pd

from paretofit.report.findings.finding import Finding
from paretofit.report.findings.front_finding import levels_on_front
from paretofit.report.findings.level_finding import errors_fall
from paretofit.report.findings.sampling_finding import leverage_beats_random
from paretofit.report.findings.weight_finding import force_weight_helps


def all_findings(results: pd.DataFrame, front: pd.DataFrame, levels: Sequence[str]) -> list[Finding]:
    """Every finding, in the order of the report; parameters as in `levels_on_front`."""
    return [
        errors_fall(results, levels),
        force_weight_helps(results, levels),
        leverage_beats_random(results, levels),
        levels_on_front(results, front, levels),
    ]
