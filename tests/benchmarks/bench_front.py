"""The front of a million points against a sort, or a groupby, of the same array."""

from __future__ import annotations

import numpy as np
import pandas as pd
from common import Options, Table, seconds, spread, stage

from paretofit.pareto import pareto_front


def cases(rows: int) -> dict[str, tuple[pd.DataFrame, list[str], list[str]]]:
    """Table, objectives and group_by of each case, by name."""
    rng = np.random.default_rng(0)
    tables = {}
    for m in (2, 3, 4):
        points = rng.random((rows, m))
        names = [f"f{k}" for k in range(m)]
        tables[f"{m} uniform"] = (pd.DataFrame(points, columns=names), names, [])
        plane = points.copy()
        plane[:, -1] = m - plane[:, :-1].sum(axis=1)
        tables[f"{m} plane"] = (pd.DataFrame(plane, columns=names), names, [])
        keys = {
            "level": rng.choice(list("abcde"), rows),
            "twojmax": rng.choice([2, 4, 6, 8], rows),
            "n_train": rng.integers(0, max(rows // 200, 1), rows),
        }
        tables[f"{m} grouped"] = (pd.DataFrame(points, columns=names).assign(**keys), names, list(keys))
    return tables


def run(options: Options) -> list[Table]:
    """Time all cases."""
    count = 10**5 if options.quick else 10**6
    table = Table(
        f"The front of {count:,} points",
        ["case", "on front", "front, s", "sort or groupby, s", "ratio"],
        notes=[
            "minimum / median / maximum; the ratio is how many sorts (or groupbys) of the same array a front costs.",
            (
                "uniform: independent uniform objectives. plane: all points on the front, the worst case. grouped: "
                "medians over groups of about ten first, against that groupby alone."
            ),
        ],
    )
    for name, (points, objectives, keys) in cases(count).items():
        size = len(pareto_front(points, objectives, keys))
        ours, base = [], []
        with stage(f"front, {name}"):
            for _ in range(max(options.repeats, 3)):
                ours.append(seconds(lambda: pareto_front(points, objectives, keys))[0])  # noqa: B023
                base.append(seconds(lambda: _yardstick(points, objectives, keys))[0])  # noqa: B023
        ratio = np.array(ours) / np.array(base)
        table.add(name, size, *(" / ".join(spread(values)) for values in (ours, base, ratio)))
    return [table]


def _yardstick(points: pd.DataFrame, objectives: list[str], keys: list[str]) -> object:
    if keys:
        return points.groupby(keys)[objectives].median()
    return np.lexsort(points[objectives].to_numpy().T[::-1])
