"""Many structures at once: what a committee says of them, and what it said of those that have labels."""

from __future__ import annotations

from functools import partial
from typing import TYPE_CHECKING, NamedTuple

import numpy as np
from threadpoolctl import threadpool_limits

from paretofit.core import RowKind, get_shared_lammps, track
from paretofit.descriptors import compute_atom_descriptors
from paretofit.execution import parallel_map
from paretofit.uncertainty import CalibrationData, EnvironmentGrade

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence
    from typing import Any

    from ase import Atoms

    from paretofit.core import Array
    from paretofit.descriptors import SnapBasis
    from paretofit.potentials.linear_potential import LinearPotential
    from paretofit.potentials.mace.mace_potential import MacePotential
    from paretofit.uncertainty import Assessment

BATCH = 8  # structures handed to a worker at once
MIN_ATOMS_PER_COLUMN = 2  # atoms for each column; with fewer, grades are by the linear descriptors


class StructureLabels(NamedTuple):
    """Labels of one structure: eV, (N, 3) eV/Å, (6,) eV/Å³; NaN where there is none."""

    energy: float
    forces: Array
    stress: Array


def assess_all(
    potential: LinearPotential | MacePotential,
    structures: Sequence[Atoms],
    *,
    coverage: float | None = None,
    jobs: int = 1,
    progress: bool = False,
) -> list[Assessment]:
    """`LinearPotential.assess` of every structure, in parallel; in their order."""

    def assess(own: LinearPotential | MacePotential, atoms: Atoms) -> Assessment:
        return own.assess(atoms, coverage=coverage)

    return map_structures(assess, potential, structures, "assess", jobs, progress)


def predict_all(
    potential: LinearPotential | MacePotential, structures: Sequence[Atoms], *, jobs: int = 1, progress: bool = False
) -> list[StructureLabels]:
    """Energy, forces and stress of every structure, of a committee its mean's."""
    return map_structures(_predict, potential, structures, "evaluate", jobs, progress)


def predict_spreads(
    potential: LinearPotential | MacePotential, structures: Sequence[Atoms], *, jobs: int = 1, progress: bool = False
) -> list[tuple[StructureLabels, StructureLabels]]:
    """Means and standard deviations over the members of a committee for every structure; energies per atom, eV."""
    return map_structures(_mean_and_spread, potential, structures, "held out", jobs, progress)


def collect_calibration_data(
    predicted: Sequence[tuple[StructureLabels, StructureLabels]],
    labels: Sequence[StructureLabels],
    n_atoms: Sequence[int],
    groups: Array,
) -> dict[RowKind, CalibrationData]:
    """Spreads and residuals of labelled structures, as calibration needs them; kinds without any label are left out.

    Parameters
    ----------
    predicted : sequence of (Labels, Labels)
        From `predict_spreads`.
    labels : sequence of Labels
    n_atoms : sequence of int
    groups : (n,) int
        Families of relatives.
    """
    found = {}
    for kind, name in ((RowKind.ENERGY, "energy"), (RowKind.FORCE, "forces"), (RowKind.STRESS, "stress")):
        parts: list[list[Array]] = [[], [], []]
        for k, ((mean, spread), label) in enumerate(zip(predicted, labels, strict=True)):
            scale = n_atoms[k] if kind == RowKind.ENERGY else 1
            residual = np.ravel(getattr(label, name)) / scale - np.ravel(getattr(mean, name))
            own = np.isfinite(residual)
            for part, values in zip(
                parts, (np.ravel(getattr(spread, name)), residual, np.full(own.shape, k)), strict=True
            ):
                part.append(values[own])
        whole = [np.concatenate([np.empty(0), *part]) for part in parts]
        if len(whole[0]):
            owner = whole[2].astype(np.int64)
            found[kind] = CalibrationData(whole[0], whole[1], owner, np.asarray(groups, dtype=np.int64)[owner])
    return found


def fit_environment_grades(
    basis: SnapBasis, structures: Sequence[Atoms], *, jobs: int = 1, progress: bool = False
) -> dict[str, EnvironmentGrade]:
    """The grade of each element from the atoms of the training structures.

    By what the model sees of an atom: of a quadratic model also products of descriptors, if there are atoms enough.
    """
    found = map_structures(_descriptors, basis, structures, "atoms", jobs, progress)
    symbols = np.concatenate([atoms.get_chemical_symbols() for atoms in structures])
    values = np.concatenate(found)
    grades = {}
    for element in basis.elements:
        own = np.flatnonzero(symbols == element)
        if len(own):
            columns = basis.n_features // len(basis.elements)
            quadratic = basis.quadratic and len(own) >= MIN_ATOMS_PER_COLUMN * columns
            grades[element] = EnvironmentGrade.from_descriptors(values[own], quadratic=quadratic)
    return grades


def map_structures(
    function: Callable[[Any, Any], Any],
    shared: Any,
    structures: Sequence[Any],
    description: str,
    jobs: int,
    progress: bool,
) -> list[Any]:
    """A function of each structure, in batches, on several processes."""
    batches = [structures[start : start + BATCH] for start in range(0, len(structures), BATCH)]
    done = parallel_map(partial(_batch, function=function, shared=shared), batches, jobs)
    return [one for batch in track(done, len(batches), description, enabled=progress) for one in batch]


def _batch(structures: Sequence[Any], function: Callable[[Any, Any], Any], shared: Any) -> list[Any]:
    """Runs in a worker."""
    with threadpool_limits(1):
        return [function(shared, atoms) for atoms in structures]


def _mean_and_spread(
    potential: LinearPotential | MacePotential, atoms: Atoms
) -> tuple[StructureLabels, StructureLabels]:
    members = potential.predict(atoms)
    energy = members.energy / len(atoms)
    return (
        StructureLabels(float(energy.mean()), members.forces.mean(axis=0), members.stress.mean(axis=0)),
        StructureLabels(float(energy.std()), members.forces.std(axis=0), members.stress.std(axis=0)),
    )


def _predict(potential: LinearPotential | MacePotential, atoms: Atoms) -> StructureLabels:
    own = potential.without_uncertainty().predict(atoms)
    if np.ndim(own.energy):  # networks have no mean but that of what they predict
        return StructureLabels(float(own.energy.mean()), own.forces.mean(axis=0), own.stress.mean(axis=0))
    return StructureLabels(*vars(own).values())


def _descriptors(basis: SnapBasis, atoms: Atoms) -> Array:
    return compute_atom_descriptors(get_shared_lammps(), basis, atoms)
