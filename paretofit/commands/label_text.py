"""Text of the results of `paretofit label`."""

from collections import Counter

import numpy as np
import pandas as pd

from paretofit.commands.label import LabelResult
from paretofit.labelling import CostModel, format_seconds, format_wall_time


def format_labels(result: LabelResult) -> str:
    """Format the counts of labels, and of failed labels by level and reason, as plain text."""
    cost = format_seconds(result.cpu_seconds, "CPU ")
    remaining_text = f"{result.n_remaining} still missing" if result.n_remaining else "none missing"
    lines = [
        f"{result.dataset}: {result.n_complete} labels, {result.n_computed} of them new in {cost}, {remaining_text}"
    ]
    counts = Counter((level, reason) for (level, _), reason in result.failures.items())
    # reversed, so that the example is the first failed configuration
    examples = {(level, reason): config_id for (level, config_id), reason in reversed(result.failures.items())}
    for (level, reason), count in counts.items():
        lines.append(f"level {level}: {count} failed, for example configuration {examples[level, reason]}: {reason}")
    if counts:
        lines.append(
            f"the engine's files are in {result.folder / 'failed'}; use --retry-failed to compute these labels again"
        )
    return "\n".join(lines)


def format_estimate(table: pd.DataFrame, model: CostModel, jobs: int) -> str:
    """Format the estimated cost of the missing labels: a line for each level, the total, and its uncertainty.

    Parameters
    ----------
    table, model
        Results of `estimate_label_cost`.
    jobs : int
        Number of processes, which determines the estimated wall time.
    """
    if table.empty:
        return "nothing to do: no label is missing"
    lines = [f"{'level':<10}{'labels':>8}{'CPU hours':>12}{'mean s':>10}{'largest s':>12}"]
    for row in table.to_dict("records"):
        numbers = f"{row['cpu_hours']:>12.3g}{row['mean_seconds']:>10.3g}{row['largest_seconds']:>12.3g}"
        lines.append(f"{row['level']:<10}{row['to_do']:>8}{numbers}")
    n_labels, cpu_hours = int(table["to_do"].sum()), float(table["cpu_hours"].sum())
    lines.append(f"{'all':<10}{n_labels:>8}{cpu_hours:>12.3g}")
    lines.append(f"about {format_wall_time(3600 * cpu_hours, min(jobs, n_labels))}")
    if model.n_labels:
        factor = np.exp(model.rms_log_residual)
        lines.append(
            f"from {model.n_labels} finished labels, which the cost model reproduces within a factor of {factor:.2f}"
        )
    else:
        lines.append("no label is finished yet, so only the order of magnitude is known")
    return "\n".join(lines)
