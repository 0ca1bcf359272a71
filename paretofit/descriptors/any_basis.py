"""A basis of any family, in settings and in files."""

from typing import Annotated, Any

from pydantic import BeforeValidator, Field, TypeAdapter

from paretofit.descriptors.basis import SnapBasis
from paretofit.descriptors.pod_basis import PodBasis


def _set_family(value: Any) -> Any:
    """Set the default family, without which pydantic would not know the settings."""
    return {"family": "snap", **value} if isinstance(value, dict) else value


AnyBasis = Annotated[SnapBasis | PodBasis, Field(discriminator="family"), BeforeValidator(_set_family)]
_ADAPTER: TypeAdapter[AnyBasis] = TypeAdapter(AnyBasis)


def parse_basis(text: str) -> AnyBasis:
    """Parse a basis from JSON, such as the attribute ``basis`` of a design matrix."""
    return _ADAPTER.validate_json(text)


def build_basis(settings: dict[str, Any]) -> AnyBasis:
    """Build the basis of the family that its settings name; SNAP by default.

    Raises
    ------
    pydantic.ValidationError
        If the settings do not form a basis.
    """
    return _ADAPTER.validate_python(settings)
