"""FitSNAP's input files (``.in``): what they ask for, with FitSNAP's own defaults where a key is missing.

Nothing is fitted here and no structure is read. The one idea: every key of a file is either read, or known not to
change the fit and listed in ``ignored``, or refused by name; none is passed over. Defaults and meanings are those of
FitSNAP 3.1 (``fitsnap3lib/io/sections``, ``fitsnap3lib/scrapers``). Keys are case-sensitive there, and so here.
"""

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from ase.data import atomic_numbers

from paretofit.core import InputError, suggestion
from paretofit.fitsnap.ini import IGNORED, Ini, check_keys, closest, number_in
from paretofit.fitsnap.input_groups import Group, read_groups

CALCULATORS = ("LAMMPSSNAP",)
OTHER_CALCULATORS = ("LAMMPSPACE", "LAMMPSPYACE", "PYACE", "LAMMPSCUSTOM", "LAMMPSREAXFF", "BASIC", "INQ")
SOLVERS = ("SVD", "RIDGE")
OTHER_SOLVERS = (
    *("ARD", "LASSO", "ANL", "MERR", "MCMC", "BCS", "OPT", "SCALAPACK", "SLATE", "TENSORFLOWSVD", "JAX", "PYTORCH"),
    *("NETWORK", "CMAES", "NGOPT"),
)
SCRAPERS = ("JSON", "XYZ")
OTHER_SCRAPERS = ("VASP", "ASE", "HDF5", "FAIRCHEM", "PACEMAKER")
XYZ_SUFFIXES = (".extxyz", ".xyz")  # in FitSNAP's order of preference


@dataclass(frozen=True)
class Bispectrum:
    """The descriptors, in the words of LAMMPS's ``compute snap``; lists have one value for each element.

    `rcutfac` and `rmin0` are in Å (`rcutfac` times the sum of two `radelem`). With `bzeroflag` FitSNAP has no
    constant columns at all, without it one for each element.
    """

    elements: tuple[str, ...]
    twojmax: int
    rcutfac: float
    rfac0: float
    rmin0: float
    wj: tuple[float, ...]
    radelem: tuple[float, ...]
    bzeroflag: bool
    chemflag: bool
    quadraticflag: bool
    switchflag: bool
    bnormflag: bool
    wselfallflag: bool
    switchinnerflag: bool
    sinner: tuple[float, ...]  # empty without switchinnerflag
    dinner: tuple[float, ...]


@dataclass(frozen=True)
class Calculator:
    """Which rows are fitted."""

    energy: bool
    force: bool
    stress: bool


@dataclass(frozen=True)
class Reference:
    """The LAMMPS potential that is subtracted from the labels before the fit."""

    units: str
    atom_style: str
    pair_style: str
    pair_coeff: tuple[str, ...]

    @property
    def commands(self) -> list[str]:
        """LAMMPS's lines, in order. FitSNAP lower-cases them; file names and elements are kept as written here."""
        return [f"pair_style {self.pair_style}", *(f"pair_coeff {one}" for one in self.pair_coeff)]


@dataclass(frozen=True)
class Solver:
    """SVD, minimum-norm least squares with singular values below 1e-13 of the largest dropped, or RIDGE.

    `alpha` is zero for SVD; with RIDGE the loss gets alpha ‖β‖², constant columns included, coefficients not scaled.
    """

    name: str
    alpha: float


@dataclass(frozen=True)
class FitsnapInput:
    """All that a FitSNAP input asks for.

    `eshift` (eV, every element) is added to the energy of each atom of that element. With `smartweights` FitSNAP
    divides each weight of a configuration by the number of configurations of its group that are trained on (tested
    on, for a test configuration), and the force weight also by 3N, and by 6 where stresses are fitted (so written:
    it is not the stress weight that it divides). A `random_seed` of 0 means that none was chosen. `metrics` and
    `potential` are names of output files. `ignored` names the keys that the file sets and that do not change the fit.
    """

    path: Path
    bispectrum: Bispectrum
    calculator: Calculator
    eshift: Mapping[str, float]
    reference: Reference
    groups: tuple[Group, ...]
    smartweights: bool
    random_sampling: bool
    random_seed: int
    solver: Solver
    scraper: str
    data_path: Path
    metrics: str
    potential: str
    ignored: tuple[str, ...]


def read_fitsnap_input(path: Path | str) -> FitsnapInput:
    """Read a FitSNAP input file.

    Parameters
    ----------
    path : path
        A ``.in`` file; paths in it are taken from its folder.

    Raises
    ------
    InputError
        If it cannot be read, or a section, a key or a value is unknown, wrong or not supported.
    """
    ini = Ini(Path(path))
    check_keys(ini)
    bispectrum = _bispectrum(ini)
    folder = ini.path.parent
    return FitsnapInput(
        path=ini.path,
        bispectrum=bispectrum,
        calculator=_calculator(ini),
        eshift=_eshift(ini, bispectrum.elements),
        reference=_reference(ini),
        groups=read_groups(ini),
        smartweights=ini.flag("GROUPS", "smartweights", default=False),
        random_sampling=ini.flag("GROUPS", "random_sampling", default=False),
        random_seed=_seed(ini),
        solver=_solver(ini),
        scraper=ini.one_of("SCRAPER", "scraper", SCRAPERS, OTHER_SCRAPERS),
        data_path=folder / ini.text("PATH", "dataPath", "JSON"),
        metrics=ini.text("OUTFILE", "metrics", "fitsnap_metrics"),
        potential=ini.text("OUTFILE", "potential", "fitsnap_potential"),
        ignored=tuple(
            f"[{section}] {key}" for section, keys in IGNORED.items() for key in ini.keys(section) if key in keys
        ),
    )


def fitsnap_group_files(settings: FitsnapInput) -> dict[str, list[Path]]:
    """Files of each group: the JSON files of its folder, in natural order of their names, or its one XYZ file.

    FitSNAP takes files in the order in which the file system lists them, so that groups that are split have other
    members there from machine to machine. In its XYZ files stress is in bar and positive in compression.

    Raises
    ------
    InputError
        If a group has no folder or no files.
    """
    try:
        if not settings.data_path.is_dir():
            raise InputError(f"{settings.path}: [PATH] dataPath: no folder at {settings.data_path}")
        find = _json_files if settings.scraper == "JSON" else _xyz_files
        return {group.name: find(settings, group.name) for group in settings.groups}
    except OSError as error:
        raise InputError(f"{error.filename} cannot be read: {error.strerror}; make it readable") from error


def _bispectrum(ini: Ini) -> Bispectrum:
    section = "BISPECTRUM"
    elements = _elements(ini)
    n = len(elements)
    inner = ini.flag(section, "switchinnerflag", default=False)

    def flag(key: str, *, default: bool = False) -> bool:
        return ini.flag(section, key, default=default)

    return Bispectrum(
        elements=elements,
        twojmax=_twojmax(ini, n),
        rcutfac=ini.number(section, "rcutfac", 4.67637),
        rfac0=ini.number(section, "rfac0", 0.99363),
        rmin0=ini.number(section, "rmin0", 0.0),
        wj=ini.numbers(section, "wj", 1.0, n),
        radelem=ini.numbers(section, "radelem", 0.5, n),
        bzeroflag=flag("bzeroflag"),
        chemflag=flag("chemflag"),
        quadraticflag=flag("quadraticflag"),
        switchflag=flag("switchflag", default=True),
        bnormflag=flag("bnormflag"),
        wselfallflag=flag("wselfallflag"),
        switchinnerflag=inner,
        sinner=ini.numbers(section, "sinner", 0.9, n) if inner else (),
        dinner=ini.numbers(section, "dinner", 0.1, n) if inner else (),
    )


def _elements(ini: Ini) -> tuple[str, ...]:
    if "type" not in ini.keys("BISPECTRUM"):  # FitSNAP would take hydrogen
        raise InputError(f"{ini.path}: [BISPECTRUM] has no 'type'; it lists the elements, such as 'type = W Be'")
    elements = tuple(ini.text("BISPECTRUM", "type", "").split())
    for symbol in elements:
        if not atomic_numbers.get(symbol) or elements.count(symbol) > 1:
            raise ini.wrong("BISPECTRUM", "type", f"must be different chemical symbols, which '{symbol}' is not")
    if ini.text("BISPECTRUM", "numTypes", str(len(elements))) != str(len(elements)):
        raise ini.wrong("BISPECTRUM", "numTypes", f"must be {len(elements)}, the number of elements in 'type'")
    return elements


def _twojmax(ini: Ini, n: int) -> int:
    values = ini.text("BISPECTRUM", "twojmax", "6").split()
    if len(set(values)) > 1:
        raise ini.wrong("BISPECTRUM", "twojmax", "must be the same for all elements")
    value = number_in(int, values[0])
    if value is None or value < 0 or len(values) not in {1, n}:
        raise ini.wrong("BISPECTRUM", "twojmax", "must be a whole number, once or for each element")
    return value


def _calculator(ini: Ini) -> Calculator:
    ini.one_of("CALCULATOR", "calculator", CALCULATORS, OTHER_CALCULATORS)
    rows = {key: ini.flag("CALCULATOR", key, default=True) for key in ("energy", "force", "stress")}
    if not any(rows.values()):
        raise InputError(f"{ini.path}: [CALCULATOR] energy, force and stress are all 0; set one of them to 1")
    return Calculator(**rows)


def _eshift(ini: Ini, elements: Sequence[str]) -> dict[str, float]:
    for key in ini.keys("ESHIFT"):
        if key not in elements:
            raise InputError(
                f"{ini.path}: [ESHIFT] unknown key '{key}'; the elements are {', '.join(elements)}"
                f"{closest(key, elements)}"
            )
    return {symbol: ini.number("ESHIFT", symbol, 0.0) for symbol in elements}


def _reference(ini: Ini) -> Reference:
    units = ini.text("REFERENCE", "units", "metal").lower()
    if units != "metal":
        raise ini.wrong("REFERENCE", "units", "must be metal (eV, Å, bar)")
    atom_style = ini.text("REFERENCE", "atom_style", "atomic").lower()
    if atom_style != "atomic":
        raise ini.wrong("REFERENCE", "atom_style", "must be atomic; charges and spins of atoms are not read")
    pair_style = ini.text("REFERENCE", "pair_style", "zero 10.0")
    keys = [key for key in ini.keys("REFERENCE") if key.startswith("pair_coeff")]
    pair_coeff = tuple(ini.text("REFERENCE", key, "") for key in keys)
    if not pair_coeff and pair_style.split()[0] == "zero":
        pair_coeff = ("* *",)  # LAMMPS wants it said
    return Reference(units, atom_style, pair_style, pair_coeff)


def _seed(ini: Ini) -> int:
    seed = ini.number("GROUPS", "random_seed", 0.0)
    if seed < 0 or not seed.is_integer():
        raise ini.wrong("GROUPS", "random_seed", "must be a whole number")
    return int(seed)


def _solver(ini: Ini) -> Solver:
    name = ini.one_of("SOLVER", "solver", SOLVERS, OTHER_SOLVERS)
    if name != "RIDGE":
        if "RIDGE" in ini.sections:
            raise InputError(
                f"{ini.path}: section [RIDGE] is there but the solver in [SOLVER] is {name}; write solver = RIDGE, or "
                "leave out the section"
            )
        return Solver(name, 0.0)
    if ini.flag("EXTRAS", "apply_transpose", default=False):
        raise InputError(
            f"{ini.path}: [EXTRAS] apply_transpose = 1 is not supported with RIDGE, whose penalty it changes; "
            "leave it out"
        )
    alpha = ini.number("RIDGE", "alpha", 1e-8)
    if alpha < 0:
        raise ini.wrong("RIDGE", "alpha", "must be at least 0")
    return Solver(name, alpha)


def _json_files(settings: FitsnapInput, group: str) -> list[Path]:
    folder = settings.data_path / group
    if not folder.is_dir():
        raise InputError(f"{settings.path}: group '{group}' has no folder: there is no {folder}{_near(folder)}")
    files = [one for one in folder.glob("*.json") if not one.name.startswith(".")]
    if not files:
        raise InputError(f"{settings.path}: group '{group}' has no files: {folder} needs JSON files (*.json)")
    return sorted(files, key=_natural)


def _xyz_files(settings: FitsnapInput, group: str) -> list[Path]:
    files = [settings.data_path / f"{group}{suffix}" for suffix in XYZ_SUFFIXES]
    found = [one for one in files if one.is_file()]
    if not found:
        raise InputError(
            f"{settings.path}: group '{group}' has no file: there is neither {files[0]} nor {files[1]}"
            f"{_near(settings.data_path / group)}"
        )
    return found[:1]


def _near(path: Path) -> str:
    return suggestion(path.name, sorted({one.stem if one.is_file() else one.name for one in path.parent.iterdir()}))


def _natural(file: Path) -> list[tuple[int, int, str]]:
    """Sort key in which BCC_9 stands before BCC_10."""
    parts = re.split(r"(\d+)", file.name)
    return [(0, int(part), part) if part.isdigit() else (1, 0, part) for part in parts]
