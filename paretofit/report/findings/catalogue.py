"""All findings of a study, in the order of the report."""

from collections.abc import Sequence
from dataclasses import replace

import pandas as pd

from paretofit.report.findings.finding import Finding
from paretofit.report.findings.front_finding import assess_levels_on_front
from paretofit.report.findings.label_findings import assess_own_level, assess_savings
from paretofit.report.findings.level_finding import assess_error_decrease
from paretofit.report.findings.mixture_finding import assess_mixtures
from paretofit.report.findings.model_finding import assess_models
from paretofit.report.findings.property_finding import assess_properties
from paretofit.report.findings.sampling_finding import assess_leverage_sampling
from paretofit.report.findings.single_level_findings import collect_single_level_findings
from paretofit.report.findings.sufficient_level_finding import assess_sufficient_levels
from paretofit.report.findings.weight_finding import assess_force_weight
from paretofit.report.joined_bases import JoinedBases
from paretofit.report.paired_errors import PairedErrors
from paretofit.report.tables.summaries import select_single_levels, tabulate_mixtures

JOINED_FINDINGS = frozenset({"mixtures"})  # names of the findings that compare all bases


def collect_findings(
    results: pd.DataFrame,
    front: pd.DataFrame,
    levels: Sequence[str],
    split_errors: PairedErrors | None = None,
    joined: JoinedBases | None = None,
) -> list[Finding]:
    """Collect all findings, in the order of the report.

    With a single level, besides mixtures, these are the findings on properties, those of
    `collect_single_level_findings`, and that on sampling, unless it was not tested.

    Parameters
    ----------
    results, front, levels : as in `assess_levels_on_front`
    split_errors : errors in further train/test splits
    joined : results of all bases, for `JOINED_FINDINGS`; by default the results, front and errors of this basis
    """
    joined = joined or JoinedBases(results, front, split_errors)
    mixtures = assess_mixtures(joined.results, joined.split_errors)
    properties = assess_properties(results, split_errors)
    # all other findings, except those on the front and on savings, are about single levels
    all_results, all_levels, results = results, levels, select_single_levels(results)
    mixture_names = set(tabulate_mixtures(all_results)["level"].astype(str))
    levels = [level for level in levels if level not in mixture_names]
    if len(levels) == 1:
        # With a single level there is nothing to compare with other levels or with the published results for beryllium.
        sampling = assess_leverage_sampling(results, levels, split_errors)
        sampling_findings = [replace(sampling, published_result="")] if sampling.status != "not tested" else []
        single_level_findings = collect_single_level_findings(results, levels[0], split_errors)
        return [*([properties] if properties else []), *single_level_findings, *sampling_findings]
    findings = [
        assess_error_decrease(results, levels, split_errors),
        assess_force_weight(results, levels, split_errors),
        *assess_models(results, levels, split_errors),
        assess_leverage_sampling(results, levels, split_errors),
        assess_levels_on_front(all_results, front, all_levels),
        mixtures,
        properties,
        assess_own_level(results, levels, split_errors),
        assess_sufficient_levels(results, levels, split_errors),
        assess_savings(all_results, all_levels),
    ]
    return [finding for finding in findings if finding is not None]
