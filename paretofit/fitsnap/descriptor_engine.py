"""FitSNAP as a descriptor engine: whatever linear descriptors it computes, as rows of a design matrix.

FitSNAP runs in a process of its own (`fitsnap_worker`) and is given one configuration at a time, in LAMMPS's frame; the
rows that come back are turned into the frame of the configuration, into our units and into our order of columns. Only
rows are taken from it: labels are the dataset's, and weights, shifts and solvers of a FitSNAP input have no part here.
"""

from __future__ import annotations

import importlib.util
import json
import os
import subprocess
import sys
import tempfile
from collections.abc import Mapping
from configparser import InterpolationError
from dataclasses import dataclass, replace
from itertools import combinations_with_replacement
from pathlib import Path
from typing import TYPE_CHECKING, Any, Self

import numpy as np
from pydantic import ValidationError

from paretofit.core import InputError, RowKind, one_line, suggest_match, track
from paretofit.descriptors import (
    GPA_PER_BAR,
    DesignBlock,
    DesignMatrix,
    SnapBasis,
    rotate_voigt,
    transform_to_lammps_frame,
)
from paretofit.fitsnap.descriptor_worker import DESCRIPTOR_SECTIONS
from paretofit.fitsnap.ini import FALSE_VALUES, SUPPORTED_KEYS, UNSUPPORTED_SECTIONS, parse_ini

if TYPE_CHECKING:
    from collections.abc import Sequence
    from types import TracebackType

    from ase import Atoms

    from paretofit.core import Array
    from paretofit.dataset import Dataset

REFERENCE = "reference"  # the level under which the reference potential's values stand
OFF = {  # options that make other rows than those of a linear model of configurations
    "CALCULATOR": ("nonlinear", "per_atom_energy", "per_atom_scalar"),
    "BISPECTRUM": ("bikflag", "dgradflag"),
    "ACE": ("bikflag", "dgradflag"),
}
ALWAYS = {"units": "metal", "atom_style": "atomic"}  # of [REFERENCE]
THREADS = ("OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS", "MKL_NUM_THREADS")


def compute_fitsnap_design(
    dataset: Dataset,
    settings: Mapping[str, Mapping[str, Any]] | Path | str,
    path: Path | str,
    *,
    stress: bool = False,
    progress: bool = False,
) -> DesignMatrix:
    """Let FitSNAP describe every configuration and write the rows to a design file.

    Parameters
    ----------
    dataset : Dataset
        Its labels are attached with `DesignMatrix.with_labels`; descriptors need only the structures.
    settings : mapping of section to mapping of key to value, or path-like
        As in a FitSNAP input, or such a file. Read are CALCULATOR's ``calculator``, the section of its descriptors
        and REFERENCE; whether there are energy, force and stress rows is said here, not there. Calculators are
        LAMMPSSNAP (section BISPECTRUM), LAMMPSCUSTOM (section CUSTOM; the pair descriptors of FitSNAP's networks, as
        a linear model), and LAMMPSPACE (section ACE) where LAMMPS has the package ML-PACE.
    path : path-like
        The HDF5 file to write, whole or not at all.
    stress : bool
        Also six stress rows for each configuration, all of which must be periodic in three directions.
    progress : bool
        Show a bar.

    Returns
    -------
    DesignMatrix
        ``1 + 3N`` rows for each configuration in the dataset's order, or ``7 + 3N``: energy per atom (eV), forces
        (eV/Å) in the frame of the configuration, stress (GPa, positive in tension, ASE's Voigt order). Columns of
        LAMMPSSNAP are in nested order and have the names of `compute_design`, others are in FitSNAP's order. A
        constant for each element comes first where FitSNAP has it (``bzeroflag = 0``), and only there. With a
        pair_style other than zero in REFERENCE the level "reference" holds that potential's values for the rows; see
        `with_labels_above_reference`.

    Raises
    ------
    InputError
        If FitSNAP is not installed, a setting cannot be used, FitSNAP refuses a configuration (the message names
        it), or the file cannot be written.
    """
    if importlib.util.find_spec("fitsnap3lib") is None:
        raise InputError("FitSNAP is not installed; install it with: pip install 'paretofit[fitsnap]'")
    if len(dataset) == 0:
        raise InputError(f"{dataset.path} holds no configurations to describe")
    sections, source, folder = _sections(settings)
    request = _request(sections, source, folder, stress=stress)
    with _Worker(request, source) as worker:
        _check_structures(dataset, worker.metadata["elements"], stress=stress)
        columns = _columns(worker.metadata, source)
        structures = track(dataset, len(dataset), "descriptors", enabled=progress)
        return DesignMatrix.from_blocks(
            (_block(worker, columns, atoms, has_reference=request["has_reference"]) for atoms in structures),
            path,
            column_levels=columns.levels,
            column_names=columns.names,
            attributes={
                "fitsnap": json.dumps(request["sections"], sort_keys=True),
                "structures": dataset.hash_structures(),
                "constant_columns": str(worker.metadata["constants"]),
            },
        )


def with_labels_above_reference(design: DesignMatrix, dataset: Dataset, levels: Sequence[str]) -> DesignMatrix:
    """The design with a dataset's labels, less what the reference potential gives: what FitSNAP fits.

    Raises
    ------
    InputError
        As `DesignMatrix.with_labels`, and if the design was made without a reference potential.
    """
    if REFERENCE not in design.targets:
        raise InputError("the design has no reference potential; use with_labels")
    labelled = design.with_labels(dataset, levels)
    reference = design.targets[REFERENCE]
    return replace(labelled, targets={level: column - reference for level, column in labelled.targets.items()})


def _sections(settings: Mapping[str, Mapping[str, Any]] | Path | str) -> tuple[dict[str, dict[str, str]], str, Path]:
    """Sections as text, what to call them in messages, and where their files are."""
    if isinstance(settings, Path | str):
        file = Path(settings)
        parser = parse_ini(file)
        try:
            return {name: dict(parser[name]) for name in parser.sections()}, str(file), file.parent.absolute()
        except InterpolationError as error:
            raise InputError(f"{file}: {one_line(error)}; write %% for a percent sign") from error
    if not isinstance(settings, Mapping):
        raise InputError(f"settings must be a mapping of FitSNAP's sections or a path; got {type(settings).__name__}")
    sections = {}
    for name, section in settings.items():
        if not isinstance(section, Mapping):
            raise InputError(f"FitSNAP settings: [{name}] must be a mapping of keys to values; got {section!r}")
        sections[str(name)] = {str(key): _text(value) for key, value in section.items()}
    return sections, "FitSNAP settings", Path.cwd()


def _text(value: Any) -> str:
    """A value as FitSNAP reads it; a list is its items with blanks between them."""
    if isinstance(value, list | tuple | np.ndarray):
        return " ".join(_text(one) for one in value)
    return str(int(value)) if isinstance(value, bool | np.bool_) else str(value)


def _request(sections: dict[str, dict[str, str]], source: str, folder: Path, *, stress: bool) -> dict[str, Any]:
    """The worker's first line: the sections that FitSNAP gets, after a look at each of them."""
    known = {*SUPPORTED_KEYS, *UNSUPPORTED_SECTIONS}
    for name in sections:
        if name not in known:
            raise InputError(f"{source}: unknown section [{name}]{suggest_match(name, known)}")
    calculator = sections.get("CALCULATOR", {}).get("calculator", "LAMMPSSNAP").upper()
    if calculator not in DESCRIPTOR_SECTIONS:
        raise InputError(
            f"{source}: [CALCULATOR] calculator = {calculator} is not supported{suggest_match(calculator, DESCRIPTOR_SECTIONS)}; it "
            f"must be one of {', '.join(DESCRIPTOR_SECTIONS)}"
        )
    own = DESCRIPTOR_SECTIONS[calculator]
    if own not in sections:
        raise InputError(f"{source} has no section [{own}], which says what {calculator} computes")
    for name, keys in OFF.items():
        for key in keys:
            if sections.get(name, {}).get(key, "0").lower() not in FALSE_VALUES:
                raise InputError(f"{source}: [{name}] {key} must be 0: rows are those of a linear model")
    reference = _reference(sections, source)
    style = reference["pair_style"].split()[:1]
    if calculator == "LAMMPSCUSTOM" and style != ["zero"]:
        raise InputError(f"{source}: FitSNAP has no reference potential with LAMMPSCUSTOM; leave out [REFERENCE]")
    given = {
        own: sections[own],
        "CALCULATOR": {"calculator": calculator, "energy": "1", "force": "1", "stress": str(int(stress))},
        "REFERENCE": reference,
        "SOLVER": {"solver": "SVD"},
        "MEMORY": {"override": "1"},
    }
    # FitSNAP substitutes %(name)s; that is done already.
    escaped = {name: {key: value.replace("%", "%%") for key, value in one.items()} for name, one in given.items()}
    return {
        "sections": escaped,
        "own_pair_style": "pair_style" not in sections.get("REFERENCE", {}),
        "has_reference": style != ["zero"],
        "folder": str(folder),
        "parent": os.getpid(),
    }


def _reference(sections: dict[str, dict[str, str]], source: str) -> dict[str, str]:
    """[REFERENCE], complete; FitSNAP's default for a missing pair_coeff does not work."""
    reference = {**ALWAYS, "pair_style": "zero 10.0", **sections.get("REFERENCE", {})}
    for key, value in ALWAYS.items():
        if reference[key].lower() != value:
            raise InputError(f"{source}: [REFERENCE] {key} must be {value}; got '{reference[key]}'")
    if reference["pair_style"].split()[:1] == ["zero"] and not any(key.startswith("pair_coeff") for key in reference):
        reference["pair_coeff"] = "* *"
    return reference


def _check_structures(dataset: Dataset, elements: Sequence[str], *, stress: bool) -> None:
    """Fail before the first expensive step."""
    for atoms in dataset:
        name = f"{dataset.path}: {_name(atoms)}"
        foreign = set(atoms.get_chemical_symbols()) - set(elements)
        if foreign:
            raise InputError(
                f"{name} has {min(foreign)}, an element that FitSNAP's settings lack; they have "
                f"{', '.join(elements)}: add it to 'type'"
            )
        if not (np.isfinite(atoms.positions).all() and np.isfinite(atoms.cell[:]).all()):
            raise InputError(f"{name} has positions or cell vectors that are not finite")
        if stress and not atoms.pbc.all():
            raise InputError(f"{name} is not periodic in three directions, and has no stress")


def _name(atoms: Atoms) -> str:
    return f"configuration {atoms.info.get('config_id', '?')}"


@dataclass(frozen=True)
class _Columns:
    """Our columns: their names, levels, and places among FitSNAP's."""

    names: list[str]
    levels: Array
    places: Array


def _columns(facts: dict[str, Any], source: str) -> _Columns:
    """Constants first, then those of LAMMPSSNAP in nested order, others in FitSNAP's."""
    n_constants, elements = facts["constants"], facts["elements"]
    width = facts["width"] - n_constants
    each = width // len(elements)
    others = np.arange(width)
    if n_constants:  # FitSNAP has each before the columns of its element
        others += 1 + others // each
    constants = np.arange(n_constants) * (each + 1)
    if "snap" not in facts:
        names, order, levels = facts["names"], np.arange(width), np.zeros(width, dtype=int)
    else:
        try:
            basis = SnapBasis(elements=elements, **facts["snap"])
        except ValidationError as error:
            raise InputError(f"{source}: [BISPECTRUM] {one_line(error.errors()[0]['msg'])}") from error
        names, levels = basis.column_names[len(elements) :], basis.column_levels[len(elements) :]
        order = _nested_order(basis)
    if len(order) != width:
        raise InputError(f"FitSNAP has {width} columns where {len(order)} are expected; is its version 3.1?")
    return _Columns(
        [*(f"1[{one}]" for one in elements[:n_constants]), *names],
        np.concatenate([np.zeros(n_constants, dtype=int), levels]),
        np.concatenate([constants, others[order]]),
    )


def _nested_order(basis: SnapBasis) -> Array:
    """Places of the basis's columns, in nested order, among those of ``compute snap``, constants left out."""
    rank = {component: k for k, component in enumerate(basis.components)}
    theirs = [(rank[one],) for one in basis.lammps_components]
    ours: list[tuple[int, ...]] = [(k,) for k in range(basis.n_components)]
    places: list[tuple[int, ...]] = [*theirs]
    if basis.quadratic:
        pairs = combinations_with_replacement(basis.lammps_components, 2)
        places += [(min(rank[a], rank[b]), max(rank[a], rank[b])) for a, b in pairs]
        ours += combinations_with_replacement(range(basis.n_components), 2)
    place = {one: k for k, one in enumerate(places)}
    local = np.array([place[one] for one in ours])
    elements = np.arange(len(basis.elements))[:, None]
    return np.asarray((elements * len(local) + local).ravel()[basis.column_order])


def _block(worker: _Worker, columns: _Columns, atoms: Atoms, *, has_reference: bool) -> DesignBlock:
    """Rows of one configuration in our units, order and frame."""
    cell, positions, rotation = transform_to_lammps_frame(atoms, worker.metadata["cutoff"])
    n, name = len(atoms), _name(atoms)
    theirs = worker.describe(name, cell, positions, atoms.get_chemical_symbols())
    rows = theirs[:, [*columns.places, -1]]  # the last is the reference potential
    rows[1 : 1 + 3 * n] = np.einsum("ab,nbk->nak", rotation, rows[1 : 1 + 3 * n].reshape(n, 3, -1)).reshape(3 * n, -1)
    n_stress = len(rows) - 1 - 3 * n
    if n_stress:
        rows[1 + 3 * n :] = -rotate_voigt(rows[1 + 3 * n :] * GPA_PER_BAR, rotation)
    if not np.isfinite(rows).all():
        raise InputError(f"{name}: its descriptors are not finite; do atoms overlap?")
    kinds = np.repeat([RowKind.ENERGY, RowKind.FORCE, RowKind.STRESS], [1, 3 * n, n_stress])
    targets = {REFERENCE: rows[:, -1]} if has_reference else {}
    return DesignBlock(rows[:, :-1], kinds, np.full(len(rows), atoms.info["config_id"]), targets)


class _Worker:
    """The process that FitSNAP runs in. Its working folder is a temporary one, for what FitSNAP writes."""

    def __init__(self, request: dict[str, Any], source: str) -> None:
        self._request, self._source = request, source
        self.metadata: dict[str, Any] = {}

    def __enter__(self) -> Self:
        self._place = tempfile.TemporaryDirectory(prefix="paretofit-fitsnap-")
        self._log = Path(self._place.name, "printed")
        package = str(Path(__file__).parents[2])  # it need not be installed here
        search = os.pathsep.join([package, *filter(None, [os.environ.get("PYTHONPATH")])])
        environment = {**os.environ, **dict.fromkeys(THREADS, "1"), "PYTHONPATH": search}
        with self._log.open("wb") as log:
            self._process = subprocess.Popen(
                [sys.executable, "-m", "paretofit.fitsnap.descriptor_worker"],
                stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=log, cwd=self._place.name, env=environment,
            )  # fmt: skip
        try:
            self.metadata = self._ask(self._request, f"{self._source}: FitSNAP")
        except BaseException:
            self._end()
            raise
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._end()

    def describe(self, name: str, cell: Array, positions: Array, symbols: Sequence[str]) -> Array:
        """FitSNAP's rows of a configuration that is in LAMMPS's frame, and the reference's as a last column."""
        request = {"name": name, "cell": cell.tolist(), "positions": positions.tolist(), "symbols": list(symbols)}
        rows, width = self._ask(request, f"{name}: FitSNAP")["shape"]
        content = self._process.stdout.read(8 * rows * width)  # type: ignore[union-attr]  # a pipe
        if len(content) < 8 * rows * width:
            raise self._ended(f"{name}: FitSNAP")
        return np.frombuffer(content).reshape(rows, width)

    def _ask(self, request: dict[str, Any], who: str) -> dict[str, Any]:
        try:
            self._process.stdin.write(json.dumps(request).encode() + b"\n")  # type: ignore[union-attr]  # a pipe
            self._process.stdin.flush()  # type: ignore[union-attr]
            line = self._process.stdout.readline()  # type: ignore[union-attr]
        except BrokenPipeError:
            line = b""
        if not line.endswith(b"\n"):
            raise self._ended(who)
        answer: dict[str, Any] = json.loads(line)
        if "error" in answer:
            raise InputError(f"{who} stopped with: {answer['error']}")
        return answer

    def _ended(self, who: str) -> InputError:
        code = self._process.wait()
        printed = self._log.read_text(errors="replace").strip().splitlines()
        last = f": {one_line(printed[-1])}" if printed else ""
        return InputError(f"{who} ended with exit code {code}{last}")

    def _end(self) -> None:
        """Close the pipes, at which it ends by itself; where it is in the middle of something, kill it."""
        try:
            self._process.communicate(timeout=5 if self.metadata else 0.1)
        except (subprocess.TimeoutExpired, BrokenPipeError, ValueError):
            self._process.kill()
            self._process.wait()
        self._place.cleanup()
