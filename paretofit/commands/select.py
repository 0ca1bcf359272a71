"""`paretofit select`: select structures to label by their descriptors."""

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path

import numpy as np
import pandas as pd
from ase import Atoms

from paretofit import linear
from paretofit.commands.augment import FIGURES_SUFFIX, add_suffix
from paretofit.core import Array, InputError, check_choice, check_new_paths, create_temporary_folder, write_csv
from paretofit.dataset import Dataset, write_dataset
from paretofit.dataset.io import read_frames, write_structures
from paretofit.dataset.quality import fingerprint_geometry
from paretofit.descriptors import AnyBasis, DesignMatrix, SnapBasis, compute_design, compute_energy_rows
from paretofit.execution import RunContext
from paretofit.linear.reduction import RowBlock, ThreadMapper, split_rows
from paretofit.report.figures import save_candidate_figures, tabulate_candidates
from paretofit.structures import build_comparison_basis, build_mean_descriptor_function, is_too_close, list_elements
from paretofit.sweep import count_rows_per_block

SCORES_SUFFIX = "_scores.csv"
LEVERAGE_METHODS = ("leverage", "block-leverage")
SELECTION_METHODS = (*LEVERAGE_METHODS, "d-optimal", "farthest-point", "random")
DATASET_SUFFIXES = {".h5", ".hdf5"}
MIN_DISTANCE_RATIO = 0.3  # distance relative to the sum of covalent radii; closer atoms are a mistake in the input
MAX_FEATURES = 20_000  # number of columns; their matrix of second moments takes 3.2 GB


@dataclass(frozen=True)
class Selection:
    """Result of a selection of structures.

    Attributes
    ----------
    path : Path
        Extended XYZ file of the selected structures.
    table : pandas.DataFrame
        A row for each candidate: ``position``, ``config_id``, ``kind``, ``rank`` (from 1 in the order of selection;
        empty if the candidate is not selected) and ``score``: the leverage; for d-optimal and farthest-point the gain
        by a selected candidate, and NaN for the others; 1 for random.
    figures : list of Path
        Files of the map of the candidates.
    n_already_labelled : int
        Number of candidates that were excluded because they are already labelled.
    notes : list of str
        Notes on changes to the input, such as dropped constraints.
    """

    path: Path
    table: pd.DataFrame
    figures: list[Path]
    n_already_labelled: int = 0
    notes: list[str] = field(default_factory=list)


def select_structures(
    candidates: Path | str,
    n: int,
    *,
    method: str = "d-optimal",
    already_labelled: Path | str | None = None,
    out: Path | str = Path("selected.extxyz"),
    basis: AnyBasis | None = None,
    twojmax: int = 4,
    energy_weight: float | None = None,
    draw: bool | None = None,
    seed: int = 1,
    jobs: int = 1,
    figures: bool = True,
    overwrite: bool = False,
    progress: bool = False,
) -> Selection:
    """Select structures to label and write them in the order of selection.

    Parameters
    ----------
    candidates : path-like
        A dataset, or any file of structures that ASE reads.
    n : int
        Number of structures to select.
    method : {"leverage", "block-leverage", "d-optimal", "farthest-point", "random"}
        Selection by the leverage of the energy row, by the leverage of all rows of a configuration, by the determinant
        of the second moments of the energy rows, by distance in descriptor space, or at random.
    already_labelled : path-like, optional
        Dataset or file of labelled structures. Candidates with the same geometry are excluded; all methods except
        random take the labelled structures into account.
    out : path-like
        Extended XYZ file to write; a table of scores is written next to it.
    basis : SnapBasis or PodBasis, optional
        Basis of the descriptors; by default a quadratic SNAP basis at `twojmax` with a cutoff of 4.8 Å.
    twojmax : int
        2Jmax of the default basis.
    energy_weight : float, optional
        Energy weight w_E of the leverage scores (w_F is 1); by default the mean number of force components per
        candidate.
    draw : bool, optional
        Only for leverage methods: whether structures are drawn with probabilities proportional to their scores, the
        default and the method of the paper, or those with the highest scores are taken. The latter is no better than a
        small random selection (tests/benchmarks/RESULTS.md).
    seed : int
        Random seed of the selection.
    jobs : int
        Number of processes.
    figures : bool
        Draw a map of the candidates with the selected ones marked.
    overwrite : bool
        Replace existing files.
    progress : bool
        Show progress bars.

    Raises
    ------
    InputError
        If a file or an option cannot be used, an output exists, `n` is larger than the number of candidates, two atoms
        of a candidate are too close, or the basis has too many features.
    """
    out = Path(out)
    _check_method(method, draw, energy_weight)
    _check_output(out, candidates, already_labelled)
    check_new_paths([out, add_suffix(out, SCORES_SUFFIX)], [add_suffix(out, FIGURES_SUFFIX)], overwrite=overwrite)
    structures, labelled_structures, n_already_labelled, notes = _load_candidates(candidates, already_labelled)
    if not 1 <= n <= len(structures):
        note = f" ({n_already_labelled} more are labelled already)" if n_already_labelled else ""
        raise InputError(f"n must be at least 1 and at most the number of candidates, {len(structures)}{note}; got {n}")
    _check_distances(structures, candidates)
    basis = basis or _build_default_basis([*structures, *labelled_structures], twojmax)
    if basis.n_features > MAX_FEATURES:
        raise InputError(
            f"2Jmax {basis.twojmax} with {len(basis.elements)} elements has {basis.n_features} features, "
            f"more than the maximum of {MAX_FEATURES}; reduce --twojmax"
        )
    if energy_weight is None:
        energy_weight = 3 * float(np.mean([len(atoms) for atoms in structures]))
    pool = _CandidatePool(structures, labelled_structures, basis, RunContext(jobs, progress))
    selected_positions, scores = pool.select(method, n, energy_weight, draw, np.random.default_rng(seed))
    table = _tabulate_scores(structures, selected_positions, scores)
    _write_selection(out, structures, selected_positions, table, method)
    figure_paths = _draw_map(structures, selected_positions, out) if figures else []
    return Selection(out, table, figure_paths, n_already_labelled, notes)


def _check_output(out: Path, *inputs: Path | str | None) -> None:
    """Check that the output is an extended XYZ file and none of the input files."""
    if out.suffix not in {".extxyz", ".xyz"}:
        raise InputError(f"the output is an extended XYZ file, so its name must end in .extxyz or .xyz; got {out}")
    if out.resolve() in {Path(path).resolve() for path in inputs if path is not None}:
        raise InputError(f"the output {out} is one of the input files; choose another file name")


def _load_candidates(
    candidates: Path | str, already_labelled: Path | str | None
) -> tuple[list[Atoms], list[Atoms], int, list[str]]:
    """Read the candidates and the labelled structures, and exclude candidates that are already labelled.

    Return the other candidates, the labelled structures, the number of excluded candidates, and notes for the user.
    """
    structures, notes = read_structures(Path(candidates))
    labelled_structures = read_structures(Path(already_labelled))[0] if already_labelled is not None else []
    labelled_geometries = {fingerprint_geometry(atoms) for atoms in labelled_structures}
    unlabelled_structures = [atoms for atoms in structures if fingerprint_geometry(atoms) not in labelled_geometries]
    return unlabelled_structures, labelled_structures, len(structures) - len(unlabelled_structures), notes


def _check_method(method: str, draw: bool | None, energy_weight: float | None) -> None:
    """Check the method, and that `draw` and the energy weight are possible options."""
    check_choice("method", method, SELECTION_METHODS)
    if draw is not None and method not in LEVERAGE_METHODS:
        raise InputError(f"--draw and --top require a leverage method; got '{method}'")
    if energy_weight is not None and not (np.isfinite(energy_weight) and energy_weight > 0):
        raise InputError(f"the energy weight must be positive; got {energy_weight}")


def _check_distances(structures: Sequence[Atoms], source: Path | str) -> None:
    """Check that the candidates have finite positions, known elements, and no atoms that are too close."""
    for position, atoms in enumerate(structures):
        name = f"configuration {atoms.info.get('config_id', position)} of {source}"
        if not (np.isfinite(atoms.positions).all() and atoms.numbers.all()):
            raise InputError(f"{name} has non-finite positions, or an atom of element X; correct or remove it")
        if is_too_close(atoms, MIN_DISTANCE_RATIO):
            raise InputError(
                f"{name} has two atoms closer than {MIN_DISTANCE_RATIO} times the sum of the covalent radii; correct it"
            )


@dataclass(frozen=True)
class _CandidatePool:
    """Candidates and labelled structures, and the basis that describes them."""

    structures: list[Atoms]
    labelled_structures: list[Atoms]
    basis: AnyBasis
    context: RunContext

    def select(
        self, method: str, n: int, energy_weight: float, draw: bool | None, rng: np.random.Generator
    ) -> tuple[Array, Array]:
        """Select `n` candidates; return their positions in order, ``(n,)``, and the scores of all candidates."""
        if method == "random":
            scores = np.ones(len(self.structures))
            return linear.sample_configurations(scores, n, rng=rng), scores
        if method in LEVERAGE_METHODS:
            scores = self.compute_leverage(energy_weight, method)
            return linear.sample_configurations(scores, n, rng=None if draw is False else rng), scores
        return self.select_greedily(
            linear.select_d_optimal if method == "d-optimal" else linear.select_farthest_points, n
        )

    def select_greedily(
        self, select_rows: Callable[[Array, int, Array], tuple[Array, Array]], n: int
    ) -> tuple[Array, Array]:
        """Select candidates one by one by their energy rows, with `select_rows`, a function of `paretofit.linear`.

        The score of a selected candidate is its gain; that of any other candidate is NaN.
        """
        structures, context = [*self.structures, *self.labelled_structures], self.context
        rows = compute_energy_rows(structures, self.basis, jobs=context.jobs, progress=context.progress)
        selected_positions, gains = select_rows(rows[: len(self.structures)], n, rows[len(self.structures) :])
        scores = np.full(len(self.structures), np.nan)
        scores[selected_positions] = gains
        return selected_positions, scores

    def compute_leverage(self, energy_weight: float, method: str) -> Array:
        """Compute the leverage of each candidate with respect to all candidates and labelled structures.

        The leverage is that of the energy row or, by the method "block-leverage", that of all rows of a candidate.
        """
        context = self.context
        with create_temporary_folder("select") as folder:
            path = Path(folder) / "structures.h5"
            write_dataset(path, [*self.structures, *self.labelled_structures], {})
            with Dataset(path) as dataset:
                design_path = Path(folder) / "design.h5"
                design = compute_design(dataset, self.basis, design_path, jobs=context.jobs, progress=context.progress)
            scores = _compute_design_leverage(design, energy_weight, context.jobs)
        leverages = scores.regular if method == "leverage" else scores.block
        return np.asarray(leverages[: len(self.structures)])


def _compute_design_leverage(design: DesignMatrix, energy_weight: float, threads: int) -> linear.LeverageScores:
    """Compute the leverage of all configurations from streamed rows; without full column rank, from rows in memory."""

    def stream_blocks(part: slice) -> Iterator[RowBlock]:
        """Yield blocks of a range of rows, with zero labels, because leverages do not depend on labels."""
        for window, X in design.iterate_blocks(count_rows_per_block(design.n_features), part):
            yield RowBlock(
                X, np.zeros((len(X), 1)), design.kind[window], design.configuration[window], np.ones(len(X), dtype=bool)
            )

    parts = [partial(stream_blocks, part) for part in split_rows(design.n_rows, design.n_features)]
    mapper = ThreadMapper(threads)
    reduction = linear.Reduction.from_parts(parts, [design.n_features], energy_weight=energy_weight, mapper=mapper)
    weights = linear.get_row_weights(np.arange(3), energy_weight, 1.0, 1.0)  # of each kind of row
    (scores,) = linear.compute_reduced_leverage(reduction, parts, weights, design.n_configurations, mapper=mapper)
    if scores is not None:  # None: the rows do not have full column rank
        return scores
    return linear.leverage_scores(
        design.read_all_rows(), design.kind, design.configuration, energy_weight=energy_weight
    )


def format_selection(selection: Selection) -> str:
    """Format the counts of the selected structures by kind, and the files, as plain text."""
    selected_rows = selection.table[selection.table["rank"].notna()]
    lines = [f"{selection.path}: {len(selected_rows)} of {len(selection.table)} candidates, in the order of selection"]
    if selection.n_already_labelled:
        lines.append(f"{selection.n_already_labelled} more are already labelled and were excluded")
    counts = selected_rows["kind"].value_counts()
    lines += [f"  {count:>6} {kind}" for kind, count in counts.items()]
    lines += [f"note: {note}" for note in selection.notes]
    return "\n".join([*lines, str(add_suffix(selection.path, SCORES_SUFFIX)), *map(str, selection.figures)])


def read_structures(path: Path) -> tuple[list[Atoms], list[str]]:
    """Read the structures of a dataset or of any file that ASE reads; also return notes for the user.

    The ids of the structures, if they have any, are in their info as ``config_id``.

    Raises
    ------
    InputError
        If the file cannot be read.
    """
    if path.suffix in DATASET_SUFFIXES:
        with Dataset(path) as dataset:
            return list(dataset), []
    frames = read_frames(path, None)
    for atoms, config_id in zip(frames.atoms, frames.ids or (), strict=frames.ids is not None):
        atoms.info["config_id"] = config_id
    return frames.atoms, frames.notes


def _build_default_basis(structures: Sequence[Atoms], twojmax: int) -> SnapBasis:
    """Return the quadratic SNAP basis for the elements of the structures."""
    return build_comparison_basis(list_elements(structures), twojmax).model_copy(update={"quadratic": True})


def _tabulate_scores(structures: Sequence[Atoms], selected_positions: Array, scores: Array) -> pd.DataFrame:
    """Tabulate the ranks and scores of all candidates; see `Selection.table`."""
    rank = np.full(len(structures), np.nan)
    rank[selected_positions] = np.arange(1, len(selected_positions) + 1)
    return pd.DataFrame(
        {
            "position": np.arange(len(structures)),
            "config_id": [atoms.info.get("config_id", k) for k, atoms in enumerate(structures)],
            "kind": [str(atoms.info.get("config_type", "-")) for atoms in structures],
            "rank": pd.array(rank, dtype="Int64"),
            "score": scores,
        }
    )


def _write_selection(
    output: Path, structures: Sequence[Atoms], selected_positions: Array, table: pd.DataFrame, method: str
) -> None:
    """Write the selected structures in the order of selection, and the table of scores next to them."""
    ranked_structures = []
    for rank, position in enumerate(selected_positions.tolist(), start=1):
        atoms = structures[position].copy()
        score = float(table["score"].iloc[position])
        atoms.info |= {"selected_by": method, "selected_rank": rank, "selected_score": score}
        ranked_structures.append(atoms)
    write_structures(output, ranked_structures)
    write_csv(table, add_suffix(output, SCORES_SUFFIX))


def _draw_map(structures: Sequence[Atoms], selected_positions: Array, output: Path) -> list[Path]:
    """Draw a map of the candidates with the selected ones marked; return the paths of the figures."""
    is_selected = np.zeros(len(structures), dtype=bool)
    is_selected[selected_positions] = True
    table = tabulate_candidates(structures, build_mean_descriptor_function(list_elements(structures))).assign(
        chosen=is_selected
    )
    return save_candidate_figures(table, add_suffix(output, FIGURES_SUFFIX))
