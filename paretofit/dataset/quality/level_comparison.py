"""Errors of the labels of each convergence level with respect to the reference level, for each configuration.

This is the error analysis of a whole dataset (Tables 1 and 3 and Figures 2 and 3 of Baghishov et al., doi
10.1039/d5dd00294j); `paretofit.consistency` detects wrong labels. An error is always the value at the level minus the
value at the reference level, so that a positive error means that the energy at the level is too high.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import pandas as pd
from ase import Atoms
from scipy.stats import spearmanr

from paretofit.core import Array, InputError
from paretofit.dataset.checks import find_first_duplicate
from paretofit.dataset.labelled import STATUS_CODES, Labels
from paretofit.dataset.quality.summary import format_setting, list_differing_keys
from paretofit.dataset.stored_dataset import StoredDataset

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
"""Columns of the table of configurations whose correlation with the errors is computed."""
MIN_FORCE_RMSD_MEV_PER_ANGSTROM = 1e-3  # smaller RMSDs occur between forces that are zero by symmetry
MAX_SAMPLED_ATOMS = 20_000  # approximate number of atoms in figures of forces; errors are computed from all atoms
# The multiples of the golden ratio modulo 1 form a low-discrepancy sequence, so that the sample of atoms does not alias
# with the periodicity of a cell.
_GOLDEN_RATIO = 0.6180339887498949
_MIN_PAIRS = 10  # p-values of rank correlations are asymptotic, and not reliable for fewer pairs of values
_MESH_TOLERANCE = 1e-9  # the same as in `paretofit.labelling`; rounding errors must not add a k-point


@dataclass(frozen=True)
class LevelErrors:
    """Errors of every convergence level with respect to the reference level.

    Attributes
    ----------
    reference_level : str
        The level with which the other levels are compared: the last one in order of cost.
    reference_configuration : int or None
        Id of the configuration whose error is subtracted in ``energy_rmsd_bulk_shifted``; None if no configuration
        is labelled at every level.
    reference_formula : str
        Chemical formula of the reference configuration, such as ``"Be2"``; empty if there is none.
    settings : DataFrame
        A row per level, including the reference level: ``level``, ``cutoff_ev``, ``kspacing_per_angstrom`` (1/Å with
        the 2π, or ``"Gamma only"``), ``smearing``, other settings in which the levels differ, ``n_labels`` (complete
        labels), ``n_incomplete`` (labels that failed or lack an energy or a force), and ``mean_seconds`` and
        ``median_seconds`` of the complete labels (NaN if no cost is recorded).
    table : DataFrame
        A row per level below the reference level: ``level``, ``n_configurations`` (those with complete labels at the
        level and the reference level), ``n_left_out`` (the remaining configurations), ``energy_rmsd``,
        ``energy_rmsd_bulk_shifted``, ``energy_rmsd_mean_shifted`` and ``mean_energy_error`` in meV/atom, and
        ``force_rmsd`` over the force components in meV/Å.
    configurations : DataFrame
        A row per level below the reference level and configuration: the columns `CONFIGURATION_COLUMNS`. ``energy`` and
        ``reference_energy`` are in eV/atom, ``energy_error`` is signed and in meV/atom, ``force_rmsd`` in meV/Å,
        ``shortest_vector`` is the shortest cell vector in Å along a periodic direction (NaN if there is none),
        ``n_kpoints`` is the number of points of the unreduced mesh of the label, and ``largest_kspacing`` is the
        largest spacing of this mesh along a periodic direction, in 1/Å with the 2π. The last two are NaN if neither
        the mesh of the label nor the k-point spacing of the level is recorded.
    forces : DataFrame
        A row per level and force component: the columns `FORCE_COLUMNS`, forces in eV/Å and ``shortest_vector`` in Å.
        If there are more than `MAX_SAMPLED_ATOMS` atoms, only those of a uniform sample, the same at every level, have
        rows.
    correlations : DataFrame
        A row per level and property (column ``property``, one of `CORRELATED_PROPERTIES`): Spearman's rank correlation
        with the absolute energy error and with the force RMSD (``energy_correlation``, ``force_correlation``), the
        two-sided p-values (``energy_p_value``, ``force_p_value``) and the numbers of configurations (``n_energies``
        and ``n_forces``; the latter excludes force RMSDs below `MIN_FORCE_RMSD_MEV_PER_ANGSTROM`). Correlations are
        NaN if a quantity does not vary or for fewer than 3 configurations; p-values are NaN for fewer than 10.
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
    dataset: StoredDataset, levels: Sequence[str], *, reference_configuration: int | None = None
) -> LevelErrors:
    """Compare every level with the last of `levels` on the configurations whose labels are complete at both.

    The energy error of configuration k with N_k atoms is e_k = 1000 (E_level,k − E_ref,k) / N_k in meV/atom. For each
    level, the table has √⟨e²⟩ (unshifted), √⟨(e − e_bulk)²⟩ (bulk-shifted, with the error e_bulk of the reference
    configuration), √⟨(e − ⟨e⟩)²⟩ (mean-shifted), ⟨e⟩, and 1000 √⟨ΔF²⟩ over all force components.

    Parameters
    ----------
    dataset : Dataset
        A dataset or a selection.
    levels : sequence of str
        Convergence levels in order of cost; the last is the reference.
    reference_configuration : int, optional
        Id of the reference configuration of the bulk shift; by default, of the configurations that are labelled at
        every level, the one with the lowest energy per atom at the reference level. Specify an id if there are several
        species, because the lowest energy per atom then depends more on composition than on stability.

    Returns
    -------
    LevelErrors

    Raises
    ------
    InputError
        If `levels` is empty or repeats a level, the dataset lacks a level or the reference configuration, the reference
        configuration is not labelled at every level, the reference level has no complete label, or another level has
        none in common with it.
    """
    names = [str(level) for level in levels]
    if not names:
        raise InputError("levels must contain at least one convergence level; got none")
    if (duplicate_level := find_first_duplicate(names)) is not None:
        raise InputError(f"levels must contain each convergence level once; '{duplicate_level}' appears twice")
    return _compare_levels(dataset, names, dataset.labels(names[-1]), reference_configuration)


def _compare_levels(
    dataset: StoredDataset, names: Sequence[str], reference: Labels, reference_configuration: int | None
) -> LevelErrors:
    """Compute the errors of all levels but the last of `names`, with respect to the labels `reference` of the last."""
    if not reference.is_complete.any():
        raise InputError(
            f"{dataset.path}: no configuration has an energy and all forces at level '{names[-1]}'; "
            "label configurations at this level, or choose another reference level"
        )
    geometries = _tabulate_geometries(dataset)
    is_sampled = _sample_atoms(int(dataset.n_atoms.sum()))
    is_labelled = reference.is_complete  # at all levels of the loop so far
    settings, configurations, forces = [], [], []
    for level in names[:-1]:  # only the labels of one level and of the reference level are in memory at a time
        labels = dataset.labels(level)
        is_shared = np.asarray(labels.is_complete & reference.is_complete)
        if not is_shared.any():
            raise InputError(
                f"{dataset.path}: no configuration has an energy and all forces at both level '{level}' and level "
                f"'{names[-1]}', the reference; omit one of these levels"
            )
        is_labelled = is_labelled & is_shared
        settings.append(_collect_settings(dataset, level, labels))
        rows = _tabulate_errors(labels, reference, geometries).join(_tabulate_meshes(dataset, level, geometries))
        configurations.append(rows[is_shared].assign(level=level)[CONFIGURATION_COLUMNS])
        is_atom_selected = is_sampled & np.repeat(is_shared, dataset.n_atoms)
        force_rows = _tabulate_forces(labels, reference, geometries, is_atom_selected)
        forces.append(force_rows.assign(level=level)[FORCE_COLUMNS])
    settings.append(_collect_settings(dataset, names[-1], reference))
    bulk_id = _choose_bulk_id(dataset, names, reference_configuration, is_labelled, reference.energy / dataset.n_atoms)
    table = [_summarize_errors(rows, bulk_id, len(dataset)) for rows in configurations]
    correlations = [_correlate(rows, name) for rows in configurations for name in CORRELATED_PROPERTIES]
    return LevelErrors(
        reference_level=names[-1],
        reference_configuration=bulk_id,
        reference_formula="" if bulk_id is None else str(dataset.select_ids([bulk_id])[0].get_chemical_formula()),
        settings=_tabulate_settings(settings),
        table=pd.DataFrame(table, columns=TABLE_COLUMNS),
        configurations=_concatenate(configurations, CONFIGURATION_COLUMNS),
        forces=_concatenate(forces, FORCE_COLUMNS),
        correlations=pd.DataFrame(correlations, columns=CORRELATION_COLUMNS),
    )


def _tabulate_geometries(dataset: StoredDataset) -> pd.DataFrame:
    """Tabulate the id, number of atoms, type, shortest vector and reciprocal lengths of each configuration.

    The type is the ``config_type`` or, without one, the ``kind``, or ``"-"``. The shortest vector is in Å, the
    reciprocal lengths ``b1``, ``b2`` and ``b3`` are in 1/Å with the 2π.
    """
    columns = ["config_id", "atoms", "config_type", "shortest_vector", "b1", "b2", "b3"]
    return pd.DataFrame([_describe_geometry(atoms) for atoms in dataset], columns=columns)


def _describe_geometry(atoms: Atoms) -> tuple[Any, ...]:
    """Return a row of `_tabulate_geometries`."""
    config_type = atoms.info.get("config_type", atoms.info.get("kind", "-"))
    lengths = np.asarray(atoms.cell.lengths())[atoms.pbc]
    shortest_length = float(lengths.min()) if lengths.all() and lengths.size else np.nan
    return (atoms.info["config_id"], len(atoms), str(config_type), shortest_length, *_compute_reciprocal_lengths(atoms))


def _compute_reciprocal_lengths(atoms: Atoms) -> Array:
    """Return ``(3,)`` lengths of the reciprocal vectors in 1/Å with the 2π; 0 along directions without periodicity.

    All lengths are NaN if the cell spans no volume.
    """
    try:
        vectors = np.asarray(atoms.cell.complete().reciprocal()[:])
    except (np.linalg.LinAlgError, ValueError):
        return np.full(3, np.nan)
    return np.where(atoms.pbc, 2 * np.pi * np.linalg.norm(vectors, axis=1), 0.0)


def _tabulate_meshes(dataset: StoredDataset, level: str, geometries: pd.DataFrame) -> pd.DataFrame:
    """Tabulate ``n_kpoints`` and ``largest_kspacing`` (1/Å) of each label, as in `LevelErrors`.

    If a label does not record its mesh, the mesh follows from the k-point spacing of the level.
    """
    reciprocal_lengths = geometries[["b1", "b2", "b3"]].to_numpy(float)
    spacing = dataset.settings(level).get("kspacing_per_angstrom", np.nan)
    meshes = np.ones(reciprocal_lengths.shape)  # a spacing of None means Gamma only
    if spacing is not None:
        is_valid = isinstance(spacing, int | float) and spacing > 0
        meshes = np.maximum(1, np.ceil(reciprocal_lengths / (spacing if is_valid else np.nan) - _MESH_TOLERANCE))
    for k, record in enumerate(dataset.label_records(level)):
        mesh = record.get("kpts")
        if isinstance(mesh, list) and len(mesh) == 3 and all(isinstance(n, int) and n > 0 for n in mesh):
            meshes[k] = mesh
    largest_spacings = (reciprocal_lengths / meshes).max(axis=1)
    largest_spacings = np.where(largest_spacings > 0, largest_spacings, np.nan)  # 0 for a molecule
    return pd.DataFrame({"n_kpoints": meshes.prod(axis=1), "largest_kspacing": largest_spacings})


def _tabulate_errors(labels: Labels, reference: Labels, geometries: pd.DataFrame) -> pd.DataFrame:
    """Return a copy of `geometries` with energies (eV/atom), their errors (meV/atom) and force RMSDs (meV/Å)."""
    n_atoms = geometries["atoms"].to_numpy()
    squares = ((labels.forces - reference.forces) ** 2).sum(axis=1)
    return geometries.assign(
        energy=labels.energy / n_atoms,
        reference_energy=reference.energy / n_atoms,
        energy_error=1000 * (labels.energy - reference.energy) / n_atoms,
        force_rmsd=1000 * np.sqrt(labels.sum_over_atoms(squares) / (3 * n_atoms)),
    )


def _tabulate_forces(labels: Labels, reference: Labels, geometries: pd.DataFrame, is_selected: Array) -> pd.DataFrame:
    """Tabulate the force components (eV/Å) of the selected atoms, a row each; `is_selected` is ``(n_atoms,) bool``."""
    n_components = 3 * labels.sum_over_atoms(is_selected).astype(int)  # of each configuration
    rows = geometries[["config_id", "shortest_vector"]].loc[np.repeat(geometries.index, n_components)]
    return rows.assign(force=labels.forces[is_selected].ravel(), reference=reference.forces[is_selected].ravel())


def _sample_atoms(n: int) -> Array:
    """Return ``(n,) bool``: a mask that selects about `MAX_SAMPLED_ATOMS` of `n` atoms evenly, or all if fewer."""
    return np.asarray((np.arange(n) * _GOLDEN_RATIO) % 1.0 < MAX_SAMPLED_ATOMS / max(n, 1))


def _choose_bulk_id(
    dataset: StoredDataset, names: Sequence[str], bulk_id: int | None, is_labelled: Array, energy_per_atom: Array
) -> int | None:
    """Return the id of the reference configuration of the bulk shift.

    This is `bulk_id`, or by default the id of the configuration with the lowest energy per atom (eV) of those where
    `is_labelled`, ``(n,) bool``, is true; None if there are none. Raises `InputError` if the configuration `bulk_id` is
    missing or not labelled at every level.
    """
    if bulk_id is None:
        lowest_position = np.argmin(np.where(is_labelled, energy_per_atom, np.inf))
        return int(dataset.ids[lowest_position]) if is_labelled.any() else None
    bulk = dataset.select_ids([bulk_id])
    for level in names:
        if not bulk.labels(level).is_complete.all():
            raise InputError(
                f"{dataset.path}: configuration {bulk_id} cannot be the bulk reference, because it lacks an energy or "
                f"forces at level '{level}'; choose a configuration that is labelled at every level"
            )
    return int(bulk_id)


def _summarize_errors(rows: pd.DataFrame, bulk_id: int | None, n_configurations: int) -> tuple[Any, ...]:
    """Return the row of the table, in the order of `TABLE_COLUMNS`, that summarizes the errors of one level."""
    errors = rows["energy_error"].to_numpy(float)
    bulk_error = np.nan if bulk_id is None else errors[rows["config_id"].to_numpy() == bulk_id][0]
    rmsds = [float(np.sqrt(np.mean((errors - shift) ** 2))) for shift in (0.0, bulk_error, errors.mean())]
    # Weighted by atoms, because the mean is over force components, of which each atom has three.
    force_square = np.average(rows["force_rmsd"].to_numpy(float) ** 2, weights=rows["atoms"].to_numpy(float))
    counts = (len(rows), n_configurations - len(rows))
    return (rows["level"].iloc[0], *counts, *rmsds, float(errors.mean()), float(np.sqrt(force_square)))


def _correlate(rows: pd.DataFrame, name: str) -> tuple[Any, ...]:
    """Return the correlations of the errors of one level with column `name`, in the order of `CORRELATION_COLUMNS`."""
    energy_rows = rows[rows[name].notna()]
    force_rows = energy_rows[energy_rows["force_rmsd"] >= MIN_FORCE_RMSD_MEV_PER_ANGSTROM]
    energy_statistics = _compute_rank_correlation(energy_rows["energy_error"].abs(), energy_rows[name])
    force_statistics = _compute_rank_correlation(force_rows["force_rmsd"], force_rows[name])
    return (rows["level"].iloc[0], name, len(energy_rows), *energy_statistics, len(force_rows), *force_statistics)


def _compute_rank_correlation(first: pd.Series, second: pd.Series) -> tuple[float, float]:
    """Return the rank correlation and its two-sided p-value; NaN for too few pairs or if a quantity is constant."""
    if len(first) < 3 or np.ptp(first) == 0 or np.ptp(second) == 0:  # for two pairs, the correlation is always 1 or -1
        return np.nan, np.nan
    correlation = spearmanr(first, second)
    p_value = float(correlation.pvalue) if len(first) >= _MIN_PAIRS else np.nan
    return float(correlation.statistic), p_value


def _collect_settings(dataset: StoredDataset, level: str, labels: Labels) -> dict[str, Any]:
    """Return the settings of a level, and the counts and costs (s) of its labels, with the names of `LABEL_COLUMNS`."""
    is_complete = labels.is_complete
    seconds = labels.seconds[is_complete & np.isfinite(labels.seconds)]
    return {
        "level": level,
        **dataset.settings(level),
        "n_labels": int(is_complete.sum()),
        "n_incomplete": int(((labels.status != STATUS_CODES["missing"]) & ~is_complete).sum()),
        "mean_seconds": float(seconds.mean()) if seconds.size else np.nan,
        "median_seconds": float(np.median(seconds)) if seconds.size else np.nan,
    }


def _tabulate_settings(rows: Sequence[Mapping[str, Any]]) -> pd.DataFrame:
    """Tabulate the settings of Table 1 of the paper, other settings in which levels differ, and counts and costs."""
    standard_keys = {"level", "cutoff_ev", "kspacing_per_angstrom", "smearing", *LABEL_COLUMNS}
    differing_keys = [key for key in list_differing_keys(rows) if key not in standard_keys]
    spacings = [row.get("kspacing_per_angstrom", np.nan) for row in rows]
    return pd.DataFrame(
        {
            "level": [row["level"] for row in rows],
            "cutoff_ev": [np.nan if row.get("cutoff_ev") is None else row["cutoff_ev"] for row in rows],
            "kspacing_per_angstrom": ["Gamma only" if spacing is None else spacing for spacing in spacings],
            "smearing": [_format_smearing(row.get("smearing")) for row in rows],
            **{key: [_format_optional(row.get(key)) for row in rows] for key in differing_keys},
            **{key: [row[key] for row in rows] for key in LABEL_COLUMNS},
        }
    )


def _format_smearing(value: Any) -> str:
    """Format the record of a smearing as ``"methfessel-paxton of order 1, 0.2 eV"``.

    Any other value is formatted by `_format_optional`.
    """
    if not isinstance(value, dict) or not {"method", "width_ev"} <= set(value):
        return _format_optional(value)
    order = f" of order {value['order']}" if value["method"] == "methfessel-paxton" and "order" in value else ""
    return f"{value['method']}{order}, {value['width_ev']} eV"


def _format_optional(value: Any) -> str:
    """Format a setting as text; a missing setting becomes a dash."""
    return "–" if value is None else format_setting(value)


def _concatenate(tables: Sequence[pd.DataFrame], columns: Sequence[str]) -> pd.DataFrame:
    """Concatenate tables; without any, return an empty table with the `columns`."""
    return pd.concat(tables, ignore_index=True) if tables else pd.DataFrame(columns=list(columns))
