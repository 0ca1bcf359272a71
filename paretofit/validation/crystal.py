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
MAX_RELAXATION_STEPS = 400
MIN_DISTANCE_RATIO = 0.5  # ratio of a distance to the sum of the covalent radii; atoms at a lower ratio overlap
MAX_RELAXED_VOLUME_RATIO = 2.0  # a relaxation that changes the volume by this factor no longer describes the crystal
SYMMETRY_TOLERANCE_A = 1e-3
HEXAGONAL_SPACE_GROUPS = range(143, 195)  # numbers of the trigonal and hexagonal space groups
PROTOTYPES = ("fcc", "bcc", "hcp", "sc", "diamond")


def attach_calculator(atoms: Atoms, calculator: Any) -> Atoms:
    """Copy a structure without its constraints, and attach a calculator."""
    copy: Atoms = copy_without_constraints(atoms)
    copy.calc = calculator
    return copy


def compute_energy(atoms: Atoms, calculator: Any) -> float:
    """Compute the potential energy (eV) of a structure."""
    return float(attach_calculator(atoms, calculator).get_potential_energy())


def relax_structure(calculator: Any, atoms: Atoms, *, relax_cell: bool, fmax: float = CRYSTAL_FORCE_TOLERANCE) -> Atoms:
    """Relax a copy of a structure (positions and, if requested, cell); return it with its calculator.

    The vacuum of a sheet or a wire, in the orientation of `orient_structure`, is not relaxed; a molecule has no cell.

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
    """Copy a structure with a calculator, and relax the positions unless all forces are below `fmax` (eV/Å)."""
    copy = attach_calculator(atoms, calculator)
    if np.abs(copy.get_forces()).max() <= fmax:
        return copy
    return relax_structure(calculator, atoms, relax_cell=False, fmax=fmax)


def find_overlap_distance(atoms: Atoms) -> float | None:
    """Return the smallest distance (Å) between overlapping atoms, or None; see `MIN_DISTANCE_RATIO`."""
    radii = covalent_radii[atoms.numbers]
    i, j, distances = neighbor_list("ijd", atoms, 2 * MIN_DISTANCE_RATIO * float(radii.max()))
    is_overlap = distances < MIN_DISTANCE_RATIO * (radii[i] + radii[j])
    return float(distances[is_overlap].min()) if is_overlap.any() else None


def find_symmetry(atoms: Atoms) -> Any:
    """Return spglib's symmetry dataset, with a tolerance of 1e-3 Å."""
    return _call_spglib("get_symmetry_dataset", atoms, "spglib finds no symmetry, not even the translations")


def standardize_cell(atoms: Atoms) -> Atoms:
    """Return spglib's conventional standard cell; Miller indices and elastic constants refer to it.

    A sheet or a wire is reduced to its primitive cell instead, and a molecule stays as it is.
    """
    if not atoms.pbc.any():
        return atoms
    if not atoms.pbc.all():
        symmetry = find_symmetry(atoms)
        representatives = np.unique(symmetry.mapping_to_primitive, return_index=True)[1]
        return periodicity.reduce_to_primitive(atoms, symmetry.primitive_lattice, representatives)
    cell, scaled_positions, numbers = _call_spglib("standardize_cell", atoms, "spglib finds no standard cell")
    return Atoms(numbers, cell=cell, scaled_positions=scaled_positions, pbc=True)


def _call_spglib(function: str, atoms: Atoms, error_message: str) -> Any:
    import spglib  # noqa: PLC0415  (an extra)

    crystal = atoms.cell[:], atoms.get_scaled_positions(), atoms.numbers
    result = getattr(spglib, function)(crystal, symprec=SYMMETRY_TOLERANCE_A)
    if result is None:
        raise PropertyError(error_message)
    return result


def compute_cell_heights(atoms: Atoms) -> Array:
    """Compute the distances between opposite faces of the cell, ``(3,)``, Å."""
    return np.asarray(1 / np.linalg.norm(atoms.cell.reciprocal()[:], axis=1))


def compute_repeats(atoms: Atoms, min_length: float) -> Array:
    """Compute the repetitions, ``(3,)`` int, for which opposite faces are at least `min_length` (Å) apart.

    The vacuum of structures that are periodic in fewer directions is not repeated.
    """
    # without the tolerance, rounding errors could add a repetition to a cell that fits exactly
    repeats = np.maximum(1, np.ceil(min_length / compute_cell_heights(atoms) - 1e-6)).astype(int)
    return np.asarray(np.where(atoms.pbc, repeats, 1))


def repeat_to_length(atoms: Atoms, min_length: float) -> Atoms:
    """Repeat a structure in its periodic directions until opposite faces are at least `min_length` (Å) apart."""
    supercell: Atoms = make_supercell(atoms, np.diag(compute_repeats(atoms, min_length)))
    return supercell


def build_prototype(name: str, symbol: str, volume_per_atom: float) -> Atoms:
    """Build a crystal of one element at a volume (Å³/atom); hcp has the ideal c/a."""
    atoms = bulk(symbol, name, a=3.0, c=3.0 * np.sqrt(8 / 3)) if name == "hcp" else bulk(symbol, name, a=3.0)
    scale = (volume_per_atom * len(atoms) / atoms.get_volume()) ** (1 / 3)
    atoms.set_cell(atoms.cell[:] * scale, scale_atoms=True)
    return atoms


def build_reference_crystal(symbol: str) -> Atoms | None:
    """Build ASE's reference crystal of an element; return None if ASE has none."""
    try:
        return bulk(symbol)
    except (ValueError, KeyError, RuntimeError):
        return None


def compute_lattice_quantities(atoms: Atoms) -> list[Quantity]:
    """List the lattice constants, unusual angles and volume per atom of a conventional cell.

    Constants that equal a and angles of 90° or 120° are omitted; c/a is added if a = b ≠ c. For sheets and wires, these
    are the constants of the periodic directions, the area or length per atom, and the extent of the atoms along the
    other directions; for molecules, only the three extents in ascending order.
    """
    n = periodicity.count_periodic(atoms)
    parameters = atoms.cell.cellpar()
    lengths = dict(zip("abc"[:n], parameters[:n], strict=False))
    names = [
        name for name, length in lengths.items() if name == "a" or abs(length - lengths["a"]) > SYMMETRY_TOLERANCE_A
    ]
    quantities = [Quantity(name, "Å", lengths[name]) for name in names]
    if names == ["a", "c"]:
        quantities.append(Quantity("c/a", "", lengths["c"] / lengths["a"]))
    quantities += [
        Quantity(name, "°", angle)
        for name, angle in zip(("alpha", "beta", "gamma"), parameters[3:], strict=True)
        if (n == 3 or (n == 2 and name == "gamma")) and min(abs(angle - 90), abs(angle - 120)) > 0.01
    ]
    if n:
        measure = periodicity.get_measure(atoms)
        quantities.append(Quantity(measure.name, f"{measure.unit}/atom", periodicity.measure_cell(atoms) / len(atoms)))
    extents = np.sort(np.ptp(atoms.positions[:, n:], axis=0))
    labels = {0: ["extent 1", "extent 2", "extent 3"], 1: ["extent 1", "extent 2"], 2: ["thickness"], 3: []}[n]
    return quantities + [Quantity(label, "Å", float(size)) for label, size in zip(labels, extents, strict=True)]
