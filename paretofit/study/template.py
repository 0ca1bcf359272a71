"""Commented study for a dataset, and default settings of a fit."""

import json
import os
from pathlib import Path
from typing import Any

import numpy as np
from joblib import cpu_count

from paretofit.core import InputError, check_new_paths, write_text
from paretofit.dataset import Dataset, describe_dataset
from paretofit.dataset.quality import compute_neighbour_distance
from paretofit.descriptors import SnapBasis
from paretofit.linear.reduction import get_device
from paretofit.study.independent_rows import count_independent_rows
from paretofit.study.json_schema import is_json_schema, write_json_schema
from paretofit.study.preparation import (
    PreparedStudy,
    explain_missing_labels,
    find_usable_configurations,
    prepare_study,
)
from paretofit.study.run_summary import MIN_ROWS_PER_FEATURE
from paretofit.study.schema import Study, load_study
from paretofit.sweep import check_reduction_memory

TEMPLATE = """\
# yaml-language-server: $schema={schema}
# A study for {dataset}: {n} configurations, levels {levels}.
# Run it:    paretofit run {study}
# Every key: paretofit init --keys
name: {name}
dataset: {dataset_path}

# SNAP basis; its 2Jmax is the largest of 'twojmax' below.
basis:
  elements: [{elements}]
  rcutfac: {rcutfac}    # Å; the cutoff of a pair of elements is rcutfac * (R_i + R_j); {cutoff_reason}
  radelem: {radelem}
  wj: {wj}
  quadratic: true         # false: linear SNAP
{reference_energies}
# Train/test split. Configurations with the same parent or trajectory are in the same set.
split: {{train_fraction: 0.7, seed: {split_seed}{group_by}}}{group_comment}

levels: [{levels}]    # in order of cost; the last is the reference
{level_comment}twojmax: {twojmax}        # model sizes: accuracy against the cost of MD; {size_reason}
# w_E/w_F. This dataset has about {components:.0f} force components per energy.
weights: {weights}
sizes: {sizes}    # configurations in the training subset
sampling_methods: [random, leverage, block-leverage]
repetitions: 5
seed: 1

# Leverage scores; reduce the 2Jmax if the report warns that they are nearly uniform.
leverage: {{energy_weight: 150, twojmax: {smallest}}}
{cost}"""

GROUP_COMMENT = "    # default groups (parent, trajectory) are too large for a test set"
SCHEMA_FILE = "study.schema.json"
MIN_CUTOFF_RATIO = 1.7  # of the cutoff to the distance of nearest neighbours, so that it includes the second shell
MAX_SAMPLED_STRUCTURES = 100  # for the distance of nearest neighbours
NARROW_GROUP_KEYS = ("trajectory", "family")  # info keys of groups that are smaller than those of "parent"
SPLIT_SEEDS = (1, 2, 3, 4)  # tried in this order
MAX_FRACTION_ERROR = 0.15  # largest difference between the requested and the actual fraction of the training set
MODEL_SIZES = (2, 4, 6, 8)  # 2Jmax
MIN_TWOJMAX = MODEL_SIZES[0]
SIZE_REASON = f"at least {MIN_ROWS_PER_FEATURE} independent rows per coefficient"

COST = """
# {reason}
cost:
  label_seconds: {{{seconds}}}    # s per configuration
{assumed}"""
ASSUMED_COST = (
    "  assumed_levels: [{levels}]    # not measured: replace the numbers and remove this line; results say so\n"
)


def write_template(dataset: Path | str, out: Path | str, *, overwrite: bool = False) -> Path:
    """Write a commented study for a dataset, check it, and write the JSON Schema next to it.

    Parameters
    ----------
    dataset : path-like
    out : path-like
        YAML file to write.
    overwrite : bool
        Replace existing files.

    Returns
    -------
    Path
        Path of the study.

    Raises
    ------
    InputError
        If `out` exists already, the schema would replace another file, or the dataset cannot be used for a study; then
        nothing is written.
    """
    path = Path(out)
    schema = path.parent / SCHEMA_FILE
    check_new_paths([path, *([] if is_json_schema(schema) else [schema])], overwrite=overwrite)
    with Dataset(dataset) as data:
        values = _collect_template_values(data)
    write_text(
        path,
        TEMPLATE.format(
            **values,
            schema=SCHEMA_FILE,
            dataset=Path(dataset).name,
            dataset_path=os.path.relpath(Path(dataset).resolve(), path.parent.resolve()),
            study=path,
            name=_clean_name(path.stem),
        ),
    )
    try:
        prepare_study(load_study(path)).dataset.close()
    except InputError:
        path.unlink()
        raise
    write_json_schema(schema, overwrite=True)
    return path


def _collect_template_values(data: Dataset) -> dict[str, Any]:
    settings = infer_default_settings(data, 1 - Study.model_fields["split"].default.train_fraction)
    levels, elements, group_by = settings["levels"], settings["basis"]["elements"], settings["split"].get("group_by")
    prepared = _prepare(data, settings)
    with prepared.dataset as used:
        components = 3 * float(used.n_atoms.mean())
        sizes = _choose_subset_sizes(len(prepared.split.train))
        cost = _describe_cost(used, levels)
        reference_energies = _describe_reference_energies(prepared)
    return {
        "n": len(data),
        "levels": ", ".join(map(_format_scalar, levels)),
        "level_comment": _describe_excluded_levels(data),
        "elements": ", ".join(elements),
        "reference_energies": reference_energies,
        "radelem": [0.5] * len(elements),
        "wj": [1.0] * len(elements),
        "split_seed": settings["split"]["seed"],
        "group_by": "" if group_by is None else f", group_by: [{', '.join(map(_format_scalar, group_by))}]",
        "group_comment": "" if group_by is None else GROUP_COMMENT,
        "twojmax": settings["twojmax"],
        "size_reason": SIZE_REASON,
        "smallest": settings["twojmax"][0],
        "components": components,
        "weights": [ratio for ratio, _ in settings["weights"]],
        "rcutfac": settings["basis"]["rcutfac"],
        "cutoff_reason": propose_cutoff(data)[1],
        "sizes": f"[{', '.join(map(str, sizes))}]",
        "cost": cost,
    }


def _describe_reference_energies(prepared: PreparedStudy) -> str:
    """Describe the energies of free atoms, if isolated atoms are labelled."""
    references = prepared.reference_energies
    if not references.isolated_atoms:
        return ""
    text = references.describe(prepared.grid.levels[-1])
    return (
        f"# Energies of free atoms, which models reproduce exactly: {text}.\nreference_energies: auto    # or fitted\n"
    )


def _describe_cost(used: Dataset, levels: list[str]) -> str:
    """Describe the cost of the labels that a study uses, unless all of them have recorded seconds."""
    seconds = {level: used.labels(level).seconds for level in levels}
    if all((values >= 0).all() for values in seconds.values()):
        return ""
    medians = {level: float(np.median(values[values > 0])) for level, values in seconds.items() if (values > 0).any()}
    # Levels without any measurement continue the measured cost, or 10 s, by a factor of two for each level.
    costs, assumed_levels = {}, [level for level in levels if level not in medians]
    for k, level in enumerate(levels):
        costs[level] = medians.get(level) or next(
            (medians[other] * 2.0 ** (k - levels.index(other)) for other in reversed(levels) if other in medians),
            10.0 * 2**k,
        )
    counts = ", ".join(f"level {level} {int((values >= 0).sum())} of {len(used)}" for level, values in seconds.items())
    reason = f"Not all labels have recorded computing times ({counts}); medians are used."
    if not medians:
        reason = "The labels have no recorded computing times; the seconds below are made up."
    names = ", ".join(map(_format_scalar, assumed_levels))
    return COST.format(
        reason=reason,
        seconds=", ".join(f"{_format_scalar(level)}: {value:.6g}" for level, value in costs.items()),
        assumed=ASSUMED_COST.format(levels=names) if assumed_levels else "",
    )


def infer_default_settings(data: Dataset, held_out_fraction: float) -> dict[str, Any]:
    """Infer default levels, basis, split, 2Jmax and weights for a fit of a dataset, as keys of a study.

    Parameters
    ----------
    data : Dataset
    held_out_fraction : float
        Fraction of the configurations that is excluded from training.

    Raises
    ------
    InputError
        If the dataset has no labelled configurations.
    """
    if not data.levels or not len(data):
        raise InputError(f"{data.path} has no labelled configurations; import labels into it first")
    levels = _select_levels(data)[0]
    components = 3 * float(data.n_atoms.mean())
    weights = [(ratio, 1.0) for ratio in propose_weight_ratios(components)]
    settings: dict[str, Any] = {"levels": levels, "weights": weights}
    is_complete, is_unconverged = find_usable_configurations(data, levels, drop_unconverged=True)
    used = data.select(np.flatnonzero(is_complete & ~is_unconverged)) if is_complete.any() else data
    elements = list(describe_dataset(used if len(used) else data).species)
    settings["basis"] = {"elements": elements, "rcutfac": propose_cutoff(data)[0]}
    settings["split"] = _choose_split(data, settings, 1 - held_out_fraction)
    prepared = _prepare(data, settings)
    with prepared.dataset as used:
        n_rows = count_independent_rows(used, prepared.split.train, levels[-1])
    return {**settings, "twojmax": _choose_model_sizes(n_rows, settings["basis"]["elements"])}


def _prepare(data: Dataset, settings: dict[str, Any]) -> PreparedStudy:
    """Prepare a study with the smallest model, for its split and its configurations."""
    levels = settings["levels"]
    study = Study.model_validate(
        {
            "twojmax": [MIN_TWOJMAX],
            **settings,
            "basis": {**settings["basis"], "twojmax": max(settings.get("twojmax", [MIN_TWOJMAX]))},
            "dataset": data.path,
            "missing_labels": "drop",
            "cost": {"label_seconds": dict.fromkeys(levels, 1.0)},
            "leave_one_out": settings["split"]["train_fraction"] == 1,
        }
    )
    return prepare_study(study)


def _choose_split(data: Dataset, settings: dict[str, Any], train_fraction: float) -> dict[str, Any]:
    """Choose the largest groups that leave configurations for a test set, near the requested fraction if possible."""
    records = data.info_records
    narrow = [key for key in NARROW_GROUP_KEYS if any(record.get(key) is not None for record in records)]
    choices: list[dict[str, Any]] = [{}, *([{"group_by": narrow}] if narrow else []), {"group_by": []}]
    attempts = [(choice, seed) for choice in choices for seed in SPLIT_SEEDS]
    for choice, seed in attempts:
        # With few groups, whether both sets have one depends on the order in which groups are drawn.
        split = {"train_fraction": train_fraction, "seed": seed, **choice}
        try:
            prepared = _prepare(data, {**settings, "split": split})
        except InputError:
            if (choice, seed) == attempts[-1]:
                raise
            continue
        with prepared.dataset as used:
            error = abs(len(prepared.split.train) / len(used) - train_fraction)
        if choice or error <= MAX_FRACTION_ERROR:  # an unequal split of whole trajectories is better than split ones
            break
    return split


def propose_cutoff(data: Dataset) -> tuple[float, str]:
    """Propose the cutoff of a pair of atoms, Å, and give the reason.

    It is the default of `SnapBasis`, or 1.7 times the distance of nearest neighbours if that is larger, because with
    fewer shells than the second, large atoms such as alkali metals have too few neighbours.
    """
    positions = np.unique(np.linspace(0, len(data) - 1, MAX_SAMPLED_STRUCTURES).astype(int))
    distances = np.array([compute_neighbour_distance(atoms) for atoms in data.select(positions)])
    default = float(SnapBasis.model_fields["rcutfac"].default)
    if not np.isfinite(distances).any():
        return default, "the default, because no atoms have neighbours"
    distance = float(np.nanmedian(distances))
    if MIN_CUTOFF_RATIO * distance <= default:
        return default, f"the default, {default / distance:.2f} times the distance of nearest neighbours"
    cutoff = float(f"{MIN_CUTOFF_RATIO * distance:.3g}")
    return cutoff, f"{MIN_CUTOFF_RATIO:g} times the distance of nearest neighbours, which is {distance:.2f} Å"


def _select_levels(data: Dataset) -> tuple[list[str], dict[str, int]]:
    """Select the levels with at least half as many usable labels as the largest number at any level.

    Levels with the fewest labels are excluded, too, until half as many configurations have labels at all levels. Also
    return the numbers of complete labels of all levels.
    """
    counts = {name: int(data.labels(name).complete.sum()) for name in data.levels}
    levels = [name for name, count in counts.items() if 2 * count >= max(counts.values()) and count]
    if not levels:
        raise InputError(f"{data.path}: {explain_missing_labels(data, data.levels)}")
    while len(levels) > 1:
        is_complete, is_unconverged = find_usable_configurations(data, levels, drop_unconverged=True)
        if 2 * int((is_complete & ~is_unconverged).sum()) >= min(counts[name] for name in levels):
            break
        levels.remove(min(levels, key=lambda name: counts[name]))
    return levels, counts


def _describe_excluded_levels(data: Dataset) -> str:
    levels, counts = _select_levels(data)
    lines = []
    for name, count in counts.items():
        if name not in levels:
            lines.append(f"# level {_format_scalar(name)} is excluded: it has {count} of {len(data)} labels")
    is_complete, is_unconverged = find_usable_configurations(data, levels, drop_unconverged=True)
    if not is_complete.all():
        text = f"the {int((~is_complete).sum())} configurations without all of these labels are excluded"
        lines.append(f"missing_labels: drop    # {text}")
    if is_unconverged.any():
        text = f"the {int(is_unconverged.sum())} configurations whose DFT did not converge are excluded"
        lines.append(f"unconverged_labels: drop    # {text}")
    return "".join(f"{line}\n" for line in lines)


def _format_scalar(name: str) -> str:
    """Format a level's name so that YAML reads it as text or an integer, not as a decimal number or a boolean."""
    return name if name.isdigit() and str(int(name)) == name else json.dumps(name)


def _clean_name(stem: str) -> str:
    name = "".join(letter if letter.isalnum() or letter in "._-" else "-" for letter in stem)
    return name.lstrip("._-") or Study.model_fields["name"].default


def _choose_model_sizes(n_rows: int, elements: list[str]) -> list[int]:
    """Choose the 2Jmax with enough independent rows for their features and enough memory, but always the smallest."""
    sizes = [MIN_TWOJMAX]
    for twojmax in MODEL_SIZES[1:]:
        n_features = SnapBasis(elements=elements, twojmax=twojmax).n_features
        try:
            check_reduction_memory(n_features, cpu_count(), get_device("cpu"))
        except InputError:
            break
        if MIN_ROWS_PER_FEATURE * n_features <= n_rows:
            sizes.append(twojmax)
    return sizes


def propose_weight_ratios(components: float) -> list[float]:
    """Propose ratios w_E/w_F, from equal weights of all rows to three times the force components per energy.

    At √`components`, the squared residuals of energies and forces have equal total weights; energies have smaller
    residuals, so that larger ratios are needed, which `fit` and `run` compare.
    """
    return [float(f"{ratio:.2g}") for ratio in (1, components / 5, components / 3, components, 3 * components)]


def _choose_subset_sizes(n_train: int) -> list[int | str]:
    if n_train < 2:
        raise InputError(f"a study requires about ten configurations; the training set would contain {n_train}")
    sizes = np.unique(np.geomspace(min(max(5, n_train / 16), n_train), n_train, 6).astype(int)[:-1])
    return [*(int(size) for size in sizes if size < n_train), "all"]
