"""Training set of a fit to labels of several levels, of which some configurations have only one."""

from dataclasses import replace

import numpy as np

from paretofit.core import Array, InputError
from paretofit.study import MixtureSettings, PreparedStudy, find_usable_configurations
from paretofit.sweep import Mixture, MixtureDraw


def find_labelled(prepared: PreparedStudy, level: str, positions: Array) -> Array:
    """Find the configurations with complete, converged labels at a level among some of the dataset, ``(n,) int``."""
    is_complete, is_unconverged = find_usable_configurations(
        prepared.dataset, [level], drop_unconverged=prepared.study.unconverged_labels == "drop"
    )
    return np.asarray(positions[(is_complete & ~is_unconverged)[positions]])


def use_all_labels(prepared: PreparedStudy, settings: MixtureSettings) -> MixtureDraw:
    """Build the mixture of all labels of the training set, or of those in ``labelling.subsets`` of the study.

    Raises
    ------
    InputError
        If the training set has no labels at one of the levels.
    """
    levels, train = settings.list_levels(), prepared.split.train
    configurations = tuple(_select_subset(prepared, level, find_labelled(prepared, level, train)) for level in levels)
    for level, labelled in zip(levels, configurations, strict=True):
        if not len(labelled):
            raise InputError(
                f"{prepared.study.dataset}: no training configuration has labels of the mixture's level '{level}'; "
                "label some, or choose a single level with --level"
            )
    sizes = [len(labelled) for labelled in configurations]
    energy_weight = settings.base_energy_weight[0]
    mixture = Mixture(
        "+".join(levels), tuple(levels), tuple(sizes[:-1]), (sizes[-1],), settings.top_sampling, energy_weight
    )
    return MixtureDraw(mixture, 0, sizes[-1], "", configurations)


def train_on_subsets(prepared: PreparedStudy) -> PreparedStudy:
    """Add the configurations in ``labelling.subsets`` to the training set, and remove them from the held-out set.

    Raises
    ------
    InputError
        If a subset has an id that no configuration has.
    """
    labelling, ids = prepared.study.labelling, prepared.dataset.ids
    if labelling is None or not labelling.subsets:
        return prepared
    requested_ids: set[int] = set()
    for level, subset in labelling.subsets.items():
        subset_ids = set(subset.ids or ())
        if unknown_ids := subset_ids - set(ids.tolist()):
            raise InputError(
                f"'labelling.subsets' of level '{level}' has id {min(unknown_ids)}, but {prepared.study.dataset} has "
                "no labels of such a configuration at the levels of the mixture"
            )
        requested_ids |= subset_ids
    requested = np.flatnonzero(np.isin(ids, list(requested_ids)))
    split = prepared.split
    train, test = np.union1d(split.train, requested), np.setdiff1d(split.test, requested)
    return replace(prepared, split=replace(split, train=train, test=test))


def prepare_mixture(
    prepared: PreparedStudy, settings: MixtureSettings | None, held_out_fraction: float | None
) -> tuple[PreparedStudy, MixtureDraw | None]:
    """Return the study with its subsets in the training set, unless a fraction is held out, and the mixture."""
    if settings is None:
        return prepared, None
    prepared = train_on_subsets(prepared) if held_out_fraction is None else prepared
    return prepared, use_all_labels(prepared, settings)


def _list_subset_ids(prepared: PreparedStudy, level: str) -> list[int]:
    """List the ids of the configurations that the study labels at a level; empty if it does not say."""
    labelling = prepared.study.labelling
    subset = None if labelling is None else labelling.subsets.get(level)
    return [] if subset is None else list(subset.ids or ())


def _select_subset(prepared: PreparedStudy, level: str, positions: Array) -> Array:
    ids = _list_subset_ids(prepared, level)
    return np.asarray(positions[np.isin(prepared.dataset.ids[positions], ids)]) if ids else positions


def describe_draw(prepared: PreparedStudy, draw: MixtureDraw) -> str:
    """Describe the numbers of labels at each level, and the weight of energies below the top level, in one line."""
    levels, weight = draw.mixture.levels, draw.mixture.energy_weight
    sizes = []
    for level, part in zip(levels, draw.configurations, strict=True):
        n_missing = max(len(_list_subset_ids(prepared, level)) - len(part), 0)
        note = f" ({n_missing} of its subset are without a label, or held out)" if n_missing else ""
        sizes.append(f"{len(part)} at level {level}{note}")
    factor = "" if weight == 1 else f"; energies below level {levels[-1]} weigh {weight:g} times as much"
    return f"training labels: {', '.join(sizes)}{factor}; errors are those at level {levels[-1]}"
