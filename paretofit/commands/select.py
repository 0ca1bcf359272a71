"""`paretofit select`: which candidates to pay for, by their descriptors alone."""

from __future__ import annotations

import tempfile
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
import pandas as pd

from paretofit.commands.augment import figures_folder
from paretofit.core import InputError, atomic_path, suggest_match
from paretofit.dataset import Dataset, write_dataset
from paretofit.dataset.io import read_frames, write_structures
from paretofit.dataset.quality import fingerprint_geometry
from paretofit.descriptors import DesignMatrix, SnapBasis, compute_design, compute_energy_rows
from paretofit.linear import (
    LeverageScores,
    Reduction,
    compute_reduced_leverage,
    leverage_scores,
    row_weights,
    sample_configurations,
    select_d_optimal,
    select_farthest_points,
)
from paretofit.linear.reduction import RowBlock, ThreadMapper, split_rows
from paretofit.report.figures import save_candidate_figures, tabulate_candidates
from paretofit.structures import is_too_close, list_elements, make_comparison_basis, make_mean_descriptor
from paretofit.sweep import rows_per_block

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Sequence

    from ase import Atoms

    from paretofit.core import Array

LEVERAGE_METHODS = ("leverage", "block-leverage")
SELECTION_METHODS = (*LEVERAGE_METHODS, "d-optimal", "farthest-point", "random")
DATASETS = {".h5", ".hdf5"}
OVERLAP = 0.3  # of the sum of covalent radii; nearer than any two nuclei are meant to be
MOST_FEATURES = 20_000  # their moments take 3.2 GB


@dataclass(frozen=True)
class Selection:
    """What was chosen.

    Attributes
    ----------
    path : Path
    table : pandas.DataFrame
        A row for each candidate: ``position``, ``config_id``, ``kind``, ``rank`` (1 is the first choice; empty where
        it is not chosen) and ``score``.
    figures : list of Path
    n_already_labelled : int
        Candidates that were left out because they are labelled already.
    """

    path: Path
    table: pd.DataFrame
    figures: list[Path]
    n_already_labelled: int = 0


def select_structures(
    candidates: Path | str,
    n: int,
    *,
    method: str = "d-optimal",
    already_labelled: Path | str | None = None,
    out: Path | str = Path("selected.extxyz"),
    basis: SnapBasis | None = None,
    twojmax: int = 4,
    energy_weight: float = 150.0,
    draw: bool | None = None,
    seed: int = 1,
    jobs: int = 1,
    figures: bool = True,
    progress: bool = False,
) -> Selection:
    """Choose structures to label and write them in the order of choice.

    Parameters
    ----------
    candidates : path-like
        A dataset, or any file of structures that ASE reads.
    n : int
        How many.
    method : {"leverage", "block-leverage", "d-optimal", "farthest-point", "random"}
        By the leverage of the energy row, or summed over all rows of a configuration; by the determinant of the
        energy rows' moments; by distance in descriptor space; or at random.
    already_labelled : path-like, optional
        What is labelled already: it counts, but is not chosen.
    out : path-like
        Extended XYZ; a table of scores is written beside it.
    basis : SnapBasis, optional
        By default a quadratic SNAP basis at `twojmax` with a cutoff of 4.8 Å.
    twojmax : int
        Of the default basis.
    energy_weight : float
        w_E of leverage scores, where w_F is 1.
    draw : bool, optional
        Leverage: draw with probabilities proportional to the scores, as the paper does and by default; else take the
        highest, which fits no better than a random choice where there are few (tests/benchmarks/RESULTS.md).
    seed : int
        Of everything random.
    jobs : int
        Processes.
    figures : bool
        Draw the map, the chosen ones marked.
    progress : bool
        Show bars.

    Raises
    ------
    InputError
        If a file cannot be used, `n` is larger than the number of candidates, or the method is not known.
    """
    _check_method(method, draw, energy_weight)
    if Path(out).suffix not in {".extxyz", ".xyz"}:
        raise InputError(f"the output is extended XYZ, a name that ends in .extxyz; got {out}")
    if Path(out).resolve() in {Path(one).resolve() for one in (candidates, already_labelled) if one is not None}:
        raise InputError(f"the output, {out}, is one of the files to read; give it a new name")
    everything, there = (
        _structures(Path(candidates)),
        _structures(Path(already_labelled)) if already_labelled is not None else [],
    )
    labelled = {fingerprint_geometry(atoms) for atoms in there}
    structures = [atoms for atoms in everything if fingerprint_geometry(atoms) not in labelled]
    known = len(everything) - len(structures)
    if not 1 <= n <= len(structures):
        less = f" ({known} more are labelled already)" if known else ""
        raise InputError(f"n must be at least 1 and at most the number of candidates, {len(structures)}{less}; got {n}")
    _check_apart(structures, candidates)
    described = basis or _default_basis([*structures, *there], twojmax)
    if described.n_features > MOST_FEATURES:
        raise InputError(
            f"2Jmax {described.twojmax} with {len(described.elements)} elements has {described.n_features} features, "
            f"more than {MOST_FEATURES}; lower --twojmax"
        )
    pool = _Pool(structures, there, described, jobs, progress)
    rng = np.random.default_rng(seed)
    if method == "random":
        chosen = sample_configurations(np.ones(len(structures)), n, rng=rng)
        scores = np.ones(len(structures))
    elif method in LEVERAGE_METHODS:
        scores = pool.leverage(energy_weight, method)
        chosen = sample_configurations(scores, n, rng=None if draw is False else rng)
    else:
        chosen, scores = pool.greedily(select_d_optimal if method == "d-optimal" else select_farthest_points, n)
    table = _table(structures, chosen, scores)
    _write(Path(out), structures, chosen, table, method)
    pictures = _figures(structures, chosen, Path(out)) if figures else []
    return Selection(Path(out), table, pictures, known)


def _check_method(method: str, draw: bool | None, energy_weight: float) -> None:
    if method not in SELECTION_METHODS:
        raise InputError(
            f"the method '{method}' is not one of {', '.join(SELECTION_METHODS)}{suggest_match(method, SELECTION_METHODS)}"
        )
    if draw is not None and method not in LEVERAGE_METHODS:
        raise InputError(f"drawing or taking the highest is for leverage scores; the method is '{method}'")
    if not (np.isfinite(energy_weight) and energy_weight > 0):
        raise InputError(f"the energy weight must be positive; got {energy_weight}")


def _check_apart(structures: Sequence[Atoms], source: Path | str) -> None:
    for position, atoms in enumerate(structures):
        name = f"configuration {atoms.info.get('config_id', position)} of {source}"
        if not (np.isfinite(atoms.positions).all() and atoms.numbers.all()):
            raise InputError(f"{name} has positions that are not finite, or an atom X; correct it, or leave it out")
        if is_too_close(atoms, OVERLAP):
            raise InputError(
                f"{name} has two atoms within {OVERLAP} of the sum of their covalent radii; correct it, or leave it out"
            )


@dataclass(frozen=True)
class _Pool:
    """Candidates, what is labelled already, and how both are described."""

    structures: list[Atoms]
    there: list[Atoms]
    basis: SnapBasis
    jobs: int
    progress: bool

    def greedily(self, choose: Callable[[Array, int, Array], tuple[Array, Array]], n: int) -> tuple[Array, Array]:
        """By energy rows, one after the other; scores are what each choice brought, NaN for the others."""
        both = [*self.structures, *self.there]
        rows = compute_energy_rows(both, self.basis, jobs=self.jobs, progress=self.progress)
        chosen, gains = choose(rows[: len(self.structures)], n, rows[len(self.structures) :])
        scores = np.full(len(self.structures), np.nan)
        scores[chosen] = gains
        return chosen, scores

    def leverage(self, energy_weight: float, method: str) -> Array:
        """Leverage of the candidates in the rows of candidates and labelled configurations together."""
        with tempfile.TemporaryDirectory(prefix="paretofit-select-") as folder:
            path = Path(folder) / "structures.h5"
            write_dataset(path, [*self.structures, *self.there], {})
            with Dataset(path) as data:
                design = compute_design(
                    data, self.basis, Path(folder) / "design.h5", jobs=self.jobs, progress=self.progress
                )
            scores = _design_leverage(design, energy_weight, self.jobs)
        values = scores.regular if method == "leverage" else scores.block
        return np.asarray(values[: len(self.structures)])


def _design_leverage(design: DesignMatrix, energy_weight: float, threads: int) -> LeverageScores:
    """Leverage of all configurations, streamed; from the rows in memory where these have not full rank."""

    def blocks(part: slice) -> Iterator[RowBlock]:
        for window, X in design.blocks(rows_per_block(design.n_features), part):
            yield RowBlock(
                X,
                np.zeros((len(X), 1)),
                design.kind[window],
                design.configuration[window],
                np.ones(len(X), dtype=bool),
            )

    parts = [partial(blocks, part) for part in split_rows(design.n_rows, design.n_features)]
    run = ThreadMapper(threads)
    reduction = Reduction.from_parts(parts, [design.n_features], energy_weight=energy_weight, mapper=run)
    weights = row_weights(np.arange(3), energy_weight, 1.0, 1.0)
    (found,) = compute_reduced_leverage(reduction, parts, weights, design.n_configurations, mapper=run)
    if found is not None:
        return found
    return leverage_scores(design.rows(), design.kind, design.configuration, energy_weight=energy_weight)


def format_selection(selection: Selection) -> str:
    """What was chosen, by kind, and where it is, as plain text."""
    chosen = selection.table[selection.table["rank"].notna()]
    lines = [f"{selection.path}: {len(chosen)} of {len(selection.table)} candidates, in the order of choice"]
    lines += (
        [f"{selection.n_already_labelled} more are labelled already, and left out"]
        if selection.n_already_labelled
        else []
    )
    counts = chosen["kind"].value_counts()
    lines += [f"  {count:>6} {kind}" for kind, count in counts.items()]
    return "\n".join([*lines, str(_scores_file(selection.path)), *map(str, selection.figures)])


def _structures(path: Path) -> list[Atoms]:
    if path.suffix in DATASETS:
        with Dataset(path) as data:
            return list(data)
    frames = read_frames(path, None)
    for atoms, identity in zip(frames.atoms, frames.ids or (), strict=frames.ids is not None):
        atoms.info["config_id"] = identity
    return frames.atoms


def _default_basis(structures: Sequence[Atoms], twojmax: int) -> SnapBasis:
    return make_comparison_basis(list_elements(structures), twojmax).model_copy(update={"quadratic": True})


def _table(structures: Sequence[Atoms], chosen: Array, scores: Array) -> pd.DataFrame:
    rank = np.full(len(structures), np.nan)
    rank[chosen] = np.arange(1, len(chosen) + 1)
    return pd.DataFrame(
        {
            "position": np.arange(len(structures)),
            "config_id": [atoms.info.get("config_id", k) for k, atoms in enumerate(structures)],
            "kind": [str(atoms.info.get("config_type", "-")) for atoms in structures],
            "rank": pd.array(rank, dtype="Int64"),
            "score": scores,
        }
    )


def _scores_file(output: Path) -> Path:
    return output.with_name(f"{output.stem}_scores.csv")


def _write(output: Path, structures: Sequence[Atoms], chosen: Array, table: pd.DataFrame, method: str) -> None:
    ranked = []
    for rank, position in enumerate(chosen.tolist(), start=1):
        atoms = structures[position].copy()
        score = float(table["score"].iloc[position])
        atoms.info |= {"selected_by": method, "selected_rank": rank, "selected_score": score}
        ranked.append(atoms)
    write_structures(output, ranked)
    with atomic_path(_scores_file(output)) as temporary:
        table.to_csv(temporary, index=False, float_format="%.10g", lineterminator="\n")


def _figures(structures: Sequence[Atoms], chosen: Array, output: Path) -> list[Path]:
    marked = np.zeros(len(structures), dtype=bool)
    marked[chosen] = True
    table = tabulate_candidates(structures, make_mean_descriptor(list_elements(structures))).assign(chosen=marked)
    return save_candidate_figures(table, figures_folder(output))
