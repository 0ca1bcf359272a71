"""Sections and keys of FitSNAP's input files: which are read, which change nothing, and which are refused by name."""

import configparser
import math
from collections.abc import Callable, Iterable, Sequence
from pathlib import Path
from typing import TypeVar

from paretofit.core import InputError, one_line, suggest_match

Number = TypeVar("Number", int, float)

SUPPORTED_KEYS: dict[str, set[str]] = {
    "BISPECTRUM": {
        *("numTypes", "type", "twojmax", "rcutfac", "rfac0", "rmin0", "wj", "radelem", "sinner", "dinner"),
        *("bzeroflag", "chemflag", "quadraticflag", "switchflag", "bnormflag", "wselfallflag", "switchinnerflag"),
    },
    "CALCULATOR": {"calculator", "energy", "force", "stress"},
    "ESHIFT": set(),  # its keys are elements
    "EXTRAS": {"apply_transpose"},
    "GROUPS": {"group_sections", "group_types", "smartweights", "random_sampling", "random_seed"},  # and the groups
    "MEMORY": set(),
    "OUTFILE": {"metrics", "potential"},
    "PATH": {"dataPath", "groupFile"},
    "REFERENCE": {"units", "atom_style", "pair_style", "pair_coeff"},  # and pair_coeff1, ...
    "RIDGE": {"alpha"},
    "SCRAPER": {"scraper"},
    "SOLVER": {"solver"},
}
VASP = {
    *("vasp_use_TOTEN", "vasp_json_pathname", "vasp_ignore_incomplete", "vasp_ignore_jsons"),
    *("vasp_unconverged_label", "vasp_xml_only", "vasp_outcar_only"),
}
IGNORED_KEYS: dict[str, set[str]] = {  # outputs, ways to compute the same, and what only other solvers and scrapers use
    "EXTRAS": {
        *("dump_descriptors", "dump_truth", "dump_weights", "dump_dataframe", "dump_peratom", "dump_perconfig"),
        *("dump_configs", "multinode_testing"),
    },
    "GROUPS": VASP,
    "MEMORY": {"memory", "override"},
    "OUTFILE": {
        *("output_style", "metrics_style", "detailed_errors", "configs", "descriptors", "truth", "weights"),
        *("dataframe", "peratom", "perconfig"),
    },
    "RIDGE": {"local_solver", "method"},
    "SCRAPER": {"save_group_scrape", *VASP},
    "SOLVER": {
        *("compute_testerrs", "detailed_errors", "normalweight", "normweight", "normratio", "nsam", "cov_nugget"),
        *("mcmc_num", "mcmc_gamma", "mcmc_sigma", "merr_mult", "merr_method", "merr_cfs"),
    },
}
OFF: dict[str, dict[str, str]] = {  # options that change the fit: accepted where they are off
    "BISPECTRUM": {
        "alloyflag": "FitSNAP has dropped it",
        "bikflag": "rows are made for configurations, not for atoms",
        "dgradflag": "only neural networks need it",
    },
    "CALCULATOR": {
        "nonlinear": "models are linear in their coefficients",
        "per_atom_energy": "rows are made for configurations, not for atoms",
        "per_atom_scalar": "models are fitted to energies, forces and stresses",
    },
    "EXTRAS": {"only_test": "the potential is fitted here, not read"},
    "GROUPS": {
        "BOLTZ": "FitSNAP 3.1 does not apply it; give the weights themselves",
        "BOLTZT": "FitSNAP 3.1 does not apply it; give the weights themselves",
    },
    "SCRAPER": {
        "property_array": "units are taken from the JSON files, and are eV, Å and bar in XYZ files",
        "read_group_scrape": "the files are read themselves",
    },
}
GROUP_OPTIONS = SUPPORTED_KEYS["GROUPS"] | IGNORED_KEYS["GROUPS"] | set(OFF["GROUPS"])
UNSUPPORTED_SECTIONS: dict[str, str] = {  # sections
    **dict.fromkeys(
        ("ACE", "PYACE", "CUSTOM", "BASIC", "BASIC_CALCULATOR", "REAXFF", "INQ"),
        "descriptors must be SNAP's: [BISPECTRUM], and calculator = LAMMPSSNAP in [CALCULATOR]",
    ),
    **dict.fromkeys(
        ("ARD", "LASSO", "SLATE", "JAX", "PYTORCH", "NETWORK", "CMAES"),
        "the solver must be SVD or RIDGE in [SOLVER]",
    ),
    "TRAINSHIFT": "give the shift of each element in [ESHIFT]",
}
TRUE, FALSE_VALUES = {"y", "yes", "t", "true", "on", "1"}, {"n", "no", "f", "false", "off", "0"}


class IniFile:
    """Sections, keys and values of a file; what it refuses is an InputError that names file, section and key."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self._parser = parse_ini(path)

    @property
    def sections(self) -> list[str]:
        """In the order of the file."""
        return self._parser.sections()

    def keys(self, section: str) -> list[str]:
        """Keys that stand in the section itself, in order; those of [DEFAULT] are there to be substituted."""
        if not self._parser.has_section(section):
            return []
        return [key for key in self._parser.options(section) if key not in self._parser.defaults()]

    def get_text(self, section: str, key: str, default: str) -> str:
        """A value with single spaces, its names substituted."""
        try:
            value = self._parser.get(section, key, fallback=default)
        except configparser.InterpolationError as error:
            message = one_line(error)
            raise InputError(
                f"{self.path}: [{section}] {key}: {message}; define %(name)s in the same section or in [DEFAULT], and "
                "write %% for a percent sign"
            ) from error
        if not value.strip():
            raise InputError(f"{self.path}: [{section}] {key} is empty; give a value, or leave out the line")
        return " ".join(value.split())

    def build_error(self, section: str, key: str, problem: str) -> InputError:
        """What to raise where a value cannot be used."""
        return InputError(f"{self.path}: [{section}] {key} {problem}; got '{self.get_text(section, key, 'nothing')}'")

    def get_flag(self, section: str, key: str, *, default: bool) -> bool:
        """A value that is 0 or 1, or what FitSNAP takes for it."""
        value = self.get_text(section, key, str(default)).lower()
        if value not in TRUE | FALSE_VALUES:
            raise self.build_error(section, key, "must be 0 or 1")
        return value in TRUE

    def get_number(self, section: str, key: str, default: float) -> float:
        """A single real number."""
        return self.get_numbers(section, key, default, 1)[0]

    def get_numbers(self, section: str, key: str, default: float, n_values: int) -> tuple[float, ...]:
        """As many real numbers as there are elements; `default` for each where the key is missing."""
        values = [
            parse_number(float, one)
            for one in self.get_text(section, key, " ".join([repr(default)] * n_values)).split()
        ]
        if None in values:
            raise self.build_error(
                section, key, "must be a real number" if n_values == 1 else f"must be {n_values} real numbers"
            )
        if len(values) != n_values:
            each = "one number" if n_values == 1 else f"{n_values} numbers, one for each element"
            raise self.build_error(section, key, f"must be {each}")
        return tuple(one for one in values if one is not None)

    def get_choice(self, section: str, key: str, supported: Sequence[str], unsupported: Sequence[str]) -> str:
        """The first of `supported` where the key is missing; upper and lower case are the same, as in FitSNAP."""
        value = self.get_text(section, key, supported[0])
        if value.upper() in supported:
            return value.upper()
        known = value.upper() in unsupported
        hint = "" if known else suggest_match_ignoring_case(value.upper(), [*supported, *unsupported])
        raise InputError(
            f"{self.path}: [{section}] {key} = {value} is {'not supported' if known else 'unknown'}; it must be "
            f"{' or '.join(supported)}{hint}"
        )


def parse_ini(path: Path) -> configparser.ConfigParser:
    """Read the file, its keys as they are written."""
    parser = configparser.ConfigParser(inline_comment_prefixes="#")
    parser.optionxform = str  # type: ignore[assignment,method-assign]  # keys are case-sensitive
    try:
        parser.read_string(path.read_text(encoding="utf-8-sig"), source=path.name)
    except FileNotFoundError as error:
        raise InputError(f"no file at {path}") from error
    except OSError as error:
        raise InputError(f"{path} cannot be read: {error.strerror}; name a FitSNAP input file") from error
    except UnicodeDecodeError as error:
        raise InputError(f"{path} is not UTF-8 text; name a FitSNAP input file") from error
    except configparser.Error as error:
        raise InputError(
            f"{path} is no FitSNAP input: {one_line(error)}; write each key once, as 'key = value' under a [SECTION]"
        ) from error
    return parser


def check_keys(ini: IniFile) -> None:
    """Refuse sections and keys that are unknown, and options that are on and not supported."""
    for section in ini.sections:
        if section in UNSUPPORTED_SECTIONS:
            raise InputError(f"{ini.path}: section [{section}] is not supported; {UNSUPPORTED_SECTIONS[section]}")
        if section not in SUPPORTED_KEYS:
            hint = (
                suggest_match_ignoring_case(section, SUPPORTED_KEYS)
                or f"; the sections are {', '.join(SUPPORTED_KEYS)}"
            )
            raise InputError(f"{ini.path}: unknown section [{section}]{hint}")
        for key in ini.keys(section):
            _check_key(ini, section, key)
    for section in ("BISPECTRUM", "PATH"):
        if section not in ini.sections:
            raise InputError(f"{ini.path} has no section [{section}]; it needs one{_EXAMPLES[section]}")


_EXAMPLES = {
    "BISPECTRUM": " with the elements, such as 'type = Ta'",
    "PATH": " with the folder of the data, such as 'dataPath = JSON'",
}


def _check_key(ini: IniFile, section: str, key: str) -> None:
    off = OFF.get(section, {})
    if key in off:
        text = ini.get_text(section, key, "0")
        if text.lower() not in FALSE_VALUES | {"none"} and parse_number(float, text) != 0:
            raise InputError(f"{ini.path}: [{section}] {key} = {text} is not supported: {off[key]}; leave it out")
    known = SUPPORTED_KEYS[section] | IGNORED_KEYS.get(section, set()) | set(off)
    free = section in {"ESHIFT", "GROUPS"} or (section == "REFERENCE" and key.startswith("pair_coeff"))
    if key not in known and not free:
        raise InputError(f"{ini.path}: [{section}] unknown key '{key}'{_elsewhere(section, key, known)}")


def _elsewhere(section: str, key: str, known: set[str]) -> str:
    """What a reader of an unknown key should know."""
    if key.rstrip("0123456789") in {"wj", "radelem", "type"}:
        return f"; write one line '{key.rstrip('0123456789')} = ...' with a value for each element"
    others = [one for one in SUPPORTED_KEYS if one != section and key in SUPPORTED_KEYS[one]]
    if others:
        return f"; it belongs in [{others[0]}]"
    listed = f"; the keys there are {', '.join(sorted(known))}"
    return suggest_match_ignoring_case(key, known) or listed


def parse_number(number_type: Callable[[str], Number], text: str) -> Number | None:
    """The number that `text` is, None if it is none or not finite."""
    try:
        value = number_type(text)
    except ValueError:
        return None
    return value if math.isfinite(value) else None


def suggest_match_ignoring_case(word: str, known: Iterable[str]) -> str:
    """A suggestion that also finds what differs in case only."""
    known = list(known)
    same = [one for one in known if one.lower() == word.lower()]
    return f"; did you mean '{same[0]}'?" if same else suggest_match(word, known)
