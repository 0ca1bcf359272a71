"""Training set of a fit to a mixture of levels, in which a configuration may have labels at one level only."""

from dataclasses import replace

import numpy as np

from paretofit.core import Array, InputError
from paretofit.study import MixtureSettings, PreparedStudy, find_usable_configurations
from paretofit.sweep import Mixture, MixtureDraw


def find_labelled(prepared: PreparedStudy, level: str, positions: Array) -> Array:
    """Find the configurations that have complete labels at a level.

    Labels whose DFT did not converge are excluded if the study drops them.

    Parameters
    ----------
    prepared : PreparedStudy
    level : str
    positions : (n,) int
        Positions in the dataset of the configurations among which to search.

    Returns
    -------
    (n_labelled,) int
        Those of `positions` with labels.
    """
    is_complete, is_unconverged = find_usable_configurations(
        prepared.dataset, [level], drop_unconverged=prepared.study.unconverged_labels == "drop"
    )
    return np.asarray(positions[(is_complete & ~is_unconverged)[positions]])


def use_all_labels(prepared: PreparedStudy, settings: MixtureSettings) -> MixtureDraw:
    """Build the mixture of all labels that the training set has at the levels of the mixture.

    At a level with a subset in ``labelling.subsets``, only the labels in this subset are used. The sizes in `settings`
    have no effect, and of its energy weights only the first one is used.

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


def move_subsets_to_training_set(prepared: PreparedStudy) -> PreparedStudy:
    """Return the study with all configurations in ``labelling.subsets`` in the training set, not in the held-out set.

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
    requested_positions = np.flatnonzero(np.isin(ids, list(requested_ids)))
    split = prepared.split
    train, test = np.union1d(split.train, requested_positions), np.setdiff1d(split.test, requested_positions)
    return replace(prepared, split=replace(split, train=train, test=test))


def prepare_mixture(
    prepared: PreparedStudy, settings: MixtureSettings | None, held_out_fraction: float | None
) -> tuple[PreparedStudy, MixtureDraw | None]:
    """Prepare the fit to a mixture of levels.

    Parameters
    ----------
    prepared : PreparedStudy
    settings : MixtureSettings or None
        Settings of the mixture; None if the fit is to labels of a single level.
    held_out_fraction : float or None
        Held-out fraction that the user has chosen, if any.

    Returns
    -------
    prepared : PreparedStudy
        The study; for a mixture without a chosen held-out fraction, with all configurations in ``labelling.subsets``
        moved to the training set.
    draw : MixtureDraw or None
        Training configurations at each level of the mixture; None without `settings`.

    Raises
    ------
    InputError
        If a subset has an unknown id, or the training set has no labels at one of the levels.
    """
    if settings is None:
        return prepared, None
    prepared = move_subsets_to_training_set(prepared) if held_out_fraction is None else prepared
    return prepared, use_all_labels(prepared, settings)


def _list_subset_ids(prepared: PreparedStudy, level: str) -> list[int]:
    """List the ids in ``labelling.subsets`` of a level; empty if the study has no such subset."""
    labelling = prepared.study.labelling
    subset = None if labelling is None else labelling.subsets.get(level)
    return [] if subset is None else list(subset.ids or ())


def _select_subset(prepared: PreparedStudy, level: str, positions: Array) -> Array:
    """Select those of `positions` that are in the labelled subset of a level; all of them without a subset."""
    ids = _list_subset_ids(prepared, level)
    return np.asarray(positions[np.isin(prepared.dataset.ids[positions], ids)]) if ids else positions


def describe_draw(prepared: PreparedStudy, draw: MixtureDraw) -> str:
    """Describe the number of labels at each level, and the weight of energies below the top level, as one line."""
    levels, weight = draw.mixture.levels, draw.mixture.energy_weight
    sizes = []
    for level, configurations in zip(levels, draw.configurations, strict=True):
        # at least 0, because a level without a subset has no ids
        n_missing = max(len(_list_subset_ids(prepared, level)) - len(configurations), 0)
        note = f" ({n_missing} of its subset are without a label, or held out)" if n_missing else ""
        sizes.append(f"{len(configurations)} at level {level}{note}")
    factor = "" if weight == 1 else f"; energies below level {levels[-1]} weigh {weight:g} times as much"
    return f"training labels: {', '.join(sizes)}{factor}; errors are those at level {levels[-1]}"
