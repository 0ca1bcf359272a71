"""Verb for the validation of potentials: validate."""

from dataclasses import replace
from pathlib import Path
from typing import Annotated, TypeVar

from typer import Argument, Option

from paretofit.cli import options
from paretofit.cli.options import app, print_result, split_names
from paretofit.core import InputError

T = TypeVar("T", int, float)
PotentialArgument = Annotated[
    str,
    Argument(
        help="SNAP potential (files or folder), MACE committee folder, file with LAMMPS pair_style lines, or ASE "
        "calculator (module.Class). Append +d2 or +d3 to add dispersion."
    ),
]
StructuresOption = Annotated[
    list[Path] | None,
    Option(
        help="Structure to validate, any file that ASE reads; may be repeated. Specify the periodic directions of "
        'sheets, wires and molecules in the file, such as extended XYZ with pbc="T T F".',
        show_default="the elements' crystals",
    ),
]
PropertiesOption = Annotated[
    str,
    Option(
        "--property",
        help="Properties to compute, separated by commas: lattice, eos, elastic, phonons, defects, surfaces, "
        "interlayer, dimer, md.",
        show_default="all that a structure has",
    ),
]
PrototypesOption = Annotated[
    str, Option(help="Crystal structures whose equations of state are compared, separated by commas.")
]
SurfacesOption = Annotated[
    list[str] | None,
    Option(help="Miller indices of a surface, such as 1,1,1; may be repeated.", show_default="low indices"),
]
InterstitialsOption = Annotated[
    list[str] | None,
    Option(
        help="Interstitial site in fractional coordinates of the conventional cell, such as 0.5,0.5,0.5; may be "
        "repeated."
    ),
]
ReferenceEnergyOption = Annotated[
    list[str] | None,
    Option(
        help="Energy of an atom in its reservoir (eV), such as Ni=-4.45, for vacancies and antisites of compounds; may "
        "be repeated.",
        show_default="the element's relaxed crystal",
    ),
]
TimeOption = Annotated[
    float | None,
    Option(min=0.1, help="Length of the dynamics with a thermostat (ps).", show_default="10, or 0.5 with --quick"),
]


@app.command(
    epilog="Examples:  paretofit validate potential/potential.mod --structure hcp.cif -o checks   |   paretofit "
    "validate potential --against ase.calculators.emt.EMT --structure cu.cif --quick -o checks"
)
def validate(
    potential: PotentialArgument,
    *,
    out: Annotated[Path, Option("--out", "-o", help="Folder to write to.")] = Path("validation"),
    against: Annotated[
        str | None, Option(help="Reference to compare with: another potential, or its validation.csv.")
    ] = None,
    structure: StructuresOption = None,
    properties: PropertiesOption = "",
    prototypes: PrototypesOption = "fcc,bcc,hcp",
    surface: SurfacesOption = None,
    interstitial: InterstitialsOption = None,
    reference_energy: ReferenceEnergyOption = None,
    temperature: Annotated[float, Option(min=1.0, help="Temperature of the molecular dynamics (K).")] = 300.0,
    md_time: TimeOption = None,
    allow_pickle: options.AllowPickle = False,
    quick: Annotated[bool, Option("--quick", help="Use small cells and short dynamics.")] = False,
    jobs: options.Jobs,
    force: options.Force = False,
    progress: options.Progress = True,
    as_json: options.Json = False,
) -> None:
    """Compute physical properties of a potential: crystals, elasticity, phonons, defects, surfaces, dynamics.

    Run the same command again to resume a validation that was stopped.
    """
    from paretofit.commands import validate_potential
    from paretofit.validation import QUICK_EFFORT, Effort, ValidationSettings

    effort = QUICK_EFFORT if quick else Effort()
    nvt_time_ps = md_time or effort.md_protocol.nvt_time_ps
    protocol = replace(effort.md_protocol, temperature=temperature, nvt_time_ps=nvt_time_ps)
    settings = ValidationSettings(
        replace(effort, md_protocol=protocol),
        tuple(split_names(prototypes)),
        tuple(_parse_triple("--surface", text, int) for text in surface or []),
        tuple(_parse_triple("--interstitial", text, float) for text in interstitial or []),
        tuple(_parse_energy(text) for text in reference_energy or []),
    )
    validation = validate_potential(
        potential, out, against=against, structures=structure or (), properties=split_names(properties),
        settings=settings, overwrite=force, jobs=jobs, progress=progress, allow_pickle=allow_pickle,
    )  # fmt: skip
    print_result(validation, validation.text, as_json=as_json)


def _parse_triple(option: str, text: str, number_type: type[T]) -> tuple[T, T, T]:
    """Parse three numbers separated by commas; `option` is the name of the option in the error message."""
    try:
        a, b, c = (number_type(number_text) for number_text in text.split(","))
    except ValueError as error:
        raise InputError(f"{option} requires three numbers separated by commas; got '{text}'") from error
    return a, b, c


def _parse_energy(text: str) -> tuple[str, float]:
    """Parse an element and its reference energy (eV per atom), such as "Ni=-4.45"."""
    symbol, _, energy = text.partition("=")
    try:
        return symbol.strip(), float(energy)
    except ValueError as error:
        raise InputError(
            f"--reference-energy requires an element and its energy, such as Ni=-4.45; got '{text}'"
        ) from error
