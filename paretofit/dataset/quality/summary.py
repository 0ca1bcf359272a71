"""What is in a dataset, and what in it deserves a second look before money is spent on it."""

from __future__ import annotations

import hashlib
from collections import Counter
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
from ase import Atoms
from ase.geometry import minkowski_reduce
from ase.neighborlist import natural_cutoffs, neighbor_list
from scipy.spatial import cKDTree

from paretofit.dataset.quality.level_checks import find_level_warnings
from paretofit.dataset.quality.unit_checks import find_unit_warnings

if TYPE_CHECKING:
    from paretofit.core import Array
    from paretofit.dataset.labelled import LabelledStructures, Labels

TOO_CLOSE = 0.6  # of the sum of covalent radii
NET_FORCE = 0.01  # eV/Å for each atom; plane-wave codes leave a few meV/Å
FLAT = 1e-6  # least singular value of the normalised cell vectors
SHORTEST = 1e-6  # Å
SHOWN = 5
HEADER = "level      energies  forces stresses  failed    mean s         energy, eV/atom  max force, eV/Å"


@dataclass(frozen=True)
class LevelSummary:
    """Labels of one level: counts, cost, and ranges (eV/atom, eV/Å); NaN where there are none."""

    name: str
    settings: dict[str, Any]
    n_energies: int
    n_forces: int
    n_stresses: int
    n_failed: int
    mean_seconds: float
    energy_range: tuple[float, float]
    max_force: float


@dataclass(frozen=True)
class DatasetSummary:
    """Counts, ranges and warnings of a dataset."""

    path: str
    n_configurations: int
    n_atoms: int
    atoms_range: tuple[int, int]
    species: dict[str, int]
    config_types: dict[str, int]
    volume_range: tuple[float, float]
    levels: list[LevelSummary]
    warnings: list[str]


def describe_dataset(dataset: LabelledStructures) -> DatasetSummary:
    """Summarise a dataset and look for trouble.

    Warnings are given for duplicate configurations, periodic cells without volume, atoms closer than 0.6 of the
    sum of their covalent radii, missing or failed labels, negative costs, forces that do not sum to zero, and
    units or signs that look wrong.

    Parameters
    ----------
    dataset : LabelledStructures

    Returns
    -------
    DatasetInfo
        Volumes in Å³/atom, over configurations that are periodic in three directions and have a volume.
    """
    species: Counter[str] = Counter()
    kinds: Counter[str] = Counter()
    seen: dict[str, int] = {}
    duplicates, close, flat, volumes = [], [], [], []
    for atoms in dataset:
        identity = atoms.info["config_id"]
        species.update(atoms.get_chemical_symbols())
        kinds[str(atoms.info.get("config_type", "-"))] += 1
        first = seen.setdefault(fingerprint_geometry(atoms), identity)
        if first != identity:
            duplicates.append(f"{identity} = {first}")
        if not _independent(atoms.cell[atoms.pbc]):
            flat.append(str(identity))
            continue
        if atoms.pbc.all():
            volumes.append(atoms.cell.volume / len(atoms))
        if has_close_atoms(atoms):
            close.append(str(identity))
    warnings = _structure_warnings(duplicates, flat, close)
    levels = []
    for name in dataset.levels:  # one level's labels in memory at a time
        levels.append(_summarise(name, dataset.settings(name), labels := dataset.labels(name)))
        warnings.extend(_label_warnings(name, labels, dataset.ids))
    warnings.extend(find_unit_warnings(dataset))
    warnings.extend(find_level_warnings(dataset))
    sizes = dataset.n_atoms
    return DatasetSummary(
        path=str(dataset.path),
        n_configurations=len(dataset),
        n_atoms=int(sizes.sum()),
        atoms_range=(int(sizes.min()), int(sizes.max())) if len(sizes) else (0, 0),
        species=dict(species),
        config_types=dict(kinds.most_common()),
        volume_range=(min(volumes, default=np.nan), max(volumes, default=np.nan)),
        levels=levels,
        warnings=warnings,
    )


def _structure_warnings(duplicates: list[str], flat: list[str], close: list[str]) -> list[str]:
    warnings = []
    if duplicates:
        warnings.append(f"{len(duplicates)} duplicate configurations: {_some(duplicates)}")
    if flat:
        warnings.append(
            f"{len(flat)} configurations are periodic along vectors that span no volume: {_some(flat)}; correct "
            "their cells, or nothing can be computed for them"
        )
    if close:
        warnings.append(
            f"{len(close)} configurations have atoms closer than {TOO_CLOSE} of the sum of their covalent "
            f"radii: {_some(close)}"
        )
    return warnings


def _summarise(name: str, settings: dict[str, Any], labels: Labels) -> LevelSummary:
    sizes = np.diff(labels.offsets)
    per_atom = labels.energy / sizes
    return LevelSummary(
        name=name,
        settings=settings,
        n_energies=int(np.isfinite(labels.energy).sum()),
        n_forces=int(labels.forces_complete.sum()),
        n_stresses=int(np.isfinite(labels.stress).all(axis=1).sum()),
        n_failed=int((labels.status == 2).sum()),
        mean_seconds=_finite(np.mean, labels.seconds),
        energy_range=(_finite(np.min, per_atom), _finite(np.max, per_atom)),
        max_force=_finite(np.max, np.linalg.norm(labels.forces, axis=1)),
    )


def _independent(vectors: Array) -> bool:
    """Whether cell vectors, (n, 3), span n dimensions: none is zero, no three lie in one plane."""
    lengths = np.linalg.norm(vectors, axis=1, keepdims=True)
    if not len(vectors) or (lengths < SHORTEST).any():
        return not len(vectors)
    return bool(np.linalg.matrix_rank(vectors / lengths, tol=FLAT) == len(vectors))


def has_close_atoms(atoms: Atoms, min_distance_ratio: float = TOO_CLOSE) -> bool:
    """Whether two atoms, or an atom and its own image, are closer than `min_distance_ratio` of the sum of their covalent radii."""
    spanned = Atoms(atoms.numbers, atoms.positions, cell=atoms.cell, pbc=atoms.pbc)
    spanned.cell[~atoms.pbc] = 0.0  # a vector along which nothing is periodic may be anything; zero always works
    reach = np.array(natural_cutoffs(atoms, mult=min_distance_ratio))
    return _crowded(spanned, reach) or len(neighbor_list("i", spanned, reach)) > 0


def _crowded(atoms: Atoms, reach: Array) -> bool:
    """Whether some atoms are so close that a list of all that are could fill the memory: a quick look beforehand.

    What it leaves has shortest lattice vectors and nearest atoms at a distance, so that neighbours are few.
    """
    if atoms.pbc.any():
        try:
            cell = minkowski_reduce(atoms.cell, atoms.pbc)[0]
        except RuntimeError:  # flat beyond what numbers can hold
            return True
        if np.linalg.norm(cell[atoms.pbc], axis=1).min() < 2 * reach.max(initial=0.0):
            return True
        atoms.set_cell(cell)
        atoms.wrap()
    near = cKDTree(atoms.positions).query(atoms.positions, k=2)[0][:, 1]
    return bool(near.min(initial=np.inf) < 2 * reach.min(initial=np.inf))


def _label_warnings(name: str, labels: Labels, ids: Array) -> list[str]:
    warnings = []
    missing = ids[~labels.complete]
    few = 2 * len(missing) > len(ids) and not (labels.status == 2).any()  # a level that only some were meant to have
    if len(missing) and not few:
        warnings.append(f"level {name}: {len(missing)} labels are missing or incomplete: {_some(missing)}")
    negative = ids[labels.seconds < 0]
    if len(negative):
        warnings.append(f"level {name}: {len(negative)} labels have a negative cost: {_some(negative)}")
    net = np.stack([labels.sum_over_atoms(labels.forces[:, axis]) for axis in range(3)], axis=1)
    size = np.linalg.norm(net, axis=1) / np.diff(labels.offsets)
    bad = np.flatnonzero(size > NET_FORCE)
    if len(bad):
        worst = bad[np.argmax(size[bad])]
        warnings.append(
            f"level {name}: forces do not sum to zero in {len(bad)} labels (more than {NET_FORCE} eV/Å for each "
            f"atom; the largest is {size[worst]:.3g} in configuration {ids[worst]})"
        )
    return warnings


def _finite(function: Any, values: Array) -> float:
    kept = values[np.isfinite(values)]
    return float(function(kept)) if kept.size else float("nan")


def fingerprint_geometry(atoms: Atoms) -> str:
    """Equal for equal geometries, up to 1e-5 Å and a translation of all atoms."""
    offsets = atoms.positions - atoms.positions[0]
    rounded = np.round(np.concatenate([atoms.cell[:].ravel(), offsets.ravel()]), 5) + 0.0
    key = rounded.tobytes() + atoms.numbers.tobytes() + np.asarray(atoms.pbc).tobytes()
    return hashlib.sha256(key).hexdigest()


def _some(items: Any) -> str:
    shown = [str(item) for item in items[:SHOWN]]
    return ", ".join(shown) + (f" and {len(items) - SHOWN} more" if len(items) > SHOWN else "")


def format_dataset_info(info: DatasetSummary) -> str:
    """The summary as plain text: a table with a line for each level, their settings, and the warnings."""
    lines = [
        f"{info.path}: {info.n_configurations} configurations, {info.n_atoms} atoms",
        f"atoms:    {info.atoms_range[0]} to {info.atoms_range[1]} in each",
        f"species:  {_counts(info.species)}",
        f"types:    {_counts(info.config_types)}",
        f"volume:   {info.volume_range[0]:.2f} to {info.volume_range[1]:.2f} Å³/atom",
        "",
        HEADER,
    ]
    for level in info.levels:
        low, high = level.energy_range
        lines.append(
            f"{level.name:<10}{level.n_energies:>9}{level.n_forces:>8}{level.n_stresses:>9}{level.n_failed:>8}"
            f"{level.mean_seconds:>10.2f}{f'{low:.3f} to {high:.3f}':>24}{level.max_force:>17.3f}"
        )
    lines += ["", *_settings_lines(info.levels), "", *(f"warning: {text}" for text in info.warnings or [])]
    return "\n".join(lines + ([] if info.warnings else ["no warnings"]))


def _settings_lines(levels: list[LevelSummary]) -> list[str]:
    """Settings that all levels share once, the others for each level."""
    if not levels:
        return ["no levels"]
    first = levels[0].settings
    shared = {key for key, value in first.items() if all(one.settings.get(key) == value for one in levels)}
    lines = [f"all levels: {key}: {_plain(first[key])}" for key in sorted(shared)] if len(levels) > 1 else []
    own = {one.name: {k: v for k, v in one.settings.items() if len(levels) == 1 or k not in shared} for one in levels}
    lines += [f"level {name}: {_plain(settings)}" for name, settings in own.items() if settings]
    return lines or ["no settings are recorded with the levels"]


def _counts(counts: dict[str, int]) -> str:
    return ", ".join(f"{name} {count}" for name, count in counts.items())


def _plain(value: Any) -> str:
    return ", ".join(f"{key} {inner}" for key, inner in value.items()) if isinstance(value, dict) else str(value)
