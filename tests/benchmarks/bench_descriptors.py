"""Descriptors for 2Jmax 4, 6, 8 and 10 against FitSNAP and LAMMPS, and the cost of their settings.

Ours is one pass at 2Jmax = 10, whose leading columns are the smaller models. FitSNAP computes each 2Jmax from
scratch, as its examples do, in an environment of its own (`--fitsnap-python`). LAMMPS alone is
`quadraticflag 1` at 2Jmax = 10 in our frame. Everything on one thread.
"""

from __future__ import annotations

import json
import shutil
import subprocess
import time
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from ase.io import write  # noqa: F401  (ASE's registry is loaded before anything is timed)
from common import LARGER, Options, Skip, Table, cpu_seconds, shipped_dataset, spread, stage
from threadpoolctl import threadpool_limits

from paretofit.core import create_lammps
from paretofit.descriptors import SnapBasis, compute_design, rows
from paretofit.descriptors import compute as compute_module

if TYPE_CHECKING:
    from ase import Atoms

    from paretofit.dataset import Dataset

TWOJMAX = [4, 6, 8, 10]
SAMPLE = {"DFTMD_1000K": 8, "DFTMD_300K": 4, "100FreeSurf": 4, "Elast_HCP_Shear": 4, "EOS_BCC": 2, "EOS_HCP": 2}


def fitsnap_json(atoms: Atoms, labels: dict[str, Any]) -> dict[str, Any]:
    """A configuration as FitSNAP reads it."""
    return {
        "Positions": atoms.positions.tolist(),
        "Lattice": atoms.cell[:].tolist(),
        "Energy": float(labels["energy"]),
        "Forces": np.asarray(labels["forces"]).tolist(),
        "Stress": np.zeros((3, 3)).tolist(),
        "AtomTypes": atoms.get_chemical_symbols(),
        "NumAtoms": len(atoms),
        "PositionsStyle": "angstrom", "LatticeStyle": "angstrom", "EnergyStyle": "electronvolt",
        "ForcesStyle": "electronvoltperangstrom", "StressStyle": "bar",
    }  # fmt: skip


def sample_of_larger(folder: Path, *, quick: bool) -> list[Atoms]:
    """A sample of the larger set, also copied to `folder` for FitSNAP."""
    from common import larger_configurations

    configurations, labels = larger_configurations()
    shutil.rmtree(folder, ignore_errors=True)
    left = {name: 2 if quick else n for name, n in SAMPLE.items()}
    chosen = []
    for atoms, label in zip(configurations, labels, strict=True):
        group = atoms.info["config_type"]
        if left.get(group, 0) > 0:
            left[group] -= 1
            chosen.append(atoms)
            _write_json(folder / group / f"{len(chosen)}.json", fitsnap_json(atoms, label))
    return chosen


def sample_of_shipped(dataset: Dataset, folder: Path, *, quick: bool) -> list[Atoms]:
    """Every fifth configuration of the shipped set, also written to `folder` for FitSNAP, which is slow."""
    shutil.rmtree(folder, ignore_errors=True)
    labels = dataset.labels(dataset.levels[-1])
    forces = np.split(labels.forces, np.cumsum(dataset.n_atoms)[:-1])
    chosen = []
    step = 20 if quick else 5
    for atoms, energy, force in list(zip(dataset, labels.energy, forces, strict=True))[::step]:
        chosen.append(atoms)
        label = {"energy": energy, "forces": force}
        _write_json(folder / "shipped" / f"{len(chosen)}.json", fitsnap_json(atoms, label))
    return chosen


def _write_json(path: Path, entry: dict[str, Any]) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text("# paretofit\n" + json.dumps({"Dataset": {"Data": [entry], "Label": path.stem}}))


def describe(configurations: list[Atoms], twojmax: int, *, direct: bool = False) -> tuple[np.ndarray, list]:
    """Wall and CPU seconds of our rows, and for each configuration the numbers that the FitSNAP script prints."""
    basis, lammps = SnapBasis(elements=["Be"], twojmax=twojmax), create_lammps()
    basis.column_order  # noqa: B018  (a cached property, made once for each process)
    checks = []
    with threadpool_limits(1):
        wall, cpu = time.perf_counter(), time.process_time()
        for atoms in configurations:
            energy, forces = rows.compute_configuration_rows(lammps, basis, atoms, use_lammps_products=direct)
            checks.append((energy, forces))
        elapsed = np.array([time.perf_counter() - wall, time.process_time() - cpu])
    return elapsed, [(float(energy[1:].sum()), float(np.linalg.norm(forces))) for energy, forces in checks]


def fitsnap(python: str, folder: Path, twojmax: int, cutoff: str = "10.0") -> tuple[np.ndarray, list]:
    """Wall and CPU seconds of FitSNAP, and the numbers that it prints."""
    script = Path(__file__).with_name("fitsnap_side.py")
    command = [python, str(script), str(folder), str(twojmax), cutoff]
    done = subprocess.run(command, capture_output=True, text=True, cwd=folder, check=False)
    if done.returncode:
        raise Skip(f"FitSNAP does not run: {done.stderr.strip().splitlines()[-1]}")
    result = json.loads(done.stdout.strip().splitlines()[-1])
    return np.array([result["wall"], result["cpu"]]), sorted(result["checks"])


def compare(name: str, configurations: list[Atoms], folder: Path, options: Options, table: Table) -> None:
    """Add the rows of a set to the table."""
    ours, alone, theirs = [], [], []
    describe(configurations[:2], 10)  # load the library
    with stage(f"{name}: {len(configurations)} configurations, {options.repeats} times"):
        for _ in range(options.repeats):
            elapsed, checks = describe(configurations, 10)
            ours.append(elapsed)
            alone.append(describe(configurations, 10, direct=True)[0])
            if options.fitsnap_python:
                parts = [fitsnap(options.fitsnap_python, folder, twojmax) for twojmax in TWOJMAX]
                theirs.append(sum(elapsed for elapsed, _ in parts))
                entries = {entry[0]: entry[1:] for entry in parts[-1][1]}
                reference = np.array([entries[f"{k}.json"] for k in range(1, len(configurations) + 1)])
                # The forces of a perfect crystal are rounding errors: compare with the largest, too.
                if not np.allclose(checks, reference, rtol=1e-8, atol=1e-10 * np.abs(reference).max()):
                    raise RuntimeError(f"our rows and FitSNAP's differ: {checks} against {reference.tolist()}")
    mine = np.array(ours)
    table.add(name, "ours, one pass at 10", *_columns(mine, mine))
    table.add(name, "LAMMPS quadraticflag 1 at 10 alone", *_columns(np.array(alone), mine))
    if theirs:
        table.add(name, "FitSNAP at 4, 6, 8 and 10", *_columns(np.array(theirs), mine))


def _columns(times: np.ndarray, ours: np.ndarray) -> list[str]:
    """Format wall and CPU seconds, and the ratio of each to ours."""
    ratio = times / ours
    return [" / ".join(spread(column)) for column in (times[:, 0], times[:, 1], ratio[:, 0], ratio[:, 1])]


def _atoms(configurations: list[Atoms]) -> str:
    sizes = [len(atoms) for atoms in configurations]
    return f"{min(sizes)} to {max(sizes)}"


def settings_table(configurations: list[Atoms], dataset: Dataset, options: Options) -> Table:
    """Seconds for different batch and cutoff settings."""
    table = Table(
        "Settings of our descriptors at 2Jmax = 10",
        ["setting", "value", "wall, s", "CPU, s", "wall against the setting in use"],
        notes=[
            (
                "pair cutoff and rows.BATCH: the sample of the larger set, one thread. compute.BATCH_ATOMS: the "
                f"shipped set with compute_design in {options.cores} processes, file included."
            )
        ],
    )
    measured: dict[tuple[str, str, bool], list[np.ndarray]] = {}
    usual = rows.create_lammps_atoms

    def wide(lammps, basis, atoms, types):
        rotation = usual(lammps, basis, atoms, types)
        lammps.commands_string("pair_style zero 10.0 nocoeff\npair_coeff * *")
        return rotation

    def with_batch(size: int) -> np.ndarray:
        previous_size, rows.GRADIENT_BATCH_ROWS = rows.GRADIENT_BATCH_ROWS, size
        try:
            return describe(configurations, 10)[0]
        finally:
            rows.GRADIENT_BATCH_ROWS = previous_size

    def with_atoms(size: int) -> np.ndarray:
        previous_size, compute_module.BATCH_ATOMS = compute_module.BATCH_ATOMS, size
        try:
            wall, cpu = time.perf_counter(), cpu_seconds()
            basis = SnapBasis(elements=["Be"], twojmax=10)
            compute_design(dataset, basis, options.work / "settings.h5", jobs=options.cores)
            return np.array([time.perf_counter() - wall, cpu_seconds() - cpu])
        finally:
            compute_module.BATCH_ATOMS = previous_size

    with_atoms(64)  # start the worker processes
    with stage("settings"):
        for _ in range(options.repeats):
            for covering in (True, False):
                rows.create_lammps_atoms = usual if covering else wide
                key = ("pair_style zero", "just covering" if covering else "10.0", covering)
                measured.setdefault(key, []).append(describe(configurations, 10)[0])
            rows.create_lammps_atoms = usual
            for size in (8, 16, 32, 64, 128, 256):
                measured.setdefault(("rows.BATCH", str(size), size == rows.GRADIENT_BATCH_ROWS), []).append(
                    with_batch(size)
                )
            for size in (16, 64, 256, 1024):
                key = ("compute.BATCH_ATOMS", str(size), size == compute_module.BATCH_ATOMS)
                measured.setdefault(key, []).append(with_atoms(size))
    in_use = {name: np.array(times) for (name, _, used), times in measured.items() if used}
    for (name, value, used), times in measured.items():
        elapsed = np.array(times)
        ratio = elapsed[:, 0] / in_use[name][:, 0]
        columns = (elapsed[:, 0], elapsed[:, 1], ratio)
        table.add(name, f"{value}{' (in use)' if used else ''}", *(" / ".join(spread(column)) for column in columns))
    return table


def run(options: Options) -> list[Table]:
    """Compare both sets, and the settings."""
    table = Table(
        "Descriptors for 2Jmax 4, 6, 8 and 10, one thread",
        ["set", "what", "wall, s", "CPU, s", "wall ratio", "CPU ratio"],
        notes=[
            "minimum / median / maximum over runs in turn; ratios are to ours of the same turn.",
            (
                "FitSNAP: quadraticflag 1, bikflag 0, pair_style zero 10.0, each 2Jmax from scratch; only its "
                "process_configs is timed. Its energy rows and the norms of its force rows agree with ours to 1e-8."
            ),
        ],
    )
    if not options.fitsnap_python:
        table.notes.append("FitSNAP: left out, no --fitsnap-python was given.")
    shipped = shipped_dataset()
    folder = options.work / "fitsnap_shipped"
    sample = sample_of_shipped(shipped, folder, quick=options.quick)
    compare(f"shipped, {len(sample)} configurations of {_atoms(sample)} atoms", sample, folder, options, table)
    if not LARGER.is_dir():
        table.notes.append(f"larger: skipped, no data at {LARGER}")
        return [table, settings_table(sample, shipped, options)]
    folder = options.work / "fitsnap_larger"
    sample = sample_of_larger(folder, quick=options.quick)
    compare(
        f"larger, {len(sample)} configurations of {_atoms(sample)} atoms",
        sample,
        folder,
        options,
        table,
    )
    return [table, settings_table(sample, shipped, options)]
