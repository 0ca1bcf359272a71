"""`paretofit augment`: from a study's section 'augmentation' to a file of candidates, with counts and pictures."""

from __future__ import annotations

import json
from collections import Counter
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import pandas as pd
from pydantic import Field, TypeAdapter, ValidationError

from paretofit.core import InputError, StrictSettings, atomic_path, get_shared_lammps, track, write_text
from paretofit.dataset.io import read_frames, write_structures
from paretofit.descriptors import compute_atom_descriptors_and_gradient
from paretofit.labelling import Level
from paretofit.labelling.engines import AnyEngine
from paretofit.report.figures import save_candidate_figures, tabulate_candidates
from paretofit.structures import (
    AugmentSettings,
    CandidateFilter,
    Candidates,
    GeneratedConfiguration,
    check_packing,
    generate_candidates,
    list_elements,
    make_comparison_basis,
    make_mean_descriptor,
    maximise_entropy,
)
from paretofit.study import read_sections

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Iterator, Sequence

    from ase import Atoms


class AugmentStudy(StrictSettings):
    """The part of a study that `paretofit augment` needs; a study for it alone may leave out the rest."""

    name: str = "study"
    augmentation: AugmentSettings = Field(description="what to make out of a handful of structures")


@dataclass(frozen=True)
class AugmentResult:
    """What an augmentation made, and where.

    Attributes
    ----------
    path : Path
        The candidates, extended XYZ.
    n_requested : int
        For how many candidates, besides the entropy-maximised ones.
    figures : list of Path
    candidates : Candidates
    entropy : pandas.DataFrame
        For each entropy-maximised configuration its atoms, its ``gain``, what the random configuration that it
        began from would have brought (``from_random``), and the ``entropy`` of the set with it.
    """

    path: Path
    n_requested: int
    figures: list[Path]
    candidates: Candidates
    entropy: pd.DataFrame


def augment_study(study: AugmentStudy | Path | str, *, figures: bool = True, progress: bool = False) -> AugmentResult:
    """Make the candidates that a study asks for.

    Parameters
    ----------
    study : AugmentStudy or path-like
        A YAML file with a section 'augmentation', or the study itself.
    figures : bool
        Draw the map of the candidates and the distributions of volumes and distances, beside the output.
    progress : bool
        Show a bar.

    Returns
    -------
    AugmentResult

    Raises
    ------
    InputError
        If the structures or settings cannot be used; nothing is written then.
    """
    settings = (study if isinstance(study, AugmentStudy) else load_augment_study(study)).augmentation
    _check_outputs(settings)
    if settings.entropy.count:
        check_packing(settings.entropy, settings.filters.radii)
    structures, names = _inputs(settings)
    elements = _elements(structures, settings)
    describe = make_mean_descriptor(elements)
    force = _largest_force(settings, elements, structures, names)
    found = Candidates()
    if structures and settings.n_candidates:
        growing = generate_candidates(
            structures, names, settings, compute_descriptors=describe, compute_max_force=force
        )
        for found in track(growing, settings.n_candidates, "candidates", enabled=progress):  # noqa: B007  (the last is all)
            pass
    grown = _grow(settings, found, force, progress)
    if not found.structures:
        raise InputError("no candidate passed the filters; look at 'augmentation.filters' and at the structures")
    write_structures(settings.output, found.structures)
    _write_counts(settings, found, grown)
    pictures: list[Path] = []
    if figures:
        table = tabulate_candidates(found.structures, describe)
        pictures = save_candidate_figures(table, figures_folder(settings.output))
    return AugmentResult(settings.output, settings.n_candidates, pictures, found, grown)


def _check_outputs(settings: AugmentSettings) -> None:
    inputs = {path.resolve() for path in settings.structures}
    for path in (settings.output, counts_file(settings.output), entropy_file(settings.output)):
        if path.resolve() in inputs:
            raise InputError(f"'augmentation.output', {settings.output}: {path} is one of 'structures'; rename it")


def counts_file(output: Path) -> Path:
    """Where the counts beside a file of candidates are."""
    return output.with_name(f"{output.stem}_counts.json")


def entropy_file(output: Path) -> Path:
    """Where the gains of the entropy-maximised configurations are."""
    return output.with_name(f"{output.stem}_entropy.csv")


def load_augment_study(path: Path | str) -> AugmentStudy:
    """Read what `paretofit augment` needs from a study's YAML file; paths in it are relative to the file."""
    study = read_sections(AugmentStudy, Path(path))
    folder, settings = Path(path).parent, study.augmentation
    located = {"structures": [folder / one for one in settings.structures], "output": folder / settings.output}
    return study.model_copy(update={"augmentation": settings.model_copy(update=located)})


def figures_folder(output: Path) -> Path:
    """Where the figures of a file of structures are put."""
    return output.with_name(f"{output.stem}_figures")


def format_candidates(result: AugmentResult) -> str:
    """Counts by kind, what was rejected and why, and where the files are, as plain text."""
    found = result.candidates
    kinds = Counter(str(atoms.info["config_type"]) for atoms in found.structures)
    atoms = sum(len(one) for one in found.structures)
    lines = [f"{result.path}: {len(found.structures)} candidates, {atoms} atoms"]
    if (made := len(found.structures) - kinds["entropy"]) != result.n_requested and made:
        lines.append(
            f"'n_candidates' asks for {result.n_requested} without entropy; the kinds and their counts gave {made}"
        )
    lines += [f"  {count:>6} {kind}" for kind, count in kinds.most_common()]
    lines += [f"rejected {count} {kind}: {why}" for (kind, why), count in found.rejected.most_common()]
    lines += [f"no {kind}: {why}" for kind, why in found.skipped.items()]
    lines += [f"given up {count} {kind}, mostly for: {why}" for (kind, why), count in found.given_up.items()]
    if len(result.entropy):
        gain, random = result.entropy[["gain", "from_random"]].median()
        lines.append(
            f"entropy of the maximised set: {result.entropy['entropy'].iloc[-1]:.3f} above random; median gain of a "
            f"configuration {gain:.3f}, of the random one that it began from {random:.3f}"
        )
    return "\n".join([*lines, *map(str, result.figures)])


def _inputs(settings: AugmentSettings) -> tuple[list[Atoms], list[str]]:
    structures: list[Atoms] = []
    names: list[str] = []
    shared = Counter(path.name for path in settings.structures)
    for path in settings.structures:
        try:
            frames = read_frames(path, None)
        except InputError as error:
            raise InputError(f"'augmentation.structures': {error}") from error
        for k, atoms in enumerate(frames.atoms):
            structures.append(atoms)
            name = path.name if shared[path.name] == 1 else str(path)
            names.append(name if len(frames.atoms) == 1 else f"{name}:{k}")
    if not (structures and settings.n_candidates) and not settings.entropy.count:
        raise InputError(
            "there is nothing to make: name files under 'augmentation.structures' and a number of candidates, 'n_candidates', or "
            "elements under 'augmentation.entropy' with a 'count'"
        )
    return structures, names


def _elements(structures: Sequence[Atoms], settings: AugmentSettings) -> list[str]:
    there = set(list_elements(structures))
    return sorted(
        there | set(settings.entropy.composition if settings.entropy.count else ()) | set(settings.alloys.elements)
    )


def _largest_force(
    settings: AugmentSettings, elements: Sequence[str], structures: Sequence[Atoms], names: Sequence[str]
) -> Callable[[Atoms], float] | None:
    """Largest force under the reference, eV/Å, which must at least be able to compute the structures given."""
    filters = settings.filters
    if filters.max_force is None:
        return None
    if filters.force_engine is None:
        raise InputError("'augmentation.filters.max_force' needs a 'force_engine': an engine, as under 'labelling'")
    try:
        engine: Any = TypeAdapter(AnyEngine).validate_python(filters.force_engine)
    except ValidationError as error:
        raise InputError(f"'augmentation.filters.force_engine' is no engine: {error.errors()[0]['msg']}") from error
    engine.check(elements)
    level = Level(name="reference")

    def largest(atoms: Atoms) -> float:
        return float(np.linalg.norm(engine.compute(atoms, level, 0, Path()).forces, axis=1).max())

    for atoms, name in zip(structures, names, strict=True):
        try:
            largest(atoms)
        except InputError:
            raise
        except Exception as error:
            raise InputError(
                f"the engine of 'augmentation.filters.force_engine' cannot compute {name}: {type(error).__name__}: "
                f"{error}; choose one that knows {', '.join(elements)}, or leave out 'max_force'"
            ) from error
    return largest


def _grow(
    settings: AugmentSettings, found: Candidates, force: Callable[[Atoms], float] | None, progress: bool
) -> pd.DataFrame:
    """Add entropy-maximised configurations to the candidates; return their gains."""
    chosen, rows = settings.entropy, []
    columns = ["config_id", "n_atoms", "gain", "from_random", "entropy", "tries"]
    if not chosen.count:
        return pd.DataFrame(columns=columns)
    lammps, basis = get_shared_lammps(), make_comparison_basis(list(chosen.composition), chosen.twojmax, chosen.cutoff)
    rng = np.random.default_rng(np.random.SeedSequence(settings.seed, spawn_key=(1,)))
    gate = CandidateFilter(settings.filters, chosen.n_atoms_range[1], None, force, found.rejected)
    grown: Iterable[GeneratedConfiguration] = maximise_entropy(
        chosen, lambda atoms: compute_atom_descriptors_and_gradient(lammps, basis, atoms), rng, settings.filters.radii
    )
    for one in track(_gaining(grown, found), chosen.count, "entropy", enabled=progress):
        if gate.accept(one.atoms, "entropy"):
            identity = len(found.structures)
            one.atoms.info = {
                "config_id": identity,
                "config_type": "entropy",
                "family": identity,
                "made_by": f"entropy of the set raised by {one.entropy_gain:.4f}",
            }
            found.structures.append(one.atoms)
            rows.append([identity, len(one.atoms), one.entropy_gain, one.random_gain, one.entropy, one.n_starts])
    return pd.DataFrame(rows, columns=columns)


def _gaining(grown: Iterable[GeneratedConfiguration], found: Candidates) -> Iterator[GeneratedConfiguration]:
    for one in grown:
        if one.entropy_gain > 0:
            yield one
        else:
            found.rejected["entropy", "would lower the entropy of the set"] += 1


def _write_counts(settings: AugmentSettings, found: Candidates, grown: pd.DataFrame) -> None:
    """What was made and what was refused, and the settings, beside the output."""
    counts = Counter(str(atoms.info["config_type"]) for atoms in found.structures)
    record = {
        "candidates": dict(counts),
        "rejected": {f"{kind}: {why}": count for (kind, why), count in found.rejected.items()},
        "skipped": found.skipped,
        "given_up": {f"{kind}: {why}": count for (kind, why), count in found.given_up.items()},
        "settings": settings.model_dump(mode="json"),
    }
    write_text(counts_file(settings.output), json.dumps(record, indent=1) + "\n")
    if len(grown):
        with atomic_path(entropy_file(settings.output)) as temporary:
            grown.to_csv(temporary, index=False, float_format="%.10g", lineterminator="\n")
