"""Properties by name, computed for one potential and one structure, as quantities and curves for tables."""

from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from itertools import combinations_with_replacement
from typing import Any

import pandas as pd
from ase import Atoms

from paretofit.core import join_lines
from paretofit.potentials import DISPERSION_METHODS
from paretofit.validation import crystal
from paretofit.validation.defects import compute_formation_energies, relax_defect_cells
from paretofit.validation.dimer import compute_dimer_curve
from paretofit.validation.elastic import compute_elastic_constants
from paretofit.validation.interlayer import find_layer_gaps, scan_interlayer_distance
from paretofit.validation.periodicity import KINDS, count_periodic, orient_structure
from paretofit.validation.phonon_bands import compute_phonons, compute_vibrations
from paretofit.validation.quantity import PropertyError, Quantity
from paretofit.validation.reservoirs import ReservoirEnergies, compute_reservoir_energies
from paretofit.validation.stability import MdProtocol, run_stability_test
from paretofit.validation.stone_wales import find_rotatable_bonds
from paretofit.validation.subject import PotentialSpec
from paretofit.validation.surfaces import Miller, choose_miller_indices, compute_surface_energy
from paretofit.validation.volume_scan import BirchMurnaghanCurve, compute_equation_of_state, scale_to_minimum


@dataclass(frozen=True)
class Effort:
    """Sizes of the cells of a validation, lengths of its MD runs, and numbers of points of its curves.

    Attributes
    ----------
    phonon_supercell_length, defect_supercell_length, slab_thickness, md_supercell_length : float
        Smallest distance between opposite faces of a supercell in periodic directions, or smallest thickness of a slab,
        Å.
    md_protocol : MdProtocol
        Durations and temperature of the MD runs.
    n_eos_points : int
        Number of volumes of the curve of an equation of state.
    """

    phonon_supercell_length: float = 12.0
    defect_supercell_length: float = 12.0
    slab_thickness: float = 12.0
    md_supercell_length: float = 8.0
    md_protocol: MdProtocol = field(default_factory=MdProtocol)
    n_eos_points: int = 21


QUICK_EFFORT = Effort(8.0, 7.0, 8.0, 6.0, MdProtocol(nvt_time_ps=0.5, nve_time_ps=0.5), 11)


@dataclass(frozen=True)
class ValidationSettings:
    """Settings of a validation.

    Attributes
    ----------
    effort : Effort
        Sizes of cells, lengths of MD runs and numbers of points.
    prototypes : tuple of str
        Crystal structures, such as ``fcc``, in which the equation of state of an element is also computed.
    surfaces : tuple of (h, k, l)
        Miller indices in the conventional cell; by default three low-index surfaces.
    interstitials : tuple of (3,) float
        Interstitial sites in fractional coordinates of the conventional cell.
    reference_energies : tuple of (str, float)
        Element and energy (eV) of an atom in its reservoir, for defects that add or remove atoms. The defaults are
        described in `paretofit.validation.reservoirs`.
    """

    effort: Effort = field(default_factory=Effort)
    prototypes: tuple[str, ...] = ("fcc", "bcc", "hcp")
    surfaces: tuple[Miller, ...] = ()
    interstitials: tuple[tuple[float, float, float], ...] = ()
    reference_energies: tuple[tuple[str, float], ...] = ()


@dataclass(frozen=True)
class ValidationCase:
    """One of the compared potentials, and one structure.

    Attributes
    ----------
    potentials : sequence of PotentialSpec
        All compared potentials.
    potential_index : int
        Index in `potentials` of the potential of this case.
    structure_name : str
        Name of the structure in tables.
    input_structure : ase.Atoms
        Structure in the orientation of `orient_structure`.
    structure : ase.Atoms
        Structure relaxed with this potential: conventional standard cell of a crystal, primitive cell of a sheet or a
        wire, or molecule. For `PROPERTIES_WITHOUT_RELAXATION`, this is the input structure.
    settings : ValidationSettings
    """

    potentials: Sequence[PotentialSpec]
    potential_index: int
    structure_name: str
    input_structure: Atoms
    structure: Atoms
    settings: ValidationSettings

    @property
    def potential(self) -> PotentialSpec:
        """Potential of this case."""
        return self.potentials[self.potential_index]

    def create_calculator(self, potential: PotentialSpec | None = None) -> Any:
        """Create a calculator for the structure, with the potential of this case or with another `potential`."""
        return (potential or self.potential).create_calculator_for(self.input_structure)


@dataclass
class PropertyResult:
    """Quantities and curves of a property, and its failures.

    Attributes
    ----------
    values : list of (str, int, Quantity)
        Name of the structure, index of the potential, and quantity.
    curves : dict of str to DataFrame
        Curves by the name of their table; ``structure`` and ``potential`` are columns.
    failures : list of str
        Reason for each failure, after the name of the failed part if the property has several parts.
    notes : list of str
        Conventions that the values depend on.
    """

    values: list[tuple[str, int, Quantity]] = field(default_factory=list)
    curves: dict[str, pd.DataFrame] = field(default_factory=dict)
    failures: list[str] = field(default_factory=list)
    notes: list[str] = field(default_factory=list)

    def add_quantities(
        self, case: ValidationCase, quantities: Sequence[Quantity], structure_name: str | None = None
    ) -> None:
        """Add quantities of the potential of a case, under the name of its structure or `structure_name`."""
        name = structure_name or case.structure_name
        self.values += [(name, case.potential_index, quantity) for quantity in quantities]

    def add_curve(
        self, case: ValidationCase, name: str, curve: pd.DataFrame, structure_name: str | None = None, **columns: str
    ) -> None:
        """Append a curve to the table `name`, with columns for the structure, the potential, and further `columns`."""
        table = curve.assign(structure=structure_name or case.structure_name, potential=case.potential.name, **columns)
        self.curves[name] = pd.concat([self.curves[name], table]) if name in self.curves else table

    @contextmanager
    def record_failure(self, name: str, *fatal_errors: type[Exception]) -> Iterator[None]:
        """Record an exception as the failure of the part `name`, so that other parts are computed.

        Exceptions of the types `fatal_errors` are not caught.
        """
        try:
            yield
        except fatal_errors:
            raise
        except Exception as error:  # noqa: BLE001  (a calculator may raise anything, as in `measure_property`)
            self.failures.append(f"{name}: {describe_error(error)}")


def relax_to_standard_cell(potential: PotentialSpec, atoms: Atoms) -> Atoms:
    """Relax the positions and the periodic cell vectors; return the standard cell, see `crystal.standardize_cell`.

    Raises
    ------
    PropertyError
        If the relaxation fails, or spglib finds no standard cell; a calculator may raise any other error.
    """
    structure = orient_structure(atoms)
    calculator = potential.create_calculator_for(structure)
    return crystal.standardize_cell(crystal.relax_structure(calculator, structure, relax_cell=True))


def _require_crystal(case: ValidationCase) -> None:
    """Raise a `PropertyError` unless the structure is periodic in three directions."""
    kind = KINDS[count_periodic(case.input_structure)]
    if kind != "crystal":
        raise PropertyError(
            f"this property is defined for crystals, which are periodic in three directions, not a {kind}"
        )


def _measure_lattice(case: ValidationCase, result: PropertyResult) -> None:
    """Add the lattice constants and the energy per atom of the relaxed structure."""
    energy = crystal.compute_energy(case.structure, case.create_calculator()) / len(case.structure)
    result.add_quantities(
        case, [*crystal.compute_lattice_quantities(case.structure), Quantity("energy", "eV/atom", energy)]
    )


def _measure_equations_of_state(case: ValidationCase, result: PropertyResult) -> None:
    """Add the equation of state of the structure and, for crystals of an element, those of the prototypes."""
    calculator = case.create_calculator()

    def measure_equation(name: str, atoms: Atoms) -> BirchMurnaghanCurve:
        """Compute an equation of state, and add its quantities, curve and failures under a name."""
        equation = compute_equation_of_state(calculator, atoms, n_points=case.settings.effort.n_eos_points)
        result.add_quantities(case, equation.quantities, name)
        table_name = "eos" if equation.measure.name == "volume" else f"eos_{equation.measure.name}"
        result.add_curve(case, table_name, equation.curve, name)
        result.failures += [f"{name}: {failure}" for failure in equation.failures]
        return equation

    structure_energy = measure_equation(case.structure_name, case.structure).energy
    symbols = sorted(set(case.input_structure.get_chemical_symbols()))
    if len(symbols) > 1 or not case.structure.pbc.all():
        return
    volume_per_atom = case.structure.get_volume() / len(case.structure)
    for prototype in case.settings.prototypes:
        name = f"{prototype} {symbols[0]}"
        with result.record_failure(name):
            atoms = scale_to_minimum(calculator, crystal.build_prototype(prototype, symbols[0], volume_per_atom))
            energy = 1e3 * (measure_equation(name, atoms).energy - structure_energy)
            result.add_quantities(case, [Quantity(f"E0 above {case.structure_name}", "meV/atom", energy)], name)


def _measure_elastic_constants(case: ValidationCase, result: PropertyResult) -> None:
    """Add the elastic constants and moduli of the relaxed structure."""
    result.add_quantities(case, compute_elastic_constants(case.create_calculator(), case.structure).quantities)


def _measure_phonons(case: ValidationCase, result: PropertyResult) -> None:
    """Add the phonons of the relaxed structure or, for a molecule, its vibrations."""
    if not case.structure.pbc.any():
        vibrations = compute_vibrations(case.create_calculator(), case.structure)
        result.add_quantities(case, vibrations.quantities)
        result.add_curve(case, "vibrations", vibrations.table)
        return
    min_length = case.settings.effort.phonon_supercell_length
    phonons = compute_phonons(case.create_calculator(), case.structure, min_length=min_length)
    result.add_quantities(case, phonons.quantities)
    result.add_curve(case, "phonon_bands", phonons.bands)
    result.add_curve(case, "phonon_labels", phonons.special_points)
    result.add_curve(case, "phonon_density", phonons.density_of_states)


def _measure_defects(case: ValidationCase, result: PropertyResult) -> None:
    """Add formation energies in cells relaxed with the potential of the case, evaluated with every potential.

    Each potential has the energies of its own reservoirs.
    """
    min_length, interstitials = case.settings.effort.defect_supercell_length, case.settings.interstitials
    calculator = case.create_calculator()
    cells = relax_defect_cells(calculator, case.structure, min_length=min_length, interstitials=interstitials)
    result.failures += [f"{name}: {reason}" for name, reason in cells.failures.items()]
    rows = []
    for index, potential in enumerate(case.potentials):
        evaluator, is_relaxing_potential = case.create_calculator(potential), index == case.potential_index
        reservoirs = compute_reservoir_energies(evaluator, cells.pristine, dict(case.settings.reference_energies))
        for name, energy in compute_formation_energies(evaluator, cells, reservoirs.energies).items():
            rows.append((name, case.potential.name, potential.name, energy))
            if len(case.potentials) > 1:
                quantity = Quantity(f"{name}, relaxed with {case.potential.name}", "eV", energy)
                result.values.append((case.structure_name, index, quantity))
            if is_relaxing_potential:
                problem = "the formation energy is negative" if energy < 0 else ""
                result.add_quantities(case, [Quantity(f"{name}, relaxed by itself", "eV", energy, problem)])
        if is_relaxing_potential and len(reservoirs.energies) > 1:
            _add_reservoirs(case, result, reservoirs)
    columns = ["defect", "relaxed_with", "evaluated_with", "energy"]
    result.add_curve(case, "defects", pd.DataFrame(rows, columns=columns))


def _add_reservoirs(case: ValidationCase, result: PropertyResult, reservoirs: ReservoirEnergies) -> None:
    """Add the energies of atoms in the reservoirs of a compound, and a note that names the reservoirs."""
    for symbol, energy in reservoirs.energies.items():
        result.add_quantities(case, [Quantity(f"reference energy of {symbol}", "eV/atom", energy)])
    reservoir_list = ", ".join(f"{symbol} ({reservoir})" for symbol, reservoir in sorted(reservoirs.reservoirs.items()))
    result.notes.append(
        f"formation energies of defects of {case.structure_name} with {case.potential.name} refer to {reservoir_list}; "
        "specify other energies with --reference-energy"
    )


def _measure_surfaces(case: ValidationCase, result: PropertyResult) -> None:
    """Add the energies of surfaces, as cut and relaxed, by their Miller indices."""
    _require_crystal(case)
    thickness = case.settings.effort.slab_thickness
    for indices in case.settings.surfaces or choose_miller_indices(case.structure):
        name = "({})".format("".join(map(str, indices)))
        for relax in (False, True):
            with result.record_failure(name):
                calculator = case.create_calculator()
                energy = compute_surface_energy(calculator, case.structure, indices, thickness=thickness, relax=relax)
                problem = "the surface energy is negative" if energy < 0 else ""
                quantity = Quantity(f"{name}, {'relaxed' if relax else 'as cut'}", "J/m²", energy, problem)
                result.add_quantities(case, [quantity])


def _measure_interlayer_distance(case: ValidationCase, result: PropertyResult) -> None:
    """Add the energy of the input structure as a function of the interlayer distance, without and with dispersion.

    The scans are those of Bidoggia et al. (2025). If the name of the potential ends with the suffix of a dispersion,
    such as ``+d3``, none is added.
    """
    _require_crystal(case)
    has_dispersion = case.potential.name.endswith(tuple(f"+{method}" for method in DISPERSION_METHODS))
    for method in ("", *(() if has_dispersion else DISPERSION_METHODS)):
        # a structure without layers, a PropertyError, fails with every method
        with result.record_failure(method or "no dispersion", PropertyError):
            potential = case.potential.with_dispersion(method) if method else case.potential
            calculator = case.create_calculator(potential)  # raises if an element has no dispersion parameters
            scan = scan_interlayer_distance(calculator, case.input_structure)
            suffix = f", {method.upper()}" if method else ""
            quantities = [quantity._replace(name=f"{quantity.name}{suffix}") for quantity in scan.quantities]
            result.add_quantities(case, quantities)
            if not quantities:
                result.failures.append(
                    f"{method or 'no dispersion'}: the energy has no minimum; the layers do not bind"
                )
            result.add_curve(case, "interlayer", scan.curve, dispersion=method.upper() or "none")


def _measure_dynamics(case: ValidationCase, result: PropertyResult) -> None:
    """Add the quantities and curves of a stability test of MD in a supercell."""
    effort = case.settings.effort
    supercell = crystal.repeat_to_length(case.structure, effort.md_supercell_length)
    stability = run_stability_test(case.potential, supercell, effort.md_protocol)
    result.add_quantities(case, stability.quantities)
    result.add_curve(case, "md_energy", stability.energies)
    result.add_curve(case, "md_rdf", stability.rdf)


def _measure_dimers(case: ValidationCase, result: PropertyResult) -> None:
    """Add the energy of two atoms as a function of their distance, for each pair of elements."""
    calculator, symbols = case.create_calculator(), sorted(set(case.input_structure.get_chemical_symbols()))
    for first_symbol, second_symbol in combinations_with_replacement(symbols, 2):
        dimer = compute_dimer_curve(calculator, first_symbol, second_symbol)
        result.add_quantities(case, dimer.quantities, f"{first_symbol}-{second_symbol}")
        if not dimer.is_bound:
            result.failures.append(
                f"{first_symbol}-{second_symbol}: the energy has no minimum; the two atoms do not bind"
            )
        result.add_curve(case, "dimer", dimer.curve, f"{first_symbol}-{second_symbol}")


# Functions that add a property to a result, by the name of the property.
PROPERTY_FUNCTIONS: dict[str, Callable[[ValidationCase, PropertyResult], None]] = {
    "lattice": _measure_lattice,
    "eos": _measure_equations_of_state,
    "elastic": _measure_elastic_constants,
    "phonons": _measure_phonons,
    "defects": _measure_defects,
    "surfaces": _measure_surfaces,
    "interlayer": _measure_interlayer_distance,
    "dimer": _measure_dimers,
    "md": _measure_dynamics,
}
CRYSTAL_PROPERTIES = ("surfaces", "interlayer")  # properties of structures that are periodic in three directions
STRAIN_PROPERTIES = ("eos", "elastic")  # properties of structures with at least one periodic direction
PROPERTIES_WITHOUT_RELAXATION = ("interlayer", "dimer")  # properties of the input structure


def list_applicable_properties(atoms: Atoms) -> list[str]:
    """List the properties that can be computed for a structure, in the order of `PROPERTY_FUNCTIONS`.

    Surfaces require a crystal, interlayer distances a layered crystal, equations of state and elastic constants a
    periodic direction. Defects of a molecule require a bond that can be rotated, and its phonons and MD two atoms.
    """
    excluded_properties: set[str] = set()
    if not atoms.pbc.all():
        excluded_properties.update(CRYSTAL_PROPERTIES)
    elif not len(find_layer_gaps(atoms)[1]):
        excluded_properties.add("interlayer")
    if not atoms.pbc.any():
        excluded_properties.update(STRAIN_PROPERTIES)
        if not find_rotatable_bonds(atoms):
            excluded_properties.add("defects")
        if len(atoms) == 1:
            excluded_properties.update(("phonons", "md"))
    return [name for name in PROPERTY_FUNCTIONS if name not in excluded_properties]


def measure_property(name: str, case: ValidationCase) -> PropertyResult:
    """Compute a property, a key of `PROPERTY_FUNCTIONS`, of one potential for one structure.

    If an exception is raised, the result contains nothing but this failure.
    """
    result = PropertyResult()
    try:
        PROPERTY_FUNCTIONS[name](case, result)
    except Exception as error:  # noqa: BLE001  (a calculator may raise anything; other properties are computed)
        return PropertyResult(failures=[describe_error(error)])
    return result


def describe_error(error: Exception) -> str:
    """Describe an exception in one line, by its message or, without a message, by its type."""
    return join_lines(error) or type(error).__name__
