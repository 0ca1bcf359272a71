"""Extrapolation from measured runs to the whole published study: time, memory and disk by stage, and limits."""

from __future__ import annotations

import math
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

import numpy as np
from common import Table
from published_plans import FILES, STAGES, WHOLE, Measured, Size
from scipy.optimize import nnls

from paretofit.descriptors.design import MAX_ROWS_IN_MEMORY_BYTES

if TYPE_CHECKING:
    from collections.abc import Sequence

EXTRAPOLATED = ["CPU, h", "memory, GB", "disk, GB", "exponents: rows (A)", "rows (B)", "columns", "scaled by"]
SCALED_BY = {
    "describe": "configurations, from B",
    "reduce": "rows × columns², from B",
    "sweep": "moments, factors and fits, from all runs",
    "analyse": "as measured, at most",
    "report": "as measured, at most",
}


def exponent(small: float, large: float, less: float, more: float) -> float:
    """Exponent of growth with size from two pairs: ln(more/less) / ln(large/small)."""
    return math.log(more / less) / math.log(large / small)


def sweep_rates(sizes: Sequence[Size], seconds: Sequence[float]) -> np.ndarray:
    """``(3,)``: seconds of the sweep for each unit of its three kinds of work, none below zero.

    Least squares of relative deviations, so that small runs count as much as large ones.
    """
    work = np.array([size.sweep for size in sizes]) / np.array(seconds)[:, None]
    unit = work.max(axis=0)
    rates, _ = nnls(work / unit, np.ones(len(work)))
    return np.asarray(rates / unit)


def memory_of_whole(small: tuple[int, float], large: tuple[int, float], wide: tuple[int, float], rows: int) -> float:
    """Memory of a stage at all rows and columns, from pairs of rows and memory.

    That of the run that has all columns, and for each further row what two runs with fewer columns differ by.
    """
    slope = max(0.0, (large[1] - small[1]) / (large[0] - small[0])) if large[0] > small[0] else 0.0
    return wide[1] + slope * (rows - wide[0])


def binding(disk: tuple[float, float], memory: tuple[float, float], hours: float) -> str:
    """Text on limits: needed and available bytes of disk and memory, and the time."""
    missing = [name for name, (needed, available) in (("disk", disk), ("memory", memory)) if needed > available]
    limit = f"the limit is {' and '.join(missing)}" if missing else "disk and memory suffice, the limit is time"
    return (
        f"Of {disk[0] / 1e9:.0f} GB of disk {disk[1] / 1e9:.0f} are free, of {memory[0] / 1e9:.1f} GB of memory there "
        f"are {memory[1] / 1e9:.1f}, and it takes {hours:.0f} h: {limit}."
    )


def extrapolated(done: dict[str, Measured], disk_there: float, memory_there: float) -> list[Table]:
    """The table of the whole study, if both series have been measured."""
    rows_series, columns_series = (
        sorted(
            (measurement for name, measurement in done.items() if name[0] == letter),
            key=lambda measurement: measurement.rows,
        )
        for letter in "AB"
    )
    if not rows_series or not columns_series:
        return []
    return [_Whole(list(done.values()), rows_series, columns_series).table(disk_there, memory_there)]


@dataclass
class _Whole:
    """Time, memory and disk of the whole study by stage.

    Attributes
    ----------
    runs : list of Measured
    rows_series, columns_series : list of Measured
        With few columns and up to all rows; with all columns. By number of rows.
    """

    runs: list[Measured]
    rows_series: list[Measured]
    columns_series: list[Measured]
    long: Measured = field(init=False)
    wide: Measured = field(init=False)
    many: Measured = field(init=False)

    def __post_init__(self) -> None:
        self.long, self.wide = self.rows_series[-1], self.columns_series[-1]
        self.many = max([*self.runs, self.wide], key=lambda measurement: measurement.fits)

    def seconds(self, *, cpu: bool = False) -> dict[str, float]:
        """Seconds by stage: wall clock on the cores of the runs, or CPU."""
        return {
            "describe": self.wide.clock("describe", cpu=cpu) * WHOLE.configurations / self.wide.plan.n,
            "reduce": self.reduction_from(self.wide, cpu=cpu),
            "sweep": float(self.rates(cpu=cpu) @ WHOLE.sweep),
            **{
                name: max(measurement.clock(name, cpu=cpu) for measurement in self.runs)
                for name in ("analyse", "report")
            },
        }

    def rates(self, *, cpu: bool = False) -> np.ndarray:
        """Rates of the sweep, from all runs."""
        return sweep_rates(
            [measurement.size for measurement in self.runs],
            [measurement.clock("sweep", cpu=cpu) for measurement in self.runs],
        )

    def reduction_from(self, measurement: Measured, *, cpu: bool = False) -> float:
        """Seconds of the reduction, scaled from those of a run."""
        return measurement.clock("reduce", cpu=cpu) * WHOLE.reduction / measurement.size.reduction

    def memory(self, name: str) -> float:
        """Memory of a stage (MB), all processes."""
        from_file = [
            measurement for measurement in self.rows_series if measurement.files["design"] > MAX_ROWS_IN_MEMORY_BYTES
        ]
        small, large = from_file[-2:] if len(from_file) > 1 else (self.long, self.long)
        pairs = [(measurement.rows, measurement.largest_memory(name)) for measurement in (small, large, self.wide)]
        return max(memory_of_whole(*pairs, WHOLE.rows), self.many.largest_memory(name))

    def disk(self) -> dict[str, float]:
        """Bytes of the files of a stage."""
        size, files, many = self.wide.size, self.wide.files, self.many
        rest = [measurement.files["whole"] - sum(measurement.files[key] for key in FILES) for measurement in self.runs]
        return {
            "describe": files["design"] * (WHOLE.rows * WHOLE.columns) / (size.rows * size.columns),
            "reduce": files["reduction"] * (WHOLE.columns / size.columns) ** 2,
            "sweep": many.files["journal"] * WHOLE.fits / many.fits,
            "analyse": 0.0,
            "report": float(max(rest)),
        }

    def exponents(self, name: str) -> list[str]:
        """Exponents in rows for both series, and in columns for the seconds per row; – if not measured."""

        def format_pairs(pairs: Sequence[tuple[int, float]]) -> str:
            known = len(pairs) == 2 and min(value for _, value in pairs) > 0 and pairs[0][0] != pairs[1][0]
            return f"{exponent(pairs[0][0], pairs[1][0], pairs[0][1], pairs[1][1]):.2f}" if known else "–"

        rows = [
            [(measurement.rows, measurement.seconds[name]) for measurement in series[-2:]]
            for series in (self.rows_series, self.columns_series)
        ]
        if name not in STAGES[:3]:
            return [*map(format_pairs, rows), "–"]
        divided = [
            measurement.size.grown if name == "sweep" else measurement.rows for measurement in (self.long, self.wide)
        ]
        ends = zip((self.long, self.wide), divided, strict=True)
        return [
            *map(format_pairs, rows),
            format_pairs([(measurement.size.columns, measurement.seconds[name] / by) for measurement, by in ends]),
        ]

    def table(self, disk_there: float, memory_there: float) -> Table:
        """Time, memory and disk by stage, and limits."""
        seconds, cpu, disk = self.seconds(), self.seconds(cpu=True), self.disk()
        cores = self.wide.cores
        table = Table(
            f"Extrapolated: {WHOLE.configurations} configurations, {WHOLE.rows} rows, {WHOLE.columns} columns, "
            f"{WHOLE.fits} fits",
            ["stage", f"hours on {cores} cores", *EXTRAPOLATED],
            notes=self.notes(),
        )

        def line(name: str, last: Sequence[str], *numbers: float) -> None:
            table.add(name, *(f"{number:.3g}" for number in numbers), *last)

        memory = {name: self.memory(name) for name in STAGES}
        for name in STAGES:
            numbers = seconds[name] / 3600, cpu[name] / 3600, memory[name] / 1000, disk[name] / 1e9
            line(name, [*self.exponents(name), SCALED_BY[name]], *numbers)
        hours, cpu_hours, needed = sum(seconds.values()) / 3600, sum(cpu.values()) / 3600, sum(disk.values())
        most = max(memory.values())
        line("all", [""] * 4, hours, cpu_hours, most / 1000, needed / 1e9)
        limit = binding((needed, disk_there), (most * 1e6, memory_there), hours)
        if self.wide.size.columns < WHOLE.columns:
            table.notes.append("B has not all columns here: the numbers mean nothing.")
        table.notes.append(f"{limit} {cores * hours:.0f} core-hours by the clock on the wall, {cpu_hours:.0f} by CPU.")
        return table

    def notes(self) -> list[str]:
        """Notes on the origin of the numbers."""
        rates = self.rates()
        parts = [f"{rate * work / 3600:.2g} h" for rate, work in zip(rates, WHOLE.sweep, strict=True)]
        off = [rates @ measurement.size.sweep / measurement.seconds["sweep"] for measurement in self.runs]
        return [
            (
                "The sweep: rows that moments grow by × columns² + Cholesky factors (subsets × weights) × columns³ + "
                f"fits, rates by least squares: {' + '.join(parts)}. For the runs themselves it gives "
                f"{min(off):.2f} to {max(off):.2f} times what was measured. Fits from rows are in the rates in the "
                "share that the runs have of them."
            ),
            f"The reduction scaled from A instead of B: {self.reduction_from(self.long) / 3600:.2g} h.",
            (
                f"Each draw reads its rows from the design, {8e-12 * WHOLE.grown * WHOLE.columns:.1f} TB in all: that "
                "is in the rates only where the design of a run is larger than the memory."
            ),
            (
                "Memory: all processes together in B, and for each further row what the two largest runs of A differ "
                "by, if their rows stay in the file. Disk: the design grows with rows × columns, the reduction with "
                "columns², the journal with fits."
            ),
            (
                "Exponents: of the seconds, between the two largest runs of a series; of the seconds for each row (in "
                "the sweep, each row that moments grow by), between the columns of A and B."
            ),
        ]
