"""A basis of any family, in settings and in files."""

from typing import Annotated, Any

from pydantic import BeforeValidator, Field, TypeAdapter

from paretofit.core import InputError
from paretofit.descriptors.basis import SnapBasis
from paretofit.descriptors.pod_basis import PodBasis
from paretofit.descriptors.rows_basis import RowsBasis


def _set_family(value: Any) -> Any:
    """Add the default family to settings without one, because pydantic selects the class of a basis by its family."""
    return {"family": "snap", **value} if isinstance(value, dict) else value


AnyBasis = SnapBasis | PodBasis  # bases whose rows can be computed for any structure
StudyBasis = Annotated[SnapBasis | PodBasis | RowsBasis, Field(discriminator="family"), BeforeValidator(_set_family)]
_ADAPTER: TypeAdapter[StudyBasis] = TypeAdapter(StudyBasis)


def parse_basis(text: str) -> StudyBasis:
    """Parse a basis from JSON, such as the attribute ``basis`` of a design matrix.

    Raises
    ------
    pydantic.ValidationError
        If the text is not JSON, or its settings do not form a basis.
    """
    return _ADAPTER.validate_json(text)


def build_basis(settings: dict[str, Any]) -> StudyBasis:
    """Build a basis from its settings; the key ``family`` selects the family, SNAP by default.

    Raises
    ------
    pydantic.ValidationError
        If the settings do not form a basis.
    """
    return _ADAPTER.validate_python(settings)


def require_descriptors(basis: StudyBasis) -> AnyBasis:
    """Return the basis if its rows can be computed for any structure.

    Raises
    ------
    InputError
        If the basis is a `RowsBasis`, of which only the rows in a file are known.
    """
    if isinstance(basis, RowsBasis):
        raise InputError(
            f"the models of {basis.title} have no potential, because their descriptors are not known; fit the setting "
            "that 'paretofit plan' recommends to these rows in Python (paretofit.fit_wls), and use your own program"
        )
    return basis
