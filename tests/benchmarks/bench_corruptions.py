"""Which of twenty mistakes in labels are found and named, at one level or at all, and what is said of right labels."""

from __future__ import annotations

import re
import sys
from dataclasses import replace
from pathlib import Path

import numpy as np
from common import LARGER, ROOT, SHARED, Options, Skip, Table, stage

from paretofit.consistency import check_labels, label_fit
from paretofit.dataset import Dataset, LevelData, write_dataset
from paretofit.dataset.io import extract_file_labels, read_frames
from paretofit.dataset.quality import fingerprint_geometry

sys.path.insert(0, str(ROOT / "tests"))
from helpers.corruptions import CORRUPTIONS, LabelSet, choose_targets

SOURCES = {
    "shipped": ROOT / "data" / "beryllium.h5",
    "larger": LARGER,
    "Ta": SHARED / "data" / "fitsnap_ta_linear" / "JSON",
    "Mo": SHARED / "data" / "mlearn" / "Mo" / "training.json",
    "Si": SHARED / "data" / "mlearn" / "Si" / "training.json",
}
ROWS: dict[str, object] = {}  # descriptors by geometry: most mistakes leave the structures as they are
NO_KEYS = dict.fromkeys(("energy", "forces", "stress"))
NUMBERS = re.compile(r"[-+\d.e]+(, [-+\d.e]+)*( and \d+ more)?")  # also lists of configurations


def compute_rows(basis: object, atoms: object) -> object:
    """Compute the rows of a structure once."""
    key = f"{basis} {fingerprint_geometry(atoms)} {atoms.positions.sum()}"
    if key not in ROWS:
        ROWS[key] = compute(basis, atoms)
    return ROWS[key]


compute, label_fit._try_to_compute_rows = label_fit._try_to_compute_rows, compute_rows


def load(path: Path) -> list[LabelSet]:
    """Labels of two levels of the shipped set, or of the one level of another and of a noisy copy of it."""
    if path.suffix == ".h5":
        with Dataset(path) as data:
            view = data.select(np.flatnonzero(data.labels("5").is_complete))
            structures, columns = list(view), [view.labels(level) for level in ("3", "5")]
        parts = [
            (labels.energy, [labels.forces[slice(*labels.offsets[k : k + 2])] for k in range(len(view))], labels.stress)
            for labels in columns
        ]
    else:
        frames = read_frames(path, None)
        labels, *_ = extract_file_labels(frames, "a", NO_KEYS, None)
        pure = [k for k, atoms in enumerate(frames.atoms) if len(set(atoms.get_chemical_symbols()) - {"W"}) == 1]
        pure = [k for k in pure if "W" not in frames.atoms[k].get_chemical_symbols()]
        structures = [frames.atoms[k] for k in pure]
        missing = np.full(6, np.nan)
        stresses = np.array([missing if labels[k]["stress"] is None else labels[k]["stress"] for k in pure])
        energies, forces = np.array([labels[k]["energy"] for k in pure]), [labels[k]["forces"] for k in pure]
        rng, sizes = np.random.default_rng(1), np.array([len(atoms) for atoms in structures])
        noisy = [f + 0.02 * np.sqrt(np.mean(f**2)) * rng.normal(size=f.shape) for f in forces]
        parts = [(energies + 1e-3 * sizes * rng.normal(size=len(sizes)), noisy, stresses), (energies, forces, stresses)]
    for atoms in structures:
        atoms.calc, atoms.info = None, {"config_type": str(atoms.info.get("config_type"))}
    targets = choose_targets(structures, parts[-1][1])
    return [LabelSet(structures, *part, targets) for part in parts]


def find_warnings(path: Path, levels: list[LabelSet]) -> list[str]:
    """Warnings about a dataset with these levels."""
    data = {
        str(k): LevelData(
            [
                {"energy": energy, "forces": forces, "stress": stress}
                for energy, forces, stress in zip(level.energies, level.forces, level.stresses, strict=True)
            ]
        )
        for k, level in enumerate(levels)
    }
    write_dataset(path, levels[0].structures, data)
    with Dataset(path) as dataset:
        return check_labels(dataset)


def try_corruptions(path: Path, levels: list[LabelSet], names: list[str]) -> list[list[str]]:
    """Results of each corruption, alone (at the second level) and at all levels: named, found or missed."""
    known = {NUMBERS.sub("#", text) for text in find_warnings(path, levels)}
    results = []
    for name in names:
        corruption, cells = CORRUPTIONS[name], []
        for changed in ({1}, set(range(len(levels)))):
            if corruption.moves_atoms and len(changed) == 1:
                cells.append("refused")  # geometries of the levels differ: the import names the configuration
                continue
            new = [corruption.apply(level) if k in changed else level for k, level in enumerate(levels)]
            warnings = [text for text in find_warnings(path, new) if NUMBERS.sub("#", text) not in known]
            is_named = any(re.search(corruption.pattern, text) for text in warnings)
            cells.append("named" if is_named else "found" if warnings else "missed")
        results.append(cells)
    copied = [replace(levels[0]), *levels]
    warnings = find_warnings(path, copied)
    results.append(["named" if any("identical" in text for text in warnings) else "missed", "-"])
    return results


def run(options: Options) -> list[Table]:
    """Plant all corruptions in all sets."""
    sets = {name: path for name, path in SOURCES.items() if path.exists()}
    if options.quick:
        sets = {"shipped": sets["shipped"]}
    if not sets:
        raise Skip("no dataset is here")
    names = list(CORRUPTIONS)[:2] if options.quick else list(CORRUPTIONS)
    rows: dict[str, list[str]] = {name: [] for name in [*names, "two identical levels"]}
    alarms = Table("Warnings about the labels as they are", ["set", "configurations", "warning"])
    for title, path in sets.items():
        levels = load(path)
        with stage(f"corruptions of {title}"):
            for name, cells in zip(rows, try_corruptions(options.work / "corrupted.h5", levels, names), strict=True):
                rows[name].append(" / ".join(cells))
        for text in find_warnings(options.work / "plain.h5", levels[-1:]) or ["none"]:
            alarms.rows.append([title, str(len(levels[0].structures)), text])
    table = Table(
        "Mistakes that were planted: at one level / at all levels",
        ["mistake", *sets],
        [[name, *cells] for name, cells in rows.items()],
        notes=[
            (
                "named: a warning names the unit, sign, order or configuration; found: another new warning; missed: "
                "none; refused: the import refuses levels whose geometries differ."
            ),
            "Sets of one level have a second one with noise of 1 meV/atom and 2 % of the forces.",
            (
                "The two tantalum configurations that were swapped have no forces by symmetry and differ by 3 "
                "meV/atom, below what a model without stresses resolves."
            ),
        ],
    )
    return [table, alarms]
