"""Commented study for a dataset, and default settings of a fit."""

import json
import os
from pathlib import Path
from typing import Any

import jinja2
import numpy as np
from joblib import cpu_count

from paretofit.core import InputError, check_new_paths, write_text
from paretofit.dataset import Dataset, describe_dataset
from paretofit.descriptors import SnapBasis
from paretofit.linear.reduction import get_device
from paretofit.study.basis_proposal import propose_bases, propose_cutoff
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

SCHEMA_FILE = "study.schema.json"
NARROW_GROUP_KEYS = ("trajectory", "family")  # info keys of groups that are smaller than those of "parent"
SPLIT_SEEDS = (1, 2, 3, 4)  # seeds that are tried in this order
MAX_FRACTION_ERROR = 0.15  # largest difference between the requested and the actual fraction of the training set
MODEL_SIZES = (2, 4, 6, 8)  # 2Jmax
MIN_TWOJMAX = MODEL_SIZES[0]
SIZE_REASON = f"at least {MIN_ROWS_PER_FEATURE} independent rows per coefficient"


def write_template(dataset: Path | str, out: Path | str, *, with_bases: bool = False, overwrite: bool = False) -> Path:
    """Write a commented study for a dataset, check it, and write the JSON Schema next to it.

    Parameters
    ----------
    dataset : path-like
    out : path-like
        YAML file to write.
    with_bases : bool
        Add further bases: a shorter and a longer cutoff, and the linear form.
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
        bases = propose_bases(data, values["basis"]["rcutfac"], values["twojmax"]) if with_bases else []
    dataset_path = os.path.relpath(Path(dataset).resolve(), path.parent.resolve())
    names = {"schema": SCHEMA_FILE, "dataset": Path(dataset).name, "study": path, "name": _clean_name(path.stem)}
    write_text(path, _load_template().render(**values, **names, bases=bases, dataset_path=dataset_path))
    try:
        prepare_study(load_study(path)).dataset.close()
    except InputError:
        path.unlink()
        raise
    write_json_schema(schema, overwrite=True)
    return path


def _load_template() -> jinja2.Template:
    environment = jinja2.Environment(  # noqa: S701  (YAML, not HTML)
        loader=jinja2.PackageLoader("paretofit", "study"), undefined=jinja2.StrictUndefined,
        trim_blocks=True, lstrip_blocks=True, keep_trailing_newline=True,
    )  # fmt: skip
    environment.filters["scalar"] = _format_scalar
    return environment.get_template("study_template.yaml.jinja")


def _collect_template_values(data: Dataset) -> dict[str, Any]:
    settings = infer_default_settings(data, 1 - Study.model_fields["split"].default.train_fraction)
    prepared, levels = _prepare(data, settings), settings["levels"]
    references = prepared.reference_energies
    with prepared.dataset as labelled_dataset:
        return {
            **settings,
            "n": len(data),
            "level_notes": _describe_excluded_levels(data),
            "free_atoms": references.describe(levels[-1]) if references.isolated_atoms else "",
            "cutoff_reason": propose_cutoff(data)[1],
            "size_reason": SIZE_REASON,
            "components": 3 * float(labelled_dataset.n_atoms.mean()),
            "sizes": _choose_subset_sizes(len(prepared.split.train)),
            "cost": _describe_cost(labelled_dataset, levels),
        }


def _describe_cost(data: Dataset, levels: list[str]) -> dict[str, Any]:
    """Describe the cost of the labels that a study uses; empty if all of them have recorded seconds."""
    seconds = {level: data.labels(level).seconds for level in levels}
    if all((values >= 0).all() for values in seconds.values()):
        return {}
    medians = {level: float(np.median(values[values > 0])) for level, values in seconds.items() if (values > 0).any()}
    # Levels without any measurement continue the measured cost, or 10 s, by a factor of two for each level.
    costs, assumed_levels = {}, [level for level in levels if level not in medians]
    for k, level in enumerate(levels):
        costs[level] = medians.get(level) or next(
            (medians[other] * 2.0 ** (k - levels.index(other)) for other in reversed(levels) if other in medians),
            10.0 * 2**k,
        )
    counts = ", ".join(f"level {level} {int((values >= 0).sum())} of {len(data)}" for level, values in seconds.items())
    reason = f"Not all labels have recorded computing times ({counts}); medians are used."
    if not medians:
        reason = "The labels have no recorded computing times; the seconds below are placeholders; replace them."
    texts = [f"{_format_scalar(level)}: {value:.6g}" for level, value in costs.items()]
    return {"reason": reason, "seconds": ", ".join(texts), "assumed_levels": assumed_levels}


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
    dataset = data.select(np.flatnonzero(is_complete & ~is_unconverged)) if is_complete.any() else data
    elements = list(describe_dataset(dataset if len(dataset) else data).species)
    settings["basis"] = {"elements": elements, "rcutfac": propose_cutoff(data)[0]}
    settings["split"] = _choose_split(data, settings, 1 - held_out_fraction)
    prepared = _prepare(data, settings)
    with prepared.dataset as dataset:
        n_rows = count_independent_rows(dataset, prepared.split.train, levels[-1])
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
            "cost": {"label_seconds": dict.fromkeys(levels, 1.0)},  # any cost, because recorded seconds may be missing
            "leave_one_out": settings["split"]["train_fraction"] == 1,
        }
    )
    return prepare_study(study)


def _choose_split(data: Dataset, settings: dict[str, Any], train_fraction: float) -> dict[str, Any]:
    """Choose the groups and the seed of the split, so that there is a test set.

    The default groups are chosen if a seed splits them near the requested fraction, otherwise narrower groups.
    """
    records = data.info_records
    narrow_keys = [key for key in NARROW_GROUP_KEYS if any(record.get(key) is not None for record in records)]
    choices: list[dict[str, Any]] = [{}, *([{"group_by": narrow_keys}] if narrow_keys else []), {"group_by": []}]
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
        with prepared.dataset as dataset:
            error = abs(len(prepared.split.train) / len(dataset) - train_fraction)
        if choice or error <= MAX_FRACTION_ERROR:  # an uneven split of whole trajectories is better than divided ones
            break
    return split


def _select_levels(data: Dataset) -> tuple[list[str], dict[str, int]]:
    """Select the levels with at least half as many complete labels as the level with the most labels.

    Levels are then excluded, those with the fewest labels first, until at least half of the configurations labelled at
    the smallest level are usable at all levels. Return also the numbers of complete labels of all levels.
    """
    counts = {name: int(data.labels(name).is_complete.sum()) for name in data.levels}
    levels = [name for name, count in counts.items() if 2 * count >= max(counts.values()) and count]
    if not levels:
        raise InputError(f"{data.path}: {explain_missing_labels(data, data.levels)}")
    while len(levels) > 1:
        is_complete, is_unconverged = find_usable_configurations(data, levels, drop_unconverged=True)
        if 2 * int((is_complete & ~is_unconverged).sum()) >= min(counts[name] for name in levels):
            break
        levels.remove(min(levels, key=lambda name: counts[name]))
    return levels, counts


def _describe_excluded_levels(data: Dataset) -> list[str]:
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
    return lines


def _format_scalar(name: str) -> str:
    """Format a level's name so that YAML reads it as text or an integer, not as a decimal number or a boolean."""
    return name if name.isdigit() and str(int(name)) == name else json.dumps(name)


def _clean_name(stem: str) -> str:
    name = "".join(letter if letter.isalnum() or letter in "._-" else "-" for letter in stem)
    return name.lstrip("._-") or Study.model_fields["name"].default


def _choose_model_sizes(n_rows: int, elements: list[str]) -> list[int]:
    """Choose the values of 2Jmax for which rows and memory suffice; the smallest is always included."""
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
    residuals, so that larger ratios are needed; `fit` and `run` compare them.
    """
    return [float(f"{ratio:.2g}") for ratio in (1, components / 5, components / 3, components, 3 * components)]


def _choose_subset_sizes(n_train: int) -> list[int | str]:
    if n_train < 2:
        raise InputError(f"a study requires about ten configurations; the training set would contain {n_train}")
    sizes = np.unique(np.geomspace(min(max(5, n_train / 16), n_train), n_train, 6).astype(int)[:-1])
    return [*(int(size) for size in sizes if size < n_train), "all"]
