"""What a results table says, in words computed from its numbers and whichever way they come out."""

from collections.abc import Sequence

import pandas as pd

from paretofit.report.findings.finding import Finding, Verdict
from paretofit.report.findings.front import levels_on_front
from paretofit.report.findings.levels import errors_fall
from paretofit.report.findings.sampling import leverage_beats_random
from paretofit.report.findings.weights import force_weight_helps

__all__ = [
    "Finding",
    "Verdict",
    "all_findings",
    "errors_fall",
    "force_weight_helps",
    "levels_on_front",
    "leverage_beats_random",
]


def all_findings(results: pd.DataFrame, front: pd.DataFrame, levels: Sequence[str]) -> list[Finding]:
    """Every finding, in the order of the report; parameters as in `levels_on_front`."""
    return [
        errors_fall(results, levels),
        force_weight_helps(results, levels),
        leverage_beats_random(results, levels),
        levels_on_front(results, front, levels),
    ]
