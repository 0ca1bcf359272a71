"""Commented study for a dataset, and default settings of a fit."""

import json
import os
from pathlib import Path
from typing import Any

import numpy as np

from paretofit.core import InputError, write_text
from paretofit.dataset import Dataset, assign_groups, describe_dataset, split_configurations
from paretofit.dataset.quality import compute_neighbour_distance
from paretofit.descriptors import SnapBasis
from paretofit.study.json_schema import write_json_schema
from paretofit.study.preparation import explain_missing_labels
from paretofit.study.schema import Study, load_study

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

# Train/test split. Configurations with the same parent or trajectory are in the same set.
split: {{train_fraction: 0.7, seed: 1{group_by}}}{group_comment}

levels: [{levels}]    # in order of cost; the last is the reference
{level_comment}twojmax: {twojmax}        # model sizes: accuracy against the cost of MD
# w_E/w_F. This dataset has about {components:.0f} force components per energy.
weights: {weights}
sizes: {sizes}    # configurations in the training subset
sampling_methods: [random, leverage, block-leverage]
repetitions: 5
seed: 1

# Leverage scores; reduce the 2Jmax if the report warns that they are nearly uniform.
leverage: {{energy_weight: 150, twojmax: {smallest}}}
{cost}"""

GROUP_COMMENT = "    # not grouped by parent: most configurations have the same one, so there would be no test set"
SCHEMA_FILE = "study.schema.json"
MIN_CUTOFF_RATIO = 1.7  # of the cutoff to the distance of nearest neighbours, so that it includes the second shell
MAX_SAMPLED_STRUCTURES = 100  # for the distance of nearest neighbours
NARROW_GROUP_KEYS = ("trajectory", "family")  # info keys of groups that are smaller than those of "parent"
MAX_FRACTION_ERROR = 0.15  # largest difference between the requested and the actual fraction of the training set
FEATURES_BY_TWOJMAX = {2: 21, 4: 120, 6: 496, 8: 1596}  # quadratic SNAP with one element

COST = """
# The labels have no recorded computing times; enter the seconds per configuration at each level.
cost:
  label_seconds: {{{numbers}}}
"""


def write_template(dataset: Path | str, out: Path | str) -> Path:
    """Write a commented study for a dataset, check it, and write the JSON Schema next to it.

    Parameters
    ----------
    dataset : path-like
    out : path-like
        YAML file to write.

    Returns
    -------
    Path
        Path of the study.

    Raises
    ------
    InputError
        If `out` exists already, or the dataset cannot be used.
    """
    path = Path(out)
    if path.exists():
        raise InputError(f"{path} already exists; choose another file name, or remove the file first")
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
    load_study(path)
    write_json_schema(path.parent / SCHEMA_FILE)
    return path


def _collect_template_values(data: Dataset) -> dict[str, Any]:
    info, fraction = describe_dataset(data), Study.model_fields["split"].default.train_fraction
    settings = infer_default_settings(data, 1 - fraction)
    levels, elements, group_by = settings["levels"], settings["basis"]["elements"], settings["split"].get("group_by")
    components = 3 * info.n_atoms / info.n_configurations
    has_seconds = all(np.isfinite(data.labels(level).seconds).any() for level in levels)
    seconds = ", ".join(f"{_format_scalar(name)}: {10.0 * 2**k}" for k, name in enumerate(levels))
    sizes = _choose_subset_sizes(int(fraction * info.n_configurations))
    return {
        "n": info.n_configurations,
        "levels": ", ".join(map(_format_scalar, levels)),
        "level_comment": _describe_excluded_levels(data),
        "elements": ", ".join(elements),
        "radelem": [0.5] * len(elements),
        "wj": [1.0] * len(elements),
        "group_by": "" if group_by is None else f", group_by: [{', '.join(group_by)}]",
        "group_comment": "" if group_by is None else GROUP_COMMENT,
        "twojmax": settings["twojmax"],
        "smallest": settings["twojmax"][0],
        "components": components,
        "weights": [ratio for ratio, _ in settings["weights"]],
        "rcutfac": settings["basis"]["rcutfac"],
        "cutoff_reason": propose_cutoff(data)[1],
        "sizes": f"[{', '.join(map(str, sizes))}]",
        "cost": "" if has_seconds else COST.format(numbers=seconds),
    }


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
    info = describe_dataset(data)
    train_fraction = 1 - held_out_fraction
    n_rows = train_fraction * (info.n_configurations + 3 * info.n_atoms)
    elements = list(info.species)
    split: dict[str, Any] = {"train_fraction": train_fraction}
    if not _can_split(data):
        split["group_by"] = [
            key for key in NARROW_GROUP_KEYS if any(record.get(key) is not None for record in data.info_records)
        ]
    return {
        "levels": _select_levels(data)[0],
        "basis": {"elements": elements, "rcutfac": propose_cutoff(data)[0]},
        "split": split,
        "twojmax": _choose_model_sizes(n_rows, len(elements)),
        "weights": [(ratio, 1.0) for ratio in propose_weight_ratios(3 * info.n_atoms / info.n_configurations)],
    }


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
    """Select the levels with at least half as many complete labels as the largest number at any level.

    Also return the numbers of complete labels of all levels.
    """
    counts = {name: int(data.labels(name).complete.sum()) for name in data.levels}
    levels = [name for name, count in counts.items() if 2 * count >= max(counts.values()) and count]
    if not levels:
        raise InputError(f"{data.path}: {explain_missing_labels(data, data.levels)}")
    return levels, counts


def _describe_excluded_levels(data: Dataset) -> str:
    levels, counts = _select_levels(data)
    lines = [
        f"# level {_format_scalar(name)} is excluded: it has {count} of {len(data)} labels\n"
        for name, count in counts.items()
        if name not in levels
    ]
    if any(counts[name] < len(data) for name in levels):
        lines.append("missing_labels: drop    # configurations without all of these labels are excluded and counted\n")
    return "".join(lines)


def _can_split(data: Dataset) -> bool:
    """Check whether the default groups are small enough for a split near the requested training fraction."""
    split = Study.model_fields["split"].default
    groups = assign_groups(data.ids, data.info_records, split.group_by)
    try:
        train = split_configurations(groups, split.train_fraction, split.seed).train
    except InputError:
        return False
    return bool(abs(len(train) / len(data) - split.train_fraction) <= MAX_FRACTION_ERROR)


def _format_scalar(name: str) -> str:
    """Format a level's name so that YAML reads it as text or an integer, not as a decimal number or a boolean."""
    return name if name.isdigit() and str(int(name)) == name else json.dumps(name)


def _clean_name(stem: str) -> str:
    name = "".join(letter if letter.isalnum() or letter in "._-" else "-" for letter in stem)
    return name.lstrip("._-") or Study.model_fields["name"].default


def _choose_model_sizes(n_rows: float, n_elements: int) -> list[int]:
    """Choose the 2Jmax for which there are at least 1.5 rows per feature, but always the smallest two."""
    twojmax = [value for value, count in FEATURES_BY_TWOJMAX.items() if 1.5 * count * n_elements <= n_rows]
    return twojmax if len(twojmax) > 1 else [2, 4]


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
