"""Supported, ignored and unsupported sections and keys of FitSNAP's input files, and access to their values."""

import configparser
import math
from collections.abc import Callable, Iterable, Sequence
from pathlib import Path
from typing import Any, TypeVar

from paretofit.core import InputError, join_lines, read_text, suggest_match

Number = TypeVar("Number", int, float)


def _parse_keys(table: str) -> dict[str, set[str]]:
    """Return the keys by section from lines of the form ``SECTION: key key``; a section may have several lines."""
    keys: dict[str, set[str]] = {}
    for line in table.strip().splitlines():
        section, _, names = line.partition(":")
        keys.setdefault(section.strip(), set()).update(names.split())
    return keys


# User-defined keys are not listed: elements in ESHIFT, group names in GROUPS, and pair_coeff1, ... in REFERENCE.
SUPPORTED_KEYS = _parse_keys("""
    BISPECTRUM: numTypes type twojmax rcutfac rfac0 rmin0 wj radelem sinner dinner bzeroflag chemflag quadraticflag
    BISPECTRUM: switchflag bnormflag wselfallflag switchinnerflag
    CALCULATOR: calculator energy force stress
    ESHIFT:
    EXTRAS: apply_transpose
    GROUPS: group_sections group_types smartweights random_sampling random_seed
    MEMORY:
    OUTFILE: metrics potential
    PATH: dataPath groupFile
    REFERENCE: units atom_style pair_style pair_coeff
    RIDGE: alpha
    SCRAPER: scraper
    SOLVER: solver
""")
# Keys that do not change a fit: they set outputs, methods with the same result, or other solvers and scrapers.
IGNORED_KEYS = _parse_keys("""
    EXTRAS: dump_descriptors dump_truth dump_weights dump_dataframe dump_peratom dump_perconfig dump_configs
    EXTRAS: multinode_testing
    GROUPS: vasp_use_TOTEN vasp_json_pathname vasp_ignore_incomplete vasp_ignore_jsons vasp_unconverged_label
    GROUPS: vasp_xml_only vasp_outcar_only
    MEMORY: memory override
    OUTFILE: output_style metrics_style detailed_errors configs descriptors truth weights dataframe peratom perconfig
    RIDGE: local_solver method
    SCRAPER: save_group_scrape
    SOLVER: compute_testerrs detailed_errors normalweight normweight normratio nsam cov_nugget mcmc_num mcmc_gamma
    SOLVER: mcmc_sigma merr_mult merr_method merr_cfs
""")
IGNORED_KEYS["SCRAPER"] |= IGNORED_KEYS["GROUPS"]  # keys of the VASP scraper may be in both sections
# Options that change the fit, by section, with the reason why they are accepted only if they are off.
UNSUPPORTED_OPTIONS: dict[str, dict[str, str]] = {
    "BISPECTRUM": {
        "alloyflag": "FitSNAP has removed it",
        "bikflag": "rows are computed for configurations, not for atoms",
        "dgradflag": "it is for neural networks only",
    },
    "CALCULATOR": {
        "nonlinear": "models are linear in their coefficients",
        "per_atom_energy": "rows are computed for configurations, not for atoms",
        "per_atom_scalar": "models are fitted to energies, forces and stresses",
    },
    "EXTRAS": {"only_test": "the potential is fitted, not read"},
    "GROUPS": dict.fromkeys(("BOLTZ", "BOLTZT"), "FitSNAP 3.1 does not apply it; set the weights instead"),
    "SCRAPER": {
        "property_array": "units are read from JSON files, and are eV, Å and bar in XYZ files",
        "read_group_scrape": "the structure files are read instead",
    },
}
GROUP_OPTIONS = SUPPORTED_KEYS["GROUPS"] | IGNORED_KEYS["GROUPS"] | set(UNSUPPORTED_OPTIONS["GROUPS"])
UNSUPPORTED_SECTIONS: dict[str, str] = {  # with what to use instead
    **dict.fromkeys(
        ("ACE", "PYACE", "CUSTOM", "BASIC", "BASIC_CALCULATOR", "REAXFF", "INQ"),
        "descriptors must be those of SNAP: [BISPECTRUM], and calculator = LAMMPSSNAP in [CALCULATOR]",
    ),
    **dict.fromkeys(
        ("ARD", "LASSO", "SLATE", "JAX", "PYTORCH", "NETWORK", "CMAES"),
        "the solver must be SVD or RIDGE in [SOLVER]",
    ),
    "TRAINSHIFT": "specify the shift of each element in [ESHIFT]",
}
REQUIRED_SECTIONS = {  # with their indispensable content, for error messages
    "BISPECTRUM": "the elements, such as 'type = Ta'",
    "PATH": "the directory of the data, such as 'dataPath = JSON'",
}
TRUE_VALUES, FALSE_VALUES = {"y", "yes", "t", "true", "on", "1"}, {"n", "no", "f", "false", "off", "0"}


class IniFile:
    """Sections, keys and values of a FitSNAP input; error messages contain the path, the section and the key.

    Parameters
    ----------
    path : Path
    parser : configparser.ConfigParser, optional
        Parser that already contains the sections; by default, the file at `path` is read.
    """

    def __init__(self, path: Path, parser: configparser.ConfigParser | None = None) -> None:
        self.path = path
        self._parser = parse_ini(path) if parser is None else parser

    @property
    def sections(self) -> list[str]:
        """Names of the sections, in the order of the file."""
        return self._parser.sections()

    def list_keys(self, section: str) -> list[str]:
        """List the keys of a section in order, without those of [DEFAULT], which are only used in substitutions."""
        if not self._parser.has_section(section):
            return []
        return [key for key in self._parser.options(section) if key not in self._parser.defaults()]

    def get_text(self, section: str, key: str, default: str) -> str:
        """Return the value of a key after substitution of %(name)s, or `default`; runs of blanks become one space.

        Raises
        ------
        InputError
            If the value is empty, or contains an invalid substitution.
        """
        try:
            value = self._parser.get(section, key, fallback=default)
        except configparser.InterpolationError as error:
            raise InputError(
                f"{self.path}: [{section}] {key}: {join_lines(error)}; define %(name)s in the same section or in "
                "[DEFAULT], and write %% for a percent sign"
            ) from error
        if not value.strip():
            raise InputError(f"{self.path}: [{section}] {key} is empty; specify a value, or remove the line")
        return " ".join(value.split())

    def build_error(self, section: str, key: str, problem: str) -> InputError:
        """Build the error for an invalid value of a key, which is quoted after the problem."""
        return InputError(f"{self.path}: [{section}] {key} {problem}; got '{self.get_text(section, key, 'nothing')}'")

    def get_flag(self, section: str, key: str, *, default: bool) -> bool:
        """Return a flag; raise `InputError` if its value is not 0, 1 or a synonym that FitSNAP accepts, such as yes."""
        value = self.get_text(section, key, str(default)).lower()
        if value not in TRUE_VALUES | FALSE_VALUES:
            raise self.build_error(section, key, "must be 0 or 1")
        return value in TRUE_VALUES

    def get_number(self, section: str, key: str, default: float) -> float:
        """Return a single real number, or `default` if the key is missing; see `get_numbers`."""
        return self.get_numbers(section, key, default, 1)[0]

    def get_numbers(self, section: str, key: str, default: float, n_values: int) -> tuple[float, ...]:
        """Return `n_values` real numbers, each of which is `default` if the key is missing.

        Raises
        ------
        InputError
            If the value does not consist of `n_values` finite numbers.
        """
        words = self.get_text(section, key, " ".join([repr(default)] * n_values)).split()
        numbers = [number for word in words if (number := parse_number(float, word)) is not None]
        if len(numbers) != len(words) or len(numbers) != n_values:
            expected_values = "one real number" if n_values == 1 else f"{n_values} real numbers, one for each element"
            raise self.build_error(section, key, f"must be {expected_values}")
        return tuple(numbers)

    def get_choice(self, section: str, key: str, choices: Sequence[str], other_choices: Sequence[str]) -> str:
        """Return the value of a key in upper case, or the first of `choices` if the key is missing.

        Case is ignored, as in FitSNAP. `other_choices` are values of FitSNAP that are not supported here.

        Raises
        ------
        InputError
            If the value is not one of `choices`.
        """
        value = self.get_text(section, key, choices[0])
        if value.upper() in choices:
            return value.upper()
        problem, hint = "not supported", ""
        if value.upper() not in other_choices:
            problem = "unknown"
            hint = suggest_match_ignoring_case(value.upper(), [*choices, *other_choices])
        choice_text = " or ".join(choices)
        raise InputError(f"{self.path}: [{section}] {key} = {value} is {problem}; it must be {choice_text}{hint}")


def create_parser(**options: Any) -> configparser.ConfigParser:
    """Create a `configparser.ConfigParser` with these options that does not change the case of keys."""
    parser = configparser.ConfigParser(**options)
    parser.optionxform = str  # type: ignore[assignment,method-assign]  # keys are case-sensitive
    return parser


def parse_ini(path: Path) -> configparser.ConfigParser:
    """Read the sections of an input file without changing the case of its keys.

    Raises
    ------
    InputError
        If the file cannot be read, or is not an INI file.
    """
    parser = create_parser(inline_comment_prefixes="#")
    try:
        parser.read_string(read_text(path, "FitSNAP input file"), source=path.name)
    except configparser.Error as error:
        raise InputError(
            f"{path} is not a FitSNAP input: {join_lines(error)}; write each key once, as 'key = value' under a "
            "[SECTION]"
        ) from error
    return parser


def check_keys(ini: IniFile) -> None:
    """Raise `InputError` if a section or key is unknown or not supported, or a required section is missing.

    An unsupported option is accepted if it is off.
    """
    for section in ini.sections:
        if section in UNSUPPORTED_SECTIONS:
            raise InputError(f"{ini.path}: section [{section}] is not supported; {UNSUPPORTED_SECTIONS[section]}")
        if section not in SUPPORTED_KEYS:
            available_text = f"; available sections: {', '.join(SUPPORTED_KEYS)}"
            hint = suggest_match_ignoring_case(section, SUPPORTED_KEYS) or available_text
            raise InputError(f"{ini.path}: unknown section [{section}]{hint}")
        for key in ini.list_keys(section):
            _check_key(ini, section, key)
    for section, content in REQUIRED_SECTIONS.items():
        if section not in ini.sections:
            raise InputError(f"{ini.path} has no section [{section}]; add a section with {content}")


def _check_key(ini: IniFile, section: str, key: str) -> None:
    """Raise `InputError` if a key is unknown, or an unsupported option that is on."""
    unsupported_options = UNSUPPORTED_OPTIONS.get(section, {})
    if key in unsupported_options:
        text = ini.get_text(section, key, "0")
        if text.lower() not in FALSE_VALUES | {"none"} and parse_number(float, text) != 0:
            reason = unsupported_options[key]
            raise InputError(f"{ini.path}: [{section}] {key} = {text} is not supported: {reason}; remove it")
    known_keys = SUPPORTED_KEYS[section] | IGNORED_KEYS.get(section, set()) | set(unsupported_options)
    is_user_defined = section in {"ESHIFT", "GROUPS"} or (section == "REFERENCE" and key.startswith("pair_coeff"))
    if key not in known_keys and not is_user_defined:
        raise InputError(f"{ini.path}: [{section}] unknown key '{key}'{_explain_unknown_key(section, key, known_keys)}")


def _explain_unknown_key(section: str, key: str, known_keys: set[str]) -> str:
    """Return the end of the error message: another notation, the section that has the key, or the available keys."""
    stem = key.rstrip("0123456789")  # a list of values is written under one key, not as wj1, wj2, ...
    if stem in {"wj", "radelem", "type"}:
        return f"; write one line '{stem} = ...' with a value for each element"
    other_sections = [name for name in SUPPORTED_KEYS if name != section and key in SUPPORTED_KEYS[name]]
    if other_sections:
        return f"; it belongs in [{other_sections[0]}]"
    return suggest_match_ignoring_case(key, known_keys) or (
        f"; available keys in this section: {', '.join(sorted(known_keys))}"
    )


def parse_number(number_type: Callable[[str], Number], text: str) -> Number | None:
    """Convert a string to a number; return None if it is not a finite number."""
    try:
        number = number_type(text)
    except ValueError:
        return None
    return number if math.isfinite(number) else None


def suggest_match_ignoring_case(word: str, candidates: Iterable[str]) -> str:
    """Return the hint of `suggest_match`, but prefer a candidate that differs only in case."""
    candidates = list(candidates)
    matches = [candidate for candidate in candidates if candidate.lower() == word.lower()]
    return f"; did you mean '{matches[0]}'?" if matches else suggest_match(word, candidates)
