"""Preparation of a study: check against its dataset, train/test split, and grid of fits."""

from collections.abc import Sequence
from dataclasses import dataclass, replace

import numpy as np

from paretofit.core import Array, InputError, suggest_match
from paretofit.dataset import Dataset, Split, split_configurations
from paretofit.linear.reduction import get_device
from paretofit.properties import LinearProperty, add_references, build_properties
from paretofit.structures import group_configurations
from paretofit.study.mixture_settings import expand_mixtures
from paretofit.study.reference_energies import (
    ReferenceEnergies,
    find_study_isolated_atoms,
    resolve_reference_energies,
)
from paretofit.study.schema import SplitSettings, Study
from paretofit.sweep import SweepGrid, check_mixtures


@dataclass(frozen=True)
class PreparedStudy:
    """Study that was checked against its dataset, with the split and the grid of fits.

    Attributes
    ----------
    study : Study
    dataset : Dataset
        Configurations that the study uses. Those in ``dropped_ids`` and ``unconverged_ids``, and the isolated atoms of
        ``reference_energies``, are excluded.
    split : Split
        Positions in ``dataset``.
    grid : SweepGrid
    dropped_ids : list of int
        Ids of configurations that lack a label.
    unconverged_ids : list of int
        Ids of configurations that were excluded because their DFT did not converge.
    reference_energies : ReferenceEnergies
    properties : sequence of LinearProperty
        Properties with their references; empty before `add_properties`.
    """

    study: Study
    dataset: Dataset
    split: Split
    grid: SweepGrid
    dropped_ids: list[int]
    unconverged_ids: list[int]
    reference_energies: ReferenceEnergies
    properties: Sequence[LinearProperty] = ()


def prepare_study(study: Study, *, allow_partial: bool = False) -> PreparedStudy:
    """Check a study against its dataset and draw the split, before any expensive step.

    The dataset of the returned study is open; the caller closes it.

    Parameters
    ----------
    study : Study
    allow_partial : bool
        Whether to use also configurations that are labelled at only some of the levels.

    Raises
    ------
    InputError
        If the study or its dataset is invalid; the message contains the key, the level or the configuration.
    """
    get_device(study.device)  # raises InputError if the device or its library is missing
    dataset = Dataset(study.dataset)
    if len(dataset) == 0:
        raise InputError(f"{study.dataset} contains no configurations; import configurations first")
    levels = study.levels or dataset.levels
    if not levels:
        raise InputError(f"{study.dataset} has no convergence level; import labels into it")
    is_complete, is_unconverged = find_usable_configurations(
        dataset, levels, drop_unconverged=study.unconverged_labels == "drop", at_any_level=allow_partial
    )
    isolated_atoms = find_study_isolated_atoms(study, levels, dataset)
    is_isolated = np.isin(np.arange(len(dataset)), [atom.dataset_index for atom in isolated_atoms])
    is_complete, is_unconverged = is_complete | is_isolated, is_unconverged & ~is_isolated
    is_used = is_complete & ~is_unconverged & ~is_isolated
    _check_cost_levels(study, levels)
    for level in levels:
        _check_cost(study, dataset, level, is_used)
    dropped_ids = dataset.ids[~is_complete].tolist()
    if dropped_ids and study.missing_labels == "error":
        n_missing = {level: int((~dataset.labels(level).is_complete & ~is_isolated).sum()) for level in levels}
        missing_counts = ", ".join(f"level {level} {count}" for level, count in n_missing.items() if count)
        raise InputError(
            f"{study.dataset}: {len(dropped_ids)} configurations lack a label (or have NaN) at one of the levels "
            f"({missing_counts}), the first with id {dropped_ids[0]}; label them, remove a level from 'levels', or set "
            "'missing_labels: drop'"
        )
    if not is_used.any():
        if is_unconverged.any():
            raise InputError(
                f"{study.dataset}: no configuration has converged labels at all of the levels {', '.join(levels)}; "
                "label them, or set 'unconverged_labels: keep'"
            )
        raise InputError(f"{study.dataset}: {explain_missing_labels(dataset, levels)}")
    labelled_dataset = dataset.select(np.flatnonzero(is_used))
    _check_group_keys(study, labelled_dataset)
    groups = group_configurations(labelled_dataset, study.split.group_by)
    elements = [set(atoms.numbers.tolist()) for atoms in labelled_dataset]
    split = split_configurations(groups, study.split.train_fraction, study.split.seed, elements)
    grid = _build_grid(study, levels, len(split.train))
    grid.check(len(split.train))
    check_mixtures(grid, len(split.train))
    unconverged_ids = dataset.ids[is_unconverged].tolist()
    references = resolve_reference_energies(
        study, levels, dataset, isolated_atoms, labelled_dataset.select(split.train)
    )
    return PreparedStudy(study, labelled_dataset, split, grid, dropped_ids, unconverged_ids, references)


def add_properties(prepared: PreparedStudy) -> PreparedStudy:
    """Return the study with its properties and their references, on which the split and the grid do not depend.

    Raises
    ------
    InputError
        If a structure cannot be used, or a reference is missing.
    """
    study = prepared.study
    if not study.properties:
        return prepared
    dataset = Dataset(study.dataset)
    properties = build_properties(study.properties, dataset, study.basis.elements)
    references = {
        entry.name_part(part): entry.get_reference(part) for entry in study.properties for part in entry.list_parts()
    }
    datasets = open_reference_datasets(study, dataset)
    return replace(prepared, properties=add_references(properties, references, datasets, prepared.grid.levels[-1]))


def open_reference_datasets(study: Study, dataset: Dataset) -> list[Dataset]:
    """Open the dataset in 'property_labels', if it is set; return it and `dataset`, the dataset of the study."""
    try:
        return [*([] if study.property_labels is None else [Dataset(study.property_labels)]), dataset]
    except InputError as error:
        raise InputError(f"'property_labels': {error}") from error


def find_usable_configurations(
    dataset: Dataset, levels: Sequence[str], *, drop_unconverged: bool, at_any_level: bool = False
) -> tuple[Array, Array]:
    """Find the configurations that a study can use: those that are complete and not unconverged.

    Parameters
    ----------
    dataset : Dataset
    levels : sequence of str
    drop_unconverged : bool
        Whether to exclude configurations whose DFT did not converge.
    at_any_level : bool
        Whether a complete, converged label at a single level is enough.

    Returns
    -------
    is_complete : (n,) bool
        Whether a configuration has complete labels at all levels (with `at_any_level`: at one of them).
    is_unconverged : (n,) bool
        Whether a complete configuration is excluded because its DFT did not converge at one of the levels (with
        `at_any_level`: at all levels where it is complete). All false without `drop_unconverged`.
    """
    complete_labels: Array = np.array([dataset.labels(level).is_complete for level in levels])
    unconverged_labels: Array = np.zeros_like(complete_labels)
    if drop_unconverged:
        unconverged_labels = complete_labels & np.array([dataset.find_unconverged(level) for level in levels])
    if at_any_level:
        is_complete = np.asarray(complete_labels.any(axis=0))
        is_excluded = (unconverged_labels | ~complete_labels).all(axis=0)
    else:
        is_complete = np.asarray(complete_labels.all(axis=0))
        is_excluded = unconverged_labels.any(axis=0)
    return is_complete, np.asarray(is_complete & is_excluded)


def explain_missing_labels(dataset: Dataset, levels: list[str]) -> str:
    """Explain why no configuration has complete labels at all levels: which level lacks which labels."""
    for level in levels:
        labels = dataset.labels(level)
        n_energies, n_forces = int(np.isfinite(labels.energy).sum()), int(labels.has_forces.sum())
        remedy = "a fit requires energies and forces of the same configurations; import or label the missing ones"
        if n_energies and not n_forces:
            return f"level '{level}' has {n_energies} energies but no forces; {remedy}"
        if n_forces and not n_energies:
            return f"level '{level}' has the forces of {n_forces} configurations but no energies; {remedy}"
        if not labels.is_complete.any():
            return (
                f"level '{level}' has {n_energies} energies and the forces of {n_forces} configurations, but no "
                f"configuration has both, without a failed calculation; {remedy}"
            )
    return (
        f"no configuration has energies and forces at all of the levels {', '.join(levels)}; label or import the "
        "missing ones, or use fewer levels"
    )


def _build_grid(study: Study, levels: list[str], n_train: int) -> SweepGrid:
    """Build the grid of fits from the settings of a study; the size 'all' is `n_train`."""
    sizes = list(dict.fromkeys(n_train if size == "all" else size for size in study.sizes))
    return SweepGrid(
        levels=levels,
        twojmax=study.twojmax,
        weights=study.weights,
        sizes=sizes,
        sampling_methods=study.sampling_methods,
        repetitions=study.repetitions,
        seed=study.seed,
        md_cost=study.cost.md_us_per_atom_step,
        ridge=study.ridge,
        leave_one_out=study.leave_one_out,
        mixtures=expand_mixtures(study.mixtures, n_train),
    )


def _check_cost_levels(study: Study, levels: Sequence[str]) -> None:
    """Raise InputError if 'cost' contains a level that the study does not use."""
    remedy = "; remove it, or add it to 'levels'"
    for key in ("label_seconds", "assumed_levels"):
        names = getattr(study.cost, key)
        if names != "recorded" and (unknown_levels := sorted(set(names) - set(levels))):
            raise InputError(
                f"'cost.{key}' contains '{unknown_levels[0]}', which is not a level of this study"
                f"{suggest_match(unknown_levels[0], levels) or remedy}"
            )


def _check_cost(study: Study, dataset: Dataset, level: str, is_used: Array) -> None:
    """Raise InputError if the cost of labels at a level is not known for all configurations of a mask, ``(n,)``."""
    if study.cost.label_seconds == "recorded":
        labels = dataset.labels(level)
        has_no_cost = is_used & ~(labels.seconds >= 0)  # true for NaN, unlike seconds < 0
        if has_no_cost.any():
            raise InputError(
                f"{dataset.path}: {int(has_no_cost.sum())} labels of level '{level}' have no (or negative) recorded "
                f"seconds, the first with id {dataset.ids[has_no_cost][0]}; set seconds per configuration for each "
                "level in 'cost.label_seconds'"
            )
    elif level not in study.cost.label_seconds:
        raise InputError(f"'cost.label_seconds' has no seconds for level '{level}' of {dataset.path}; add its seconds")


def _check_group_keys(study: Study, dataset: Dataset) -> None:
    """Raise InputError for an unknown group key, because with a misspelt key, groups would silently be split.

    The default keys may be missing, because configurations of many datasets have neither parents nor trajectories.
    """
    if study.split.group_by == SplitSettings.model_fields["group_by"].default:
        return
    info_keys = sorted({key for record in dataset.info_records for key in record})
    for key in study.split.group_by:
        if key not in info_keys:
            raise InputError(
                f"'split.group_by': no configuration of {study.dataset} has '{key}' in its info; available: "
                f"{', '.join(info_keys) or 'no keys'}{suggest_match(key, info_keys)}"
            )
