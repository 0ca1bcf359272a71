"""What a convergence level gets wrong: its labels against those of the reference, configuration by configuration.

It is for the error analysis of a whole dataset (Tables 1 and 3 and Figures 2 and 3 of Baghishov et al., doi
10.1039/d5dd00294j), not for finding wrong labels, which is what `paretofit.dataset.quality.level_checks` does. An
error is always level minus reference, so a positive one means that the level's energy is too high.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
import pandas as pd
from scipy.stats import spearmanr

from paretofit.core import InputError
from paretofit.dataset.labelled import STATUS_CODES

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from ase import Atoms

    from paretofit.core import Array
    from paretofit.dataset.labelled import LabelledStructures, Labels

CONFIGURATION_COLUMNS = [
    "level", "config_id", "energy", "reference_energy", "energy_error", "force_rmsd", "atoms", "shortest_vector",
    "n_kpoints", "largest_kspacing", "config_type",
]  # fmt: skip
FORCE_COLUMNS = ["level", "config_id", "force", "reference", "shortest_vector"]
TABLE_COLUMNS = [
    "level", "n_configurations", "n_left_out", "energy_rmsd", "energy_rmsd_bulk_shifted", "energy_rmsd_mean_shifted",
    "mean_energy_error", "force_rmsd",
]  # fmt: skip
CORRELATION_COLUMNS = [
    "level", "property", "n_energies", "energy_correlation", "energy_p_value",
    "n_forces", "force_correlation", "force_p_value",
]  # fmt: skip
LABEL_COLUMNS = ["n_labels", "n_incomplete", "mean_seconds", "median_seconds"]
CORRELATED_PROPERTIES = ("shortest_vector", "n_kpoints", "largest_kspacing", "atoms")
"""What an error may go with; columns of the table of configurations."""
MIN_FORCE_RMSD_MEV_PER_ANGSTROM = (
    1e-3  # meV/Å; forces that differ by less are zero by symmetry, which says nothing about a level
)
MOST_ATOMS = 20_000  # whose forces are kept for the figures; the errors are always those of all atoms
_GOLDEN = 0.6180339887498949  # multiples of it, modulo 1, are spread evenly: no rhythm to fall in step with
_ENOUGH = 10  # pairs, below which the p-value of a rank correlation, which is asymptotic, says nothing
_EXACT = 1e-9  # as the labeller: a quotient this close above a whole number is that number


@dataclass(frozen=True)
class LevelErrors:
    """Errors of every convergence level against the last one, the reference.

    Attributes
    ----------
    reference_level : str
        The level that the others are compared with.
    reference_configuration : int or None
        Id of the configuration whose error is taken off in the bulk-shifted column; None where no configuration is
        labelled at every level.
    reference_formula : str
        Its formula, as in ``"Be2"``; empty without one.
    settings : DataFrame
        A row per level, the reference too: ``level``, ``cutoff_ev``, ``kspacing_per_angstrom`` (1/Å with the 2π,
        or ``"Gamma only"``), ``smearing``, other settings in which the levels differ, ``n_labels`` (complete ones),
        ``n_incomplete`` (begun or failed, with an energy or a force missing), and ``mean_seconds`` and
        ``median_seconds`` of the complete ones.
    table : DataFrame
        A row per level below the reference: ``level``, ``n_configurations`` (complete labels at both levels),
        ``n_left_out`` (those of the dataset that are not), ``energy_rmsd``, ``energy_rmsd_bulk_shifted``,
        ``energy_rmsd_mean_shifted`` and ``mean_energy_error`` in meV/atom, ``force_rmsd`` of a component in meV/Å.
    configurations : DataFrame
        A row per level below the reference and configuration: the columns `CONFIGURATION_COLUMNS`. ``energy`` and
        ``reference_energy`` are in eV/atom, ``energy_error`` is signed and in meV/atom, ``force_rmsd`` in meV/Å,
        ``shortest_vector`` in Å over the periodic directions (NaN where there are none), ``n_kpoints`` counts the
        whole mesh of the level's label and ``largest_kspacing`` is its largest distance in 1/Å with the 2π, over
        the periodic directions. Both are NaN where neither the label nor the level says what the mesh was.
    forces : DataFrame
        A row per level and force component: the columns `FORCE_COLUMNS`, eV/Å and Å. Of more than `MOST_ATOMS`
        atoms an evenly spread choice, the same one at every level.
    correlations : DataFrame
        A row per level and one of `CORRELATED_PROPERTIES` (column ``property``): Spearman's rank correlation with the size of
        the energy error and with the force RMSD (``energy_correlation``, ``force_correlation``), their two-sided
        p-values (``energy_p_value``, ``force_p_value``) and the numbers of configurations (``n_energies``,
        ``n_forces``); those whose force RMSD is below `MIN_FORCE_RMSD_MEV_PER_ANGSTROM` do not count for the forces. NaN where either side
        does not vary, and no p-value for fewer than 10.
    """

    reference_level: str
    reference_configuration: int | None
    reference_formula: str
    settings: pd.DataFrame
    table: pd.DataFrame
    configurations: pd.DataFrame
    forces: pd.DataFrame
    correlations: pd.DataFrame


def compute_level_errors(
    dataset: LabelledStructures, levels: Sequence[str], *, reference_configuration: int | None = None
) -> LevelErrors:
    """Compare every level with the last of `levels` on the configurations whose labels are complete at both.

    With eₖ = 1000 (E_level,k − E_ref,k) / N_k the errors of a level in meV/atom, its table has √⟨e²⟩ (unshifted),
    √⟨(e − e_bulk)²⟩ (bulk-shifted), √⟨(e − ⟨e⟩)²⟩ (mean-shifted), ⟨e⟩, and 1000 √⟨ΔF²⟩ over all force components.

    Parameters
    ----------
    dataset : LabelledStructures
        Or a selection of one.
    levels : sequence of str
        Names of convergence levels by cost, the last is the reference.
    reference_configuration : int, optional
        Id of the configuration that the bulk shift refers to; by default the one with the lowest energy per atom
        at the reference among those labelled at every level. With more than one species the lowest energy per
        atom says more about composition than about stability: name one.

    Returns
    -------
    LevelErrors

    Raises
    ------
    InputError
        If `levels` is empty or repeats a level, the dataset lacks one of them or the bulk configuration, that one
        is not labelled at every level, or no configuration is labelled at both a level and the reference.
    """
    names = _checked_names(levels)
    reference = dataset.labels(names[-1])
    if not reference.complete.any():
        raise InputError(f"{dataset.path}: no configuration has an energy and all forces at level '{names[-1]}'")
    parts = _Parts(settings=[], configurations=[], forces=[], everywhere=reference.complete)
    geometries, kept = _geometries(dataset), _evenly_spread(int(dataset.n_atoms.sum()))
    for level in names[:-1]:  # one level's labels in memory at a time, beside the reference
        _compare(parts, dataset, level, names[-1], reference, geometries, kept)
    parts.settings.append(_settings_row(dataset, names[-1], reference))
    chosen = _bulk(dataset, names, reference_configuration, parts.everywhere, reference.energy / dataset.n_atoms)
    rows = [_table_row(part, chosen, len(dataset)) for part in parts.configurations]
    correlations = [_correlation(part, name) for part in parts.configurations for name in CORRELATED_PROPERTIES]
    return LevelErrors(
        reference_level=names[-1],
        reference_configuration=chosen,
        reference_formula="" if chosen is None else str(dataset.select_ids([chosen])[0].get_chemical_formula()),
        settings=_settings_table(parts.settings),
        table=pd.DataFrame(rows, columns=TABLE_COLUMNS),
        configurations=_joined(parts.configurations, CONFIGURATION_COLUMNS),
        forces=_joined(parts.forces, FORCE_COLUMNS),
        correlations=pd.DataFrame(correlations, columns=CORRELATION_COLUMNS),
    )


@dataclass
class _Parts:
    """What the comparison of one level after the other adds to."""

    settings: list[dict[str, Any]]
    configurations: list[pd.DataFrame]
    forces: list[pd.DataFrame]
    everywhere: Array  # (n,) bool, labelled at every level so far


def _compare(
    parts: _Parts,
    dataset: LabelledStructures,
    level: str,
    name: str,
    reference: Labels,
    geometries: pd.DataFrame,
    kept: Array,
) -> None:
    """Add one level, compared with the labels of the reference, which is called `name`."""
    labels = dataset.labels(level)
    both = _shared(dataset, level, name, labels, reference)
    rows = _errors(labels, reference, geometries).join(_meshes(dataset, level, geometries))
    forces = _forces(labels, reference, geometries, both, kept)
    parts.everywhere = parts.everywhere & both
    parts.settings.append(_settings_row(dataset, level, labels))
    parts.configurations.append(rows[both].assign(level=level)[CONFIGURATION_COLUMNS])
    parts.forces.append(forces.assign(level=level)[FORCE_COLUMNS])


def _checked_names(levels: Sequence[str]) -> list[str]:
    names = [str(level) for level in levels]
    if not names:
        raise InputError("levels must name at least one convergence level, got none")
    if repeated := [name for k, name in enumerate(names) if name in names[:k]]:
        raise InputError(f"levels must name each convergence level once; '{repeated[0]}' is there twice")
    return names


def _shared(dataset: LabelledStructures, level: str, name: str, labels: Labels, reference: Labels) -> Array:
    """``(n,) bool``: configurations whose labels are complete at both levels."""
    both = np.asarray(labels.complete & reference.complete)
    if not both.any():
        raise InputError(
            f"{dataset.path}: no configuration has an energy and all forces at both level '{level}' and level "
            f"'{name}', the reference; leave out one of the two"
        )
    return both


def _geometries(dataset: LabelledStructures) -> pd.DataFrame:
    """A row per configuration: its id, atoms, type, shortest vector (Å) and reciprocal lengths (1/Å with the 2π)."""
    rows = [_geometry(atoms) for atoms in dataset]
    columns = ["config_id", "atoms", "config_type", "shortest_vector", "b1", "b2", "b3"]
    return pd.DataFrame(rows, columns=columns)


def _geometry(atoms: Atoms) -> tuple[Any, ...]:
    kind = atoms.info.get("config_type", atoms.info.get("kind", "-"))
    lengths = np.asarray(atoms.cell.lengths())[atoms.pbc]
    shortest = float(lengths.min()) if lengths.all() and lengths.size else np.nan
    return (atoms.info["config_id"], len(atoms), str(kind), shortest, *_reciprocal(atoms))


def _reciprocal(atoms: Atoms) -> Array:
    """``(3,)`` lengths of the reciprocal vectors in 1/Å with the 2π; 0 along directions that are not periodic."""
    try:
        vectors = np.asarray(atoms.cell.complete().reciprocal()[:])
    except (np.linalg.LinAlgError, ValueError):  # the cell spans no volume
        return np.full(3, np.nan)
    return np.where(atoms.pbc, 2 * np.pi * np.linalg.norm(vectors, axis=1), 0.0)


def _meshes(dataset: LabelledStructures, level: str, geometries: pd.DataFrame) -> pd.DataFrame:
    """Columns ``n_kpoints`` and ``largest_kspacing`` (1/Å): of the label's own mesh, or of the level's spacing."""
    reciprocal = geometries[["b1", "b2", "b3"]].to_numpy(float)
    spacing = dataset.settings(level).get("kspacing_per_angstrom", np.nan)
    mesh = np.ones(reciprocal.shape)  # None: Gamma only
    if spacing is not None:
        known = isinstance(spacing, int | float) and spacing > 0
        mesh = np.maximum(1, np.ceil(reciprocal / (spacing if known else np.nan) - _EXACT))
    for k, record in enumerate(dataset.label_records(level)):
        points = record.get("kpts")
        if isinstance(points, list) and len(points) == 3 and all(isinstance(n, int) and n > 0 for n in points):
            mesh[k] = points
    distance = (reciprocal / mesh).max(axis=1)
    return pd.DataFrame({"n_kpoints": mesh.prod(axis=1), "largest_kspacing": np.where(distance > 0, distance, np.nan)})


def _errors(labels: Labels, reference: Labels, geometries: pd.DataFrame) -> pd.DataFrame:
    """The geometries with energies per atom (eV), their error (meV/atom) and the force RMSD (meV/Å)."""
    atoms = geometries["atoms"].to_numpy()
    squares = ((labels.forces - reference.forces) ** 2).sum(axis=1)
    return geometries.assign(
        energy=labels.energy / atoms,
        reference_energy=reference.energy / atoms,
        energy_error=1000 * (labels.energy - reference.energy) / atoms,
        force_rmsd=1000 * np.sqrt(labels.sum_over_atoms(squares) / (3 * atoms)),
    )


def _forces(labels: Labels, reference: Labels, geometries: pd.DataFrame, both: Array, kept: Array) -> pd.DataFrame:
    """A row per force component (eV/Å) of the atoms that are kept, in the configurations labelled at both."""
    atoms = geometries["atoms"].to_numpy()
    chosen = kept & np.repeat(both, atoms)
    rows = 3 * np.bincount(np.repeat(np.arange(len(atoms)), atoms)[chosen], minlength=len(atoms))
    repeated = geometries[["config_id", "shortest_vector"]].loc[np.repeat(geometries.index, rows)]
    return repeated.assign(force=labels.forces[chosen].ravel(), reference=reference.forces[chosen].ravel())


def _evenly_spread(n: int) -> Array:
    """``(n,) bool``: at most about `MOST_ATOMS` of n atoms, in no rhythm that a cell or a molecule could share."""
    return np.asarray((np.arange(n) * _GOLDEN) % 1.0 < MOST_ATOMS / max(n, 1))


def _bulk(
    dataset: LabelledStructures, names: Sequence[str], bulk: int | None, everywhere: Array, energy: Array
) -> int | None:
    """The id of the bulk configuration: the one asked for, or the lowest in energy (eV/atom) of those that may be."""
    if bulk is None:
        lowest = np.argmin(np.where(everywhere, energy, np.inf))
        return int(dataset.ids[lowest]) if everywhere.any() else None
    one = dataset.select_ids([bulk])
    for level in names:
        if not one.labels(level).complete.all():
            raise InputError(
                f"{dataset.path}: configuration {bulk} cannot serve as the bulk reference, because it lacks an energy "
                f"or forces at level '{level}'; name one that is labelled at every level"
            )
    return int(bulk)


def _table_row(rows: pd.DataFrame, bulk: int | None, n: int) -> tuple[Any, ...]:
    """One row of the table, in the order of `TABLE_COLUMNS`."""
    error = rows["energy_error"].to_numpy(float)
    shift = np.nan if bulk is None else error[rows["config_id"].to_numpy() == bulk][0]
    squares = np.average(rows["force_rmsd"].to_numpy(float) ** 2, weights=rows["atoms"].to_numpy(float))
    shifted = [float(np.sqrt(np.mean((error - by) ** 2))) for by in (0.0, shift, error.mean())]
    return (rows["level"].iloc[0], len(rows), n - len(rows), *shifted, float(error.mean()), float(np.sqrt(squares)))


def _correlation(rows: pd.DataFrame, name: str) -> tuple[Any, ...]:
    """One row of the correlations, in the order of `CORRELATION_COLUMNS`."""
    known = rows[rows[name].notna()]
    moved = known[known["force_rmsd"] >= MIN_FORCE_RMSD_MEV_PER_ANGSTROM]
    energy = _spearman(known["energy_error"].abs().to_numpy(float), known[name].to_numpy(float))
    force = _spearman(moved["force_rmsd"].to_numpy(float), moved[name].to_numpy(float))
    return (rows["level"].iloc[0], name, len(known), *energy, len(moved), *force)


def _spearman(first: Array, second: Array) -> tuple[float, float]:
    """Rank correlation and two-sided p-value; NaN where there are too few pairs or one side does not vary."""
    if len(first) < 3 or np.ptp(first) == 0 or np.ptp(second) == 0:
        return np.nan, np.nan
    result = spearmanr(first, second)
    return float(result.statistic), float(result.pvalue) if len(first) >= _ENOUGH else np.nan


def _settings_row(dataset: LabelledStructures, level: str, labels: Labels) -> dict[str, Any]:
    complete = labels.complete
    seconds = labels.seconds[complete & np.isfinite(labels.seconds)]
    return {
        "level": level,
        **dataset.settings(level),
        "n_labels": int(complete.sum()),
        "n_incomplete": int(((labels.status != STATUS_CODES["missing"]) & ~complete).sum()),
        "mean_seconds": float(seconds.mean()) if seconds.size else np.nan,
        "median_seconds": float(np.median(seconds)) if seconds.size else np.nan,
    }


def _settings_table(rows: Sequence[Mapping[str, Any]]) -> pd.DataFrame:
    """The settings that Table 1 has, and those others in which the levels differ."""
    first, last = ["cutoff_ev", "kspacing_per_angstrom", "smearing"], LABEL_COLUMNS
    others = {key: None for row in rows for key in row if key not in {"level", *first, *last}}
    differing = [key for key in others if any(row.get(key) != rows[0].get(key) for row in rows)]
    return pd.DataFrame(
        {
            "level": [row["level"] for row in rows],
            "cutoff_ev": [np.nan if row.get("cutoff_ev") is None else row["cutoff_ev"] for row in rows],
            "kspacing_per_angstrom": [_spacing(row) for row in rows],
            "smearing": [_smearing(row.get("smearing")) for row in rows],
            **{key: [_text(row.get(key)) for row in rows] for key in differing},
            **{key: [row[key] for row in rows] for key in last},
        }
    )


def _spacing(row: Mapping[str, Any]) -> Any:
    """The k-point spacing as it is written in Table 1; NaN where it is not recorded."""
    spacing = row.get("kspacing_per_angstrom", np.nan)
    return "Gamma only" if spacing is None else spacing


def _smearing(value: Any) -> str:
    """``"methfessel-paxton of order 1, 0.2 eV"`` of the labeller's record, anything else as it stands."""
    if not isinstance(value, dict) or not {"method", "width_ev"} <= set(value):
        return _text(value)
    order = f" of order {value['order']}" if value["method"] == "methfessel-paxton" and "order" in value else ""
    return f"{value['method']}{order}, {value['width_ev']} eV"


def _text(value: Any) -> str:
    """A setting as people read it; ``"–"`` where it is not recorded."""
    if isinstance(value, dict):
        return ", ".join(f"{key} {inner}" for key, inner in value.items())
    return "–" if value is None else str(value)


def _joined(parts: Sequence[pd.DataFrame], columns: Sequence[str]) -> pd.DataFrame:
    return pd.concat(parts, ignore_index=True) if parts else pd.DataFrame(columns=list(columns))
