"""Crystals for the computation of properties: relaxed, standardised and repeated cells, and prototypes."""

from typing import Any

import numpy as np
from ase import Atoms
from ase.build import bulk, make_supercell
from ase.data import covalent_radii
from ase.filters import FrechetCellFilter
from ase.neighborlist import neighbor_list
from ase.optimize import BFGS

from paretofit.core import Array, copy_without_constraints
from paretofit.validation import periodicity
from paretofit.validation.quantity import PropertyError, Quantity

CRYSTAL_FORCE_TOLERANCE = 1e-3  # tolerance in eV/Å; for the cell, forces are those of ASE's FrechetCellFilter
FORCE_TOLERANCE = 0.01  # tolerance in eV/Å for large cells and for properties that hardly depend on the positions
MAX_RELAXATION_STEPS = 400  # number of steps of BFGS
MIN_DISTANCE_RATIO = 0.5  # ratio of a distance to the sum of the covalent radii; atoms at a lower ratio overlap
MAX_RELAXED_VOLUME_RATIO = 2.0  # a relaxation that changes the volume by this factor no longer describes the crystal
SYMMETRY_TOLERANCE_A = 1e-3  # tolerance of spglib, and largest difference between equal lattice constants
ANGLE_TOLERANCE_DEG = 0.01  # angles within this tolerance of 90° or 120° are not listed
HEXAGONAL_SPACE_GROUPS = range(143, 195)  # numbers of the trigonal and hexagonal space groups
PROTOTYPES = ("fcc", "bcc", "hcp", "sc", "diamond")


def attach_calculator(atoms: Atoms, calculator: Any) -> Atoms:
    """Copy a structure without its constraints, and attach a calculator."""
    copy: Atoms = copy_without_constraints(atoms)
    copy.calc = calculator
    return copy


def compute_energy(atoms: Atoms, calculator: Any) -> float:
    """Compute the potential energy (eV) of a structure, which keeps its own calculator."""
    return float(attach_calculator(atoms, calculator).get_potential_energy())


def relax_structure(calculator: Any, atoms: Atoms, *, relax_cell: bool, fmax: float = CRYSTAL_FORCE_TOLERANCE) -> Atoms:
    """Relax the positions and, with `relax_cell`, the cell of a copy of a structure; return it with its calculator.

    The relaxation ends when no force exceeds `fmax` (eV/Å). The cell vectors of a sheet, a wire or a molecule that span
    only vacuum, in the orientation of `orient_structure`, are not relaxed.

    Raises
    ------
    PropertyError
        If the relaxation does not converge in 400 steps, the volume changes by more than a factor of two, the energy is
        not finite, or atoms end up closer than half the sum of their covalent radii.
    """
    copy = attach_calculator(atoms, calculator)
    mask = np.isin(range(6), periodicity.STRAINED_COMPONENTS[periodicity.count_periodic(copy)])
    relaxation_target: Any = FrechetCellFilter(copy, mask=mask) if relax_cell and mask.any() else copy
    optimizer = BFGS(relaxation_target, logfile=None)
    for _ in optimizer.irun(fmax=fmax, steps=MAX_RELAXATION_STEPS):
        ratio = periodicity.measure_cell(copy) / periodicity.measure_cell(atoms)  # 1 for a molecule
        if not 1 / MAX_RELAXED_VOLUME_RATIO < ratio < MAX_RELAXED_VOLUME_RATIO:
            raise PropertyError(
                f"the relaxation changes the {periodicity.get_measure(copy).name} by a factor of {ratio:.2g}"
            )
        if not np.isfinite(copy.get_potential_energy()):
            raise PropertyError("the energy became non-finite during the relaxation")
    if not optimizer.converged():
        raise PropertyError(f"the relaxation has not converged to {fmax:g} eV/Å in {MAX_RELAXATION_STEPS} steps")
    if (overlap_distance := find_overlap_distance(copy)) is not None:
        raise PropertyError(f"atoms overlap after the relaxation: the shortest distance is {overlap_distance:.2g} Å")
    return copy


def relax_positions_if_needed(calculator: Any, atoms: Atoms, fmax: float) -> Atoms:
    """Copy a structure with a calculator, and relax the positions if a force component exceeds `fmax` (eV/Å).

    Raises
    ------
    PropertyError
        If the relaxation fails; see `relax_structure`.
    """
    copy = attach_calculator(atoms, calculator)
    if np.abs(copy.get_forces()).max() <= fmax:
        return copy
    return relax_structure(calculator, atoms, relax_cell=False, fmax=fmax)


def find_overlap_distance(atoms: Atoms) -> float | None:
    """Return the smallest distance (Å) between overlapping atoms (see `MIN_DISTANCE_RATIO`), None if none overlap."""
    radii = covalent_radii[atoms.numbers]
    cutoff = 2 * MIN_DISTANCE_RATIO * float(radii.max())
    first_atoms, second_atoms, distances = neighbor_list("ijd", atoms, cutoff)
    is_overlap = distances < MIN_DISTANCE_RATIO * (radii[first_atoms] + radii[second_atoms])
    return float(distances[is_overlap].min()) if is_overlap.any() else None


def find_symmetry(atoms: Atoms) -> Any:
    """Return spglib's symmetry dataset, with a tolerance of 1e-3 Å; raise a `PropertyError` if spglib fails."""
    return _call_spglib("get_symmetry_dataset", atoms, "spglib finds no symmetry, not even the translations")


def standardize_cell(atoms: Atoms) -> Atoms:
    """Return spglib's conventional standard cell, to which Miller indices and elastic constants refer.

    A sheet or a wire is reduced to its primitive cell instead, and a molecule is returned unchanged.

    Raises
    ------
    PropertyError
        If spglib fails.
    """
    if not atoms.pbc.any():
        return atoms
    if not atoms.pbc.all():
        symmetry = find_symmetry(atoms)
        representatives = np.unique(symmetry.mapping_to_primitive, return_index=True)[1]
        return periodicity.reduce_to_primitive(atoms, symmetry.primitive_lattice, representatives)
    cell, scaled_positions, numbers = _call_spglib("standardize_cell", atoms, "spglib finds no standard cell")
    return Atoms(numbers, cell=cell, scaled_positions=scaled_positions, pbc=True)


def _call_spglib(function_name: str, atoms: Atoms, error_message: str) -> Any:
    """Call a function of spglib with a structure; raise a `PropertyError` with `error_message` if it returns None."""
    import spglib  # noqa: PLC0415  (an extra)

    spglib_cell = atoms.cell[:], atoms.get_scaled_positions(), atoms.numbers
    dataset_or_cell = getattr(spglib, function_name)(spglib_cell, symprec=SYMMETRY_TOLERANCE_A)
    if dataset_or_cell is None:
        raise PropertyError(error_message)
    return dataset_or_cell


def compute_cell_heights(atoms: Atoms) -> Array:
    """Compute the distances between opposite faces of the cell, ``(3,)``, Å."""
    return np.asarray(1 / np.linalg.norm(atoms.cell.reciprocal()[:], axis=1))


def compute_repeats(atoms: Atoms, min_length: float) -> Array:
    """Compute the smallest repetitions, ``(3,)`` int, for which opposite faces are at least `min_length` (Å) apart.

    The number is 1 in directions that are not periodic.
    """
    # without the tolerance, rounding errors could add a repetition to a cell that fits exactly
    repeats = np.maximum(1, np.ceil(min_length / compute_cell_heights(atoms) - 1e-6)).astype(int)
    return np.asarray(np.where(atoms.pbc, repeats, 1))


def repeat_to_length(atoms: Atoms, min_length: float) -> Atoms:
    """Repeat a structure in its periodic directions until opposite faces are at least `min_length` (Å) apart."""
    supercell: Atoms = make_supercell(atoms, np.diag(compute_repeats(atoms, min_length)))
    return supercell


def build_prototype(name: str, symbol: str, volume_per_atom: float) -> Atoms:
    """Build a crystal of one element in one of the `PROTOTYPES`, at a volume (Å³/atom); hcp has the ideal c/a."""
    # the lattice constant of 3 Å is arbitrary, because the cell is then scaled
    atoms = bulk(symbol, name, a=3.0, c=3.0 * np.sqrt(8 / 3)) if name == "hcp" else bulk(symbol, name, a=3.0)
    scale = (volume_per_atom * len(atoms) / atoms.get_volume()) ** (1 / 3)
    atoms.set_cell(atoms.cell[:] * scale, scale_atoms=True)
    return atoms


def build_reference_crystal(symbol: str) -> Atoms | None:
    """Build ASE's reference crystal of an element; return None if ASE has none."""
    try:
        return bulk(symbol)  # the error for an element without a crystal depends on its entry in ASE's table
    except (ValueError, KeyError, RuntimeError):
        return None


def compute_lattice_quantities(atoms: Atoms) -> list[Quantity]:
    """List the lattice constants, unusual angles and volume per atom of a conventional cell.

    Constants that equal a and angles of 90° or 120° are omitted; c/a is added if a = b ≠ c. A sheet or a wire has the
    constants of its periodic directions, its area or length per atom, and the extents of its atoms along the other
    directions; a molecule only has three extents. Extents are in ascending order.
    """
    n_periodic = periodicity.count_periodic(atoms)
    cell_parameters = atoms.cell.cellpar()
    lengths = dict(zip("abc"[:n_periodic], cell_parameters[:n_periodic], strict=True))
    names = [
        name for name, length in lengths.items() if name == "a" or abs(length - lengths["a"]) > SYMMETRY_TOLERANCE_A
    ]
    quantities = [Quantity(name, "Å", lengths[name]) for name in names]
    if names == ["a", "c"]:
        quantities.append(Quantity("c/a", "", lengths["c"] / lengths["a"]))
    angles = dict(zip(("alpha", "beta", "gamma"), cell_parameters[3:], strict=True))
    angle_names = {3: ("alpha", "beta", "gamma"), 2: ("gamma",), 1: (), 0: ()}[n_periodic]
    quantities += [
        Quantity(name, "°", angles[name])
        for name in angle_names
        if min(abs(angles[name] - 90), abs(angles[name] - 120)) > ANGLE_TOLERANCE_DEG
    ]
    if n_periodic:
        measure = periodicity.get_measure(atoms)
        quantities.append(Quantity(measure.name, f"{measure.unit}/atom", periodicity.measure_cell(atoms) / len(atoms)))
    extents = np.sort(np.ptp(atoms.positions[:, n_periodic:], axis=0))
    extent_names = ["thickness"] if n_periodic == 2 else [f"extent {number}" for number in range(1, 4 - n_periodic)]
    return quantities + [Quantity(name, "Å", float(extent)) for name, extent in zip(extent_names, extents, strict=True)]
