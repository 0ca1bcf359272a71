"""Commented study file for a dataset, and default settings of a fit."""

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
    """Write a commented study file for a dataset, and the JSON Schema of studies next to it; check the study.

    Parameters
    ----------
    dataset : path-like
    out : path-like
        YAML file to write.
    with_bases : bool
        Whether to add further bases: a shorter and a longer cutoff, the linear form, and POD.
    overwrite : bool
        Whether to replace existing files.

    Returns
    -------
    Path
        Path of the study file.

    Raises
    ------
    InputError
        If a file exists and `overwrite` is false, or the dataset cannot be used for a study. No new file is then left
        behind.
    """
    path = Path(out)
    schema = path.parent / SCHEMA_FILE
    check_new_paths([path, *([] if is_json_schema(schema) else [schema])], overwrite=overwrite)
    with Dataset(dataset) as opened_dataset:
        values = _collect_template_values(opened_dataset)
        bases = propose_bases(opened_dataset, values["basis"]["rcutfac"], values["twojmax"]) if with_bases else []
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
    """Load the template of a study file, with the filter 'scalar' for names of levels and keys."""
    environment = jinja2.Environment(  # noqa: S701  (YAML, not HTML)
        loader=jinja2.PackageLoader("paretofit", "study"), undefined=jinja2.StrictUndefined,
        trim_blocks=True, lstrip_blocks=True, keep_trailing_newline=True,
    )  # fmt: skip
    environment.filters["scalar"] = _format_scalar
    return environment.get_template("study_template.yaml.jinja")


def _collect_template_values(dataset: Dataset) -> dict[str, Any]:
    """Collect the values of the template's variables from a dataset."""
    settings = infer_default_settings(dataset, 1 - Study.model_fields["split"].default.train_fraction)
    prepared, levels = _prepare_small_study(dataset, settings), settings["levels"]
    references = prepared.reference_energies
    with prepared.dataset as labelled_dataset:
        return {
            **settings,
            "n": len(dataset),
            "level_notes": _describe_excluded_levels(dataset),
            "free_atoms": references.describe(levels[-1]) if references.isolated_atoms else "",
            "cutoff_reason": propose_cutoff(dataset)[1],
            "size_reason": SIZE_REASON,
            "components": 3 * float(labelled_dataset.n_atoms.mean()),
            "sizes": _choose_subset_sizes(len(prepared.split.train)),
            "cost": _describe_cost(labelled_dataset, levels),
        }


def _describe_cost(dataset: Dataset, levels: list[str]) -> dict[str, Any]:
    """Propose the cost of the labels that a study uses, and describe the reason; empty if all seconds are recorded.

    Without recorded seconds, the cost of a level is extrapolated by a factor of two per level from the last level with
    recorded seconds; if there is none, it begins at 10 s.
    """
    seconds = {level: dataset.labels(level).seconds for level in levels}
    if all((level_seconds >= 0).all() for level_seconds in seconds.values()):
        return {}
    positive_seconds = {level: level_seconds[level_seconds > 0] for level, level_seconds in seconds.items()}
    medians = {level: float(np.median(costs)) for level, costs in positive_seconds.items() if len(costs)}
    last_known_level = next((level for level in reversed(levels) if level in medians), None)
    costs, assumed_levels = {}, [level for level in levels if level not in medians]
    for k, level in enumerate(levels):
        if level in medians:
            costs[level] = medians[level]
        elif last_known_level is not None:
            costs[level] = medians[last_known_level] * 2.0 ** (k - levels.index(last_known_level))
        else:
            costs[level] = 10.0 * 2**k
    n_known = {level: int((level_seconds >= 0).sum()) for level, level_seconds in seconds.items()}
    counts = ", ".join(f"level {level} {count} of {len(dataset)}" for level, count in n_known.items())
    reason = f"Not all labels have recorded computing times ({counts}); medians are used."
    if not medians:
        reason = "The labels have no recorded computing times; the seconds below are placeholders; replace them."
    entries = [f"{_format_scalar(level)}: {cost:.6g}" for level, cost in costs.items()]
    return {"reason": reason, "seconds": ", ".join(entries), "assumed_levels": assumed_levels}


def infer_default_settings(dataset: Dataset, held_out_fraction: float) -> dict[str, Any]:
    """Infer default settings for a fit of a dataset: levels, basis, split, 2Jmax and weights, by key of a study.

    Parameters
    ----------
    dataset : Dataset
    held_out_fraction : float
        Fraction of the configurations in the test set.

    Raises
    ------
    InputError
        If the dataset has no configurations with complete labels, or they cannot be split.
    """
    if not dataset.levels or not len(dataset):
        raise InputError(f"{dataset.path} has no labelled configurations; import labels into it first")
    levels = _select_levels(dataset)[0]
    components = 3 * float(dataset.n_atoms.mean())
    weights = [(ratio, 1.0) for ratio in propose_weight_ratios(components)]
    settings: dict[str, Any] = {"levels": levels, "weights": weights}
    is_complete, is_unconverged = find_usable_configurations(dataset, levels, drop_unconverged=True)
    usable_dataset = dataset.select(np.flatnonzero(is_complete & ~is_unconverged))
    elements = list(describe_dataset(usable_dataset if len(usable_dataset) else dataset).species)
    settings["basis"] = {"elements": elements, "rcutfac": propose_cutoff(dataset)[0]}
    settings["split"] = _choose_split(dataset, settings, 1 - held_out_fraction)
    prepared = _prepare_small_study(dataset, settings)
    with prepared.dataset as usable_dataset:
        n_rows = count_independent_rows(usable_dataset, prepared.split.train, levels[-1])
    return {**settings, "twojmax": _choose_model_sizes(n_rows, settings["basis"]["elements"])}


def _prepare_small_study(dataset: Dataset, settings: dict[str, Any]) -> PreparedStudy:
    """Prepare a study only for its split and its usable configurations: by default with the smallest model."""
    levels = settings["levels"]
    study = Study.model_validate(
        {
            "twojmax": [MIN_TWOJMAX],
            **settings,
            "basis": {**settings["basis"], "twojmax": max(settings.get("twojmax", [MIN_TWOJMAX]))},
            "dataset": dataset.path,
            "missing_labels": "drop",
            "cost": {"label_seconds": dict.fromkeys(levels, 1.0)},  # any cost, because recorded seconds may be missing
            "leave_one_out": settings["split"]["train_fraction"] == 1,
        }
    )
    return prepare_study(study)


def _choose_split(dataset: Dataset, settings: dict[str, Any], train_fraction: float) -> dict[str, Any]:
    """Choose the groups and the seed of the split, as settings of 'split', so that there is a test set.

    The default groups are chosen if one of `SPLIT_SEEDS` splits them near the requested fraction; otherwise narrower
    groups, or single configurations if these cannot be split either. Raise InputError if nothing can be split.
    """
    records = dataset.info_records
    narrow_keys = [key for key in NARROW_GROUP_KEYS if any(record.get(key) is not None for record in records)]
    narrow_groups = [{"group_by": narrow_keys}] if narrow_keys else []
    groupings: list[dict[str, Any]] = [{}, *narrow_groups, {"group_by": []}]
    attempts = [(grouping, seed) for grouping in groupings for seed in SPLIT_SEEDS]
    for grouping, seed in attempts:  # with few groups, one seed may leave a set empty and another seed may not
        split = {"train_fraction": train_fraction, "seed": seed, **grouping}
        try:
            prepared = _prepare_small_study(dataset, {**settings, "split": split})
        except InputError:
            if (grouping, seed) == attempts[-1]:
                raise
            continue
        with prepared.dataset as usable_dataset:
            error = abs(len(prepared.split.train) / len(usable_dataset) - train_fraction)
        if grouping or error <= MAX_FRACTION_ERROR:  # for narrower groups, any split is accepted
            break
    return split


def _select_levels(dataset: Dataset) -> tuple[list[str], dict[str, int]]:
    """Select the levels with at least half as many complete labels as the level with the most labels.

    The level with the fewest labels is then excluded, repeatedly, as long as fewer than half of its configurations are
    usable at all other selected levels. Raise InputError if no level has complete labels.

    Returns
    -------
    levels : list of str
    counts : dict of str to int
        Number of complete labels of every level of the dataset.
    """
    counts = {name: int(dataset.labels(name).is_complete.sum()) for name in dataset.levels}
    levels = [name for name, count in counts.items() if 2 * count >= max(counts.values()) and count]
    if not levels:
        raise InputError(f"{dataset.path}: {explain_missing_labels(dataset, dataset.levels)}")
    while len(levels) > 1:
        is_complete, is_unconverged = find_usable_configurations(dataset, levels, drop_unconverged=True)
        if 2 * int((is_complete & ~is_unconverged).sum()) >= min(counts[name] for name in levels):
            break
        levels.remove(min(levels, key=lambda name: counts[name]))
    return levels, counts


def _describe_excluded_levels(dataset: Dataset) -> list[str]:
    """Describe excluded levels and configurations as lines of YAML, with the settings that exclude configurations."""
    levels, counts = _select_levels(dataset)
    lines = []
    for name, count in counts.items():
        if name not in levels:
            lines.append(f"# level {_format_scalar(name)} is excluded: it has {count} of {len(dataset)} labels")
    is_complete, is_unconverged = find_usable_configurations(dataset, levels, drop_unconverged=True)
    if not is_complete.all():
        comment = f"the {int((~is_complete).sum())} configurations without all of these labels are excluded"
        lines.append(f"missing_labels: drop    # {comment}")
    if is_unconverged.any():
        comment = f"the {int(is_unconverged.sum())} configurations whose DFT did not converge are excluded"
        lines.append(f"unconverged_labels: drop    # {comment}")
    return lines


def _format_scalar(name: str) -> str:
    """Format a level's name so that YAML reads it as text or an integer, not as a decimal number or a boolean."""
    return name if name.isdigit() and str(int(name)) == name else json.dumps(name)


def _clean_name(stem: str) -> str:
    """Convert the stem of a file name to a valid name of a study."""
    name = "".join(letter if letter.isalnum() or letter in "._-" else "-" for letter in stem)
    return name.lstrip("._-") or Study.model_fields["name"].default


def _choose_model_sizes(n_rows: int, elements: list[str]) -> list[int]:
    """Choose the values of 2Jmax for which `n_rows` independent rows and the memory suffice; always the smallest."""
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
    """Propose ratios w_E/w_F: 1 (equal weights of all rows), and 1/5, 1/3, 1 and 3 times `components`, to two digits.

    At the ratio √`components`, the squared residuals of energies and forces have equal total weights. Larger ratios are
    proposed, too, because energies have smaller residuals than forces.

    Parameters
    ----------
    components : float
        Mean number of force components per energy.
    """
    return [float(f"{ratio:.2g}") for ratio in (1, components / 5, components / 3, components, 3 * components)]


def _choose_subset_sizes(n_train: int) -> list[int | str]:
    """Choose up to five subset sizes in a geometric sequence, and 'all' for the whole training set.

    Raise InputError if the training set has fewer than two configurations.
    """
    if n_train < 2:
        raise InputError(f"a study requires about ten configurations; the training set would contain {n_train}")
    sizes = np.unique(np.geomspace(min(max(5, n_train / 16), n_train), n_train, 6).astype(int)[:-1])
    return [*(int(size) for size in sizes if size < n_train), "all"]
