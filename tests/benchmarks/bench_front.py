"""Seconds for the front of a million points, and how many sorts or groupbys of the same array that is.

    python tests/benchmarks/bench_front.py [--rows 1000000] [--runs 5]

"uniform": independent uniform objectives, few points on the front. "plane": all points on the front, the
worst case. "grouped": medians over 100,000 groups of about ten first, against that groupby alone.
"""

import argparse
import time
from collections.abc import Callable

import numpy as np
import pandas as pd

from paretofit.pareto import pareto_front


def seconds(work: Callable[[], object], runs: int) -> np.ndarray:
    """Wall-clock seconds of each of `runs` runs."""
    times = []
    for _ in range(runs):
        start = time.perf_counter()
        work()
        times.append(time.perf_counter() - start)
    return np.array(times)


def cases(rows: int) -> dict[str, tuple[pd.DataFrame, list[str], list[str]]]:
    """Name of each case to (table, objectives, group_by)."""
    rng = np.random.default_rng(0)
    found = {}
    for m in (2, 3, 4):
        points = rng.random((rows, m))
        names = [f"f{k}" for k in range(m)]
        found[f"{m} uniform"] = (pd.DataFrame(points, columns=names), names, [])
        plane = points.copy()
        plane[:, -1] = m - plane[:, :-1].sum(axis=1)
        found[f"{m} plane"] = (pd.DataFrame(plane, columns=names), names, [])
        keys = {
            "level": rng.choice(list("abcde"), rows),
            "twojmax": rng.choice([2, 4, 6, 8], rows),
            "n_train": rng.integers(0, max(rows // 200, 1), rows),
        }
        found[f"{m} grouped"] = (pd.DataFrame(points, columns=names).assign(**keys), names, list(keys))
    return found


def main() -> None:
    """Print one line for each case."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--rows", type=int, default=10**6)
    parser.add_argument("--runs", type=int, default=5)
    options = parser.parse_args()
    print(f"{options.rows} rows, {options.runs} runs; seconds as min / median / max")
    print(f"{'case':<12}{'on front':>9}  {'front':<22}{'sort or groupby':<22}ratio of medians")
    for name, (table, objectives, keys) in cases(options.rows).items():
        size = len(pareto_front(table, objectives, keys))
        ours = seconds(lambda t=table, o=objectives, k=keys: pareto_front(t, o, k), options.runs)
        if keys:
            base = seconds(lambda t=table, o=objectives, k=keys: t.groupby(k)[o].median(), options.runs)
        else:
            base = seconds(lambda t=table, o=objectives: np.lexsort(t[o].to_numpy().T[::-1]), options.runs)
        spread = [" / ".join(f"{np.quantile(x, q):.2f}" for q in (0, 0.5, 1)) for x in (ours, base)]
        ratio = np.median(ours) / np.median(base)
        print(f"{name:<12}{size:>9}  {spread[0]:<22}{spread[1]:<22}{ratio:.2f}")


if __name__ == "__main__":
    main()
