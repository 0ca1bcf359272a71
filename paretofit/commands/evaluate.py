"""`paretofit evaluate POTENTIAL DATASET`: errors, disagreements, intervals and grades of every configuration.

Results are separate for the training set, the held-out set and new configurations, because training errors do not
measure the quality of a potential. Disagreements, intervals and grades do not require labels. With ``--md-speed``, the
speed of molecular dynamics is measured.
"""

from collections.abc import Mapping, Sequence
from contextlib import suppress
from pathlib import Path
from typing import Any

import ase.io
import numpy as np
import pandas as pd
from ase import Atoms

from paretofit import potentials
from paretofit.commands.evaluation_page import build_view, write_evaluation_page
from paretofit.commands.evaluation_result import PAGE_FILE, VIEW_FILE, Evaluation
from paretofit.core import InputError, atomic_path, check_new_paths
from paretofit.dataset import Dataset
from paretofit.dataset.io import Frames, extract_file_labels, read_frames
from paretofit.dataset.quality import compute_level_errors
from paretofit.execution import RunContext
from paretofit.report.tables import write_table
from paretofit.uncertainty import Assessment, classify_grade
from paretofit.validation import MdSpeed, build_reference_crystal, measure_md_speed, measure_network_speed

STRUCTURES_FILE = "evaluation.extxyz"
TABLE_NAMES = ("evaluation", "summary", "thresholds")
DATASET_SUFFIXES = {".h5", ".hdf5"}


def evaluate_dataset(
    potential: potentials.CommitteePotential | Path | str,
    dataset: Path | str,
    out: Path | str | None = None,
    *,
    level: str | None = None,
    coverage: float | None = None,
    tolerances: Mapping[str, float] | None = None,
    calibration: str = "slope",
    overwrite: bool = False,
    jobs: int = 1,
    progress: bool = False,
    allow_pickle: bool = False,
) -> Evaluation:
    """Evaluate a potential on configurations with or without labels.

    Parameters
    ----------
    potential : CommitteePotential or path-like
        Linear potential or MACE committee, or the path of its files.
    dataset : path-like
        A dataset (HDF5), or any file of structures that ASE reads.
    out : path-like, optional
        Folder for ``evaluation.html``, the tables ``evaluation``, ``summary`` and, with tolerances, ``thresholds`` (CSV
        and Markdown), ``evaluation.extxyz`` (standard deviations and grades as arrays of atoms), figures with their
        tables and, if chemiscope is installed, ``structures.html``; by default nothing is written.
    level : str, optional
        Convergence level of the labels; by default the level to which the potential was fitted if the dataset has it,
        or else the last level. Only a dataset has levels.
    coverage : float, optional
        Coverage of the intervals; by default the coverage of the potential's calibration.
    tolerances : mapping of str to float, optional
        Errors of "energy" (meV/atom), "force" (meV/Å) or "stress" (GPa) above which configurations are flagged.
    calibration : {"slope", "isotonic", "quantile"}
        Calibration that converts the tolerances to thresholds of the disagreement.
    overwrite : bool
        Replace existing files.
    jobs, progress
        Number of processes, and whether to show progress bars.
    allow_pickle : bool
        Accept MACE networks that were not trained by this user on this computer. Loading them can run any code.

    Raises
    ------
    InputError
        If a file or level cannot be used, an output exists, too few configurations were held out for the coverage, or
        an option requires a committee that the potential does not have.
    """
    if out is not None:
        files = [f"{name}{suffix}" for name in TABLE_NAMES for suffix in (".csv", ".md")]
        files += [STRUCTURES_FILE, PAGE_FILE, VIEW_FILE]
        folders = [Path(out) / "figures", Path(out) / "tables"]
        check_new_paths([Path(out) / name for name in files], folders, overwrite=overwrite)
    if isinstance(potential, Path | str):
        potential = potentials.read_potential(potential, allow_pickle=allow_pickle)
    uncertainty, known_configurations = potential.uncertainty, potential.known_configurations
    configurations, info_records, level = _read_configurations(
        Path(dataset), level, "" if known_configurations is None else known_configurations.level
    )
    _check_options(potential, coverage, tolerances, calibration)
    spread_limits = potentials.compute_spread_limits(uncertainty, tolerances or {}, calibration)
    check_elements(potential, configurations.structures, dataset)
    predictions: Sequence[Any]
    context = RunContext(jobs, progress)
    if uncertainty is None:
        predictions = potentials.predict_all(potential, configurations.structures, context)
    else:
        for kind in uncertainty.calibration_data:
            uncertainty.fit_interval(kind, coverage)  # raises for an impossible coverage, before any prediction
        predictions = potentials.assess_all(potential, configurations.structures, context, coverage=coverage)
        coverage = uncertainty.coverage if coverage is None else coverage
    table, components = potentials.build_evaluation_tables(potential, configurations, info_records, predictions)
    summary = potentials.summarise_by_set(table, components)
    thresholds = potentials.flag_configurations(table, tolerances or {}, spread_limits)
    coverage, folder = float("nan") if coverage is None else coverage, None if out is None else Path(out)
    view = build_view(table, configurations.structures, _compute_label_errors(Path(dataset), level))
    evaluation = Evaluation(table, components, summary, thresholds, level, potential, coverage, folder, view)
    if folder is not None:
        _write_evaluation(evaluation, folder, configurations.structures, predictions)
    return evaluation


def evaluate_md_speed(
    potential: Path | str, structure: Path | str | None = None, *, allow_pickle: bool = False
) -> MdSpeed:
    """Measure the MD speed of a potential in LAMMPS on one core, or of a MACE network in ASE on one core or the GPU.

    Parameters
    ----------
    potential : path-like
        Files of a linear potential, or folder of a MACE committee, whose first network is measured.
    structure : path-like, optional
        File with the structure for the measurement, which is repeated to about 250 atoms; by default ASE's reference
        crystal of the first element.
    allow_pickle : bool
        Accept MACE networks that were not trained by this user on this computer. Loading them can run any code.

    Raises
    ------
    InputError
        If a file cannot be used, or ASE has no reference crystal of the element.
    """
    if potentials.is_mace(Path(potential)):
        committee = potentials.MacePotential.read(potential, allow_pickle=allow_pickle)
        return measure_network_speed(committee, _load_structure(structure, committee.elements[0]))
    files = potentials.find_potential_files(Path(potential))
    return measure_md_speed(files.commands, files.elements, _load_structure(structure, files.elements[0]))


def _load_structure(path: Path | str | None, symbol: str) -> Atoms:
    """Read the first structure of a file, or without a path, build ASE's reference crystal of an element."""
    atoms = build_reference_crystal(symbol) if path is None else read_frames(Path(path), None).atoms[0]
    if atoms is None:
        raise InputError(f"ASE has no reference crystal of {symbol}; specify a structure with --structure")
    return atoms


def _check_options(
    potential: potentials.CommitteePotential,
    coverage: float | None,
    tolerances: Mapping[str, float] | None,
    calibration: str,
) -> None:
    """Check that the potential has the committee and the calibration that the options require."""
    uncertainty = potential.uncertainty
    if uncertainty is None and (coverage is not None or tolerances):
        raise InputError("--coverage and tolerances require a committee; fit the potential with --committee")
    if uncertainty is not None and coverage is not None and not uncertainty.calibration_data:
        raise InputError(
            f"--coverage {coverage:g} requires a calibrated committee; fit the potential with held-out configurations"
        )
    if calibration != "slope" and not tolerances:
        raise InputError(f"the calibration '{calibration}' requires a tolerance, such as --max-energy")


def _read_configurations(
    path: Path, level: str | None, preferred_level: str
) -> tuple[potentials.LabelledStructures, list[dict[str, Any]], str]:
    """Read structures and labels, with NaN for missing labels; also return their info, and the level of the labels.

    Without a `level`, the labels of a dataset are those at `preferred_level`, or else at the last level. For another
    file, its name stands for the level. Without labels, the level is empty.
    """
    if path.suffix in DATASET_SUFFIXES:
        with Dataset(path) as dataset:
            if level is not None and level not in dataset.levels:
                raise InputError(f"{path} has no level '{level}'; available: {', '.join(dataset.levels) or 'none'}")
            level = level or (preferred_level if preferred_level in dataset.levels else (dataset.levels or [""])[-1])
            ids_and_info = zip(dataset.ids, dataset.info_records, strict=True)
            info_records = [{**record, "id": int(config_id)} for config_id, record in ids_and_info]
            if level:
                configurations = potentials.LabelledStructures.from_dataset(dataset, level, np.arange(len(dataset)))
                return configurations, info_records, level
            structures = list(dataset)
            empty_labels = list(map(_build_empty_labels, structures))
            return potentials.LabelledStructures(structures, empty_labels), info_records, ""
    if level is not None:
        raise InputError(f"--level {level} requires a dataset (HDF5); {path} has one set of labels")
    frames = read_frames(path, None)
    label_records: Sequence[Any] = [None] * len(frames.atoms)
    if _has_labels(frames):
        default_keys = {"energy": None, "forces": None, "stress": None}  # None: find the usual key
        label_records, *_ = extract_file_labels(frames, "labels", default_keys, None)
    labels = []
    for atoms, record in zip(frames.atoms, label_records, strict=True):
        available_labels: dict[str, Any] = {
            key: np.asarray(label)
            for key, label in (record or {}).items()
            if label is not None and key in potentials.StructureLabels._fields
        }
        labels.append(_build_empty_labels(atoms)._replace(**available_labels))
    ids = frames.ids or range(len(frames.atoms))
    for atoms, config_id in zip(frames.atoms, ids, strict=True):
        atoms.info["config_id"] = int(config_id)  # the id in error messages
    info_records = [{**atoms.info, "id": int(config_id)} for atoms, config_id in zip(frames.atoms, ids, strict=True)]
    label_source = path.name if any(label_records) else ""
    return potentials.LabelledStructures(frames.atoms, labels), info_records, label_source


def check_elements(potential: potentials.CommitteePotential, structures: Sequence[Atoms], path: Path | str) -> None:
    """Check that all configurations have atoms, and only elements of the potential.

    Parameters
    ----------
    potential : CommitteePotential
    structures : sequence of ase.Atoms
        Configurations, with their ids in the info as ``config_id``.
    path : path-like
        File of the configurations, for the error message.

    Raises
    ------
    InputError
        If a configuration has no atoms, or an element that the potential lacks.
    """
    supported_elements = set(potential.elements)
    for atoms in structures:
        name = f"{path}: configuration {atoms.info['config_id']}"
        foreign_elements = sorted(set(atoms.get_chemical_symbols()) - supported_elements)
        if foreign_elements:
            raise InputError(
                f"{name} contains {foreign_elements[0]}, but the potential supports only "
                f"{', '.join(sorted(supported_elements))}; remove the configuration"
            )
        if not len(atoms):
            raise InputError(f"{name} has no atoms; remove the configuration")


def _has_labels(frames: Frames) -> bool:
    """Return whether any structure may have labels: a calculator, or an energy or force under any name."""
    return any(
        atoms.calc is not None
        or any("energy" in key.lower() or "force" in key.lower() for key in [*atoms.info, *atoms.arrays])
        for atoms in frames.atoms
    )


def _build_empty_labels(atoms: Atoms) -> potentials.StructureLabels:
    """Return labels of a structure that are all NaN."""
    return potentials.StructureLabels(float("nan"), np.full((len(atoms), 3), np.nan), np.full(6, np.nan))


def _compute_label_errors(path: Path, level: str) -> pd.DataFrame:
    """Compute the errors of labels at a level against the last level of a dataset, by configuration id.

    The table is empty for other files, for labels at the last level, and if no configuration has labels at both levels.
    """
    if path.suffix in DATASET_SUFFIXES:
        with Dataset(path) as dataset:
            if level and level != dataset.levels[-1]:
                with suppress(InputError):  # no configuration has labels at both levels
                    errors = compute_level_errors(dataset, [level, dataset.levels[-1]]).configurations
                    return errors.set_index("config_id")
    return pd.DataFrame()


def _write_evaluation(
    evaluation: Evaluation, folder: Path, structures: Sequence[Atoms], predictions: Sequence[Any]
) -> None:
    """Write the tables, the annotated structures, the figures and the page of an evaluation."""
    from paretofit.report import figures  # noqa: PLC0415  (imports matplotlib)

    for name, table in zip(TABLE_NAMES, (evaluation.table, evaluation.summary, evaluation.thresholds), strict=True):
        if len(table) or name != "thresholds":
            write_table(folder, name, table)
    with atomic_path(folder / STRUCTURES_FILE) as temporary:
        ase.io.write(temporary, list(map(_annotate_structure, structures, predictions)), format="extxyz")
    uncertainty, calibration = evaluation.potential.uncertainty, {}
    if uncertainty is not None:
        calibration_tables = potentials.build_calibration_tables(uncertainty, evaluation.table, evaluation.components)
        calibration = {name: table for name, table in calibration_tables.items() if len(table)}
    for name, table in calibration.items():
        write_table(folder / "tables", name, table)
    plans = figures.plan_uncertainty_figures(evaluation.table, evaluation.components, calibration)
    write_evaluation_page(evaluation, folder, [figures.render_figure(plan, folder / "figures") for plan in plans])


def _annotate_structure(atoms: Atoms, prediction: Any) -> Atoms:
    """Copy a structure, with its predictions and, for a committee, their uncertainty in its info and arrays."""
    copy: Atoms = atoms.copy()
    copy.calc = None
    copy.arrays["predicted_forces"] = prediction.forces
    copy.info["predicted_energy"] = prediction.energy
    if isinstance(prediction, Assessment):
        copy.arrays |= {"forces_std": prediction.forces_std, "extrapolation_grade": prediction.grades}
        copy.arrays["forces_interval"] = prediction.forces_interval
        copy.info |= {
            "energy_std_per_atom": prediction.energy_std,
            "energy_interval_per_atom": prediction.energy_interval,
            "stress_std": prediction.stress_std,
            "extrapolation_grade_max": prediction.grade,
            "verdict": classify_grade(prediction.grade),
        }
    return copy
