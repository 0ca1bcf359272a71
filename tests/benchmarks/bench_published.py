"""The published study at its real size, bracketed: all of its rows, all of its columns, and all of its fits.

The real one, 20,000 configurations at 2Jmax up to 10 and 150 draws, has 3.0 million rows by 4,278 columns: 103 GB,
more than a small machine has disk for. Three runs of `paretofit run` on made-up data (published_size.py) have one of
its sizes each, smaller ones of the same series show how times grow, and formulas take them to the whole.

Runs that are done are kept in published.json in the working folder, so that a benchmark that was stopped goes on.
PARETOFIT_PUBLISHED="A9,B9" names the runs to be done; by default all of them, some hours on two cores, with 45 GB of
disk while the largest is at work.
"""

from __future__ import annotations

import json
import math
import os
import shutil
import subprocess
import sys
import threading
from contextlib import contextmanager, suppress
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, NamedTuple

import numpy as np
import pandas as pd
from common import Options, Skip, Table, stage
from published_size import make_dataset
from scipy.optimize import nnls

from paretofit.descriptors import DesignMatrix, SnapBasis
from paretofit.descriptors.design import MEMORY_LIMIT
from paretofit.files import write_text

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

EXTRAPOLATED = ["CPU, h", "memory, GB", "disk, GB", "exponents: rows (A)", "rows (B)", "columns", "scaled by"]
SCALED_BY = {
    "describe": "configurations, from B",
    "reduce": "rows × columns², from B",
    "sweep": "moments, factors and fits, from all runs",
    "analyse": "as measured, at most",
    "report": "as measured, at most",
}
FILES = ("design", "reduction", "journal")
STAGES = ("describe", "reduce", "sweep", "analyse", "report")
SIZES = (100, 200, 350, 500, 750, 1000, 1500, 2250, 3000, 5000, 7500, 10_000)
WEIGHTS = (5, 10, 12.25, 50, 150, 300)
SAMPLINGS = ("random", "leverage", "block-leverage")
ATOMS, N_LEVELS = 50, 6
INTERVAL = 1.0  # seconds between two looks at the memory
ROOM = 1.2  # times the bytes of its design that a run needs on the disk
STUDY = """\
name: {name}
dataset: {dataset}
basis:
  elements: [Be]
  rcutfac: 4.812302818
  rfac0: 0.99363
  rmin0: 0
  radelem: 0.5
  wj: 1
  bzeroflag: true
  switchflag: true
  quadratic: true
split: {{train_fraction: 0.5, seed: 58}}
levels: [1, 2, 3, 4, 5, 6]
twojmax: {twojmax}
weights: {weights}
sizes: {sizes}
samplings: [{samplings}]
repetitions: {repetitions}
leverage: {{energy_weight: 150, twojmax: {leverage}}}
"""


def scaled_sizes(n_train: int) -> list[int]:
    """The twelve sizes brought down to a smaller training half: 100 stays, all of 10,000 become all of `n_train`.

    A factor for all would make subsets that have fewer rows than the model has columns, which the real study has not,
    and which are fitted another way.
    """
    smallest = min(SIZES[0], max(2, n_train // 3))
    power = math.log(n_train / smallest) / math.log(SIZES[-1] / SIZES[0])
    return [round(smallest * (size / SIZES[0]) ** power) for size in SIZES]


@dataclass(frozen=True)
class Plan:
    """A study to run.

    Attributes
    ----------
    n : int
        Configurations, half of which train.
    twojmax : tuple of int
    repetitions : int
    n_sizes : int
        Of the twelve subset sizes, the largest.
    """

    n: int
    twojmax: tuple[int, ...]
    repetitions: int = 1
    n_sizes: int = len(SIZES)

    @property
    def sizes(self) -> list[int]:
        """Of the subsets, the whole training half included."""
        return scaled_sizes(self.n // 2)[-self.n_sizes :]

    @property
    def columns(self) -> int:
        """Of the design."""
        return SnapBasis(elements=["Be"], twojmax=max(self.twojmax)).n_features

    def size(self, rows: int) -> Size:
        """What the formulas need; all draws share the fits to the whole training half."""
        draws = len(SAMPLINGS) * self.repetitions
        cells = draws * len(self.sizes) * len(WEIGHTS)
        subsets = draws * (len(self.sizes) - 1) + 1
        grown = draws * max(self.sizes[:-1]) * rows // self.n
        return Size(self.n, rows, self.columns, grown, subsets * len(WEIGHTS), cells * len(self.twojmax) * N_LEVELS)


@dataclass(frozen=True)
class Size:
    """How large a study is.

    Attributes
    ----------
    configurations, rows, columns : int
    grown : int
        Rows that the moments of all draws grow by.
    factors : int
        Cholesky factors: subsets times weights.
    fits : int
    """

    configurations: int
    rows: int
    columns: int
    grown: int
    factors: int
    fits: int

    @property
    def reduction(self) -> float:
        """Work of the reduction."""
        return float(self.rows) * self.columns**2

    @property
    def sweep(self) -> tuple[float, float, float]:
        """Work of the sweep, by what it grows with: moments, factors, fits."""
        return float(self.grown) * self.columns**2, float(self.factors) * self.columns**3, float(self.fits)


WHOLE_PLAN = Plan(20_000, (4, 6, 8, 10), 50)
WHOLE = WHOLE_PLAN.size(WHOLE_PLAN.n * (1 + 3 * ATOMS))
PLANS = {
    "A1": Plan(20_000, (4, 6, 8)),
    "A3": Plan(6_667, (4, 6, 8)),
    "A9": Plan(2_222, (4, 6, 8)),
    "B1": Plan(4_500, (4, 6, 8, 10)),
    "B3": Plan(1_500, (4, 6, 8, 10)),
    "B9": Plan(500, (4, 6, 8, 10)),
    "C1": Plan(1_000, (1, 2, 3, 4), 50),
}
QUICK = {"A1": Plan(60, (2,), n_sizes=2), "B1": Plan(30, (2, 4), n_sizes=2)}


@dataclass
class Measured:
    """What one run took.

    Attributes
    ----------
    plan : Plan
    cores : int
    rows : int
    fits : int
    seconds : dict of str to float
        Wall clock by stage.
    cpu : dict of str to float
        CPU seconds by stage, and under "" of what is before and after, of all processes; seen once a second, so that
        short stages may be missing.
    memory : dict of str to float
        MB by stage: the main process, its peak until the stage's end.
    memory_of_all : dict of str to float
        MB by stage: all processes at once, what they share counted once, seen once a second; not of short stages.
    files : dict of str to int
        Bytes: design, reduction, journal, and the whole folder without the dataset.
    solvers : dict of str to [int, int]
        Number of fits and largest subset by solver.
    """

    plan: Plan
    cores: int
    rows: int
    fits: int
    seconds: dict[str, float]
    cpu: dict[str, float]
    memory: dict[str, float]
    memory_of_all: dict[str, float]
    files: dict[str, int]
    solvers: dict[str, list[int]]

    @property
    def size(self) -> Size:
        """Of its study."""
        return self.plan.size(self.rows)

    def clock(self, name: str, *, cpu: bool = False) -> float:
        """Seconds of a stage: wall clock, or CPU where that was seen."""
        return (self.cpu.get(name, 0.0) if cpu else 0.0) or self.seconds[name]

    def largest_memory(self, name: str) -> float:
        """MB of a stage: of all processes where that was seen, else of the main one, with files that it mapped."""
        return self.memory_of_all.get(name, self.memory[name])


def run(options: Options) -> list[Table]:
    """Do what is not done yet; tables of what was measured, and of the whole."""
    plans = QUICK if options.quick else PLANS
    names = os.environ.get("PARETOFIT_PUBLISHED", "").replace(",", " ").split() or list(plans)
    if unknown := set(names) - set(plans):
        raise Skip(f"PARETOFIT_PUBLISHED names '{min(unknown)}'; there are {', '.join(plans)}")
    book = options.work / ("published_quick.json" if options.quick else "published.json")
    done, refused = _kept(book, plans, options.cores), []
    for name in names:
        if name in done:
            continue
        try:
            with stage(f"{name}: {plans[name].n} configurations, 2Jmax up to {max(plans[name].twojmax)}"):
                done[name] = measure(name, plans[name], options)
        except Skip as reason:
            refused.append(f"{name} was left out: {reason}.")
        write_text(book, json.dumps({key: asdict(one) for key, one in done.items()}, indent=1))
    if not done:
        raise Skip(" ".join(refused))
    done = {name: done[name] for name in plans if name in done}
    first = times(done)
    first.notes += refused
    there = shutil.disk_usage(options.work).free, os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")
    return [first, memory_and_disk(done), *extrapolated(done, *there)]


def _kept(book: Path, plans: dict[str, Plan], cores: int) -> dict[str, Measured]:
    """Runs that are done, if they are of the same plan and number of cores."""
    if not book.exists():
        return {}
    kept = {}
    for name, fields in json.loads(book.read_text()).items():
        plan = Plan(**{key: tuple(v) if isinstance(v, list) else v for key, v in fields.pop("plan").items()})
        if plan == plans.get(name) and fields["cores"] == cores:
            kept[name] = Measured(plan, **fields)
    return kept


def measure(name: str, plan: Plan, options: Options) -> Measured:
    """Run one study from nothing, read its numbers, and delete what is large."""
    needed, free = ROOM * 8 * plan.n * (1 + 3 * ATOMS) * plan.columns, shutil.disk_usage(options.work).free
    if needed > free:
        raise Skip(f"it needs {needed / 1e9:.0f} GB of disk, and {free / 1e9:.0f} are free")
    dataset = options.work / f"published_{plan.n}.h5"
    if not dataset.exists():
        make_dataset(dataset, plan.n, atoms=ATOMS, jobs=options.cores)
    study, folder = options.work / f"published_{name}.yaml", options.work / f"published_{name}"
    study.write_text(_study(name, plan, dataset))
    shutil.rmtree(folder, ignore_errors=True)  # what a stopped run has left behind would not be measured
    command = [sys.executable, "-m", "paretofit.cli", "run", str(study), "--out", str(folder)]
    with (options.work / f"published_{name}.log").open("w") as said:
        process = subprocess.Popen([*command, "--jobs", str(options.cores)], stdout=said, stderr=subprocess.STDOUT)
        with _watched(process.pid, folder / "run.log") as seen:
            status = process.wait()
    if status:
        raise RuntimeError(f"run {name} failed:\n{Path(said.name).read_text()[-2000:]}")
    found = _read(plan, options.cores, folder, seen)
    for large in ("design.h5", "reduction.h5", "dataset.h5"):
        (folder / large).unlink(missing_ok=True)
    return found


def _study(name: str, plan: Plan, dataset: Path) -> str:
    return STUDY.format(
        name=f"published_{name}",
        dataset=json.dumps(str(dataset)),
        twojmax=list(plan.twojmax),
        weights=list(WEIGHTS),
        sizes=json.dumps([*plan.sizes[:-1], "all"]),
        samplings=", ".join(SAMPLINGS),
        repetitions=plan.repetitions,
        leverage=max(plan.twojmax),
    )


def _read(plan: Plan, cores: int, folder: Path, seen: Seen) -> Measured:
    """The numbers of a finished run."""
    record = json.loads((folder / "run.json").read_text())
    results = pd.read_csv(folder / "results.csv", usecols=["solver", "n_train"])
    design = DesignMatrix.open(folder / "design.h5")
    sizes = {path.name: path.stat().st_size for path in folder.rglob("*") if path.is_file()}
    files = {
        "design": sizes["design.h5"],
        "reduction": sizes.get("reduction.h5", 0),
        "journal": sum(size for name, size in sizes.items() if name.startswith("sweep-")),
        "whole": sum(sizes.values()) - sizes.get("dataset.h5", 0),
    }
    solvers = {str(name): [len(own), int(own.max())] for name, own in results.groupby("solver")["n_train"]}
    seconds, memory = ({name: record[key][name] for name in STAGES} for key in ("seconds", "peak_megabytes"))
    return Measured(plan, cores, design.n_rows, len(results), seconds, seen.cpu, memory, seen.memory, files, solvers)


class Seen(NamedTuple):
    """What was seen of the processes of a run, by stage: the most memory at once, MB, and CPU seconds."""

    memory: dict[str, float]
    cpu: dict[str, float]


@contextmanager
def _watched(process: int, log: Path) -> Iterator[Seen]:
    """Watch a process and those it starts; without /proc nothing is seen.

    Nobody waits for the workers of joblib, so that the system's account of children that have ended lacks them.
    """
    seen, spent = Seen({}, {}), {}
    over = threading.Event()

    def watch() -> None:
        while not over.wait(INTERVAL):
            name, megabytes, before = _stage_in(log), 0.0, sum(spent.values())
            for number in family(process):
                with suppress(OSError, IndexError):  # it has just ended
                    spent[number] = _cpu_seconds(number)
                    megabytes += _megabytes(number)
            seen.cpu[name] = seen.cpu.get(name, 0.0) + sum(spent.values()) - before
            seen.memory[name] = max(seen.memory.get(name, 0.0), megabytes)

    watcher = threading.Thread(target=watch, daemon=True)
    watcher.start()
    try:
        yield seen
    finally:
        over.set()
        watcher.join()


def _stage_in(log: Path) -> str:
    """The stage that a run's log says was started last."""
    if not log.exists():
        return ""
    started = [line.split() for line in log.read_text().splitlines() if line.endswith(": started")]
    return started[-1][-2].rstrip(":") if started else ""


def family(process: int) -> set[int]:
    """A process and all below it."""
    members = {process}
    for status in sorted(Path("/proc").glob("[0-9]*/stat"), key=lambda path: int(path.parent.name)):
        with suppress(OSError, IndexError):
            if int(_fields(status)[1]) in members:  # children have larger numbers than their parents
                members.add(int(status.parent.name))
    return members


def _fields(status: Path) -> list[str]:
    """Of /proc/PID/stat, from the third on: names may have blanks and brackets."""
    return status.read_text().rsplit(")", 1)[1].split()


def _cpu_seconds(process: int) -> float:
    return sum(map(int, _fields(Path(f"/proc/{process}/stat"))[11:13])) / os.sysconf("SC_CLK_TCK")


def _megabytes(process: int) -> float:
    """Memory, that shared with other processes in parts."""
    lines = Path(f"/proc/{process}/smaps_rollup").read_text().splitlines()
    return sum(int(line.split()[1]) for line in lines if line.startswith("Pss:")) / 1024


def exponent(small: float, large: float, less: float, more: float) -> float:
    """The power of its size with which something grows, from two of each: ln(more/less) / ln(large/small)."""
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
    """Where the limit is: bytes needed and there, of disk and of memory, and the time."""
    what = [name for name, (needed, there) in (("disk", disk), ("memory", memory)) if needed > there]
    limit = f"the limit is {' and '.join(what)}" if what else "disk and memory suffice, the limit is time"
    return (
        f"Of {disk[0] / 1e9:.0f} GB of disk {disk[1] / 1e9:.0f} are free, of {memory[0] / 1e9:.1f} GB of memory there "
        f"are {memory[1] / 1e9:.1f}, and it takes {hours:.0f} h: {limit}."
    )


def times(done: dict[str, Measured]) -> Table:
    """Seconds of every run."""
    table = Table(
        "Measured: time",
        ["run", "2Jmax", "configurations", "rows", "columns", "fits", *(f"{name}, s" for name in STAGES), "CPU, s"],
        notes=[
            "A: all rows of the real study. B: all columns. C: all fits. 3 and 9: a third and a ninth of the rows.",
            (
                "Wall clock by stage, as the run records it / CPU of all processes, which other work on the machine "
                f"hardly changes (looked at every {INTERVAL:g} s; – where a stage was shorter). CPU: of the whole run."
            ),
        ],
    )
    for name, one in done.items():
        size = one.size
        counts = [f"{size.configurations}", f"{one.rows}", f"{size.columns}", f"{one.fits}"]
        seconds = [_both(one.seconds[own], one.cpu.get(own), ".1f") for own in STAGES]
        table.add(name, ", ".join(map(str, one.plan.twojmax)), *counts, *seconds, f"{sum(one.cpu.values()):.0f}")
        ways = ", ".join(f"{solver} {n} (of up to {most})" for solver, (n, most) in sorted(one.solvers.items()))
        subsets = f"{min(one.plan.sizes)} to {max(one.plan.sizes)} configurations"
        table.notes.append(f"{name}: subsets of {subsets}; fits by solver (and the largest subset): {ways}.")
    return table


def memory_and_disk(done: dict[str, Measured]) -> Table:
    """Memory by stage and files of every run."""
    table = Table(
        "Measured: memory and disk",
        ["run", *(f"{name}, MB" for name in STAGES), "design, MB", "reduction, MB", "journal, MB", "whole folder, MB"],
        notes=[
            (
                "Memory: main process, its peak until the end of the stage, files that it mapped included / all "
                "processes together, what they share counted once, looked at every "
                f"{INTERVAL:g} s (– where a stage was shorter)."
            ),
            "Disk: of the run folder, without the dataset.",
        ],
    )
    for name, one in done.items():
        both = [_both(one.memory[own], one.memory_of_all.get(own), ".0f") for own in STAGES]
        table.add(name, *both, *(f"{one.files[key] / 1e6:.3g}" for key in (*FILES, "whole")))
    return table


def _both(first: float, second: float | None, form: str) -> str:
    return f"{first:{form}} / {'–' if second is None else format(second, '.0f')}"


def extrapolated(done: dict[str, Measured], disk_there: float, memory_there: float) -> list[Table]:
    """The table of the whole study, if there are runs of both series to go by."""
    rows_series, columns_series = (
        sorted((one for name, one in done.items() if name[0] == letter), key=lambda one: one.rows) for letter in "AB"
    )
    if not rows_series or not columns_series:
        return []
    return [_Whole(list(done.values()), rows_series, columns_series).table(disk_there, memory_there)]


@dataclass
class _Whole:
    """What the whole study takes, by stage.

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
        self.many = max([*self.runs, self.wide], key=lambda one: one.fits)

    def seconds(self, *, cpu: bool = False) -> dict[str, float]:
        """By stage: wall clock on as many cores as the runs had, or CPU."""
        return {
            "describe": self.wide.clock("describe", cpu=cpu) * WHOLE.configurations / self.wide.plan.n,
            "reduce": self.reduction_from(self.wide, cpu=cpu),
            "sweep": float(self.rates(cpu=cpu) @ WHOLE.sweep),
            **{name: max(one.clock(name, cpu=cpu) for one in self.runs) for name in ("analyse", "report")},
        }

    def rates(self, *, cpu: bool = False) -> np.ndarray:
        """Of the sweep, from all runs."""
        return sweep_rates([one.size for one in self.runs], [one.clock("sweep", cpu=cpu) for one in self.runs])

    def reduction_from(self, one: Measured, *, cpu: bool = False) -> float:
        """Seconds of the reduction, scaled from those of a run."""
        return one.clock("reduce", cpu=cpu) * WHOLE.reduction / one.size.reduction

    def memory(self, name: str) -> float:
        """MB of a stage, all processes."""
        from_file = [one for one in self.rows_series if one.files["design"] > MEMORY_LIMIT]
        small, large = from_file[-2:] if len(from_file) > 1 else (self.long, self.long)
        pairs = [(one.rows, one.largest_memory(name)) for one in (small, large, self.wide)]
        return max(memory_of_whole(*pairs, WHOLE.rows), self.many.largest_memory(name))

    def disk(self) -> dict[str, float]:
        """Bytes of a stage's files."""
        size, files, many = self.wide.size, self.wide.files, self.many
        rest = [one.files["whole"] - sum(one.files[key] for key in FILES) for one in self.runs]
        return {
            "describe": files["design"] * (WHOLE.rows * WHOLE.columns) / (size.rows * size.columns),
            "reduce": files["reduction"] * (WHOLE.columns / size.columns) ** 2,
            "sweep": many.files["journal"] * WHOLE.fits / many.fits,
            "analyse": 0.0,
            "report": float(max(rest)),
        }

    def exponents(self, name: str) -> list[str]:
        """In rows, of both series, and in columns, of the seconds for each row; – where there is nothing to go by."""

        def found(pairs: Sequence[tuple[int, float]]) -> str:
            known = len(pairs) == 2 and min(value for _, value in pairs) > 0 and pairs[0][0] != pairs[1][0]
            return f"{exponent(pairs[0][0], pairs[1][0], pairs[0][1], pairs[1][1]):.2f}" if known else "–"

        rows = [
            [(one.rows, one.seconds[name]) for one in series[-2:]] for series in (self.rows_series, self.columns_series)
        ]
        if name not in STAGES[:3]:
            return [*map(found, rows), "–"]
        divided = [one.size.grown if name == "sweep" else one.rows for one in (self.long, self.wide)]
        ends = zip((self.long, self.wide), divided, strict=True)
        return [*map(found, rows), found([(one.size.columns, one.seconds[name] / by) for one, by in ends])]

    def table(self, disk_there: float, memory_there: float) -> Table:
        """Time, memory and disk by stage, and where the limit is."""
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
        """What the numbers are made of."""
        rates = self.rates()
        parts = [f"{rate * work / 3600:.2g} h" for rate, work in zip(rates, WHOLE.sweep, strict=True)]
        off = [rates @ one.size.sweep / one.seconds["sweep"] for one in self.runs]
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
