"""The properties by name: each measured for one potential and one structure, with what goes into the tables."""

from __future__ import annotations

from dataclasses import dataclass, field
from itertools import combinations_with_replacement
from typing import TYPE_CHECKING, Any

import pandas as pd

from paretofit.core import one_line
from paretofit.potentials import DISPERSION_METHODS
from paretofit.validation.crystal import (
    PROTOTYPES,
    build_prototype,
    compute_lattice_quantities,
    relax_structure,
    repeat_to_length,
    standardize_cell,
)
from paretofit.validation.defects import compute_formation_energies, relax_defect_cells
from paretofit.validation.dimer import compute_dimer_curve
from paretofit.validation.elastic import compute_elastic_constants
from paretofit.validation.interlayer import scan_interlayer_distance
from paretofit.validation.phonon_bands import compute_phonons
from paretofit.validation.quantity import PropertyError, Quantity
from paretofit.validation.stability import MdProtocol, run_stability_test
from paretofit.validation.surfaces import Miller, choose_miller_indices, compute_surface_energy
from paretofit.validation.volume_scan import BirchMurnaghanCurve, compute_equation_of_state, scale_to_minimum

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from ase import Atoms

    from paretofit.validation.subject import PotentialSpec


@dataclass(frozen=True)
class Effort:
    """Sizes and lengths of a validation.

    Attributes
    ----------
    phonon_supercell_length, defect_supercell_length, slab_thickness, md_supercell_length : float
        Smallest distance between opposite faces of a supercell, or thickness, Å.
    md_protocol : Protocol
        Of the dynamics.
    n_eos_points : int
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
    """What is measured, and how.

    Attributes
    ----------
    effort : Effort
    prototypes : tuple of str
        Crystals of an element whose equations of state are compared.
    surfaces : tuple of (h, k, l)
        Of the conventional cell; empty for low ones that suit it.
    interstitials : tuple of (3,) float
        Fractions of the conventional cell.
    """

    effort: Effort = field(default_factory=Effort)
    prototypes: tuple[str, ...] = ("fcc", "bcc", "hcp")
    surfaces: tuple[Miller, ...] = ()
    interstitials: tuple[tuple[float, float, float], ...] = ()


@dataclass(frozen=True)
class ValidationCase:
    """A potential among those that are compared, and a structure.

    Attributes
    ----------
    potentials : sequence of Subject
    potential_index : int
        Which of them.
    structure_name : str
    input_structure : ase.Atoms
    crystal : ase.Atoms
        Relaxed with this potential, in the standard setting; as given for what needs no relaxed crystal.
    settings : Settings
    """

    potentials: Sequence[PotentialSpec]
    potential_index: int
    structure_name: str
    input_structure: Atoms
    crystal: Atoms
    settings: ValidationSettings

    @property
    def potential(self) -> PotentialSpec:
        """The potential."""
        return self.potentials[self.potential_index]

    def make_calculator(self) -> Any:
        """A new calculator of it."""
        return self.potential.make_calculator(self.input_structure.get_chemical_symbols())


@dataclass
class PropertyResult:
    """Numbers, curves and reasons for what is missing.

    Attributes
    ----------
    values : list of (str, int, Quantity)
        Structure, which potential's, and the number.
    curves : dict of str to DataFrame
        By the name of their table; ``structure`` and ``potential`` are columns.
    failures : list of str
    """

    values: list[tuple[str, int, Quantity]] = field(default_factory=list)
    curves: dict[str, pd.DataFrame] = field(default_factory=dict)
    failures: list[str] = field(default_factory=list)

    def add_quantities(
        self, case: ValidationCase, quantities: Sequence[Quantity], structure_name: str | None = None
    ) -> None:
        """Quantities of the case's own potential."""
        self.values += [
            (structure_name or case.structure_name, case.potential_index, quantity) for quantity in quantities
        ]

    def add_curve(
        self, case: ValidationCase, name: str, curve: pd.DataFrame, structure_name: str | None = None, **more: str
    ) -> None:
        """Append a curve to a table."""
        table = curve.assign(structure=structure_name or case.structure_name, potential=case.potential.name, **more)
        self.curves[name] = pd.concat([self.curves[name], table]) if name in self.curves else table


def relax_crystal(potential: PotentialSpec, atoms: Atoms) -> Atoms:
    """Cell and positions relaxed, then brought into the standard setting (spglib)."""
    calculator = potential.make_calculator(atoms.get_chemical_symbols())
    return standardize_cell(relax_structure(calculator, atoms, relax_cell=True))


def _lattice(case: ValidationCase) -> PropertyResult:
    done = PropertyResult()
    case.crystal.calc = case.make_calculator()
    energy = case.crystal.get_potential_energy() / len(case.crystal)
    done.add_quantities(case, [*compute_lattice_quantities(case.crystal), Quantity("energy", "eV/atom", float(energy))])
    case.crystal.calc = None
    return done


def _equations(case: ValidationCase) -> PropertyResult:
    done, calculator = PropertyResult(), case.make_calculator()
    own = _equation(case, done, calculator, case.structure_name, case.crystal)
    symbols = set(case.input_structure.get_chemical_symbols())
    for name in case.settings.prototypes if len(symbols) == 1 else ():
        symbol = min(symbols)
        try:
            start = build_prototype(name, symbol, case.crystal.get_volume() / len(case.crystal))
            found = _equation(case, done, calculator, f"{name} {symbol}", scale_to_minimum(calculator, start))
        except Exception as error:  # noqa: BLE001  (as in `measure_property`: the other prototypes go on)
            done.failures.append(f"{name} {symbol}: {describe_error(error)}")
            continue
        above = Quantity(f"E0 above {case.structure_name}", "meV/atom", 1e3 * (found.energy - own.energy))
        done.add_quantities(case, [above], f"{name} {symbol}")
    return done


def _equation(
    case: ValidationCase, done: PropertyResult, calculator: Any, name: str, atoms: Atoms
) -> BirchMurnaghanCurve:
    found = compute_equation_of_state(calculator, atoms, n_points=case.settings.effort.n_eos_points)
    done.add_quantities(case, found.quantities, name)
    done.add_curve(case, "eos", found.curve, name)
    return found


def _elastic(case: ValidationCase) -> PropertyResult:
    done = PropertyResult()
    done.add_quantities(case, compute_elastic_constants(case.make_calculator(), case.crystal).quantities)
    return done


def _phonons(case: ValidationCase) -> PropertyResult:
    done = PropertyResult()
    found = compute_phonons(
        case.make_calculator(), case.crystal, min_length=case.settings.effort.phonon_supercell_length
    )
    done.add_quantities(case, found.quantities)
    for name, table in (("bands", found.bands), ("labels", found.labels), ("density", found.density_of_states)):
        done.add_curve(case, f"phonon_{name}", table)
    return done


def _defects(case: ValidationCase) -> PropertyResult:
    """The four-way table: this potential's relaxed cells, evaluated with every potential."""
    done, rows = PropertyResult(), []
    effort, sites = case.settings.effort, case.settings.interstitials
    cells = relax_defect_cells(
        case.make_calculator(), case.crystal, min_length=effort.defect_supercell_length, interstitials=sites
    )
    done.failures += [f"{name}: {text}" for name, text in cells.failures.items()]
    for index, subject in enumerate(case.potentials):
        energies = compute_formation_energies(
            subject.make_calculator(case.input_structure.get_chemical_symbols()), cells
        )
        for name, energy in energies.items():
            rows.append((name, case.potential.name, subject.name, energy))
            if len(case.potentials) > 1:
                four = Quantity(f"{name}, relaxed with {case.potential.name}", "eV", energy)
                done.values.append((case.structure_name, index, four))
            if index == case.potential_index:
                done.add_quantities(case, [Quantity(f"{name}, relaxed by itself", "eV", energy)])
    columns = ["defect", "relaxed_with", "evaluated_with", "energy"]
    done.add_curve(case, "defects", pd.DataFrame(rows, columns=columns))
    return done


def _surfaces(case: ValidationCase) -> PropertyResult:
    done = PropertyResult()
    for indices in case.settings.surfaces or choose_miller_indices(case.crystal):
        name = "({})".format("".join(map(str, indices)))
        for relax in (False, True):
            try:
                energy = compute_surface_energy(
                    case.make_calculator(),
                    case.crystal,
                    indices,
                    thickness=case.settings.effort.slab_thickness,
                    relax=relax,
                )
            except Exception as error:  # noqa: BLE001  (as in `measure_property`: the other surfaces go on)
                done.failures.append(f"{name}: {describe_error(error)}")
                continue
            done.add_quantities(case, [Quantity(f"{name}, {'relaxed' if relax else 'as cut'}", "J/m²", energy)])
            if energy < 0:
                done.failures.append(f"{name}: a slab lies {-energy:.3g} J/m² below the crystal, which falls apart")
    return done


def _interlayer(case: ValidationCase) -> PropertyResult:
    """The structure as given, as in paper 1, without and with dispersion."""
    done, symbols = PropertyResult(), case.input_structure.get_chemical_symbols()
    has_some = case.potential.name.endswith(tuple(f"+{kind}" for kind in DISPERSION_METHODS))
    for kind in ("", *(() if has_some else DISPERSION_METHODS)):
        try:
            subject = case.potential.with_dispersion(kind) if kind else case.potential
            found = scan_interlayer_distance(subject.make_calculator(symbols), case.input_structure)
        except PropertyError:
            raise
        except Exception as error:  # noqa: BLE001  (as in `measure_property`: D2 has no parameters of heavy elements, ...)
            done.failures.append(f"{kind or 'no dispersion'}: {describe_error(error)}")
            continue
        words = f", {kind.upper()}" if kind else ""
        done.add_quantities(case, [Quantity(f"{one.name}{words}", one.unit, one.value) for one in found.quantities])
        done.add_curve(case, "interlayer", found.curve, dispersion=kind.upper() or "none")
    return done


def _dynamics(case: ValidationCase) -> PropertyResult:
    done, effort = PropertyResult(), case.settings.effort
    found = run_stability_test(
        case.potential, repeat_to_length(case.crystal, effort.md_supercell_length), effort.md_protocol
    )
    done.add_quantities(case, found.quantities)
    done.add_curve(case, "md_energy", found.energies)
    done.add_curve(case, "md_rdf", found.rdf)
    if found.reason:
        done.failures.append(
            f"ended after {found.survival_time_ps:.3g} ps of {found.requested_time_ps:.3g}: {found.reason}"
        )
    return done


def _dimers(case: ValidationCase) -> PropertyResult:
    done, calculator = PropertyResult(), case.make_calculator()
    for first, second in combinations_with_replacement(sorted(set(case.input_structure.get_chemical_symbols())), 2):
        found = compute_dimer_curve(calculator, first, second)
        done.add_quantities(case, found.quantities, f"{first}-{second}")
        done.add_curve(case, "dimer", found.curve, f"{first}-{second}")
    return done


PROPERTY_FUNCTIONS: dict[str, Callable[[ValidationCase], PropertyResult]] = {
    "lattice": _lattice,
    "eos": _equations,
    "elastic": _elastic,
    "phonons": _phonons,
    "defects": _defects,
    "surfaces": _surfaces,
    "interlayer": _interlayer,
    "dimer": _dimers,
    "md": _dynamics,
}
PROPERTIES_WITHOUT_RELAXATION = ("interlayer", "dimer")  # need no relaxed crystal
KNOWN_PROTOTYPES = PROTOTYPES


def measure_property(name: str, case: ValidationCase) -> PropertyResult:
    """One property of one potential for one structure; what goes wrong becomes its reason, never an exception."""
    try:
        return PROPERTY_FUNCTIONS[name](case)
    except Exception as error:  # noqa: BLE001  (a calculator may raise anything; the other properties go on)
        return PropertyResult(failures=[describe_error(error)])


def describe_error(error: Exception) -> str:
    """An exception as a phrase."""
    return one_line(error) or type(error).__name__
