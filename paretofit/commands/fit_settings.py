"""Settings of a single fit: from a study, or as `init` proposes for a dataset, with changes by the options of `fit`."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from pydantic import ValidationError

from paretofit.commands.model_choice import ModelChoice
from paretofit.core import InputError, check_choice, format_validation_error, list_first
from paretofit.dataset import Dataset
from paretofit.descriptors import MAX_POD_SIZE, AnyBasis, SnapBasis, parse_reference_energies, select_level_energies
from paretofit.study import (
    SIZE_REASON,
    FurtherBasis,
    MixtureSettings,
    PreparedStudy,
    Study,
    infer_default_settings,
    list_pod_sizes,
    load_study,
    propose_cutoff,
)

COMMITTEE_HELD_OUT_FRACTION = 0.2  # default fraction for a dataset; a study defines its own split


@dataclass(frozen=True)
class FitOptions:
    """Parameters of `fit_dataset` that change the settings; None leaves the choice to the study or to the dataset."""

    level: str | None = None
    family: str | None = None
    twojmax: int | None = None
    cutoff: float | None = None
    quadratic: bool | None = None
    weight_ratio: float | None = None
    held_out_fraction: float | None = None
    seed: int | None = None
    reference_energies: str | Mapping[str, float] | None = None


def is_study_path(path: Path | str) -> bool:
    """Return whether a path has the suffix of a study (YAML)."""
    return Path(path).suffix in {".yaml", ".yml"}


def build_fit_study(
    source: Path, options: FitOptions, *, is_committee: bool
) -> tuple[Study, MixtureSettings | None, dict[str, str]]:
    """Build the study of a single fit, with candidates for 2Jmax and weights.

    Parameters
    ----------
    source : Path
        A study (YAML) or a dataset.
    options : FitOptions
    is_committee : bool
        Whether a committee is fitted, which requires held-out configurations.

    Returns
    -------
    study : Study
        Study whose levels are the level of the fit, or those of the mixture.
    mixture : MixtureSettings or None
        The only mixture of the study, unless the options choose a level.
    reasons : dict of str to str
        Where the candidates for "2Jmax", "cutoff" and "w_E/w_F" come from.

    Raises
    ------
    InputError
        If the source, the level or an option cannot be used.
    """
    defaults, dataset_levels, reasons = _read_defaults(source, COMMITTEE_HELD_OUT_FRACTION if is_committee else 0.0)
    mixture = _find_single_mixture(defaults.get("mixtures", [])) if options.level is None else None
    level = options.level if options.level is not None else defaults["levels"][-1]
    levels = [level] if mixture is None else mixture.list_levels()
    _check_levels(source, levels, dataset_levels)
    basis, twojmax, weights = dict(defaults["basis"]), defaults["twojmax"], defaults["weights"]
    if options.family not in {None, basis.get("family", "snap")}:
        basis, twojmax = _change_family(basis, twojmax, str(options.family))
        reasons["2Jmax"] = "about the same MD cost as the sizes for SNAP"
    if options.twojmax is not None:
        twojmax, reasons["2Jmax"] = [options.twojmax], "set by --twojmax"
    if options.weight_ratio is not None:
        weights, reasons["w_E/w_F"] = [(options.weight_ratio, 1.0)], "set by --weight-ratio"
    reasons |= _override_basis(basis, options)
    energies = options.reference_energies
    if energies is None:
        energies = _assign_level(defaults.get("reference_energies", "auto"), defaults["levels"][-1])
    elif isinstance(energies, str):
        energies = parse_reference_energies(energies)
    settings = {
        **defaults,
        "basis": {**basis, "twojmax": max([*twojmax, basis.get("twojmax", 0)])},
        "split": _override_split(dict(defaults["split"]), options),
        "reference_energies": energies,
        "levels": levels,
        "twojmax": twojmax,
        "weights": weights,
        "leave_one_out": True,  # these errors decide between the candidates
        "missing_labels": "drop",
        "sizes": ["all"],
        "ridge": [0.0],
        "leverage": {"twojmax": min(twojmax)},
        "group_weights": {},
        "mixtures": [],
        "bases": [],
        "properties": [],
        "objectives": Study.model_fields["objectives"].get_default(call_default_factory=True),
        "cost": {"label_seconds": dict.fromkeys(levels, 1.0)},  # any value serves, because a fit does not use the cost
    }
    try:
        study = Study.model_validate(settings)
    except ValidationError as error:
        raise InputError(f"{source}: {format_validation_error(error, Study)}") from error
    if mixture is not None and (problem := _find_mixture_problem(study, is_committee=is_committee)):
        raise InputError(f"{source}: a mixture of levels {problem}")
    return study, mixture, reasons


def _check_levels(source: Path, levels: Sequence[str], dataset_levels: Sequence[str]) -> None:
    """Check that the dataset has the levels of the fit, and that those of a mixture are in order of cost."""
    if unknown_levels := [level for level in levels if level not in dataset_levels]:
        raise InputError(
            f"{source} has no level '{unknown_levels[0]}'; available: {', '.join(dataset_levels) or 'none'}"
        )
    if list(levels) != [level for level in dataset_levels if level in levels]:
        raise InputError(
            f"{source}: a mixture must have its levels in order of cost, {', '.join(dataset_levels)}; got "
            f"{', '.join(levels)}"
        )


def _change_family(basis: dict[str, Any], twojmax: Sequence[int], family: str) -> tuple[dict[str, Any], list[int]]:
    """Return the settings of a basis of another family with the same elements and cutoff, and candidates for its size.

    Only a change from SNAP to POD is possible; any other raises an `InputError`.
    """
    check_choice("--family", family, ["snap", "pod"])
    if family == "snap":
        raise InputError("the study's basis is POD; remove 'family' from its 'basis' to fit SNAP")
    pod_basis = FurtherBasis(name="fit", family="pod").apply(SnapBasis.model_validate(basis), MAX_POD_SIZE)
    return dict(pod_basis), list_pod_sizes(twojmax)


def _override_basis(basis: dict[str, Any], options: FitOptions) -> dict[str, str]:
    """Change the form and the cutoff in the settings of a basis, in place, as the options require.

    Return the reason for the cutoff under the key "cutoff", or an empty dictionary if the options do not set it.
    """
    if options.quadratic is not None:
        if basis.get("family", "snap") != "snap":
            raise InputError("--quadratic and --linear are forms of SNAP; remove the option, or choose --family snap")
        basis["quadratic"] = options.quadratic
    if options.cutoff is None:
        return {}
    # In SNAP, the cutoff of atoms i and j is rcutfac (radelem_i + radelem_j); the default of radelem is 0.5.
    is_pod = basis.get("family") == "pod"
    diameter = 1.0 if is_pod else 2 * max(basis.get("radelem") or [0.5])
    basis["rcut" if is_pod else "rcutfac"] = options.cutoff / diameter
    return {"cutoff": "set by --cutoff"}


def _find_mixture_problem(study: Study, *, is_committee: bool) -> str:
    """Return why the study cannot be fitted to a mixture, as the end of a sentence; empty if it can."""
    if is_committee:
        return "is not supported by committees; fit a single level with --level"
    if len(study.twojmax) > 1 or len(study.weights) > 1:
        return "has no leave-one-out errors to choose by; choose --twojmax and --weight-ratio"
    return ""


def _find_single_mixture(mixtures: Sequence[MixtureSettings]) -> MixtureSettings | None:
    """Return the mixture if there is exactly one, with one size for each level and one energy weight; else None."""
    if len(mixtures) != 1 or len(mixtures[0].base_energy_weight) > 1:
        return None
    sizes = mixtures[0].base_sizes, mixtures[0].middle_sizes, mixtures[0].top_sizes
    return None if any(len(level_sizes) > 1 for level_sizes in sizes) else mixtures[0]


def _read_defaults(source: Path, held_out_fraction: float) -> tuple[dict[str, Any], list[str], dict[str, str]]:
    """Read the settings of a study, or propose settings for a dataset.

    Also return the levels of the dataset, and the reasons for the candidates; see `build_fit_study`.
    """
    if is_study_path(source):
        study = load_study(source)
        settings = {key: getattr(study, key) for key in Study.model_fields}
        with Dataset(study.dataset) as dataset:
            settings["levels"] = study.levels or dataset.levels
            return settings, dataset.levels, dict.fromkeys(("2Jmax", "cutoff", "w_E/w_F"), f"from {source.name}")
    with Dataset(source) as dataset:
        proposal = infer_default_settings(dataset, held_out_fraction)
        reasons = {
            "2Jmax": SIZE_REASON,
            "cutoff": propose_cutoff(dataset)[1],
            "w_E/w_F": f"from 1 to three times the {3 * dataset.n_atoms.mean():.0f} force components per energy",
        }
        return {"dataset": source, **proposal}, dataset.levels, reasons


def _assign_level(setting: Any, reference_level: str) -> Any:
    """Assign those values of a setting of reference energies that have no level to the study's reference level.

    Otherwise, they would be taken for the values of the level that is fitted.
    """
    if isinstance(setting, str):
        return setting
    energies_by_level = {key: energies for key, energies in setting.items() if isinstance(energies, Mapping)}
    return {**energies_by_level, reference_level: select_level_energies(setting, reference_level, reference_level)}


def _override_split(split: dict[str, Any], options: FitOptions) -> dict[str, Any]:
    """Change the held-out fraction and the seed of a split, in place, as the options require; return the split."""
    fraction = options.held_out_fraction
    if fraction is not None:
        if not 0 <= fraction < 1:
            raise InputError(f"the held-out fraction must be at least 0 and below 1; got {fraction:g}")
        split["train_fraction"] = 1 - fraction
    if options.seed is not None:
        split["seed"] = options.seed
    return split


def describe_settings(
    prepared: PreparedStudy, choice: ModelChoice, reasons: dict[str, str], basis: AnyBasis
) -> list[str]:
    """Describe the model, and each of its settings with the reason for it, as lines."""
    study, ratio = prepared.study, choice.weights[0] / choice.weights[1]
    levels = " + ".join(study.levels)
    levels_text = "this level" if len(study.levels) == 1 else "any of these levels"
    excluded_ids = {f"without a label at {levels_text}": prepared.dropped_ids}
    excluded_ids["whose DFT did not converge"] = prepared.unconverged_ids
    exclusions = [f"; {len(ids)} configurations {reason} are not used" for reason, ids in excluded_ids.items() if ids]
    model = f"{basis.title}, 2Jmax {choice.twojmax} ({basis.n_features} columns)"
    lines = [f"{model}, w_E/w_F {ratio:g}, level {levels}{''.join(exclusions)}"]
    sizes, ratios = ", ".join(map(str, study.twojmax)), ", ".join(f"{a / b:g}" for a, b in study.weights)
    explanations = dict(reasons)
    if not choice.has_errors:
        explanations = {name: f"{text}; leave-one-out errors are not determined" for name, text in reasons.items()}
    else:
        if len(study.twojmax) > 1:
            explanations["2Jmax"] = (
                f"of {sizes} ({reasons['2Jmax']}), larger ones if they lower leave-one-out errors by 20 %"
            )
        if len(study.weights) > 1:
            explanations["w_E/w_F"] = f"smallest product of leave-one-out errors near {ratios} ({reasons['w_E/w_F']})"
    lines.append(f"2Jmax {choice.twojmax}: {explanations['2Jmax']}")
    lines.append(f"w_E/w_F {ratio:g}: {explanations['w_E/w_F']}")
    lines.append(f"cutoff {basis.cutoff:.4g} Å: {reasons['cutoff']}")
    references = prepared.reference_energies
    ids = [str(atoms.info["config_id"]) for atoms in references.isolated_atoms]
    note = f"; isolated atoms, not counted in errors: {list_first(ids, 5)}" if ids else ""
    lines.append(f"energies of free atoms: {references.describe(study.levels[-1])}{note}")
    if choice.ridge:
        lines.append(f"ridge penalty {choice.ridge:g} of scaled coefficients: smallest product of leave-one-out errors")
    return lines
