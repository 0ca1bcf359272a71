"""Reader of FitSNAP's input files (``.in``), with FitSNAP's defaults for missing keys.

Nothing is fitted here and no structure is read. Each key of a file is read, causes an error, or is listed in
``ignored_keys`` because it does not change the fit. Defaults and meanings of keys are those of FitSNAP 3.1
(``fitsnap3lib/io/sections``, ``fitsnap3lib/scrapers``). Keys are case-sensitive, as in FitSNAP.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from ase.data import atomic_numbers

from paretofit.core import InputError, get_natural_sort_key, suggest_match
from paretofit.descriptors import ReferencePotential
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
ATOM_STYLES = ("atomic", "spin", "charge")
# Parts of the names of pair styles that need properties of atoms other than positions, such as charges.
PROPERTY_STYLE_PARTS = ("spin/", "coul", "qeq", "dipole", "reaxff")
BISPECTRUM_FLAGS = (
    "bzeroflag",
    "chemflag",
    "quadraticflag",
    "switchflag",
    "bnormflag",
    "wselfallflag",
    "switchinnerflag",
)


@dataclass(frozen=True)
class Bispectrum:
    """Settings of the descriptors, named as in LAMMPS's ``compute snap``; tuples have one value for each element.

    `rcutfac` and `rmin0` are in Å; the cutoff of two elements is `rcutfac` times the sum of their `radelem`. `sinner`
    and `dinner`, in Å, are empty without `switchinnerflag`. Unless `bzeroflag` is set, FitSNAP has a constant column
    for each element.
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
    sinner: tuple[float, ...]
    dinner: tuple[float, ...]


@dataclass(frozen=True)
class Calculator:
    """Kinds of rows that are fitted."""

    energy: bool
    force: bool
    stress: bool


@dataclass(frozen=True)
class Solver:
    """Solver of the fit: SVD (minimum-norm least squares) or RIDGE.

    SVD omits singular values below 1e-13 of the largest one, and has an `alpha` of zero. RIDGE adds `alpha` times ‖β‖²
    to the loss; the coefficients β are unscaled and include those of the constant columns.
    """

    name: str
    alpha: float


@dataclass(frozen=True)
class FitsnapInput:
    """Content of a FitSNAP input.

    Attributes
    ----------
    path : Path
    bispectrum : Bispectrum
    calculator : Calculator
    eshift : mapping of element to float
        Energy in eV that is added to the label of a configuration once for each atom of the element.
    reference : ReferencePotential
        Potential that is subtracted from the labels. FitSNAP converts its lines to lower case; they are not converted
        here, because this would change the names of files and elements.
    groups : tuple of Group
    smartweights : bool
        Whether each weight is divided by the number of training (or testing) configurations of the group, and the force
        weight also by 3N and, if stresses are fitted, by 6 (FitSNAP indeed does not divide the stress weight by 6).
    random_sampling : bool
        Whether the configurations of a group are shuffled before the split.
    random_seed : int
        Seed of the shuffling; 0 means that no seed was chosen.
    solver : Solver
    scraper : {"JSON", "XYZ"}
        Format of the structure files.
    data_path : Path
        Directory of the structure files.
    metrics_file, potential_file : str
        Names of the output files.
    ignored_keys : tuple of str
        Keys of the file that do not change the fit, each as ``[SECTION] key``.
    """

    path: Path
    bispectrum: Bispectrum
    calculator: Calculator
    eshift: Mapping[str, float]
    reference: ReferencePotential
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
    path : path-like
        A ``.in`` file. Paths in this file are relative to its directory.

    Raises
    ------
    InputError
        If the file cannot be read, or a section, key or value is unknown, invalid or not supported.
    """
    ini = IniFile(Path(path))
    check_keys(ini)
    bispectrum = _read_bispectrum(ini)
    folder = ini.path.parent
    return FitsnapInput(
        path=ini.path,
        bispectrum=bispectrum,
        calculator=_read_calculator(ini),
        eshift=_read_shifts(ini, bispectrum.elements),
        reference=read_reference(ini),
        groups=read_groups(ini),
        smartweights=ini.get_flag("GROUPS", "smartweights", default=False),
        random_sampling=ini.get_flag("GROUPS", "random_sampling", default=False),
        random_seed=_read_seed(ini),
        solver=_read_solver(ini),
        scraper=ini.get_choice("SCRAPER", "scraper", SCRAPERS, OTHER_SCRAPERS),
        data_path=folder / ini.get_text("PATH", "dataPath", "JSON"),
        metrics_file=ini.get_text("OUTFILE", "metrics", "fitsnap_metrics"),
        potential_file=ini.get_text("OUTFILE", "potential", "fitsnap_potential"),
        ignored_keys=_list_ignored_keys(ini),
    )


def _list_ignored_keys(ini: IniFile) -> tuple[str, ...]:
    """List the keys of the file that do not change the fit, among them an ``atom_style`` with charges or spins."""
    keys = [
        f"[{section}] {key}"
        for section, names in IGNORED_KEYS.items()
        for key in ini.list_keys(section)
        if key in names
    ]
    has_properties = ini.get_text("REFERENCE", "atom_style", "atomic").lower() != "atomic"
    return (*keys, "[REFERENCE] atom_style") if has_properties else tuple(keys)


def list_group_files(fitsnap_input: FitsnapInput) -> dict[str, list[Path]]:
    """List the files of each group: the JSON files of its directory in natural order, or its single XYZ file.

    FitSNAP itself reads files in the order in which the file system lists them, so that its split of a group differs
    between machines.

    Raises
    ------
    InputError
        If the data directory is missing, a group has no directory or no files, or a path cannot be read.
    """
    try:
        if not fitsnap_input.data_path.is_dir():
            raise InputError(
                f"{fitsnap_input.path}: [PATH] dataPath: no directory at {fitsnap_input.data_path}; correct the path"
            )
        list_files = _list_json_files if fitsnap_input.scraper == "JSON" else _find_xyz_file
        return {group.name: list_files(fitsnap_input, group.name) for group in fitsnap_input.groups}
    except OSError as error:
        raise InputError(f"{error.filename} cannot be read: {error.strerror}; make it readable") from error


def _read_bispectrum(ini: IniFile) -> Bispectrum:
    """Read the settings of the descriptors, with FitSNAP's defaults for missing keys."""
    section, elements = "BISPECTRUM", _read_elements(ini)
    n = len(elements)
    # Only switchflag is on by default.
    flags = {key: ini.get_flag(section, key, default=key == "switchflag") for key in BISPECTRUM_FLAGS}
    return Bispectrum(
        elements=elements,
        twojmax=_read_twojmax(ini, n),
        rcutfac=ini.get_number(section, "rcutfac", 4.67637),
        rfac0=ini.get_number(section, "rfac0", 0.99363),
        rmin0=ini.get_number(section, "rmin0", 0.0),
        wj=ini.get_numbers(section, "wj", 1.0, n),
        radelem=ini.get_numbers(section, "radelem", 0.5, n),
        sinner=ini.get_numbers(section, "sinner", 0.9, n) if flags["switchinnerflag"] else (),
        dinner=ini.get_numbers(section, "dinner", 0.1, n) if flags["switchinnerflag"] else (),
        **flags,
    )


def _read_elements(ini: IniFile) -> tuple[str, ...]:
    """Read the elements from ``type``; raise `InputError` unless they are valid, and as many as ``numTypes``."""
    if "type" not in ini.list_keys("BISPECTRUM"):  # FitSNAP would assume hydrogen
        raise InputError(f"{ini.path}: [BISPECTRUM] has no 'type'; add a list of the elements, such as 'type = W Be'")
    elements = tuple(ini.get_text("BISPECTRUM", "type", "").split())
    for symbol in elements:
        if not atomic_numbers.get(symbol) or elements.count(symbol) > 1:
            raise ini.build_error("BISPECTRUM", "type", f"must be different chemical symbols, but '{symbol}' is not")
    if ini.get_text("BISPECTRUM", "numTypes", str(len(elements))) != str(len(elements)):
        raise ini.build_error("BISPECTRUM", "numTypes", f"must be {len(elements)}, the number of elements in 'type'")
    return elements


def _read_twojmax(ini: IniFile, n_elements: int) -> int:
    """Read 2Jmax; raise `InputError` if it is invalid.

    FitSNAP accepts a value for each element, but here these values must be equal.
    """
    words = ini.get_text("BISPECTRUM", "twojmax", "6").split()
    if len(set(words)) > 1:
        raise ini.build_error("BISPECTRUM", "twojmax", "must be the same for all elements")
    twojmax = parse_number(int, words[0])
    if twojmax is None or twojmax < 0 or len(words) not in {1, n_elements}:
        raise ini.build_error("BISPECTRUM", "twojmax", "must be one whole number, or one for each element")
    return twojmax


def _read_calculator(ini: IniFile) -> Calculator:
    """Read the kinds of rows to fit; raise `InputError` if there are none, or the calculator is not supported."""
    ini.get_choice("CALCULATOR", "calculator", CALCULATORS, OTHER_CALCULATORS)  # raises if it is not supported
    flags = {key: ini.get_flag("CALCULATOR", key, default=True) for key in ("energy", "force", "stress")}
    if not any(flags.values()):
        raise InputError(f"{ini.path}: [CALCULATOR] energy, force and stress are all 0; set one of them to 1")
    return Calculator(**flags)


def _read_shifts(ini: IniFile, elements: Sequence[str]) -> dict[str, float]:
    """Read the energy shift of each element in eV, by default 0; raise `InputError` for a key that is no element."""
    for key in ini.list_keys("ESHIFT"):
        if key not in elements:
            hint = suggest_match_ignoring_case(key, elements)
            raise InputError(
                f"{ini.path}: [ESHIFT] unknown key '{key}'; available elements: {', '.join(elements)}{hint}"
            )
    return {symbol: ini.get_number("ESHIFT", symbol, 0.0) for symbol in elements}


def read_reference(ini: IniFile) -> ReferencePotential:
    """Read the reference potential, and check that it requires no charges or spins, because these are ignored.

    Raises
    ------
    InputError
        If the units are not metal, the atom style is unknown, or the pair style needs properties that are not read.
    """
    if ini.get_text("REFERENCE", "units", "metal").lower() != "metal":
        raise ini.build_error("REFERENCE", "units", "must be metal (eV, Å, bar)")
    atom_style = ini.get_text("REFERENCE", "atom_style", "atomic")
    if atom_style.lower() not in ATOM_STYLES:
        raise InputError(
            f"{ini.path}: [REFERENCE] atom_style must be atomic, or {' or '.join(ATOM_STYLES[1:])}, whose additional "
            f"properties are ignored; got '{atom_style}'"
        )
    pair_style = ini.get_text("REFERENCE", "pair_style", "zero 10.0")
    for style in pair_style.split():
        if any(name_part in style for name_part in PROPERTY_STYLE_PARTS):
            raise InputError(
                f"{ini.path}: [REFERENCE] pair_style {style} requires charges or spins, which are not read; subtract "
                "its energies, forces and stresses from the labels, and remove the style"
            )
    keys = [key for key in ini.list_keys("REFERENCE") if key.startswith("pair_coeff")]
    pair_coeffs = tuple(ini.get_text("REFERENCE", key, "") for key in keys)
    if not pair_coeffs and pair_style.split()[0] == "zero":
        pair_coeffs = ("* *",)  # LAMMPS requires a pair_coeff line even for the style zero
    return ReferencePotential(pair_style, pair_coeffs)


def _read_seed(ini: IniFile) -> int:
    """Read the random seed, 0 if none was chosen; raise `InputError` if it is negative or not a whole number."""
    seed = ini.get_number("GROUPS", "random_seed", 0.0)
    if seed < 0 or not seed.is_integer():
        raise ini.build_error("GROUPS", "random_seed", "must be a whole number")
    return int(seed)


def _read_solver(ini: IniFile) -> Solver:
    """Read the solver, and its penalty if it is RIDGE; a section [RIDGE] for another solver is an error."""
    name = ini.get_choice("SOLVER", "solver", SOLVERS, OTHER_SOLVERS)
    if name != "RIDGE":
        if "RIDGE" in ini.sections:
            raise InputError(
                f"{ini.path} has a section [RIDGE], but the solver in [SOLVER] is {name}; write solver = RIDGE, or "
                "remove the section"
            )
        return Solver(name, 0.0)
    if ini.get_flag("EXTRAS", "apply_transpose", default=False):
        raise InputError(
            f"{ini.path}: [EXTRAS] apply_transpose = 1 changes the penalty of RIDGE and is not supported; remove it"
        )
    alpha = ini.get_number("RIDGE", "alpha", 1e-8)
    if alpha < 0:
        raise ini.build_error("RIDGE", "alpha", "must be at least 0")
    return Solver(name, alpha)


def _list_json_files(settings: FitsnapInput, group: str) -> list[Path]:
    """List the JSON files in the directory of a group, except hidden files, in natural order of their names.

    If there is no directory or no file, an `InputError` is raised.
    """
    folder = settings.data_path / group
    if not folder.is_dir():
        raise InputError(
            f"{settings.path}: group '{group}' has no directory: {folder} does not exist{_suggest_path(folder)}"
        )
    files = [file for file in folder.glob("*.json") if not file.name.startswith(".")]
    if not files:
        raise InputError(f"{settings.path}: group '{group}' has no files: {folder} requires JSON files (*.json)")
    return sorted(files, key=lambda file: get_natural_sort_key(file.name))


def _find_xyz_file(settings: FitsnapInput, group: str) -> list[Path]:
    """Find the XYZ file of a group; raise `InputError` if there is none.

    The list has one entry, so that the function can replace `_list_json_files`.
    """
    candidates = [settings.data_path / f"{group}{suffix}" for suffix in XYZ_SUFFIXES]
    files = [file for file in candidates if file.is_file()]
    if not files:
        raise InputError(
            f"{settings.path}: group '{group}' has no file: neither {candidates[0]} nor {candidates[1]} exists"
            f"{_suggest_path(settings.data_path / group)}"
        )
    return files[:1]  # if both suffixes exist, FitSNAP reads only the first one


def _suggest_path(path: Path) -> str:
    """Return a hint at a file or directory with a similar name, or an empty string."""
    names = {sibling.stem if sibling.is_file() else sibling.name for sibling in path.parent.iterdir()}
    return suggest_match(path.name, sorted(names))
