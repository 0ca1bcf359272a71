"""Settings of the properties of a study."""

import re
from collections.abc import Iterable, Mapping
from typing import Annotated, Any, Literal, Self

from pydantic import AfterValidator, BeforeValidator, Field, FiniteFloat, model_validator

from paretofit.core import AbsoluteStudyPath, PositiveInt, StrictInt, StrictSettings

NAME_PATTERN = r"[A-Za-z][A-Za-z0-9_-]{0,39}"
CONSTANT_PATTERN = r"C[1-6][1-6]"
# kind of property that uses each of these keys, which have no effect on other kinds
KIND_BY_KEY = {"components": "elastic", "ions": "elastic", "per": "energy_difference", "supercell": "force_constants"}
EQUATION_OF_STATE_UNITS = {"V0": "Å³/atom", "B": "GPa"}


def _check_structure(value: Any) -> Any:
    """Check that a structure is a file or an id; a boolean is not an id, although it is an `int` in Python."""
    if isinstance(value, bool) or not isinstance(value, int | str):
        raise ValueError("must be a file with one structure, or the id of a configuration in the dataset")  # noqa: TRY004  (pydantic)
    return value


def _check_constant(value: str) -> str:
    """Check that a component is the name of an elastic constant."""
    if not re.fullmatch(CONSTANT_PATTERN, value):
        raise ValueError("must be elastic constants, such as C11 or C44")
    return value


# the id of a configuration in the dataset, or a file
StructureSource = Annotated[StrictInt | AbsoluteStudyPath, BeforeValidator(_check_structure)]
Supercell = tuple[PositiveInt, PositiveInt, PositiveInt]


class PropertySettings(StrictSettings):
    """A property that is evaluated for every fit."""

    name: str = Field(pattern=f"^{NAME_PATTERN}$", description="Name of the property, such as C44.")
    kind: Literal["elastic", "energy_difference", "equation_of_state", "force_constants"] = Field(
        description="elastic (constants, GPa), energy_difference (meV/atom, or eV), equation_of_state (V0 in Å³/atom, "
        "B in GPa) or force_constants (eV/Å²)."
    )
    structure: StructureSource | None = Field(
        None, description="The structure: a file, or the id of a configuration of the dataset."
    )
    structures: list[StructureSource] = Field(
        [],
        description="Structures of an energy difference, the first minus the others, or several volumes of an equation "
        "of state.",
    )
    components: list[Annotated[str, AfterValidator(_check_constant)]] = Field(
        [], description="Elastic constants, such as [C11, C44]; by default the one that 'name' says."
    )
    ions: Literal["relaxed", "clamped"] = Field(
        "relaxed", description="Whether the atoms of an elastically strained cell relax, by linear response."
    )
    per: Literal["atom", "atom-balanced"] = Field(
        "atom",
        description="Energy difference per atom of the first cell (atom, meV/atom), or of the whole first cell "
        "(atom-balanced, eV), as for defects. The other cells count as often as the atoms of the first cell require.",
    )
    supercell: Supercell = Field((1, 1, 1), description="Repetitions of the structure for force constants.")
    reference: FiniteFloat | dict[str, FiniteFloat] | None = Field(
        None,
        description="Reference value, or values by name; by default from the labels of the structures at the reference "
        "level.",
    )

    @model_validator(mode="after")
    def _check_structures(self) -> Self:
        """Check that the kind has the structures and the form of the reference that it requires."""
        if self.kind == "energy_difference":
            if self.structure is not None or len(self.structures) < 2:
                raise ValueError(f"property '{self.name}' needs two or more 'structures', and no 'structure'")
        elif self.structures and self.kind != "equation_of_state":
            raise ValueError(f"property '{self.name}' needs one 'structure' instead of 'structures'")
        elif (self.structure is None) == (not self.structures):
            alternative = " or several 'structures', but not both" if self.kind == "equation_of_state" else ""
            raise ValueError(f"property '{self.name}' needs a 'structure'{alternative}")
        if self.kind == "force_constants" and self.reference is not None:
            raise ValueError(
                f"property '{self.name}': force constants have no single 'reference'; label their structures"
            )
        return self

    @model_validator(mode="after")
    def _check_keys(self) -> Self:
        """Check that no key is set that has no effect on this kind."""
        for key, kind in KIND_BY_KEY.items():
            # keys with their defaults are allowed, because the study in a run folder contains all keys
            if kind != self.kind and getattr(self, key) != type(self).model_fields[key].default:
                raise ValueError(f"'{key}' of property '{self.name}' is a key of the kind '{kind}'; remove it")
        return self

    @model_validator(mode="after")
    def _check_parts(self) -> Self:
        """Check that the parts are known, and that the reference has values of these parts only."""
        parts = self.list_parts()
        if self.kind == "elastic" and not parts:
            raise ValueError(f"property '{self.name}' needs 'components', such as [C11, C44], or a 'name' such as C44")
        if isinstance(self.reference, dict):
            for part in self.reference:
                if part not in parts:
                    raise ValueError(
                        f"'reference' of property '{self.name}' has '{part}'; available: {', '.join(parts)}"
                    )
        elif self.reference is not None and len(parts) > 1:
            raise ValueError(f"'reference' of property '{self.name}' must have values for {', '.join(parts)}")
        return self

    def list_parts(self) -> list[str]:
        """List the parts of the property: its elastic constants, "V0" and "B", or the property itself by its name.

        The list is empty if neither 'components' nor 'name' says which elastic constants are meant.
        """
        if self.kind == "elastic":
            return self.components or ([self.name] if re.fullmatch(CONSTANT_PATTERN, self.name) else [])
        return list(EQUATION_OF_STATE_UNITS) if self.kind == "equation_of_state" else [self.name]

    def name_part(self, part: str) -> str:
        """Return the full name of a part, such as ``eos_B``; a part with the name of the property keeps this name."""
        return self.name if part == self.name else f"{self.name}_{part}"

    def get_unit(self, part: str) -> str:
        """Return the unit of one of the parts in `list_parts`."""
        if self.kind == "energy_difference":
            return "meV/atom" if self.per == "atom" else "eV"
        if self.kind == "equation_of_state":
            return EQUATION_OF_STATE_UNITS[part]
        return "GPa" if self.kind == "elastic" else "eV/Å²"

    def get_reference(self, part: str) -> float | None:
        """Return the reference value of a part; None if the labels of the structures are the reference."""
        return self.reference.get(part) if isinstance(self.reference, dict) else self.reference


def list_property_units(properties: Iterable[PropertySettings | Mapping[str, Any]]) -> dict[str, str]:
    """Return the units of all properties by full name; each part, such as an elastic constant, has its own entry."""
    entries = [PropertySettings.model_validate(entry) for entry in properties]
    return {entry.name_part(part): entry.get_unit(part) for entry in entries for part in entry.list_parts()}
