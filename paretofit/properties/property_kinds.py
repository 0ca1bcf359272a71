"""The kinds of properties: their structures, the weights of the labels, and the formulas."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from ase import Atoms, units
from scipy.sparse import csr_array

from paretofit.core import Array, InputError, RowKind
from paretofit.dataset import Dataset
from paretofit.dataset.io import read_frames
from paretofit.properties.linear_property import LinearProperty, StructureWeights, return_numbers
from paretofit.properties.property_settings import PropertySettings, StructureSource
from paretofit.properties.strained_cells import apply_voigt_strain

STRAIN = 0.005  # as in the elastic constants of `paretofit validate`
DISPLACEMENT = 0.01  # Å, as phonopy's default
VOLUME_RANGE, N_VOLUMES = 0.06, 9  # as in the equation of state of `paretofit validate`
MIN_VOLUMES = 5
MAX_SUPERCELL_ATOMS = 500  # each of its 3N forces is a row for each displacement
MAX_BALANCE_ERROR = 1e-9  # number of atoms


def build_properties(
    settings: Sequence[PropertySettings], dataset: Dataset, elements: Sequence[str] | None = None
) -> list[LinearProperty]:
    """Build the properties of a study, without references that have to be read from labels.

    Parameters
    ----------
    settings : sequence of PropertySettings
    dataset : Dataset
        Dataset with the configurations that the settings refer to by id.
    elements : sequence of str, optional
        Elements of the models, which the structures must not exceed.

    Raises
    ------
    InputError
        If a name occurs twice, or a structure cannot be read, is not suitable or has other elements.
    """
    properties: list[LinearProperty] = []
    for entry in settings:
        sources = _read_sources(entry, dataset)
        for symbol in {symbol for atoms in sources for symbol in atoms.symbols}:
            if elements is not None and symbol not in elements:
                raise InputError(f"property '{entry.name}' has {symbol}; the basis has {', '.join(elements)}")
        for item in BUILDERS[entry.kind](entry, sources):
            if item.name in {other.name for other in properties}:
                raise InputError(f"'properties' contains '{item.name}' twice; rename one")
            properties.append(item)
    return properties


def _read_sources(entry: PropertySettings, dataset: Dataset) -> list[Atoms]:
    sources = entry.structures if entry.structure is None else [entry.structure]
    return [_read_source(source, entry, dataset) for source in sources]


def _read_source(source: StructureSource, entry: PropertySettings, dataset: Dataset) -> Atoms:
    if isinstance(source, int):
        if source not in dataset.ids:
            raise InputError(f"property '{entry.name}': {dataset.path} has no configuration with id {source}")
        return dataset.select_ids([source])[0]
    try:
        frames = read_frames(source, None).atoms
    except InputError as error:
        raise InputError(f"property '{entry.name}': {error}") from error
    if len(frames) != 1:
        raise InputError(f"property '{entry.name}': {source} has {len(frames)} structures; choose a file with one")
    return frames[0]


def _build_energy_difference(entry: PropertySettings, structures: list[Atoms]) -> list[LinearProperty]:
    """E_1 - Σ_k n_k E_k, with numbers n_k of the other cells that balance the atoms of the first."""
    symbols = sorted({symbol for atoms in structures for symbol in atoms.symbols})
    counts = np.array([[list(atoms.symbols).count(symbol) for symbol in symbols] for atoms in structures], dtype=float)
    multiples, _, rank, _ = np.linalg.lstsq(counts[1:].T, counts[0], rcond=None)
    if rank < len(structures) - 1 or np.abs(counts[1:].T @ multiples - counts[0]).max() > MAX_BALANCE_ERROR:
        formulas = ", ".join(atoms.get_chemical_formula() for atoms in structures)
        raise InputError(
            f"property '{entry.name}': the atoms of {formulas} cannot be balanced in one way; choose structures of the "
            "same composition, or one for each element or compound"
        )
    per_atom = entry.per == "atom"
    scale = 1000.0 / len(structures[0]) if per_atom else 1.0
    factors = np.array([1.0, *-multiples]) * [len(atoms) for atoms in structures] * scale  # energies are per atom
    terms = [
        StructureWeights(atoms, {RowKind.ENERGY: csr_array([[factor]])})
        for atoms, factor in zip(structures, factors, strict=True)
    ]
    return [LinearProperty(entry.name, entry.get_unit(entry.name), terms, return_numbers)]


def _build_elastic(entry: PropertySettings, structures: list[Atoms]) -> list[LinearProperty]:
    (atoms,) = structures
    if not atoms.pbc.all():
        raise InputError(f"property '{entry.name}': elastic constants require a structure that is periodic in 3D")
    properties = []
    for part in entry.list_parts():
        i, j = int(part[1]) - 1, int(part[2]) - 1
        relaxes = entry.ions == "relaxed" and len(atoms) > 1
        n_forces = 3 * len(atoms) if relaxes else 0
        size = 1 + 2 * n_forces + n_forces**2
        terms = _weigh_strained_cells(atoms, (i, j), n_forces, size)
        terms += _weigh_displaced_atoms(atoms, len(atoms), 1 + 2 * n_forces, size) if relaxes else []
        formula = RelaxedConstant(n_forces, atoms.get_volume()) if relaxes else return_numbers
        properties.append(LinearProperty(entry.name_part(part), entry.get_unit(part), terms, formula))
    return properties


def _weigh_strained_cells(atoms: Atoms, columns: tuple[int, int], n_forces: int, size: int) -> list[StructureWeights]:
    """C_ij = (∂σ_i/∂ε_j + ∂σ_j/∂ε_i) / 2, then the forces ∂F/∂ε_i and ∂F/∂ε_j, by central differences."""
    terms = []
    for position, column in enumerate(columns):
        other = columns[1 - position]
        for sign in (1, -1):
            derivative = sign / (2 * STRAIN)
            weights = {RowKind.STRESS: csr_array(([derivative / 2], ([0], [other])), shape=(size, 6))}
            if n_forces:
                weights[RowKind.FORCE] = _select_rows(n_forces, 1 + position * n_forces, size, derivative)
            terms.append(StructureWeights(apply_voigt_strain(atoms, column, sign * STRAIN), weights))
    return terms


def _weigh_displaced_atoms(atoms: Atoms, n_displaced: int, start: int, size: int) -> list[StructureWeights]:
    """Force constants -∂F_b/∂u_a of the first atoms by central differences, as the numbers from `start` on."""
    n, terms = 3 * len(atoms), []
    for component in range(3 * n_displaced):
        for sign in (1, -1):
            displaced = atoms.copy()
            displaced.positions[component // 3, component % 3] += sign * DISPLACEMENT
            weights = _select_rows(n, start + component * n, size, -sign / (2 * DISPLACEMENT))
            terms.append(StructureWeights(displaced, {RowKind.FORCE: weights}))
    return terms


def _select_rows(n: int, start: int, size: int, factor: float) -> csr_array:
    """Weights that make n labels, multiplied by a factor, the numbers from `start` on, ``(size, n)``."""
    return csr_array((np.full(n, factor), (np.arange(start, start + n), np.arange(n))), shape=(size, n))


@dataclass(frozen=True)
class RelaxedConstant:
    """Elastic constant with relaxed atoms, C_ij - Λ_iᵀ Φ⁺ Λ_j / V.

    Λ_i = ∂F/∂ε_i are the forces of a strain, and Φ the force constants of the cell (M. Born and K. Huang, Dynamical
    Theory of Crystal Lattices, Oxford, 1954; X. Wu, D. Vanderbilt and D. R. Hamann, Phys. Rev. B 72, 035105 (2005)).

    Attributes
    ----------
    n_forces : int
        3N.
    volume : float
        Å³.
    """

    n_forces: int
    volume: float

    def __call__(self, numbers: Array) -> Array:
        """Return the constant of each fit, ``(1, n_fits)``, GPa."""
        n = self.n_forces
        first, second = numbers[1 : 1 + n].T, numbers[1 + n : 1 + 2 * n].T
        force_constants = numbers[1 + 2 * n :].T.reshape(-1, n, n)
        force_constants = (force_constants + force_constants.transpose(0, 2, 1)) / 2
        # The three translations have no force constants; their eigenvalues are rounding and truncation errors.
        eigenvalues, modes = np.linalg.eigh(force_constants)
        order = np.argsort(np.abs(eigenvalues), axis=1)[:, 3:]
        stiffness = np.take_along_axis(eigenvalues, order, axis=1)
        modes = np.take_along_axis(modes, order[:, None, :], axis=2)
        with np.errstate(divide="ignore", invalid="ignore"):
            relaxation = (
                np.einsum("kn,knm->km", first, modes) * np.einsum("kn,knm->km", second, modes) / stiffness
            ).sum(axis=1)
        return np.asarray(numbers[:1] - relaxation / self.volume / units.GPa)


def _build_equation_of_state(entry: PropertySettings, structures: list[Atoms]) -> list[LinearProperty]:
    """V0 and B of the Birch-Murnaghan equation, whose energy is a cubic polynomial of V^(-2/3)."""
    if len(structures) == 1:
        scales = np.cbrt(1 + np.linspace(-VOLUME_RANGE, VOLUME_RANGE, N_VOLUMES))
        structures = [_scale_cell(structures[0], scale) for scale in scales]
    if not all(atoms.pbc.all() for atoms in structures):
        raise InputError(f"property '{entry.name}': an equation of state requires structures that are periodic in 3D")
    if len({atoms.get_chemical_formula(empirical=True) for atoms in structures}) > 1:
        raise InputError(f"property '{entry.name}': the structures of an equation of state must have one composition")
    x = np.array([(atoms.get_volume() / len(atoms)) ** (-2 / 3) for atoms in structures])
    if len(np.unique(x.round(8))) < MIN_VOLUMES:
        raise InputError(f"property '{entry.name}' needs at least {MIN_VOLUMES} different volumes")
    center, half_range = (x.max() + x.min()) / 2, (x.max() - x.min()) / 2
    polynomial = np.linalg.pinv(np.vander((x - center) / half_range, 4, increasing=True))
    terms = [
        StructureWeights(atoms, {RowKind.ENERGY: csr_array(weights[:, None])})
        for atoms, weights in zip(structures, polynomial.T, strict=True)
    ]
    return [
        LinearProperty(
            entry.name_part(part), entry.get_unit(part), terms, EquationOfState(part, float(center), float(half_range))
        )
        for part in entry.list_parts()
    ]


def _scale_cell(atoms: Atoms, scale: float) -> Atoms:
    copy: Atoms = atoms.copy()
    copy.set_cell(atoms.cell[:] * scale, scale_atoms=True)
    return copy


@dataclass(frozen=True)
class EquationOfState:
    """V0 or B at the minimum of a cubic polynomial of u = (V^(-2/3) - center) / half_range.

    The equation is that of F. Birch, Phys. Rev. 71, 809 (1947).
    """

    part: str
    center: float
    half_range: float

    def __call__(self, coefficients: Array) -> Array:
        """Return V0 (Å³/atom) or B (GPa) of each fit, ``(1, n_fits)``; NaN without a minimum within the volumes."""
        _, c1, c2, c3 = coefficients
        with np.errstate(divide="ignore", invalid="ignore"):
            root = np.sqrt(c2**2 - 3 * c1 * c3)  # half of the curvature at the minimum
            # Two forms of the same solution: each has a difference of nearly equal numbers where the other has none.
            u = np.where(c2 > 0, -c1 / (c2 + root), (root - c2) / (3 * c3))
            x = self.center + self.half_range * u
            volume = np.where(np.abs(u) <= 1, x, np.nan) ** -1.5
            if self.part == "V0":
                return np.asarray(volume[None])
            # With x = V^(-2/3), V d²E/dV² = (dx/d ln V)² d²E/dx² / V at the minimum, and dx/d ln V = -2x/3.
            curvature = 2 * root / self.half_range**2
            return np.asarray((curvature * (2 * x / 3) ** 2 / volume / units.GPa)[None])


def _build_force_constants(entry: PropertySettings, structures: list[Atoms]) -> list[LinearProperty]:
    """Force constants of the atoms of the first cell, by displacements of each."""
    (atoms,) = structures
    # `repeat` puts the atoms of the original cell first.
    n_atoms = len(atoms) * int(np.prod(entry.supercell))
    if n_atoms > MAX_SUPERCELL_ATOMS:
        raise InputError(
            f"property '{entry.name}': the supercell has {n_atoms} atoms, more than {MAX_SUPERCELL_ATOMS}; choose a "
            "smaller 'supercell'"
        )
    supercell = atoms.repeat(entry.supercell)
    terms = _weigh_displaced_atoms(supercell, len(atoms), 0, 9 * len(atoms) * len(supercell))
    return [LinearProperty(entry.name, entry.get_unit(entry.name), terms, return_numbers)]


BUILDERS = {
    "elastic": _build_elastic,
    "energy_difference": _build_energy_difference,
    "equation_of_state": _build_equation_of_state,
    "force_constants": _build_force_constants,
}
