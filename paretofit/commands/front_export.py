"""Export of the whole front of a run: a potential for each point, tested in a short MD simulation, and an index."""

import re
from collections.abc import Iterator, Mapping, Sequence
from contextlib import ExitStack
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import pandas as pd
from ase import Atoms

from paretofit import validation
from paretofit.commands.run_fits import RunFits, open_run_fits, read_run_table
from paretofit.core import (
    ExecutionError,
    InputError,
    JsonLines,
    check_new_paths,
    hash_array,
    hash_json,
    list_first,
    remove_file,
    write_csv,
)
from paretofit.dataset.io import read_frames
from paretofit.dataset.quality import compute_level_errors
from paretofit.execution import RunContext, run_tasks
from paretofit.pareto import BASIS_COLUMN, pareto_front
from paretofit.report import format_count, format_number, join_items
from paretofit.study import (
    BASES_FILE,
    FIRST_BASIS,
    FRONT_FILE,
    RESULTS_FILE,
    PreparedStudy,
    get_basis_folder,
    has_potentials,
    select_md_cell,
    substitute_loo_errors,
)
from paretofit.validation import MdProtocol

INDEX_FILE, JOURNAL_FILE = "index.csv", "index.partial"
POTENTIAL_NAME = "potential"
# columns that a point of the front and its fits in the results table have in common
FIT_COLUMNS = [BASIS_COLUMN, "level", "twojmax", "n_train", "w_energy", "w_force", "sampling", "ridge"]
WHOLE_SET = "all"  # sampling of points whose training subset is the whole training set
MD_CELL_LENGTH_A = validation.QUICK_EFFORT.md_supercell_length
MD_SPEED_SECONDS = 0.3  # duration of each of three timings, if the run did not measure the speed
N_CHECKED_STRUCTURES = 3  # number of structures on which LAMMPS is compared with each model
MAX_LISTED_POTENTIALS = 8  # number of potentials in the text
DEFAULT_PROTOCOL = MdProtocol(nvt_time_ps=0.2, nve_time_ps=0.2)


@dataclass(frozen=True)
class FrontExport:
    """Exported potentials of a front.

    Attributes
    ----------
    folder : Path
        Folder with the index and a folder for each potential.
    index : DataFrame
        Table of ``index.csv``, a row for each potential in the order of the DFT cost: ``folder``; the columns of
        ``front.csv`` (setting, median errors in meV/atom and meV/Å, DFT cost in s, intervals where the run has them);
        ``repeat, fit_ref_energy, fit_ref_force`` of the exported fit; the MD cost ``md_us_per_atom_step``; of the MD
        test ``md_survival_ps`` and ``md_requested_ps`` (of the part with a thermostat), ``md_drift`` (meV/atom/ps),
        ``md_temperature`` (K) and ``md_problem`` (empty if the simulation was stable); ``deviation`` of LAMMPS from the
        model and ``check_problem`` (empty if they agree).
    protocol : MdProtocol
        Temperature and duration of the MD tests.
    omitted_bases : sequence of str
        Bases whose points on the front cannot be written as potentials.
    """

    folder: Path
    index: pd.DataFrame
    protocol: MdProtocol
    omitted_bases: Sequence[str] = ()

    @property
    def text(self) -> str:
        """Potentials with the lowest force errors for their cost, outcome of the MD tests, and next step."""
        index, is_stable = self.index, self.index["md_problem"].eq("")
        duration_text = (
            f"{self.protocol.nvt_time_ps:g} ps with and {self.protocol.nve_time_ps:g} ps without a thermostat"
        )
        lines = [_format_choice(index[is_stable]) if is_stable.any() else "no potential survived the dynamics"]
        lines.append(
            f"{int(is_stable.sum())} of {format_count(len(index), 'potential')} survived "
            f"{duration_text} at {self.protocol.temperature:g} K"
        )
        if not is_stable.all():
            unstable_names = list_first(index.loc[~is_stable, "folder"], 3)
            lines.append(f"unstable in MD: {unstable_names}; the column 'md_problem' says why")
        if self.omitted_bases:
            omitted_names = join_items(self.omitted_bases)
            lines.append(f"without points of {omitted_names}: models of given rows cannot be written as potentials")
        lines.append(f"all potentials are listed in {self.folder / INDEX_FILE}")
        if is_stable.any():
            best_folder = self.folder / str(index[is_stable].sort_values("ref_force")["folder"].iloc[0])
            lines.append(f"next: paretofit validate {best_folder} --quick -o validation")
        return "\n".join(lines)

    def require_agreement(self) -> None:
        """Raise an error unless LAMMPS reproduced every model with its written files.

        Raises
        ------
        ExecutionError
            If a comparison failed; the message has the first failure.
        """
        failed_rows = self.index[self.index["check_problem"].ne("")]
        if len(failed_rows):
            raise ExecutionError(f"{failed_rows['folder'].iloc[0]}: {failed_rows['check_problem'].iloc[0]}")


class _Point(NamedTuple):
    """Point of the front: names of its folder and basis, row in the results table, and the setting with its errors."""

    name: str
    basis: str
    fit: pd.Series
    setting: pd.Series


class _MdTask(NamedTuple):
    """Written potential to test by MD in another process.

    `md_cost` (µs per atom and step) is NaN if it must be measured; `check` is the result of the comparison with LAMMPS.
    """

    point: _Point
    folder: Path
    atoms: Atoms
    protocol: MdProtocol
    md_cost: float
    check: dict[str, Any]


def export_front(
    run: Path | str,
    out: Path | str,
    *,
    structure: Path | str | None = None,
    protocol: MdProtocol = DEFAULT_PROTOCOL,
    overwrite: bool = False,
    jobs: int = 1,
    progress: bool = False,
) -> FrontExport:
    """Write every point of a run's front as a LAMMPS potential, and test each potential in a short MD simulation.

    A point of the front has the median errors over repetitions; the exported fit is the repetition with the median
    product of energy and force error (of an even number, the lower one). An export that was stopped resumes if it is
    started again.

    Parameters
    ----------
    run : path-like
        Folder of a finished run.
    out : path-like
        Folder to write to.
    structure : path-like, optional
        File with the periodic structure of the MD tests, which is repeated to `MD_CELL_LENGTH_A`; by default the
        reference configuration of the study, or else its first periodic configuration.
    protocol : MdProtocol
        Temperature and duration of the MD tests.
    overwrite : bool
        Replace an existing index and its potentials.
    jobs, progress
        Number of processes that run MD, and whether to show a progress bar.

    Raises
    ------
    InputError
        If the run is not finished or has no front, no point can be written as a potential, no structure is periodic in
        3D or `structure` cannot be used, the index exists, or `out` is a run folder.
    """
    folder = Path(out)
    if (folder / RESULTS_FILE).exists():
        raise InputError(f"the output {folder} is a run folder; choose another one with -o")
    check_new_paths([folder / INDEX_FILE], overwrite=overwrite)
    run = Path(run)
    results_file = BASES_FILE if (run / BASES_FILE).is_file() else RESULTS_FILE
    front, results = (read_run_table(run, name) for name in (FRONT_FILE, results_file))
    front, omitted_bases = _select_potentials(front[front["overall"]], run)
    with ExitStack() as stack:
        fits = {name: stack.enter_context(open_run_fits(get_basis_folder(run, name))) for name in _list_bases(front)}
        prepared = next(iter(fits.values())).prepared
        if not len(prepared.split.test):
            results = substitute_loo_errors(results, [])  # the errors of the points are then leave-one-out errors
        points = _select_points(front, results, len(prepared.split.train))
        atoms = _choose_structure(prepared, structure)
        digest = _compute_digest(points, atoms, protocol)
        with JsonLines(folder / JOURNAL_FILE) as journal:
            # `pop`, because the digest is not a column of the index
            records = {entry["folder"]: entry for entry in journal.entries if entry.pop("digest", None) == digest}
            tasks = _write_potentials(
                fits, [point for point in points if point.name not in records], folder, atoms, protocol
            )
            outcomes = run_tasks(_test_potential, tasks, jobs, _record_crash)
            for _, record in RunContext(jobs, progress).track(outcomes, len(points) - len(records), "potentials"):
                journal.append({**record, "digest": digest})
                records[record["folder"]] = record
    index = _build_index(points, records)
    write_csv(index, folder / INDEX_FILE)
    remove_file(folder / JOURNAL_FILE)
    return FrontExport(folder, index, protocol, omitted_bases)


def _list_bases(front: pd.DataFrame) -> list[str]:
    """List the bases with points on a front."""
    return list(dict.fromkeys(front.get(BASIS_COLUMN, [FIRST_BASIS])))


def _select_potentials(front: pd.DataFrame, run: Path) -> tuple[pd.DataFrame, list[str]]:
    """Select the points that can be written as potentials; also return the names of the omitted bases.

    Raises
    ------
    InputError
        If no point can be written as a potential.
    """
    if BASIS_COLUMN not in front:
        return front, []
    omitted_bases = [name for name in _list_bases(front) if not has_potentials(get_basis_folder(run, name))]
    front = front[~front[BASIS_COLUMN].isin(omitted_bases)]
    if front.empty:
        raise InputError(
            f"all points of the front of {run} are models of given rows, which cannot be written as potentials; run "
            "the study with a basis of descriptors"
        )
    return front, omitted_bases


def _select_points(front: pd.DataFrame, results: pd.DataFrame, n_whole_set: int) -> list[_Point]:
    """Select, for each point of the overall front, the repetition with the median product of both errors.

    `n_whole_set` is the number of configurations of the whole training set, whose fits count for any sampling method.
    """
    front = front.sort_values(["label_seconds", "ref_force"], kind="stable")
    results = results.assign(_score=np.sqrt(results["ref_energy"] * results["ref_force"]))  # geometric mean
    is_whole = results["n_train"] == n_whole_set
    n_digits = len(str(len(front)))  # so that the names of the folders are in the order of the points
    points = []
    for number, (_, setting) in enumerate(front.iterrows(), start=1):
        is_same = pd.Series(data=True, index=results.index)
        for column in (name for name in FIT_COLUMNS if name in front and name in results):
            is_same_in_column = results[column].eq(setting[column])
            if column == "sampling" and setting[column] == WHOLE_SET:
                is_same_in_column |= is_whole
            is_same &= is_same_in_column
        fits = results[is_same].sort_values("_score", kind="stable")
        if fits.empty:
            raise InputError(f"{FRONT_FILE} and {RESULTS_FILE} differ; run 'paretofit report' for this run first")
        fit = fits.iloc[(len(fits) - 1) // 2].drop("_score")  # the lower median
        level = re.sub(r"[^\w.-]", "_", str(fit["level"]))  # without characters that a path cannot have
        ratio = fit["w_energy"] / fit["w_force"]
        basis = str(setting.get(BASIS_COLUMN, FIRST_BASIS))
        model = f"{basis}_2J-{fit['twojmax']}" if BASIS_COLUMN in setting else f"2J-{fit['twojmax']}"
        name = f"{number:0{n_digits}d}_level-{level}_{model}_n-{fit['n_train']}_w-{ratio:.4g}"
        points.append(_Point(name, basis, fit, setting))
    return points


def _choose_structure(prepared: PreparedStudy, path: Path | str | None) -> Atoms:
    """Read the structure of the MD tests, or choose one of the dataset; check it, orient it and repeat it.

    Raises
    ------
    InputError
        If the structure is not periodic in three directions, or has an element that the study lacks.
    """
    if path is None:
        reference = prepared.study.reference_configuration
        errors = compute_level_errors(prepared.dataset, prepared.grid.levels, reference_configuration=reference)
        atoms = select_md_cell(prepared, errors)
        if atoms is None:
            raise InputError(
                "no configuration of the dataset is periodic in three directions; specify a structure with --structure"
            )
    else:
        atoms = read_frames(Path(path), None).atoms[0]
        if not atoms.pbc.all():
            raise InputError(f"{path} is not periodic in three directions; choose a structure that is")
    if foreign_elements := sorted(set(atoms.get_chemical_symbols()) - set(prepared.study.basis.elements)):
        raise InputError(
            f"{path} contains {foreign_elements[0]}, which is not an element of the study; "
            "choose a structure of the study's elements"
        )
    return validation.repeat_to_length(validation.orient_structure(atoms), MD_CELL_LENGTH_A)


def _compute_digest(points: Sequence[_Point], atoms: Atoms, protocol: MdProtocol) -> str:
    """Compute a digest of everything that the potentials and their MD tests depend on."""
    structure_hashes = [hash_array(atoms.numbers), hash_array(atoms.positions), hash_array(atoms.cell[:])]
    fits = [[point.name, point.fit.to_json()] for point in points]
    return hash_json([fits, structure_hashes, asdict(protocol)])


def _write_potentials(
    fits: Mapping[str, RunFits], points: Sequence[_Point], folder: Path, atoms: Atoms, protocol: MdProtocol
) -> Iterator[_MdTask]:
    """Repeat the fits and write their potentials one by one; yield each MD test at once, so that it runs meanwhile."""
    for point in points:
        design_fit, fit = fits[point.basis].repeat_fit(point.fit)
        potential, path = design_fit.build_potential(fit), folder / point.name
        _, deviation, problem = design_fit.write(potential, path, POTENTIAL_NAME, N_CHECKED_STRUCTURES)
        check = {"deviation": deviation, "check_problem": problem}
        yield _MdTask(point, path, atoms, protocol, float(point.fit["md_us_per_atom_step"]), check)


def _test_potential(task: _MdTask) -> dict[str, Any]:
    """Test a written potential by MD, in a process of its own; a failure is recorded, not raised."""
    potential = validation.parse_potential(str(task.folder))
    record = _start_record(task)
    try:
        test = validation.run_stability_test(potential, task.atoms, task.protocol)
    except validation.PropertyError as error:
        return record | {"md_problem": str(error)}
    record |= {
        "md_survival_ps": test.survival_time_ps,
        "md_drift": test.energy_drift,
        "md_temperature": test.temperature,
        "md_problem": test.reason,
    }
    if not np.isfinite(task.md_cost):
        speed = validation.measure_md_speed(
            potential.commands, potential.elements, task.atoms, seconds=MD_SPEED_SECONDS
        )
        record["md_us_per_atom_step"] = speed.us_per_atom_step
    return record


def _record_crash(task: _MdTask) -> dict[str, Any]:
    """Return the record of a potential whose process crashed."""
    return _start_record(task) | {"md_problem": "LAMMPS crashed"}


def _start_record(task: _MdTask) -> dict[str, Any]:
    """Return the record of a potential before its MD test, with NaN for the results."""
    missing_results = dict.fromkeys(("md_survival_ps", "md_drift", "md_temperature"), float("nan"))
    return {
        "folder": task.point.name,
        "md_us_per_atom_step": task.md_cost,
        **missing_results,
        "md_requested_ps": task.protocol.nvt_time_ps,
        "md_problem": "",
        **task.check,
    }


def _build_index(points: Sequence[_Point], records: dict[str, dict[str, Any]]) -> pd.DataFrame:
    """Join the settings, the exported fits and the results of the MD tests, in the order of the DFT cost."""
    rows = []
    for point in points:
        setting = point.setting[[name for name in point.setting.index if not name.startswith("overall")]].to_dict()
        fit: dict[str, Any] = {"repeat": int(point.fit["repeat"])}
        fit |= {f"fit_{name}": point.fit[name] for name in ("ref_energy", "ref_force")}
        rows.append({"folder": point.name} | setting | fit | records[point.name])
    return pd.DataFrame(rows)


def _format_choice(stable_rows: pd.DataFrame) -> str:
    """Format a table of the stable potentials with the lowest force errors for their cost.

    If there are more than `MAX_LISTED_POTENTIALS`, evenly spaced ones are shown.
    """
    best = pareto_front(stable_rows, ["ref_force", "label_seconds"]).drop_duplicates("label_seconds")
    best = best.iloc[np.unique(np.linspace(0, len(best) - 1, MAX_LISTED_POTENTIALS).astype(int))]
    table = pd.DataFrame(
        {
            "potential": best["folder"],
            "DFT (s)": best["label_seconds"].map(format_number),
            "meV/atom": _format_errors(best, "ref_energy"),
            "meV/Å": _format_errors(best, "ref_force"),
            "µs/atom/step": best["md_us_per_atom_step"].map(format_number),
            "drift (meV/atom/ps)": best["md_drift"].map(format_number),
        }
    )
    return "stable potentials with the lowest force errors for their cost:\n" + table.to_string(index=False)


def _format_errors(table: pd.DataFrame, name: str) -> pd.Series:
    """Format a column of errors, with intervals if the run has them."""
    texts = table[name].map(format_number)
    if {f"{name}_low", f"{name}_high"} <= set(table):
        low, high = (table[f"{name}_{end}"].map(format_number) for end in ("low", "high"))
        texts = texts + " (" + low + "–" + high + ")"
    return texts
