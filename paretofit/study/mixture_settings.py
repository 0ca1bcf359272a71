"""Settings of mixtures: training sets with a few labels of an accurate level and many labels of cheaper levels."""

from collections.abc import Iterator, Sequence
from itertools import product
from typing import Annotated, Literal, Self

from pydantic import Field, field_validator, model_validator

from paretofit.core import Name, StrictInt, StrictSettings, suggest_match
from paretofit.sweep import SAMPLING_METHODS, Mixture

SubsetSize = Annotated[StrictInt, Field(ge=1)] | Literal["all"]


class MixtureSettings(StrictSettings):
    """Training sets with labels of two or three levels, whose reference energies differ by fitted offsets."""

    base: Name = Field(description="Cheap level, at which most of the configurations are labelled.")
    top: Name = Field(description="Accurate level, which the fits predict.")
    middle: Name | None = Field(None, description="Level between the base and the top.")
    base_sizes: list[SubsetSize] = Field(
        ["all"], min_length=1, description="Numbers of configurations at the base; 'all': the training set."
    )
    middle_sizes: list[SubsetSize] = Field([], description="Numbers of configurations at the middle level.")
    top_sizes: list[Annotated[StrictInt, Field(ge=1)]] = Field(
        min_length=1, description="Numbers of configurations at the top level."
    )
    top_sampling: str = Field(
        "block-leverage", description=f"Sampling method of the levels above the base: {', '.join(SAMPLING_METHODS)}."
    )
    base_energy_weight: list[Annotated[float, Field(ge=0, le=1e3, strict=True)]] = Field(
        [1.0],
        min_length=1,
        description="Factors of the energy weight below the top level; 0: only the forces of these levels are fitted.",
    )

    @field_validator("top_sampling")
    @classmethod
    def _check_method(cls, name: str) -> str:
        """Raise ValueError for an unknown sampling method."""
        if name not in SAMPLING_METHODS:
            methods = ", ".join(SAMPLING_METHODS)
            raise ValueError(f"'{name}' is not one of {methods}{suggest_match(name, SAMPLING_METHODS)}")
        return name

    @model_validator(mode="after")
    def _check_levels(self) -> Self:
        """Raise ValueError if a level occurs twice, or the middle level and its sizes are not set together."""
        names = self.list_levels()
        if len(set(names)) < len(names):
            raise ValueError(f"a mixture must have different levels; got {' + '.join(names)}")
        if (self.middle is None) != (not self.middle_sizes):
            raise ValueError("'middle' and 'middle_sizes' must be set together")
        return self

    def list_levels(self) -> list[str]:
        """List the names of the levels: base, middle (if there is one), top."""
        return [name for name in (self.base, self.middle, self.top) if name is not None]

    def expand(self, n_train: int) -> Iterator[Mixture]:
        """Yield a mixture for each combination of subset sizes below the top level and of energy weights.

        The name of a mixture consists of the names of its levels, joined by "+". A level below the top is followed by
        its subset size if that is not `n_train`, and by its energy weight if that is not 1: ``4+5``, ``4(n=100)+5``,
        ``4(w=0.25)+5``.

        Parameters
        ----------
        n_train : int
            Number of configurations in the training set.
        """
        levels = tuple(self.list_levels())
        lower_sizes = [[n_train if size == "all" else size for size in sizes]
                       for sizes in (self.base_sizes, self.middle_sizes) if sizes]  # fmt: skip
        for sizes, weight in product(product(*lower_sizes), self.base_energy_weight):
            names = [
                _format_level(level, size, n_train, weight) for level, size in zip(levels[:-1], sizes, strict=True)
            ]
            yield Mixture("+".join([*names, self.top]), levels, sizes, tuple(self.top_sizes),
                          self.top_sampling, weight)  # fmt: skip


def _format_level(level: str, size: int, n_train: int, weight: float) -> str:
    """Format a level below the top, with the subset size and the energy weight if they are not `n_train` and 1."""
    notes = [f"n={size}"] if size != n_train else []
    notes += [f"w={weight:g}"] if weight != 1 else []
    return f"{level}({','.join(notes)})" if notes else level


def expand_mixtures(settings: Sequence[MixtureSettings], n_train: int) -> list[Mixture]:
    """Expand the settings of all mixtures of a study, for a training set of `n_train` configurations."""
    return [mixture for mixture_settings in settings for mixture in mixture_settings.expand(n_train)]
