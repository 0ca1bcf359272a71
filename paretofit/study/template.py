"""Commented study for a dataset, and default settings of a fit."""

import json
import os
from pathlib import Path
from typing import Any

import numpy as np

from paretofit.core import InputError, check_new_paths, write_text
from paretofit.dataset import Dataset, assign_groups, describe_dataset, split_configurations
from paretofit.study.json_schema import is_json_schema, write_json_schema
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
  rcutfac: 4.812302818    # Å; the cutoff of a pair of elements is rcutfac * (R_i + R_j)
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
DEFAULT_WEIGHT_RATIO = 12.25  # w_E/w_F, from the published study
NARROW_GROUP_KEYS = ("trajectory", "family")  # info keys of groups that are smaller than those of "parent"
MAX_FRACTION_ERROR = 0.15  # largest difference between the requested and the actual fraction of the training set
FEATURES_BY_TWOJMAX = {2: 21, 4: 120, 6: 496, 8: 1596}  # quadratic SNAP with one element

COST = """
# The labels have no recorded computing times; enter the seconds per configuration at each level.
cost:
  label_seconds: {{{numbers}}}
"""


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
        If `out` exists already, the schema would replace a file that is none, or the dataset cannot be used.
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
    load_study(path)
    write_json_schema(schema, overwrite=True)
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
        "weights": _choose_weights(components),
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
        "basis": {"elements": elements},
        "split": split,
        "twojmax": _choose_model_sizes(n_rows, len(elements)),
        "weights": [(DEFAULT_WEIGHT_RATIO, 1.0)],
    }


def _select_levels(data: Dataset) -> tuple[list[str], dict[str, int]]:
    """Select the levels with at least half as many complete labels as the largest number at any level.

    Also return the numbers of complete labels of all levels.
    """
    counts = {name: int(data.labels(name).complete.sum()) for name in data.levels}
    levels = [name for name, count in counts.items() if 2 * count >= max(counts.values()) and count]
    if not levels:
        raise InputError(
            f"{data.path} has no complete labels; use 'paretofit label' to compute or 'paretofit import' to read labels"
        )
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


def _choose_weights(components: float) -> list[float]:
    """Choose ratios w_E/w_F from equal weights of all rows to three times the force components per energy."""
    return [float(f"{ratio:.2g}") for ratio in (1, components / 5, components / 3, components, 3 * components)]


def _choose_subset_sizes(n_train: int) -> list[int | str]:
    if n_train < 2:
        raise InputError(f"a study requires about ten configurations; the training set would contain {n_train}")
    sizes = np.unique(np.geomspace(min(max(5, n_train / 16), n_train), n_train, 6).astype(int)[:-1])
    return [*(int(size) for size in sizes if size < n_train), "all"]
