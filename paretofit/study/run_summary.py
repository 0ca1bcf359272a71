"""Summary and warnings of a run, for its report."""

import logging
from collections.abc import Iterator, Mapping

import numpy as np
import pandas as pd

from paretofit.consistency import compare_labels
from paretofit.core import RowKind, list_first
from paretofit.dataset import describe_dataset
from paretofit.descriptors import DesignMatrix, StudyBasis
from paretofit.report import format_levels, join_items
from paretofit.study.preparation import PreparedStudy
from paretofit.study.provenance import StageUsage
from paretofit.sweep import FastEngine, PlainEngine, SweepInput

log = logging.getLogger(__name__)

MIN_LEVERAGE_SPREAD = 0.1  # relative standard deviation of the scores; below it, leverage sampling is nearly uniform
MIN_ROWS_PER_FEATURE = 2  # with fewer rows per feature, a fit may follow the noise of the labels
# (w_E/w_F) / (force components per energy) above which fits nearly ignore the forces
MAX_BALANCED_WEIGHT_RATIO = 20


def summarise_run(
    prepared: PreparedStudy,
    design: DesignMatrix,
    engine: FastEngine | PlainEngine,
    results: pd.DataFrame,
    stage_usage: dict[str, StageUsage],
) -> dict[str, str]:
    """Describe, by heading, how a run was computed, for a section of the report; the description is also logged."""
    study, split, grid = prepared.study, prepared.split, prepared.grid
    basis = study.basis
    solvers = results["solver"].value_counts()
    n_deficient = int((results["rank"] < results["n_features"]).sum())
    summary = {
        "Dataset": f"{study.dataset.name}: {len(prepared.dataset)} configurations, "
        f"{int(prepared.dataset.n_atoms.sum())} atoms, levels {', '.join(grid.levels)} "
        f"(reference: {grid.levels[-1]})",
        "Split": f"{len(split.train)} configurations in the training set and {len(split.test)} in the test set, in "
        f"{len(np.unique(split.groups))} groups, seed {study.split.seed}",
        "Basis": f"{basis.title}, elements {', '.join(basis.elements)}, {_describe_settings(basis)}",
        "Energies of free atoms": prepared.reference_energies.describe(grid.levels[-1]),
        "Design": f"{design.n_rows} rows by {design.n_features} columns, "
        f"{8 * design.n_rows * design.n_features / 1e6:.0f} MB",
        "Factorial": f"{grid.count_fits()} fits: {len(grid.levels)} levels × 2Jmax {list(grid.twojmax)} × "
        f"{len(grid.weights)} weights × {len(grid.sizes)} sizes × sampling methods "
        f"{', '.join(grid.sampling_methods)} × {grid.repetitions} repetitions, seed {grid.seed}",
        "Solver": f"{', '.join(f'{name} {count}' for name, count in solvers.items())}; {n_deficient} fits are "
        "rank-deficient (fewer independent rows than features) and have the minimum-norm solution",
        "Cost of labels": _describe_label_cost(prepared),
        "Ridge": f"penalties {list(grid.ridge)} of coefficients in scaled columns"
        if list(grid.ridge) != [0]
        else "none",
        "Conditioning": "condition numbers are 1-norm estimates for the weighted rows with columns scaled to unit norm",
        "Stages": ", ".join(
            f"{stage} {usage.seconds:.1f} s (peak memory so far {usage.peak_memory_mb:.0f} MB)"
            for stage, usage in stage_usage.items()
        )
        + "; memory of the main process",
    }
    if isinstance(engine, FastEngine):
        summary["Whole training set at equal weight of energies and forces"] = "; ".join(engine.describe_conditioning())
    for heading, text in summary.items():
        log.info("%s: %s", heading, text)
    return summary


def _describe_label_cost(prepared: PreparedStudy) -> str:
    """Describe whether the cost of labels was recorded, set in the study, or assumed."""
    cost = prepared.study.cost
    if cost.label_seconds == "recorded":
        return "seconds recorded with each label"
    note = f"; assumed, not measured: {format_levels(cost.assumed_levels)}" if cost.assumed_levels else ""
    return f"seconds per configuration from the study: {dict(cost.label_seconds)}{note}"


def collect_run_warnings(
    prepared: PreparedStudy, engine: FastEngine | PlainEngine, sweep_input: SweepInput
) -> list[str]:
    """Collect warnings about properties of a study that make its results less reliable."""
    dataset_summary = describe_dataset(prepared.dataset)
    dataset_warnings = [*dataset_summary.warnings, *compare_labels(prepared.dataset)]
    return [
        *(f"Dataset: {text}." for text in dataset_warnings),
        *_warn_about_elements(prepared, dataset_summary.species),
        *_warn_about_columns(engine),
        *_warn_about_costs(prepared, sweep_input),
        *_warn_about_group_weights(prepared, sweep_input),
        *_warn_about_dropped_configurations(prepared),
        *_warn_about_free_atoms(prepared),
        *_warn_about_leverage(prepared, engine, sweep_input),
        *_warn_about_sizes(prepared, sweep_input),
    ]


def _warn_about_elements(prepared: PreparedStudy, species: Mapping[str, int]) -> Iterator[str]:
    """Warn about elements of the basis that no configuration contains; `species` are the atoms by element."""
    if absent_elements := [symbol for symbol in prepared.study.basis.elements if symbol not in species]:
        yield (
            f"No configuration contains {join_items(absent_elements)}, listed in 'basis.elements': the models cannot "
            "describe it; remove it from 'basis.elements', or add configurations that contain it."
        )


def _warn_about_columns(engine: FastEngine | PlainEngine) -> Iterator[str]:
    """Warn about columns that were dropped because they depend linearly on earlier ones."""
    if engine.dropped_columns:
        yield (
            f"{len(engine.dropped_columns)} columns of the design depend linearly on earlier ones in every row and "
            f"were dropped: {list_first(engine.dropped_columns, 10)}."
        )


def _warn_about_costs(prepared: PreparedStudy, sweep_input: SweepInput) -> Iterator[str]:
    """Warn about assumed label costs, and about levels that are not in order of their median cost."""
    levels = list(prepared.grid.levels)
    if assumed_levels := prepared.study.cost.assumed_levels:
        yield (
            f"The cost of labels of {format_levels(assumed_levels)} is assumed (cost.assumed_levels), not measured: "
            "all DFT times, the fronts against them and plans depend on this assumption."
        )
    median_seconds = np.nanmedian(sweep_input.stack_label_seconds(levels), axis=0)
    for k in range(1, len(levels)):
        if median_seconds[k] < median_seconds[k - 1]:
            yield (
                f"Level {levels[k]} is listed after level {levels[k - 1]} but costs less; levels must be listed in "
                f"order of cost, with the reference ({levels[-1]}) last."
            )


def _warn_about_group_weights(prepared: PreparedStudy, sweep_input: SweepInput) -> Iterator[str]:
    """Warn that weights of groups change the training errors, and name weights that were optimised."""
    if sweep_input.design.row_weights is None:
        return
    yield "Training errors (train_*) are weighted by the weights of groups; test errors are not weighted."
    if prepared.study.group_weights.objectives:
        yield f"The weights of groups were optimised: {_format_group_factors(prepared, sweep_input)}."


def _warn_about_dropped_configurations(prepared: PreparedStudy) -> Iterator[str]:
    """Warn about configurations that were excluded because they lack a label or did not converge."""
    if prepared.dropped_ids:
        yield (
            f"{len(prepared.dropped_ids)} configurations were excluded because they lack a label at one of the levels "
            f"(missing_labels: drop); the first has id {prepared.dropped_ids[0]}."
        )
    if prepared.unconverged_ids:
        yield (
            f"{len(prepared.unconverged_ids)} configurations were excluded because the electronic loop of a label did "
            f"not converge (unconverged_labels: drop); the first has id {prepared.unconverged_ids[0]}."
        )


def _warn_about_free_atoms(prepared: PreparedStudy) -> Iterator[str]:
    """Warn about the effects of exact free-atom energies on the training and test sets and on the errors."""
    references, levels = prepared.reference_energies, prepared.grid.levels
    if ids := [atoms.info["config_id"] for atoms in references.isolated_atoms]:
        yield (
            f"Isolated atoms ({len(ids)}, the first with id {ids[0]}) are in neither the training nor the test set, "
            "because the models reproduce the energies of free atoms exactly (reference_energies)."
        )
    if len(levels) > 1 and references.energies[levels[-1]]:
        yield "Energy errors against the reference level compare energies relative to the free atoms of each level."


def _warn_about_leverage(
    prepared: PreparedStudy, engine: FastEngine | PlainEngine, sweep_input: SweepInput
) -> Iterator[str]:
    """Warn that leverage sampling, if the study uses it, has nearly uniform scores."""
    has_leverage_sampling = any(name.endswith("leverage") for name in prepared.grid.sampling_methods)
    energy_leverages = np.zeros(1) if engine.scores is None else engine.scores.regular
    mean, spread = float(np.mean(energy_leverages)), float(np.std(energy_leverages))
    if has_leverage_sampling and spread < MIN_LEVERAGE_SPREAD * mean:
        n_columns = sweep_input.n_leverage_columns or sweep_input.design.n_features
        yield (
            f"Leverage scores are nearly uniform: with {n_columns} features for {len(sweep_input.train)} training "
            f"configurations, the leverages of the energy rows are {mean:.3f} ± {spread:.3f} (at most 1), so leverage "
            "sampling is close to random sampling; reduce leverage.twojmax or leverage.energy_weight."
        )


def _warn_about_sizes(prepared: PreparedStudy, sweep_input: SweepInput) -> Iterator[str]:
    """Warn about models with too many features for the training set, and about weights that nearly ignore forces."""
    is_training_row = np.isin(sweep_input.design.configuration, sweep_input.train)
    n_rows = int(is_training_row.sum())
    for twojmax in prepared.grid.twojmax:
        n_features = sweep_input.design.count_columns_up_to(twojmax)
        if n_rows < MIN_ROWS_PER_FEATURE * n_features:
            yield (
                f"At 2Jmax = {twojmax}, the whole training set has only {n_rows} rows for {n_features} features, so "
                "the fits may follow the noise of the labels."
            )
    forces_per_energy = int((sweep_input.design.kind[is_training_row] == RowKind.FORCE).sum()) / len(sweep_input.train)
    largest_ratio = max(w_energy / w_force for w_energy, w_force in prepared.grid.weights)
    if largest_ratio > MAX_BALANCED_WEIGHT_RATIO * forces_per_energy:
        yield (
            f"Fits at the largest weight ratio, {largest_ratio:g}, nearly ignore the forces: there are only "
            f"{forces_per_energy:.0f} force components per energy."
        )


def _describe_settings(basis: StudyBasis) -> str:
    """Format the settings of a basis except its elements and 2Jmax."""
    settings = basis.model_dump(exclude={"elements", "twojmax"})
    # booleans as 0 and 1, as in LAMMPS
    return ", ".join(f"{key} {int(value) if isinstance(value, bool) else value}" for key, value in settings.items())


def _format_group_factors(prepared: PreparedStudy, sweep_input: SweepInput) -> str:
    """Format the weight factor of each group and kind of rows in the training set."""
    design, texts = sweep_input.design, []
    key = prepared.study.group_weights.group_key
    group_names = np.array([str(record.get(key)) for record in prepared.dataset.info_records])[design.configuration]
    is_training_row = np.isin(design.configuration, sweep_input.train)
    for name in dict.fromkeys(group_names[is_training_row].tolist()):
        for kind in (RowKind.ENERGY, RowKind.FORCE):
            rows = is_training_row & (group_names == name) & (design.kind == kind)
            if rows.any() and design.row_weights is not None:  # all of these rows have the same weight
                texts.append(f"{name} {kind.name.lower()} {design.row_weights[rows][0]:.3g}")
    return ", ".join(texts)
