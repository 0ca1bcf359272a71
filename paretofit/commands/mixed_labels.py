"""Training set of a fit to labels of several levels, of which some configurations have only one."""

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


def _select_subset(prepared: PreparedStudy, level: str, positions: Array) -> Array:
    """Select the configurations that the study labels at a level."""
    labelling = prepared.study.labelling
    subset = None if labelling is None else labelling.subsets.get(level)
    if subset is None or not subset.ids:
        return positions
    return np.asarray(positions[np.isin(prepared.dataset.ids[positions], subset.ids)])


def describe_draw(draw: MixtureDraw) -> str:
    """Describe the numbers of labels at each level, and the weight of energies below the top level, in one line."""
    levels, weight = draw.mixture.levels, draw.mixture.energy_weight
    sizes = [f"{len(part)} at level {level}" for level, part in zip(levels, draw.configurations, strict=True)]
    factor = "" if weight == 1 else f"; energies below level {levels[-1]} weigh {weight:g} times as much"
    return f"training labels: {', '.join(sizes)}{factor}; errors are those at level {levels[-1]}"
