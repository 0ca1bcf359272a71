"""The properties by name: each measured for one potential and one structure, with what goes into the tables."""

from __future__ import annotations

from dataclasses import dataclass, field
from itertools import combinations_with_replacement
from typing import TYPE_CHECKING, Any

import pandas as pd

from paretofit.core import one_line
from paretofit.potentials import KINDS
from paretofit.validation.crystal import PROTOTYPES, conventional, lattice, prototype, relaxed, supercell
from paretofit.validation.defects import defect_cells, formation_energies
from paretofit.validation.dimer import dimer_curve
from paretofit.validation.elastic import elastic_constants
from paretofit.validation.interlayer import interlayer_scan
from paretofit.validation.phonon_bands import phonons
from paretofit.validation.quantity import PropertyError, Quantity
from paretofit.validation.stability import Protocol, md_stability
from paretofit.validation.surfaces import Miller, default_indices, surface_energy
from paretofit.validation.volume_scan import Equation, at_minimum, equation_of_state

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from ase import Atoms

    from paretofit.validation.subject import Subject


@dataclass(frozen=True)
class Effort:
    """Sizes and lengths of a validation.

    Attributes
    ----------
    phonons, defects, slab, dynamics : float
        Smallest distance between opposite faces of a supercell, or thickness, Å.
    protocol : Protocol
        Of the dynamics.
    eos_points : int
    """

    phonons: float = 12.0
    defects: float = 12.0
    slab: float = 12.0
    dynamics: float = 8.0
    protocol: Protocol = field(default_factory=Protocol)
    eos_points: int = 21


QUICK = Effort(8.0, 7.0, 8.0, 6.0, Protocol(thermostat=0.5, free=0.5), 11)


@dataclass(frozen=True)
class Settings:
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
class Case:
    """A potential among those that are compared, and a structure.

    Attributes
    ----------
    subjects : sequence of Subject
    index : int
        Which of them.
    structure : str
    given : ase.Atoms
    crystal : ase.Atoms
        Relaxed with this potential, in the standard setting; as given for what needs no relaxed crystal.
    settings : Settings
    """

    subjects: Sequence[Subject]
    index: int
    structure: str
    given: Atoms
    crystal: Atoms
    settings: Settings

    @property
    def subject(self) -> Subject:
        """The potential."""
        return self.subjects[self.index]

    def calculator(self) -> Any:
        """A new calculator of it."""
        return self.subject.calculator(self.given.get_chemical_symbols())


@dataclass
class Measured:
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

    def add(self, case: Case, quantities: Sequence[Quantity], structure: str | None = None) -> None:
        """Quantities of the case's own potential."""
        self.values += [(structure or case.structure, case.index, quantity) for quantity in quantities]

    def draw(self, case: Case, name: str, curve: pd.DataFrame, structure: str | None = None, **more: str) -> None:
        """Append a curve to a table."""
        table = curve.assign(structure=structure or case.structure, potential=case.subject.name, **more)
        self.curves[name] = pd.concat([self.curves[name], table]) if name in self.curves else table


def relaxed_crystal(subject: Subject, atoms: Atoms) -> Atoms:
    """Cell and positions relaxed, then brought into the standard setting (spglib)."""
    calculator = subject.calculator(atoms.get_chemical_symbols())
    return conventional(relaxed(calculator, atoms, cell=True))


def _lattice(case: Case) -> Measured:
    done = Measured()
    case.crystal.calc = case.calculator()
    energy = case.crystal.get_potential_energy() / len(case.crystal)
    done.add(case, [*lattice(case.crystal), Quantity("energy", "eV/atom", float(energy))])
    case.crystal.calc = None
    return done


def _equations(case: Case) -> Measured:
    done, calculator = Measured(), case.calculator()
    own = _equation(case, done, calculator, case.structure, case.crystal)
    symbols = set(case.given.get_chemical_symbols())
    for name in case.settings.prototypes if len(symbols) == 1 else ():
        symbol = min(symbols)
        try:
            start = prototype(name, symbol, case.crystal.get_volume() / len(case.crystal))
            found = _equation(case, done, calculator, f"{name} {symbol}", at_minimum(calculator, start))
        except Exception as error:  # noqa: BLE001  (as in `measure`: the other prototypes go on)
            done.failures.append(f"{name} {symbol}: {reason(error)}")
            continue
        above = Quantity(f"E0 above {case.structure}", "meV/atom", 1e3 * (found.energy - own.energy))
        done.add(case, [above], f"{name} {symbol}")
    return done


def _equation(case: Case, done: Measured, calculator: Any, name: str, atoms: Atoms) -> Equation:
    found = equation_of_state(calculator, atoms, points=case.settings.effort.eos_points)
    done.add(case, found.quantities, name)
    done.draw(case, "eos", found.curve, name)
    return found


def _elastic(case: Case) -> Measured:
    done = Measured()
    done.add(case, elastic_constants(case.calculator(), case.crystal).quantities)
    return done


def _phonons(case: Case) -> Measured:
    done = Measured()
    found = phonons(case.calculator(), case.crystal, length=case.settings.effort.phonons)
    done.add(case, found.quantities)
    for name, table in (("bands", found.bands), ("labels", found.labels), ("density", found.density)):
        done.draw(case, f"phonon_{name}", table)
    return done


def _defects(case: Case) -> Measured:
    """The four-way table: this potential's relaxed cells, evaluated with every potential."""
    done, rows = Measured(), []
    effort, sites = case.settings.effort, case.settings.interstitials
    cells = defect_cells(case.calculator(), case.crystal, length=effort.defects, interstitials=sites)
    done.failures += [f"{name}: {text}" for name, text in cells.failures.items()]
    for index, subject in enumerate(case.subjects):
        energies = formation_energies(subject.calculator(case.given.get_chemical_symbols()), cells)
        for name, energy in energies.items():
            rows.append((name, case.subject.name, subject.name, energy))
            if len(case.subjects) > 1:
                four = Quantity(f"{name}, relaxed with {case.subject.name}", "eV", energy)
                done.values.append((case.structure, index, four))
            if index == case.index:
                done.add(case, [Quantity(f"{name}, relaxed by itself", "eV", energy)])
    columns = ["defect", "relaxed_with", "evaluated_with", "energy"]
    done.draw(case, "defects", pd.DataFrame(rows, columns=columns))
    return done


def _surfaces(case: Case) -> Measured:
    done = Measured()
    for indices in case.settings.surfaces or default_indices(case.crystal):
        name = "({})".format("".join(map(str, indices)))
        for relax in (False, True):
            try:
                energy = surface_energy(
                    case.calculator(), case.crystal, indices, thickness=case.settings.effort.slab, relax=relax
                )
            except Exception as error:  # noqa: BLE001  (as in `measure`: the other surfaces go on)
                done.failures.append(f"{name}: {reason(error)}")
                continue
            done.add(case, [Quantity(f"{name}, {'relaxed' if relax else 'as cut'}", "J/m²", energy)])
            if energy < 0:
                done.failures.append(f"{name}: a slab lies {-energy:.3g} J/m² below the crystal, which falls apart")
    return done


def _interlayer(case: Case) -> Measured:
    """The structure as given, as in paper 1, without and with dispersion."""
    done, symbols = Measured(), case.given.get_chemical_symbols()
    has_some = case.subject.name.endswith(tuple(f"+{kind}" for kind in KINDS))
    for kind in ("", *(() if has_some else KINDS)):
        try:
            subject = case.subject.with_dispersion(kind) if kind else case.subject
            found = interlayer_scan(subject.calculator(symbols), case.given)
        except PropertyError:
            raise
        except Exception as error:  # noqa: BLE001  (as in `measure`: D2 has no parameters of heavy elements, ...)
            done.failures.append(f"{kind or 'no dispersion'}: {reason(error)}")
            continue
        words = f", {kind.upper()}" if kind else ""
        done.add(case, [Quantity(f"{one.name}{words}", one.unit, one.value) for one in found.quantities])
        done.draw(case, "interlayer", found.curve, dispersion=kind.upper() or "none")
    return done


def _dynamics(case: Case) -> Measured:
    done, effort = Measured(), case.settings.effort
    found = md_stability(case.subject, supercell(case.crystal, effort.dynamics), effort.protocol)
    done.add(case, found.quantities)
    done.draw(case, "md_energy", found.energies)
    done.draw(case, "md_rdf", found.rdf)
    if found.reason:
        done.failures.append(f"ended after {found.survived:.3g} ps of {found.asked:.3g}: {found.reason}")
    return done


def _dimers(case: Case) -> Measured:
    done, calculator = Measured(), case.calculator()
    for first, second in combinations_with_replacement(sorted(set(case.given.get_chemical_symbols())), 2):
        found = dimer_curve(calculator, first, second)
        done.add(case, found.quantities, f"{first}-{second}")
        done.draw(case, "dimer", found.curve, f"{first}-{second}")
    return done


PROPERTIES: dict[str, Callable[[Case], Measured]] = {
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
UNRELAXED = ("interlayer", "dimer")  # need no relaxed crystal
KNOWN_PROTOTYPES = PROTOTYPES


def measure(name: str, case: Case) -> Measured:
    """One property of one potential for one structure; what goes wrong becomes its reason, never an exception."""
    try:
        return PROPERTIES[name](case)
    except Exception as error:  # noqa: BLE001  (a calculator may raise anything; the other properties go on)
        return Measured(failures=[reason(error)])


def reason(error: Exception) -> str:
    """An exception as a phrase."""
    return one_line(error) or type(error).__name__
