"""A commented study for a given dataset, to start from."""

import json
import os
from pathlib import Path
from typing import Any

import numpy as np

from paretofit.core import InputError, write_text
from paretofit.dataset import Dataset, assign_groups, describe_dataset, split_configurations
from paretofit.study.schema import Study, load_study

TEMPLATE = """\
# A study for {dataset}: {n} configurations, levels {levels}.
# Run it:    paretofit run {study}
# Every key: paretofit init --keys
name: {name}
dataset: {dataset_path}

# The SNAP basis; its 2Jmax is the largest of 'twojmax' below.
basis:
  elements: [{elements}]
  rcutfac: 4.812302818    # Å; a pair of elements is seen up to rcutfac * (R_i + R_j)
  radelem: {radelem}
  wj: {wj}
  quadratic: true         # false: linear SNAP

# Who trains and who tests. Configurations with the same parent or trajectory stay together.
split: {{train_fraction: 0.7, seed: 1{group_by}}}{why}

levels: [{levels}]    # in order of cost; the last is the reference
{left_out}twojmax: {twojmax}        # model sizes: accuracy against the cost of MD
# w_E/w_F. There are about {components:.0f} force components to one energy in this data.
weights: {weights}
sizes: {sizes}    # configurations in the training subset
sampling_methods: [random, leverage, block-leverage]
repetitions: 5
seed: 1

# Leverage scores; lower the 2Jmax if the report says that they hardly tell configurations apart.
leverage: {{energy_weight: 150, twojmax: {smallest}}}
{cost}"""

TOGETHER = "    # not by parent, which most of them share: no split would be left"
WEIGHT = 12.25  # w_E/w_F, from the published study
NEARER = ("trajectory", "family")  # keys of relatives nearer than children of one parent
APART = 0.15  # what the share of the training set may be off

COST = """
# No seconds are recorded with the labels: put in what one configuration costs at each level.
cost:
  label_seconds: {{{numbers}}}
"""


def write_template(dataset: Path | str, out: Path | str) -> Path:
    """Write a commented study for a dataset and check that it loads.

    Parameters
    ----------
    dataset : path-like
    out : path-like
        The YAML file to write.

    Returns
    -------
    Path
        Of the study.

    Raises
    ------
    InputError
        If `out` exists already, or the dataset cannot be used.
    """
    path = Path(out)
    if path.exists():
        raise InputError(f"{path} exists already; name another file, or remove it first")
    with Dataset(dataset) as data:
        info = describe_dataset(data)
        if not data.levels or not len(data):
            raise InputError(f"{dataset} has no labelled configurations; import labels into it first")
        levels, left_out = _levels(data)
        recorded = all(np.isfinite(data.labels(level).seconds).any() for level in levels)
        components = 3 * info.n_atoms / info.n_configurations
        n_train = int(0.7 * info.n_configurations)
        rows = n_train * (1 + components)
        elements = list(info.species)
        one_family = _is_one_family(data)
        keys = [key for key in NEARER if any(record.get(key) is not None for record in data.info_records)]
        text = TEMPLATE.format(
            dataset=Path(dataset).name,
            dataset_path=_relative(Path(dataset), path.parent),
            study=path,
            name=_name(path.stem),
            group_by=f", group_by: [{', '.join(keys)}]" if one_family else "",
            why=TOGETHER if one_family else "",
            n=info.n_configurations,
            levels=", ".join(_scalar(name) for name in levels),
            left_out=left_out,
            elements=", ".join(elements),
            radelem=[0.5] * len(elements),
            wj=[1.0] * len(elements),
            twojmax=(sizes := _model_sizes(rows, len(elements))),
            smallest=sizes[0],
            components=components,
            weights=_weights(components),
            sizes="[" + ", ".join(str(size) for size in _sizes(n_train)) + "]",
            cost=""
            if recorded
            else COST.format(numbers=", ".join(f"{_scalar(name)}: {10.0 * 2**k}" for k, name in enumerate(levels))),
        )
    write_text(path, text)
    load_study(path)
    return path


def infer_default_settings(data: Dataset, held_out_fraction: float) -> dict[str, Any]:
    """What a fit of a dataset takes where nothing is said: levels that count, basis, split, 2Jmax and weight.

    Parameters
    ----------
    data : Dataset
    held_out_fraction : float
        Share of the configurations that does not train.

    Raises
    ------
    InputError
        If it has no labelled configurations.
    """
    if not data.levels or not len(data):
        raise InputError(f"{data.path} has no labelled configurations; import labels into it first")
    info = describe_dataset(data)
    rows = (1 - held_out_fraction) * (info.n_configurations + 3 * info.n_atoms)
    elements = list(info.species)
    split: dict[str, Any] = {"train_fraction": 1 - held_out_fraction}
    if _is_one_family(data):
        split["group_by"] = [key for key in NEARER if any(one.get(key) is not None for one in data.info_records)]
    return {
        "levels": _levels(data)[0],
        "basis": {"elements": elements},
        "split": split,
        "twojmax": _model_sizes(rows, len(elements)),
        "weights": [(WEIGHT, 1.0)],
    }


def _levels(data: Dataset) -> tuple[list[str], str]:
    """Levels that at least half as many configurations have as the best one, and lines about the others."""
    counts = {name: int(data.labels(name).complete.sum()) for name in data.levels}
    kept = [name for name, count in counts.items() if 2 * count >= max(counts.values()) and count]
    if not kept:
        raise InputError(
            f"{data.path} has no complete labels; 'paretofit label' computes them, 'paretofit import' takes them in"
        )
    lines = [
        f"# level {_scalar(name)} is left out: it has {count} of {len(data)} labels\n"
        for name, count in counts.items()
        if name not in kept
    ]
    if any(counts[name] < len(data) for name in kept):
        lines.append("missing_labels: drop    # configurations without all of these labels are left out, and counted\n")
    return kept, "".join(lines)


def _is_one_family(data: Dataset) -> bool:
    """Whether relatives by parent and trajectory are so many that no split comes near to the share that may train."""
    split = Study.model_fields["split"].default
    group = assign_groups(data.ids, data.info_records, split.group_by)
    try:
        found = split_configurations(group, split.train_fraction, split.seed)
    except InputError:
        return True
    return bool(abs(len(found.train) / len(data) - split.train_fraction) > APART)


def _relative(target: Path, folder: Path) -> str:
    """`target` as seen from `folder`; pathlib cannot walk upwards before Python 3.12."""
    return os.path.relpath(target.resolve(), folder.resolve())


def _scalar(name: str) -> str:
    """A level's name so that YAML reads it as text or a whole number, and not as 0.1 or true."""
    return name if name.isdigit() and str(int(name)) == name else json.dumps(name)


def _name(stem: str) -> str:
    cleaned = "".join(letter if letter.isalnum() or letter in "._-" else "-" for letter in stem)
    return cleaned.lstrip("._-") or Study.model_fields["name"].default


def _model_sizes(rows: float, n_elements: int) -> list[int]:
    """Model sizes whose features the rows can hold; always the smallest two."""
    features = {2: 21, 4: 120, 6: 496, 8: 1596}
    kept = [twojmax for twojmax, count in features.items() if 1.5 * count * n_elements <= rows]
    return kept if len(kept) > 1 else [2, 4]


def _weights(components: float) -> list[float]:
    """Ratios from "all rows alike" to ten times the balance of energies and force components."""
    return [float(f"{ratio:.2g}") for ratio in (1, components / 5, components / 3, components, 3 * components)]


def _sizes(n_train: int) -> list[int | str]:
    if n_train < 2:
        raise InputError(f"a study needs some ten configurations to split, draw from and test on; {n_train} may train")
    sizes = np.unique(np.geomspace(min(max(5, n_train / 16), n_train), n_train, 6).astype(int)[:-1])
    return [*(int(size) for size in sizes if size < n_train), "all"]
