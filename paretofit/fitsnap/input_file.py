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

from paretofit.core import InputError, suggest_match
from paretofit.fitsnap.ini import IGNORED_KEYS, IniFile, check_keys, parse_number, suggest_match_ignoring_case
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
    it is not the stress weight that it divides). A `random_seed` of 0 means that none was chosen. `metrics_file` and
    `potential_file` are names of output files. `ignored_keys` names the keys that the file sets and that do not change the fit.
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
    metrics_file: str
    potential_file: str
    ignored_keys: tuple[str, ...]


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
    ini = IniFile(Path(path))
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
        smartweights=ini.get_flag("GROUPS", "smartweights", default=False),
        random_sampling=ini.get_flag("GROUPS", "random_sampling", default=False),
        random_seed=_seed(ini),
        solver=_solver(ini),
        scraper=ini.get_choice("SCRAPER", "scraper", SCRAPERS, OTHER_SCRAPERS),
        data_path=folder / ini.get_text("PATH", "dataPath", "JSON"),
        metrics_file=ini.get_text("OUTFILE", "metrics", "fitsnap_metrics"),
        potential_file=ini.get_text("OUTFILE", "potential", "fitsnap_potential"),
        ignored_keys=tuple(
            f"[{section}] {key}" for section, keys in IGNORED_KEYS.items() for key in ini.keys(section) if key in keys
        ),
    )


def list_group_files(fitsnap_input: FitsnapInput) -> dict[str, list[Path]]:
    """Files of each group: the JSON files of its folder, in natural order of their names, or its one XYZ file.

    FitSNAP takes files in the order in which the file system lists them, so that groups that are split have other
    members there from machine to machine. In its XYZ files stress is in bar and positive in compression.

    Raises
    ------
    InputError
        If a group has no folder or no files.
    """
    try:
        if not fitsnap_input.data_path.is_dir():
            raise InputError(f"{fitsnap_input.path}: [PATH] dataPath: no folder at {fitsnap_input.data_path}")
        find = _json_files if fitsnap_input.scraper == "JSON" else _xyz_files
        return {group.name: find(fitsnap_input, group.name) for group in fitsnap_input.groups}
    except OSError as error:
        raise InputError(f"{error.filename} cannot be read: {error.strerror}; make it readable") from error


def _bispectrum(ini: IniFile) -> Bispectrum:
    section = "BISPECTRUM"
    elements = _elements(ini)
    n = len(elements)
    inner = ini.get_flag(section, "switchinnerflag", default=False)

    def flag(key: str, *, default: bool = False) -> bool:
        return ini.get_flag(section, key, default=default)

    return Bispectrum(
        elements=elements,
        twojmax=_twojmax(ini, n),
        rcutfac=ini.get_number(section, "rcutfac", 4.67637),
        rfac0=ini.get_number(section, "rfac0", 0.99363),
        rmin0=ini.get_number(section, "rmin0", 0.0),
        wj=ini.get_numbers(section, "wj", 1.0, n),
        radelem=ini.get_numbers(section, "radelem", 0.5, n),
        bzeroflag=flag("bzeroflag"),
        chemflag=flag("chemflag"),
        quadraticflag=flag("quadraticflag"),
        switchflag=flag("switchflag", default=True),
        bnormflag=flag("bnormflag"),
        wselfallflag=flag("wselfallflag"),
        switchinnerflag=inner,
        sinner=ini.get_numbers(section, "sinner", 0.9, n) if inner else (),
        dinner=ini.get_numbers(section, "dinner", 0.1, n) if inner else (),
    )


def _elements(ini: IniFile) -> tuple[str, ...]:
    if "type" not in ini.keys("BISPECTRUM"):  # FitSNAP would take hydrogen
        raise InputError(f"{ini.path}: [BISPECTRUM] has no 'type'; it lists the elements, such as 'type = W Be'")
    elements = tuple(ini.get_text("BISPECTRUM", "type", "").split())
    for symbol in elements:
        if not atomic_numbers.get(symbol) or elements.count(symbol) > 1:
            raise ini.build_error("BISPECTRUM", "type", f"must be different chemical symbols, which '{symbol}' is not")
    if ini.get_text("BISPECTRUM", "numTypes", str(len(elements))) != str(len(elements)):
        raise ini.build_error("BISPECTRUM", "numTypes", f"must be {len(elements)}, the number of elements in 'type'")
    return elements


def _twojmax(ini: IniFile, n: int) -> int:
    values = ini.get_text("BISPECTRUM", "twojmax", "6").split()
    if len(set(values)) > 1:
        raise ini.build_error("BISPECTRUM", "twojmax", "must be the same for all elements")
    value = parse_number(int, values[0])
    if value is None or value < 0 or len(values) not in {1, n}:
        raise ini.build_error("BISPECTRUM", "twojmax", "must be a whole number, once or for each element")
    return value


def _calculator(ini: IniFile) -> Calculator:
    ini.get_choice("CALCULATOR", "calculator", CALCULATORS, OTHER_CALCULATORS)
    rows = {key: ini.get_flag("CALCULATOR", key, default=True) for key in ("energy", "force", "stress")}
    if not any(rows.values()):
        raise InputError(f"{ini.path}: [CALCULATOR] energy, force and stress are all 0; set one of them to 1")
    return Calculator(**rows)


def _eshift(ini: IniFile, elements: Sequence[str]) -> dict[str, float]:
    for key in ini.keys("ESHIFT"):
        if key not in elements:
            raise InputError(
                f"{ini.path}: [ESHIFT] unknown key '{key}'; the elements are {', '.join(elements)}"
                f"{suggest_match_ignoring_case(key, elements)}"
            )
    return {symbol: ini.get_number("ESHIFT", symbol, 0.0) for symbol in elements}


def _reference(ini: IniFile) -> Reference:
    units = ini.get_text("REFERENCE", "units", "metal").lower()
    if units != "metal":
        raise ini.build_error("REFERENCE", "units", "must be metal (eV, Å, bar)")
    atom_style = ini.get_text("REFERENCE", "atom_style", "atomic").lower()
    if atom_style != "atomic":
        raise ini.build_error("REFERENCE", "atom_style", "must be atomic; charges and spins of atoms are not read")
    pair_style = ini.get_text("REFERENCE", "pair_style", "zero 10.0")
    keys = [key for key in ini.keys("REFERENCE") if key.startswith("pair_coeff")]
    pair_coeff = tuple(ini.get_text("REFERENCE", key, "") for key in keys)
    if not pair_coeff and pair_style.split()[0] == "zero":
        pair_coeff = ("* *",)  # LAMMPS wants it said
    return Reference(units, atom_style, pair_style, pair_coeff)


def _seed(ini: IniFile) -> int:
    seed = ini.get_number("GROUPS", "random_seed", 0.0)
    if seed < 0 or not seed.is_integer():
        raise ini.build_error("GROUPS", "random_seed", "must be a whole number")
    return int(seed)


def _solver(ini: IniFile) -> Solver:
    name = ini.get_choice("SOLVER", "solver", SOLVERS, OTHER_SOLVERS)
    if name != "RIDGE":
        if "RIDGE" in ini.sections:
            raise InputError(
                f"{ini.path}: section [RIDGE] is there but the solver in [SOLVER] is {name}; write solver = RIDGE, or "
                "leave out the section"
            )
        return Solver(name, 0.0)
    if ini.get_flag("EXTRAS", "apply_transpose", default=False):
        raise InputError(
            f"{ini.path}: [EXTRAS] apply_transpose = 1 is not supported with RIDGE, whose penalty it changes; "
            "leave it out"
        )
    alpha = ini.get_number("RIDGE", "alpha", 1e-8)
    if alpha < 0:
        raise ini.build_error("RIDGE", "alpha", "must be at least 0")
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
    return suggest_match(path.name, sorted({one.stem if one.is_file() else one.name for one in path.parent.iterdir()}))


def _natural(file: Path) -> list[tuple[int, int, str]]:
    """Sort key in which BCC_9 stands before BCC_10."""
    parts = re.split(r"(\d+)", file.name)
    return [(0, int(part), part) if part.isdigit() else (1, 0, part) for part in parts]
