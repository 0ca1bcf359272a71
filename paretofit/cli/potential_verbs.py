"""Verbs for potentials: fit and evaluate."""

from pathlib import Path
from typing import Annotated, Any

from typer import Argument, Option

from paretofit.cli import options
from paretofit.cli.options import app, print_result, read_committee_options, split_names
from paretofit.core import InputError

ObjectivesOption = Annotated[
    str,
    Option(
        "--optimise-weights",
        help="With --fitsnap: objectives for which group weights are optimised, separated by commas: energy, force, "
        "stress, GROUP:force, or difference:FILE_A/FILE_B.",
    ),
]
WeightFrontOption = Annotated[
    bool,
    Option(
        "--weight-front",
        help="With --fitsnap: also compute the Pareto front of two objectives and write it to weights_front.csv.",
    ),
]
RegulariserOption = Annotated[
    float, Option(min=0.0, help="With --fitsnap: strength of the regularisation towards the initial weights.")
]
HeldOutOption = Annotated[
    float | None,
    Option(
        help="Fraction of the configurations excluded from training and used to calibrate the committee.",
        show_default="0.2 with --committee, otherwise 0; or the study's",
    ),
]
SourceArgument = Annotated[
    Path | None, Argument(help="Dataset (HDF5), or study (YAML) with dataset, basis and train/test split.")
]
FamilyOption = Annotated[
    str | None, Option(help="Descriptors: snap or pod.", show_default="those of the study, or snap")
]
TwojmaxOption = Annotated[
    int | None,
    Option(help="2Jmax of the model.", show_default="up to 8, with the smallest leave-one-out errors"),
]
CutoffOption = Annotated[
    float | None,
    Option(help="Largest cutoff of a pair of atoms (Å).", show_default="from the distance of nearest neighbours"),
]
QuadraticOption = Annotated[
    bool | None,
    Option("--quadratic/--linear", help="Fit quadratic or linear SNAP.", show_default="the study's or quadratic"),
]
ReferenceEnergiesOption = Annotated[
    str | None,
    Option(
        help="Energies of free atoms, which the potential reproduces exactly: 'isolated' (those of labelled isolated "
        "atoms), eV by element (C=-1.25,O=-1.9), or 'fitted'.",
        show_default="the study's, or isolated for elements with a labelled isolated atom",
    ),
]
KeepDesignOption = Annotated[
    bool,
    Option(
        "--keep-design",
        help="Keep the descriptors in design.h5, which may be large; the next fit with the same --out reuses them.",
    ),
]
NameOption = Annotated[
    str | None, Option(help="Base name of the potential's files.", show_default="potential, or FitSNAP's")
]
ConfigurationsArgument = Annotated[
    Path | None,
    Argument(help="Configurations to evaluate: a dataset (HDF5) or any file that ASE reads, labelled or not."),
]
EvaluationCoverageOption = Annotated[
    float | None,
    Option(help="Fraction of labels that the prediction intervals must contain.", show_default="the potential's"),
]
MaxEnergyOption = Annotated[
    float | None, Option(help="Energy error above which configurations are flagged (meV/atom).")
]
MaxForceOption = Annotated[float | None, Option(help="Force error above which configurations are flagged (meV/Å).")]
MaxStressOption = Annotated[float | None, Option(help="Stress error above which configurations are flagged (GPa).")]
TimedStructureOption = Annotated[
    Path | None,
    Option(help="Structure for the speed measurement, any file that ASE reads.", show_default="the element's crystal"),
]


@app.command(
    epilog="Examples:  paretofit fit data/beryllium.h5 --twojmax 6 --committee 8 -o potential   |   paretofit fit "
    "--fitsnap Ta-example.in -o potential   |   paretofit fit --fitsnap Ta-example.in --optimise-weights energy,force"
)
def fit(
    *,
    source: SourceArgument = None,
    fitsnap: Annotated[Path | None, Option(help="FitSNAP input file (.in) to fit instead of a dataset.")] = None,
    out: Annotated[Path, Option("--out", "-o", help="Folder to write the potential to.")] = Path("potential"),
    level: options.Level = None,
    family: FamilyOption = None,
    twojmax: TwojmaxOption = None,
    cutoff: CutoffOption = None,
    quadratic: QuadraticOption = None,
    weight_ratio: options.WeightRatio = None,
    held_out_fraction: HeldOutOption = None,
    reference_energies: ReferenceEnergiesOption = None,
    committee: options.Committee = None,
    committee_method: options.CommitteeMethod = "bootstrap",
    coverage: options.Coverage = 0.9,
    optimise_weights: ObjectivesOption = "",
    weight_front: WeightFrontOption = False,
    regulariser: RegulariserOption = 0.01,
    keep_design: KeepDesignOption = False,
    name: NameOption = None,
    seed: Annotated[int, Option(min=0, help="Random seed of the train/test split and of the committee.")] = 1,
    force: options.Force = False,
    jobs: options.Jobs,
    progress: options.Progress = True,
    as_json: options.Json = False,
) -> None:
    """Fit a potential, or with --committee a committee, to a dataset or the data of a FitSNAP input."""
    from paretofit.commands import fit_dataset, fit_fitsnap

    choices = {"level": level, "family": family, "twojmax": twojmax, "cutoff": cutoff, "quadratic": quadratic,
               "weight_ratio": weight_ratio, "held_out_fraction": held_out_fraction,
               "reference_energies": reference_energies, "name": name}  # fmt: skip
    settings: dict[str, Any] = {"seed": seed, "overwrite": force, "jobs": jobs, "progress": progress}
    if (source is None) == (fitsnap is None):
        raise InputError("fit requires either a dataset or study, or --fitsnap INPUT")
    if fitsnap is None and (optimise_weights or weight_front):
        raise InputError("--optimise-weights and --weight-front require --fitsnap; for a study, set 'group_weights'")
    if fitsnap is not None and any(value is not None for value in choices.values()):
        raise InputError("--level, --family, --twojmax, --cutoff, --quadratic, --linear, --weight-ratio, "
                         "--held-out-fraction, --name and --reference-energies cannot be combined with --fitsnap; "
                         "change the FitSNAP input instead")  # fmt: skip
    settings["committee"] = read_committee_options(committee, committee_method, coverage, seed)
    if source is not None:
        fitted_potential: Any = fit_dataset(source, out, keep_design=keep_design, **choices, **settings)  # type: ignore[arg-type]
    else:
        fitted_potential = fit_fitsnap(str(fitsnap), out, objectives=split_names(optimise_weights), front=weight_front,
                                       regulariser=regulariser, **settings)  # fmt: skip
    print_result(fitted_potential, fitted_potential.text, as_json=as_json, exclude=("potential", "rows"))
    fitted_potential.require_agreement()


@app.command(
    epilog="Examples:  paretofit evaluate potential data/beryllium_far.h5 -o evaluation   |   paretofit evaluate "
    "potential candidates.extxyz   |   paretofit evaluate potential --md-speed --structure bulk.cif"
)
def evaluate(
    potential: options.Potential,
    dataset: ConfigurationsArgument = None,
    *,
    out: Annotated[Path, Option("--out", "-o", help="Folder to write tables and figures to.")] = Path("evaluation"),
    level: options.Level = None,
    coverage: EvaluationCoverageOption = None,
    max_energy: MaxEnergyOption = None,
    max_force: MaxForceOption = None,
    max_stress: MaxStressOption = None,
    calibration: Annotated[
        str, Option(help="Calibration from disagreement to error: slope, isotonic or quantile.")
    ] = "slope",
    md_speed: Annotated[
        bool, Option("--md-speed", help="Measure the speed of molecular dynamics on one core.")
    ] = False,
    structure: TimedStructureOption = None,
    allow_pickle: options.AllowPickle = False,
    force: options.Force = False,
    jobs: options.Jobs,
    progress: options.Progress = True,
    as_json: options.Json = False,
) -> None:
    """Compute the errors of a potential, and for a committee disagreements, intervals and extrapolation grades."""
    from paretofit.commands import evaluate_dataset, evaluate_md_speed

    if not md_speed and dataset is None:
        raise InputError("evaluate requires a dataset, --md-speed, or both")
    if dataset is not None:
        tolerances = {"energy": max_energy, "force": max_force, "stress": max_stress}
        evaluation = evaluate_dataset(
            potential, dataset, out, level=level, coverage=coverage, calibration=calibration, jobs=jobs,
            tolerances={key: value for key, value in tolerances.items() if value is not None}, progress=progress,
            allow_pickle=allow_pickle, overwrite=force,
        )  # fmt: skip
        print_result(evaluation, evaluation.text, as_json=as_json, exclude=("potential", "components", "view"))
    if md_speed:
        speed = evaluate_md_speed(potential, structure, allow_pickle=allow_pickle)
        text = (
            f"{speed.us_per_atom_step:.4g} µs per atom and step, {speed.atom_steps_per_second:.4g} atoms·steps/s "
            f"on one core ({speed.n_atoms} atoms, ratio of the slowest to the fastest timing "
            f"{speed.slowest_to_fastest_ratio:.2f})"
        )
        print_result(speed, text, as_json=as_json)
