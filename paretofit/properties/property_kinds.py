"""The kinds of properties, each with its structures, the weights of their labels, and its formula."""

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

STRAIN = 0.005  # dimensionless, as in the elastic constants of `paretofit validate`
DISPLACEMENT = 0.01  # Å, the default of phonopy
VOLUME_RANGE = 0.06  # largest relative change of the volume, as in the equation of state of `paretofit validate`
N_VOLUMES = 9  # number of volumes of an equation of state
MIN_VOLUMES = 5  # one more than the coefficients of the cubic polynomial
MAX_SUPERCELL_ATOMS = 500  # each displacement adds 3N rows of descriptors
MAX_BALANCE_ERROR = 1e-9  # atoms of an element; only rounding errors may remain


def build_properties(
    settings: Sequence[PropertySettings], dataset: Dataset, elements: Sequence[str] | None = None
) -> list[LinearProperty]:
    """Build the properties of a study, without their references; see `add_references`.

    Parameters
    ----------
    settings : sequence of PropertySettings
    dataset : Dataset
        Dataset with the configurations that the settings refer to by id.
    elements : sequence of str, optional
        Elements of the models; the structures may contain no others. By default all elements are allowed.

    Raises
    ------
    InputError
        If a name occurs twice, or a structure cannot be read, is not suitable or has other elements.
    """
    properties: list[LinearProperty] = []
    for entry in settings:
        structures = _read_structures(entry, dataset)
        for symbol in {symbol for atoms in structures for symbol in atoms.symbols}:
            if elements is not None and symbol not in elements:
                raise InputError(
                    f"a structure of property '{entry.name}' contains {symbol}, but the basis has only "
                    f"{', '.join(elements)}; choose another structure, or add the element to the basis"
                )
        for linear_property in BUILDERS[entry.kind](entry, structures):
            if linear_property.name in {other.name for other in properties}:
                raise InputError(f"'properties' contains '{linear_property.name}' twice; rename one")
            properties.append(linear_property)
    return properties


def _read_structures(entry: PropertySettings, dataset: Dataset) -> list[Atoms]:
    """Read all structures of a property."""
    sources = entry.structures if entry.structure is None else [entry.structure]
    return [_read_structure(source, entry, dataset) for source in sources]


def _read_structure(source: StructureSource, entry: PropertySettings, dataset: Dataset) -> Atoms:
    """Read a structure from the dataset by its id, or from a file with a single structure."""
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
    """Build E_1 - Σ_k n_k E_k, where n_k copies of each other cell k together contain the atoms of the first cell.

    The n_k need not be integers. The difference is in meV per atom of the first cell, or in eV.
    """
    symbols = sorted({symbol for atoms in structures for symbol in atoms.symbols})
    counts = np.array([[list(atoms.symbols).count(symbol) for symbol in symbols] for atoms in structures], dtype=float)
    multiples, _, rank, _ = np.linalg.lstsq(counts[1:].T, counts[0], rcond=None)
    if rank < len(structures) - 1 or np.abs(counts[1:].T @ multiples - counts[0]).max() > MAX_BALANCE_ERROR:
        formulas = ", ".join(atoms.get_chemical_formula() for atoms in structures)
        raise InputError(
            f"property '{entry.name}': the atoms of {formulas} cannot be balanced in one way; choose structures of the "
            "same composition, or one for each element or compound"
        )
    scale = 1000.0 / len(structures[0]) if entry.per == "atom" else 1.0  # eV to meV per atom of the first cell
    n_atoms = [len(atoms) for atoms in structures]  # energy labels are per atom, but E_k is that of a whole cell
    factors = np.array([1.0, *-multiples]) * n_atoms * scale
    terms = [
        StructureWeights(atoms, {RowKind.ENERGY: csr_array([[factor]])})
        for atoms, factor in zip(structures, factors, strict=True)
    ]
    return [LinearProperty(entry.name, entry.get_unit(entry.name), terms, return_numbers)]


def _build_elastic(entry: PropertySettings, structures: list[Atoms]) -> list[LinearProperty]:
    """Build the elastic constants C_ij (GPa) of a crystal, with clamped or relaxed atoms.

    The numbers of a constant with relaxed atoms are those of `RelaxedConstant`.
    """
    (atoms,) = structures
    if not atoms.pbc.all():
        raise InputError(f"property '{entry.name}': elastic constants require a structure that is periodic in 3D")
    properties = []
    for part in entry.list_parts():
        i, j = int(part[1]) - 1, int(part[2]) - 1
        is_relaxed = entry.ions == "relaxed" and len(atoms) > 1  # the force on a single atom is zero by symmetry
        n_forces = 3 * len(atoms) if is_relaxed else 0
        size = 1 + 2 * n_forces + n_forces**2
        terms = _weigh_strained_cells(atoms, (i, j), n_forces, size)
        terms += _weigh_displaced_atoms(atoms, len(atoms), 1 + 2 * n_forces, size) if is_relaxed else []
        formula = RelaxedConstant(n_forces, atoms.get_volume()) if is_relaxed else return_numbers
        properties.append(LinearProperty(entry.name_part(part), entry.get_unit(part), terms, formula))
    return properties


def _weigh_strained_cells(atoms: Atoms, columns: tuple[int, int], n_forces: int, size: int) -> list[StructureWeights]:
    """Weigh the labels of strained cells, so that the first of `size` numbers is C_ij = (∂σ_i/∂ε_j + ∂σ_j/∂ε_i) / 2.

    The next numbers are the `n_forces` components of ∂F/∂ε_i, and those of ∂F/∂ε_j. All derivatives are central
    differences; `columns` are the Voigt indices i and j.
    """
    terms = []
    for position, column in enumerate(columns):
        other_column = columns[1 - position]
        for sign in (1, -1):
            factor = sign / (2 * STRAIN)  # of a central difference
            weights = {RowKind.STRESS: csr_array(([factor / 2], ([0], [other_column])), shape=(size, 6))}
            if n_forces:
                weights[RowKind.FORCE] = _build_copy_weights(n_forces, 1 + position * n_forces, size, factor)
            terms.append(StructureWeights(apply_voigt_strain(atoms, column, sign * STRAIN), weights))
    return terms


def _weigh_displaced_atoms(atoms: Atoms, n_displaced: int, offset: int, size: int) -> list[StructureWeights]:
    """Weigh the forces of cells with a displaced atom, so that the numbers from index `offset` are force constants.

    The force constants -∂F_b/∂u_a are central differences, for all components a of the first `n_displaced` atoms and
    all components b of the cell; b varies fastest.
    """
    n_forces, terms = 3 * len(atoms), []
    for component in range(3 * n_displaced):
        for sign in (1, -1):
            displaced = atoms.copy()
            displaced.positions[component // 3, component % 3] += sign * DISPLACEMENT
            weights = _build_copy_weights(n_forces, offset + component * n_forces, size, -sign / (2 * DISPLACEMENT))
            terms.append(StructureWeights(displaced, {RowKind.FORCE: weights}))
    return terms


def _build_copy_weights(n_labels: int, offset: int, size: int, factor: float) -> csr_array:
    """Build weights, ``(size, n_labels)``, that add all labels, times a factor, to the numbers from index `offset`."""
    label_indices = np.arange(n_labels)
    return csr_array((np.full(n_labels, factor), (offset + label_indices, label_indices)), shape=(size, n_labels))


@dataclass(frozen=True)
class RelaxedConstant:
    """Elastic constant with relaxed atoms, C_ij - Λ_iᵀ Φ⁺ Λ_j / V, as a function of C_ij, Λ_i, Λ_j and Φ.

    C_ij is the constant with clamped atoms, Λ_i = ∂F/∂ε_i are the forces per strain, and Φ the force constants of the
    cell with the pseudoinverse Φ⁺ (M. Born and K. Huang, Dynamical Theory of Crystal Lattices, Oxford, 1954; X. Wu,
    D. Vanderbilt and D. R. Hamann, Phys. Rev. B 72, 035105 (2005)).

    Attributes
    ----------
    n_forces : int
        Number of force components, 3N.
    volume : float
        Volume V of the cell, Å³.
    """

    n_forces: int
    volume: float

    def __call__(self, numbers: Array) -> Array:
        """Compute the constant of each fit, ``(1, n_fits)``, GPa.

        The constant is not finite if the stiffness of a mode other than the translations is zero.

        Parameters
        ----------
        numbers : (1 + 2n + n², n_fits) float64
            C_ij (GPa), Λ_i and Λ_j (eV/Å), and Φ (eV/Å²) row by row, where n is `n_forces`.
        """
        n = self.n_forces
        forces_i, forces_j = numbers[1 : 1 + n].T, numbers[1 + n : 1 + 2 * n].T
        force_constants = numbers[1 + 2 * n :].T.reshape(-1, n, n)
        force_constants = (force_constants + force_constants.transpose(0, 2, 1)) / 2
        # The three eigenvalues of the smallest magnitude are those of the translations, which the pseudoinverse
        # excludes; rounding and truncation errors keep them from being exactly zero.
        eigenvalues, modes = np.linalg.eigh(force_constants)
        order = np.argsort(np.abs(eigenvalues), axis=1)[:, 3:]
        stiffness = np.take_along_axis(eigenvalues, order, axis=1)
        modes = np.take_along_axis(modes, order[:, None, :], axis=2)
        # k: fit, n: force component, m: mode
        mode_forces_i, mode_forces_j = (np.einsum("kn,knm->km", forces, modes) for forces in (forces_i, forces_j))
        with np.errstate(divide="ignore", invalid="ignore"):  # a mode of zero stiffness has no defined relaxation
            relaxation = (mode_forces_i * mode_forces_j / stiffness).sum(axis=1)
        return np.asarray(numbers[:1] - relaxation / self.volume / units.GPa)


def _build_equation_of_state(entry: PropertySettings, structures: list[Atoms]) -> list[LinearProperty]:
    """Build V0 and B of the Birch-Murnaghan equation, whose energy is a cubic polynomial of x = V^(-2/3).

    A single structure is scaled to `N_VOLUMES` volumes.
    """
    if len(structures) == 1:
        scales = np.cbrt(1 + np.linspace(-VOLUME_RANGE, VOLUME_RANGE, N_VOLUMES))
        structures = [_scale_cell(structures[0], scale) for scale in scales]
    if not all(atoms.pbc.all() for atoms in structures):
        raise InputError(f"property '{entry.name}': an equation of state requires structures that are periodic in 3D")
    if len({atoms.get_chemical_formula(empirical=True) for atoms in structures}) > 1:
        raise InputError(f"property '{entry.name}': the structures of an equation of state must have one composition")
    x = np.array([(atoms.get_volume() / len(atoms)) ** (-2 / 3) for atoms in structures])
    if len(np.unique(x.round(8))) < MIN_VOLUMES:  # rounded, because equal volumes may differ by rounding errors
        raise InputError(f"property '{entry.name}' needs at least {MIN_VOLUMES} different volumes")
    center, half_range = (x.max() + x.min()) / 2, (x.max() - x.min()) / 2
    u = (x - center) / half_range  # from -1 to 1, so that the fit is well conditioned
    coefficient_weights = np.linalg.pinv(np.vander(u, 4, increasing=True))  # least squares, (4, n_volumes)
    terms = [
        StructureWeights(atoms, {RowKind.ENERGY: csr_array(weights[:, None])})
        for atoms, weights in zip(structures, coefficient_weights.T, strict=True)
    ]
    return [
        LinearProperty(
            entry.name_part(part), entry.get_unit(part), terms, EquationOfState(part, float(center), float(half_range))
        )
        for part in entry.list_parts()
    ]


def _scale_cell(atoms: Atoms, scale: float) -> Atoms:
    """Return a copy of a structure with its cell and positions multiplied by `scale`."""
    copy: Atoms = atoms.copy()
    copy.set_cell(atoms.cell[:] * scale, scale_atoms=True)
    return copy


@dataclass(frozen=True)
class EquationOfState:
    """V0 or B at the minimum of a cubic polynomial of u = (V^(-2/3) - center) / half_range.

    The equation is that of F. Birch, Phys. Rev. 71, 809 (1947).

    Attributes
    ----------
    part : {"V0", "B"}
    center, half_range : float
        Center and half of the range of V^(-2/3) of the structures, with V in Å³/atom.
    """

    part: str
    center: float
    half_range: float

    def __call__(self, coefficients: Array) -> Array:
        """Compute V0 (Å³/atom) or B (GPa) of each fit, ``(1, n_fits)``; NaN without a minimum within the volumes.

        Parameters
        ----------
        coefficients : (4, n_fits) float64
            Coefficients of 1, u, u² and u³, eV/atom.
        """
        _, c1, c2, c3 = coefficients
        with np.errstate(divide="ignore", invalid="ignore"):
            root = np.sqrt(c2**2 - 3 * c1 * c3)  # half of d²E/du² at the minimum
            # Both forms are the same root. Where one subtracts nearly equal numbers, the other does not.
            u = np.where(c2 > 0, -c1 / (c2 + root), (root - c2) / (3 * c3))
            x = self.center + self.half_range * u
            volume = np.where(np.abs(u) <= 1, x, np.nan) ** -1.5
            if self.part == "V0":
                return np.asarray(volume[None])
            # With x = V^(-2/3), V d²E/dV² = (dx/d ln V)² d²E/dx² / V at the minimum, and dx/d ln V = -2x/3.
            curvature = 2 * root / self.half_range**2  # d²E/dx²
            return np.asarray((curvature * (2 * x / 3) ** 2 / volume / units.GPa)[None])


def _build_force_constants(entry: PropertySettings, structures: list[Atoms]) -> list[LinearProperty]:
    """Build the force constants of the atoms in the first cell of the supercell, each of which is displaced."""
    (atoms,) = structures
    n_atoms = len(atoms) * int(np.prod(entry.supercell))
    if n_atoms > MAX_SUPERCELL_ATOMS:
        raise InputError(
            f"property '{entry.name}': the supercell has {n_atoms} atoms, more than {MAX_SUPERCELL_ATOMS}; choose a "
            "smaller 'supercell'"
        )
    supercell = atoms.repeat(entry.supercell)  # the atoms of the first cell come first
    terms = _weigh_displaced_atoms(supercell, len(atoms), 0, 9 * len(atoms) * len(supercell))
    return [LinearProperty(entry.name, entry.get_unit(entry.name), terms, return_numbers)]


BUILDERS = {
    "elastic": _build_elastic,
    "energy_difference": _build_energy_difference,
    "equation_of_state": _build_equation_of_state,
    "force_constants": _build_force_constants,
}
