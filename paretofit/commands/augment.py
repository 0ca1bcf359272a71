"""`paretofit augment`: generate candidates for labelling from the section 'augmentation' of a study."""

import json
from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
from ase import Atoms
from pydantic import TypeAdapter, ValidationError

from paretofit.commands.study_sections import AugmentStudy, load_augment_study
from paretofit.core import InputError, check_new_paths, get_shared_lammps, write_csv, write_text
from paretofit.dataset.io import read_frames, write_structures
from paretofit.descriptors import compute_atom_descriptors_and_gradient
from paretofit.execution import RunContext
from paretofit.labelling import Level
from paretofit.labelling.engines import AnyEngine
from paretofit.report.figures import save_candidate_figures, tabulate_candidates
from paretofit.structures import (
    AugmentSettings,
    CandidateFilter,
    Candidates,
    GeneratedConfiguration,
    build_comparison_basis,
    build_mean_descriptor_function,
    check_packing,
    generate_candidates,
    list_elements,
    maximise_entropy,
)

OUTPUT_SUFFIXES = ("_counts.json", "_entropy.csv")
FIGURES_SUFFIX = "_figures"
# columns of the table of gains, see `AugmentResult.entropy`
GAIN_COLUMNS = ["config_id", "n_atoms", "gain", "from_random", "entropy", "tries"]


@dataclass(frozen=True)
class AugmentResult:
    """Candidates of an augmentation, and their files.

    Attributes
    ----------
    path : Path
        Extended XYZ file of the candidates.
    n_requested : int
        Number of candidates that the study requests, not counting the entropy-maximised ones.
    figures : list of Path
        Files of the map and the histograms.
    candidates : Candidates
        Candidates, with the counts of rejected ones.
    entropy : pandas.DataFrame
        A row for each entropy-maximised configuration: ``config_id``, ``n_atoms``, its ``gain`` in entropy, the gain of
        its random start configuration (``from_random``), the ``entropy`` of the set that includes it, and the number of
        start configurations (``tries``).
    notes : list of str
        Notes on changes to the input, such as dropped constraints.
    """

    path: Path
    n_requested: int
    figures: list[Path]
    candidates: Candidates
    entropy: pd.DataFrame
    notes: list[str] = field(default_factory=list)


def augment_study(
    study: AugmentStudy | Path | str,
    *,
    out: Path | str | None = None,
    figures: bool = True,
    overwrite: bool = False,
    progress: bool = False,
) -> AugmentResult:
    """Generate the candidates of a study, and write them with their counts and figures.

    Parameters
    ----------
    study : AugmentStudy or path-like
        Study with a section 'augmentation', or its YAML file.
    out : path-like, optional
        Extended XYZ file to write; by default ``augmentation.output``.
    figures : bool
        Draw a map of the candidates and histograms of volume and distance, next to the output.
    overwrite : bool
        Replace existing files.
    progress : bool
        Show progress bars.

    Returns
    -------
    AugmentResult

    Raises
    ------
    InputError
        If the structures or settings cannot be used, an output exists, or no candidate is left; raised before any file
        is written.
    """
    settings = (study if isinstance(study, AugmentStudy) else load_augment_study(study)).augmentation
    if out is not None:
        settings = settings.model_copy(update={"output": Path(out)})
    _check_outputs(settings, overwrite)
    if settings.entropy.count:
        check_packing(settings.entropy, settings.filters.radii)
    structures, names, notes = _read_inputs(settings)
    elements = _collect_elements(structures, settings)
    compute_descriptors = build_mean_descriptor_function(elements)
    compute_max_force = _create_force_function(settings, elements, structures, names)
    candidates, context = Candidates(), RunContext(progress=progress)
    if structures and settings.n_candidates:
        states = generate_candidates(
            structures, names, settings, compute_descriptors=compute_descriptors, compute_max_force=compute_max_force
        )
        for candidates in context.track(states, settings.n_candidates, "candidates"):  # noqa: B007  (the last has all)
            pass
    gain_table = _add_entropy_candidates(settings, candidates, compute_max_force, context)
    if not candidates.structures:
        raise InputError("no candidate passed the filters; check 'augmentation.filters' and the structures")
    write_structures(settings.output, candidates.structures)
    _write_counts(settings, candidates, gain_table)
    figure_paths: list[Path] = []
    if figures:
        candidate_table = tabulate_candidates(candidates.structures, compute_descriptors)
        figure_paths = save_candidate_figures(candidate_table, add_suffix(settings.output, FIGURES_SUFFIX))
    return AugmentResult(settings.output, settings.n_candidates, figure_paths, candidates, gain_table, notes)


def _check_outputs(settings: AugmentSettings, overwrite: bool) -> None:
    """Check that the output files do not exist, unless they may be overwritten, and are not among the inputs."""
    inputs = {path.resolve() for path in settings.structures}
    outputs = [settings.output, *(add_suffix(settings.output, suffix) for suffix in OUTPUT_SUFFIXES)]
    for path in outputs:
        if path.resolve() in inputs:
            raise InputError(
                f"'augmentation.output' would overwrite {path}, which is one of 'structures'; choose another name"
            )
    check_new_paths(outputs, [add_suffix(settings.output, FIGURES_SUFFIX)], overwrite=overwrite)


def add_suffix(path: Path, suffix: str) -> Path:
    """Return the path next to `path` with `suffix` after its stem, such as ``candidates_counts.json``."""
    return path.with_name(f"{path.stem}{suffix}")


def format_candidates(result: AugmentResult) -> str:
    """Format the counts by kind, the rejections with their reasons, and the files as plain text."""
    candidates = result.candidates
    kind_counts = _count_kinds(candidates)
    n_atoms = sum(map(len, candidates.structures))
    lines = [f"{result.path}: {len(candidates.structures)} candidates, {n_atoms} atoms"]
    if (n_generated := len(candidates.structures) - kind_counts["entropy"]) != result.n_requested and n_generated:
        lines.append(
            f"generated {n_generated} candidates (not counting entropy) instead of 'n_candidates', {result.n_requested}"
        )
    lines += [f"  {count:>6} {kind}" for kind, count in kind_counts.most_common()]
    lines += [f"rejected {count} {kind}: {reason}" for (kind, reason), count in candidates.rejected.most_common()]
    lines += [f"no {kind}: {reason}" for kind, reason in candidates.skipped.items()]
    lines += [
        f"could not generate {n} candidates of kind '{kind}'; most frequent reason: {reason}"
        for (kind, reason), n in candidates.given_up.items()
    ]
    if len(result.entropy):
        gain, random_gain = result.entropy[["gain", "from_random"]].median()
        lines.append(
            f"entropy of the maximised set: {result.entropy['entropy'].iloc[-1]:.3f} above random; median gain per "
            f"configuration {gain:.3f}, compared with {random_gain:.3f} for the random start configurations"
        )
    lines += [f"note: {note}" for note in result.notes]
    return "\n".join([*lines, *map(str, result.figures)])


def _count_kinds(candidates: Candidates) -> Counter[str]:
    """Count the candidates of each kind."""
    return Counter(str(atoms.info["config_type"]) for atoms in candidates.structures)


def _read_inputs(settings: AugmentSettings) -> tuple[list[Atoms], list[str], list[str]]:
    """Read the start structures; return them, a name for each, and notes for the user.

    A structure is named after its file, with its number if the file has several, and with the folder if the name of the
    file is not unique.
    """
    structures: list[Atoms] = []
    names: list[str] = []
    notes: list[str] = []
    name_counts = Counter(path.name for path in settings.structures)
    for path in settings.structures:
        try:
            frames = read_frames(path, None)
        except InputError as error:
            raise InputError(f"'augmentation.structures': {error}") from error
        notes += frames.notes
        for k, atoms in enumerate(frames.atoms):
            structures.append(atoms)
            name = path.name if name_counts[path.name] == 1 else str(path)
            names.append(name if len(frames.atoms) == 1 else f"{name}:{k}")
    if not (structures and settings.n_candidates) and not settings.entropy.count:
        raise InputError(
            "there are no candidates to generate; set 'augmentation.structures' and 'augmentation.n_candidates', or "
            "'augmentation.entropy' with 'composition' and 'count'"
        )
    return structures, names, notes


def _collect_elements(structures: Sequence[Atoms], settings: AugmentSettings) -> list[str]:
    """Collect the elements of all possible candidates, sorted."""
    entropy_elements = settings.entropy.composition if settings.entropy.count else ()
    return sorted({*list_elements(structures), *entropy_elements, *settings.alloys.elements})


def _create_force_function(
    settings: AugmentSettings, elements: Sequence[str], structures: Sequence[Atoms], names: Sequence[str]
) -> Callable[[Atoms], float] | None:
    """Create a function that computes the largest force on an atom (eV/Å), and test it on the start structures.

    Return None if the settings do not limit the force. A failure for a start structure raises an `InputError`.
    """
    filters = settings.filters
    if filters.max_force is None:
        return None
    if filters.force_engine is None:
        raise InputError("'augmentation.filters.max_force' requires a 'force_engine' (an engine, as in 'labelling')")
    try:
        engine: Any = TypeAdapter(AnyEngine).validate_python(filters.force_engine)
    except ValidationError as error:
        raise InputError(f"'augmentation.filters.force_engine' is not an engine: {error.errors()[0]['msg']}") from error
    engine.check(elements)
    level = Level(name="reference")

    def compute_max_force(atoms: Atoms) -> float:
        """Compute the largest force on an atom (eV/Å) with the engine."""
        return float(np.linalg.norm(engine.compute(atoms, level, 0, Path()).forces, axis=1).max())

    for atoms, name in zip(structures, names, strict=True):
        try:
            compute_max_force(atoms)
        except InputError:
            raise
        except Exception as error:  # an engine may raise anything
            raise InputError(
                f"the engine of 'augmentation.filters.force_engine' cannot compute {name}: {type(error).__name__}: "
                f"{error}; choose one that supports {', '.join(elements)}, or remove 'max_force'"
            ) from error
    return compute_max_force


def _add_entropy_candidates(
    settings: AugmentSettings,
    candidates: Candidates,
    compute_max_force: Callable[[Atoms], float] | None,
    context: RunContext,
) -> pd.DataFrame:
    """Append entropy-maximised configurations to the candidates; return the table of their gains."""
    entropy, rows = settings.entropy, []
    if not entropy.count:
        return pd.DataFrame(columns=GAIN_COLUMNS)
    lammps = get_shared_lammps()
    basis = build_comparison_basis(list(entropy.composition), entropy.twojmax, entropy.cutoff)
    # a stream that is independent of the one for the other candidates
    rng = np.random.default_rng(np.random.SeedSequence(settings.seed, spawn_key=(1,)))
    candidate_filter = CandidateFilter(
        settings.filters, entropy.n_atoms_range[1], None, compute_max_force, candidates.rejected
    )
    configurations: Iterable[GeneratedConfiguration] = maximise_entropy(
        entropy, lambda atoms: compute_atom_descriptors_and_gradient(lammps, basis, atoms), rng, settings.filters.radii
    )
    for generated in context.track(_drop_entropy_losses(configurations, candidates), entropy.count, "entropy"):
        atoms, gain = generated.atoms, generated.entropy_gain
        if candidate_filter.accept(atoms, "entropy"):
            config_id = len(candidates.structures)
            atoms.info = {
                "config_id": config_id,
                "config_type": "entropy",
                "family": config_id,
                "made_by": f"entropy of the set raised by {gain:.4f}",
            }
            candidates.structures.append(atoms)
            rows.append([config_id, len(atoms), gain, generated.random_gain, generated.entropy, generated.n_starts])
    return pd.DataFrame(rows, columns=GAIN_COLUMNS)


def _drop_entropy_losses(
    generated_configurations: Iterable[GeneratedConfiguration], candidates: Candidates
) -> Iterator[GeneratedConfiguration]:
    """Yield the configurations that raise the entropy of the set, and count the others as rejected."""
    for generated in generated_configurations:
        if generated.entropy_gain > 0:
            yield generated
        else:
            candidates.rejected["entropy", "would lower the entropy of the set"] += 1


def _write_counts(settings: AugmentSettings, candidates: Candidates, gain_table: pd.DataFrame) -> None:
    """Write the counts, rejections and settings, and the table of gains if it has rows, to files next to the output."""
    record = {
        "candidates": dict(_count_kinds(candidates)),
        "rejected": {f"{kind}: {reason}": count for (kind, reason), count in candidates.rejected.items()},
        "skipped": candidates.skipped,
        "given_up": {f"{kind}: {reason}": count for (kind, reason), count in candidates.given_up.items()},
        "settings": settings.model_dump(mode="json"),
    }
    counts_suffix, entropy_suffix = OUTPUT_SUFFIXES
    write_text(add_suffix(settings.output, counts_suffix), json.dumps(record, indent=1) + "\n")
    if len(gain_table):
        write_csv(gain_table, add_suffix(settings.output, entropy_suffix))
