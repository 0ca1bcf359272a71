"""`paretofit fit --fitsnap`: a FitSNAP input as it is, fitted as FitSNAP does it, written for LAMMPS.

Rows are energies per atom, forces in the frame of the cell as given, and stresses; the reference potential is taken off
the labels; group weights multiply rows; FitSNAP's own table of errors is made.
"""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import pandas as pd
from ase import units
from pydantic import ValidationError
from threadpoolctl import threadpool_limits

from paretofit.core import InputError, RowKind, atomic_path, get_shared_lammps, track, write_text
from paretofit.dataset.io import load_json, parse_fitsnap_structures, read_frames
from paretofit.descriptors import (
    GPA_PER_BAR,
    ReferencePotential,
    SnapBasis,
    compute_configuration_rows,
    compute_configuration_rows_with_stress,
    compute_reference_labels,
    rotate_voigt,
)
from paretofit.execution import parallel_map
from paretofit.fitsnap import (
    DISPLAY_FACTORS,
    FitRows,
    FitsnapInput,
    Group,
    build_fitsnap_committee,
    check_fitsnap_committee,
    compute_fit_metrics,
    format_fitsnap_table,
    list_group_files,
    read_fitsnap_input,
    replace_weights,
    search_weights,
    split_group,
)
from paretofit.linear import fit_wls
from paretofit.potentials import CommitteeSettings, LinearPotential, SnapFiles, check_exported_files, format_committee

if TYPE_CHECKING:
    from collections.abc import Sequence

    from ase import Atoms

    from paretofit.linear import OptimisedWeights

BATCH = 8  # structures handed to a worker at once
CHECKED = 100  # structures, at most, on which LAMMPS is compared with the model


@dataclass(frozen=True)
class FitResult:
    """A FitSNAP input, fitted.

    Attributes
    ----------
    potential : LinearPotential
    files : SnapFiles
    metrics : DataFrame
        As FitSNAP's table: ``set``, ``group``, ``weighting``, ``kind``, ``ncount``, ``mae``, ``rmse``, ``rsq``;
        energies eV/atom, forces eV/Å, stresses bar.
    rows : FitRows
    deviation : float
        Of LAMMPS with the files from the model.
    optimised_weights : Optimised or None
        Weights that were searched for.
    unseen_error_ratio : float
        By what factor the errors that count changed, geometric mean, on configurations that the search never saw.
    notes : list of str
    """

    potential: LinearPotential
    files: SnapFiles
    metrics: pd.DataFrame
    rows: FitRows
    deviation: float
    optimised_weights: OptimisedWeights | None = None
    unseen_error_ratio: float = float("nan")
    notes: list[str] = field(default_factory=list)


def fit_fitsnap(
    path: Path | str,
    out: Path | str = "potential",
    *,
    objectives: Sequence[str] = (),
    front: bool = False,
    regulariser: float = 0.01,
    seed: int = 1,
    committee: CommitteeSettings | None = None,
    jobs: int = 1,
    progress: bool = False,
) -> FitResult:
    """Fit what a FitSNAP input says.

    Parameters
    ----------
    path : path-like
        A FitSNAP input (``.in``).
    out : path-like
        The folder for the potential's files and the tables of errors and weights.
    objectives : sequence of str
        Search for group weights that make the held-out errors of these kinds small: "energy", "force", "stress", of
        one group, such as "Liquid:force", or the difference of two structures' energies per atom, named by their
        files, such as "difference:A15_1/BCC_1".
    front : bool
        Also the front between the two kinds of `objectives`, as ``weights_front.csv``.
    regulariser : float
        How strongly weights are held where they are.
    seed : int
        Of what is held out while weights are searched for.
    committee : CommitteeSettings, optional
        Calibrated on the testing structures, where the input has some.
    jobs : int
        Processes.
    progress : bool
        Show a bar.

    Returns
    -------
    FitResult

    Raises
    ------
    InputError
        If the input, a group or a file cannot be used, or the exported files give other numbers than the model.
    """
    if front and len(objectives) != 2:
        raise InputError(
            f"a front is between two objectives, such as energy,force; got {', '.join(objectives) or 'none'}"
        )
    settings = read_fitsnap_input(path)
    basis, reference = (
        _basis(settings),
        settings.reference,
    )
    structures, groups, training, notes = _structures(settings)
    if committee is not None:
        check_fitsnap_committee(committee, settings, training)
    rows = _rows(settings, basis, reference, (structures, groups, training), jobs, progress)
    found, checked = None, float("nan")
    if objectives:
        table = Path(out) / "weights_front.csv" if front else None
        found, checked = search_weights(rows, free_columns(settings), objectives, regulariser, seed, table)
        rows = replace_weights(rows, found.weights)
    coefficients = _fit(rows, settings)
    potential = LinearPotential(basis, coefficients, reference)
    if committee is not None:
        potential = build_fitsnap_committee(
            potential, rows, settings, free_columns(settings), committee, (structures, training), jobs, progress
        )
        notes += [] if not all(training) else ["no testing_size: the committee is not calibrated, and has no intervals"]
    folder, name = Path(out), Path(settings.potential_file).name or "potential"
    files = potential.write(folder, name)
    metrics = compute_fit_metrics(rows, coefficients)
    _write_tables(folder, metrics, found)
    write_text(folder / (Path(settings.metrics_file).stem + ".md"), format_fitsnap_table(metrics))
    some = np.unique(np.linspace(0, len(structures) - 1, CHECKED).astype(int))
    deviation = check_exported_files(files, potential, [structures[k] for k in some])
    notes += [f"without effect on the fit: {', '.join(settings.ignored_keys)}"] if settings.ignored_keys else []
    return FitResult(potential, files, metrics, rows, deviation, found, checked, notes)


def format_fit(result: FitResult) -> str:
    """Errors over all groups, where the files are, and what deserves to be said, as plain text."""
    whole = result.metrics[(result.metrics["group"] == "*ALL") & (result.metrics["weighting"] == "Unweighted")]
    table = whole.drop(columns=["group", "weighting"]).to_string(index=False, float_format=lambda one: f"{one:.6g}")
    lines = [table, f"LAMMPS gives the model's energies, forces and stress within {result.deviation:.1e}"]
    if result.optimised_weights is not None:
        before, after = np.exp(result.optimised_weights.objective)
        lines.append(
            f"weights: the geometric mean of the held-out errors that count is {after / before:.3f} of what it was "
            f"({result.optimised_weights.n_evaluations} fits); on configurations that the search never saw {result.unseen_error_ratio:.3f}; "
            "weights.csv has them"
        )
        if result.unseen_error_ratio > 1:
            lines.append("warning: these weights are tuned to what was held out; raise --regulariser")
    files = (result.files.coefficients, result.files.parameters, result.files.include)
    if result.potential.uncertainty is not None:
        lines.append(format_committee(result.potential))
    return "\n".join([*lines, *map(str, files), *(f"note: {note}" for note in result.notes)])


def _basis(settings: FitsnapInput) -> SnapBasis:
    own = settings.bispectrum
    if own.switchinnerflag:
        raise InputError(f"{settings.path}: [BISPECTRUM] 'switchinnerflag' is not supported; set it to 0")
    try:
        return SnapBasis(
            elements=list(own.elements),
            twojmax=own.twojmax,
            rcutfac=own.rcutfac,
            rfac0=own.rfac0,
            rmin0=own.rmin0,
            wj=list(own.wj),
            radelem=list(own.radelem),
            quadratic=bool(own.quadraticflag),
            **{
                key: bool(getattr(own, key))
                for key in ("bzeroflag", "chemflag", "switchflag", "bnormflag", "wselfallflag")
            },
        )
    except ValidationError as error:
        first = error.errors()[0]
        where = ".".join(map(str, first["loc"])) or "settings"
        raise InputError(f"{settings.path}: [BISPECTRUM] {where}: {first['msg']}") from error


def _structures(settings: FitsnapInput) -> tuple[list[Atoms], list[Group], list[bool], list[str]]:
    """Structures that are used, each with its group and whether it trains; and what is to be said of them."""
    files = list_group_files(settings)
    structures: list[Atoms] = []
    groups: list[Group] = []
    training: list[bool] = []
    counts: Counter[str] = Counter()
    notes = []
    rng = np.random.default_rng(settings.random_seed or None) if settings.random_sampling else None
    for group in settings.groups:
        own = [atoms for file in files[group.name] for atoms in _read(file, settings.scraper, counts)]
        split = split_group(own, group, rng)
        notes += [split.note] if split.note else []
        for part, trains in ((split.training, True), (split.testing, False)):
            structures += part
            groups += [group] * len(part)
            training += [trains] * len(part)
    notes += [f"{count} structures: {note}" for note, count in counts.items()]
    if not any(training):
        raise InputError(f"{settings.path}: no group has a configuration to train on; give a training_size")
    return structures, groups, training, notes


def _read(file: Path, scraper: str, counts: Counter[str]) -> list[Atoms]:
    if scraper == "JSON":
        frames = parse_fitsnap_structures(file, load_json(file), counts, keep_zero_stress=True)
    else:
        frames = read_frames(file, None).atoms
        for atoms in frames:  # FitSNAP's XYZ has stress in bar, positive in compression
            if atoms.calc is not None and "stress" in atoms.calc.results:
                atoms.calc.results["stress"] = -np.asarray(atoms.calc.results["stress"]) * units.bar
    for k, atoms in enumerate(frames):
        atoms.info["config_id"] = str(file) if len(frames) == 1 else f"{file}:{k}"
        _to_lammps_frame(atoms)
    return frames


def _to_lammps_frame(atoms: Atoms) -> None:
    """Turn cell, positions and labels, as FitSNAP does: of stress each component counts once, whatever the frame."""
    if abs(atoms.cell.volume) < 1e-9:
        return
    cell, turn = atoms.cell.standard_form()
    atoms.positions = atoms.positions @ turn.T
    atoms.set_cell(cell, scale_atoms=False)
    results = {} if atoms.calc is None else atoms.calc.results
    if "forces" in results:
        results["forces"] = results["forces"] @ turn.T
    if "stress" in results:
        results["stress"] = rotate_voigt(np.asarray(results["stress"]), turn)


def _rows(
    settings: FitsnapInput,
    basis: SnapBasis,
    reference: ReferencePotential,
    used: tuple[list[Atoms], list[Group], list[bool]],
    jobs: int,
    progress: bool,
) -> FitRows:
    structures, groups, training = used
    kinds = _kinds(settings)
    _check_labels(settings, structures, kinds)
    batches = [structures[start : start + BATCH] for start in range(0, len(structures), BATCH)]
    text = basis.model_dump_json()
    describe = partial(_describe, basis_json=text, reference=reference, kinds=kinds)
    done = parallel_map(describe, batches, jobs)
    try:
        parts = [one for batch in track(done, len(batches), "descriptors", enabled=progress) for one in batch]
    except InputError as error:
        raise InputError(f"{settings.path}: {error}") from error
    X, y, kind = (np.concatenate([part[k] for part in parts]) for k in range(3))
    lengths = [len(part[0]) for part in parts]
    shift = np.array([sum(settings.eshift.get(one, 0.0) for one in atoms.get_chemical_symbols()) / len(atoms)
                      for atoms in structures])  # fmt: skip
    y += np.where(kind == RowKind.ENERGY, np.repeat(shift, lengths), 0.0)
    counts = Counter((group.name, trains) for group, trains in zip(groups, training, strict=True))
    weight = np.concatenate(
        [
            _weights(settings, group, atoms, part[2], counts[group.name, trains])
            for group, trains, atoms, part in zip(groups, training, structures, parts, strict=True)
        ]
    )
    names = np.repeat([group.name for group in groups], lengths)
    configuration, trains = np.repeat(np.arange(len(parts)), lengths), np.repeat(training, lengths)
    called = tuple(Path(str(atoms.info["config_id"])).stem for atoms in structures)
    return FitRows(X, y, kind, names, configuration, weight, trains, called)


def _kinds(settings: FitsnapInput) -> list[RowKind]:
    asked = settings.calculator
    chosen = [kind for kind, on in zip(RowKind, (asked.energy, asked.force, asked.stress), strict=True) if on]
    if not chosen:
        raise InputError(f"{settings.path}: [CALCULATOR] asks for no energy, force or stress; set one to 1")
    return chosen


def _check_labels(settings: FitsnapInput, structures: Sequence[Atoms], kinds: Sequence[RowKind]) -> None:
    names = {RowKind.ENERGY: "energy", RowKind.FORCE: "forces", RowKind.STRESS: "stress"}
    for kind in kinds:
        lacking = [atoms for atoms in structures if atoms.calc is None or names[kind] not in atoms.calc.results]
        if lacking and kind != RowKind.STRESS:
            raise InputError(
                f"{lacking[0].info['config_id']} has no {names[kind]} (nor have {len(lacking) - 1} others); add it, or "
                f"set [CALCULATOR] {kind.name.lower()} = 0 in {settings.path}"
            )


def _describe(
    structures: Sequence[Atoms], basis_json: str, reference: ReferencePotential, kinds: Sequence[RowKind]
) -> list[tuple[np.ndarray, np.ndarray, np.ndarray]]:
    """Rows, labels and kinds of some structures; runs in a worker. Stress rows without a label are left out."""
    basis, found = SnapBasis.model_validate_json(basis_json), []
    with threadpool_limits(1):
        for atoms in structures:
            results: dict[str, Any] = atoms.calc.results
            stressed = RowKind.STRESS in kinds and "stress" in results
            make = compute_configuration_rows_with_stress if stressed else compute_configuration_rows
            energy_row, force_rows, *stress_rows = make(get_shared_lammps(), basis, atoms)
            energy, forces, stress = compute_reference_labels(get_shared_lammps(), basis, reference, atoms)
            parts = []
            if RowKind.ENERGY in kinds:
                parts.append((energy_row[None], [(results["energy"] - energy) / len(atoms)], RowKind.ENERGY))
            if RowKind.FORCE in kinds:
                parts.append((force_rows, (results["forces"] - forces).ravel(), RowKind.FORCE))
            if stressed:
                parts.append((stress_rows[0], results["stress"] / units.GPa - stress, RowKind.STRESS))
            kind = np.repeat([int(one) for _, _, one in parts], [len(rows) for rows, _, _ in parts]).astype(np.int8)
            found.append((np.concatenate([one[0] for one in parts]), np.concatenate([one[1] for one in parts]), kind))
    return found


def _weights(settings: FitsnapInput, group: Group, atoms: Atoms, kind: np.ndarray, count: int) -> np.ndarray:
    """The weight of each row; FitSNAP's stress weights are for bar."""
    energy, force, stress = group.energy_weight, group.force_weight, group.stress_weight
    if settings.smartweights:
        energy, force, stress = energy / count, force / count / (3 * len(atoms)), stress / count
        force /= 6 if RowKind.STRESS in _kinds(settings) else 1  # FitSNAP divides this one
    return np.asarray(np.array([energy, force, stress / GPA_PER_BAR])[kind])


def free_columns(settings: FitsnapInput) -> int:
    """Leading columns that a fit leaves out: FitSNAP has no constants with bzeroflag."""
    return len(settings.bispectrum.elements) if settings.bispectrum.bzeroflag else 0


def _fit(rows: FitRows, settings: FitsnapInput) -> np.ndarray:
    own, free = rows.is_training, free_columns(settings)
    X, y, weight, kind = rows.X[own][:, free:], rows.y[own], rows.weight[own], rows.kind[own]
    if settings.solver.name == "RIDGE":
        penalty = np.sqrt(settings.solver.alpha) * np.eye(X.shape[1])
        X, y = np.vstack([X, penalty]), np.concatenate([y, np.zeros(X.shape[1])])
        weight = np.concatenate([weight, np.ones(len(penalty))])
        kind = np.concatenate([kind, np.zeros(len(penalty), dtype=np.int8)])
    fit = fit_wls(X, y, kind, weights=weight)
    return np.concatenate([np.zeros(free), fit.coefficients])


def _write_tables(folder: Path, metrics: pd.DataFrame, found: OptimisedWeights | None) -> None:
    with atomic_path(folder / "metrics.csv") as temporary:
        metrics.to_csv(temporary, index=False, float_format="%.10g", lineterminator="\n")
    if found is None:
        return
    table = pd.DataFrame(
        [
            [group, kind.name.lower(), weight * (GPA_PER_BAR if kind == RowKind.STRESS else 1.0),
             found.initial_errors.get((group, kind), np.nan) * DISPLAY_FACTORS[kind], found.final_errors.get((group, kind), np.nan) * DISPLAY_FACTORS[kind]]
            for (group, kind), weight in found.weights.items()
        ],
        columns=["group", "kind", "weight", "held_out_rmse_before", "held_out_rmse_after"],
    )  # fmt: skip
    with atomic_path(folder / "weights.csv") as temporary:
        table.to_csv(temporary, index=False, float_format="%.10g", lineterminator="\n")
