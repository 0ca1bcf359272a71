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
import os
import shutil
import subprocess
import sys
from dataclasses import asdict
from pathlib import Path

import pandas as pd
from common import Options, Skip, Table, stage
from published_plans import ATOMS, FILES, PLANS, QUICK, SAMPLINGS, STAGES, WEIGHTS, Measured, Plan
from published_size import make_dataset
from published_whole import extrapolated
from watching import INTERVAL, Seen, watched

from paretofit.core import write_text
from paretofit.descriptors import DesignMatrix

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
sampling_methods: [{samplings}]
repetitions: {repetitions}
leverage: {{energy_weight: 150, twojmax: {leverage}}}
confidence: {{splits: 0}}  # the published study has one split
"""


def run(options: Options) -> list[Table]:
    """Run the unfinished studies; return tables of the measurements and of the extrapolated study."""
    plans = QUICK if options.quick else PLANS
    names = os.environ.get("PARETOFIT_PUBLISHED", "").replace(",", " ").split() or list(plans)
    if unknown := set(names) - set(plans):
        raise Skip(f"PARETOFIT_PUBLISHED names '{min(unknown)}'; there are {', '.join(plans)}")
    book = options.work / ("published_quick.json" if options.quick else "published.json")
    done, refused = _load_finished(book, plans, options.cores), []
    for name in names:
        if name in done:
            continue
        try:
            with stage(f"{name}: {plans[name].n} configurations, 2Jmax up to {max(plans[name].twojmax)}"):
                done[name] = measure(name, plans[name], options)
        except Skip as reason:
            refused.append(f"{name} was left out: {reason}.")
        write_text(book, json.dumps({key: asdict(measurement) for key, measurement in done.items()}, indent=1))
    if not done:
        raise Skip(" ".join(refused))
    done = {name: done[name] for name in plans if name in done}
    first = times(done)
    first.notes += refused
    available = shutil.disk_usage(options.work).free, os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")
    return [first, memory_and_disk(done), *extrapolated(done, *available)]


def _load_finished(book: Path, plans: dict[str, Plan], cores: int) -> dict[str, Measured]:
    """Finished runs with the same plan and number of cores."""
    if not book.exists():
        return {}
    finished = {}
    for name, fields in json.loads(book.read_text()).items():
        plan = Plan(**{key: tuple(v) if isinstance(v, list) else v for key, v in fields.pop("plan").items()})
        if plan == plans.get(name) and fields["cores"] == cores:
            finished[name] = Measured(plan, **fields)
    return finished


def measure(name: str, plan: Plan, options: Options) -> Measured:
    """Run a study, read its measurements, and delete its large files."""
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
    with (options.work / f"published_{name}.log").open("w") as log:
        process = subprocess.Popen([*command, "--jobs", str(options.cores)], stdout=log, stderr=subprocess.STDOUT)
        with watched(process.pid, folder / "run.log") as seen:
            status = process.wait()
    if status:
        raise RuntimeError(f"run {name} failed:\n{Path(log.name).read_text()[-2000:]}")
    measurement = _read(plan, options.cores, folder, seen)
    for large in ("design.h5", "reduction.h5", "dataset.h5"):
        (folder / large).unlink(missing_ok=True)
    return measurement


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
    """Measurements of a finished run."""
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
    solvers = {str(name): [len(sizes), int(sizes.max())] for name, sizes in results.groupby("solver")["n_train"]}
    seconds, memory = ({name: record[key][name] for name in STAGES} for key in ("seconds", "peak_megabytes"))
    return Measured(plan, cores, design.n_rows, len(results), seconds, seen.cpu, memory, seen.memory, files, solvers)


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
    for name, measurement in done.items():
        size = measurement.size
        counts = [f"{size.configurations}", f"{measurement.rows}", f"{size.columns}", f"{measurement.fits}"]
        seconds = [
            _format_pair(measurement.seconds[stage_name], measurement.cpu.get(stage_name), ".1f")
            for stage_name in STAGES
        ]
        table.add(
            name,
            ", ".join(map(str, measurement.plan.twojmax)),
            *counts,
            *seconds,
            f"{sum(measurement.cpu.values()):.0f}",
        )
        ways = ", ".join(f"{solver} {n} (of up to {most})" for solver, (n, most) in sorted(measurement.solvers.items()))
        subsets = f"{min(measurement.plan.sizes)} to {max(measurement.plan.sizes)} configurations"
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
    for name, measurement in done.items():
        memory_cells = [
            _format_pair(measurement.memory[stage_name], measurement.memory_of_all.get(stage_name), ".0f")
            for stage_name in STAGES
        ]
        table.add(name, *memory_cells, *(f"{measurement.files[key] / 1e6:.3g}" for key in (*FILES, "whole")))
    return table


def _format_pair(first: float, second: float | None, form: str) -> str:
    return f"{first:{form}} / {'–' if second is None else format(second, '.0f')}"
