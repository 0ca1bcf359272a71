"""Settings of mixtures: training sets with a few labels of an accurate level, and many of cheaper ones."""

from collections.abc import Iterator, Sequence
from itertools import product
from typing import Annotated, Literal, Self

from pydantic import Field, field_validator, model_validator

from paretofit.core import Name, StrictInt, StrictSettings, suggest_match
from paretofit.sweep import SAMPLING_METHODS, Mixture

Size = Annotated[StrictInt, Field(ge=1)] | Literal["all"]


class MixtureSettings(StrictSettings):
    """Training sets with labels of two or three levels, whose reference energies differ by fitted offsets."""

    base: Name = Field(description="Cheap level, of most of the configurations.")
    top: Name = Field(description="Accurate level, which the fits predict.")
    middle: Name | None = Field(None, description="A level between them.")
    base_sizes: list[Size] = Field(
        ["all"], min_length=1, description="Numbers of configurations at the base; 'all': the training set."
    )
    middle_sizes: list[Size] = Field([], description="Numbers of configurations at the middle level.")
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
    def _check_method(cls, value: str) -> str:
        if value not in SAMPLING_METHODS:
            methods = ", ".join(SAMPLING_METHODS)
            raise ValueError(f"'{value}' is not one of {methods}{suggest_match(value, SAMPLING_METHODS)}")
        return value

    @model_validator(mode="after")
    def _check_levels(self) -> Self:
        names = self.list_levels()
        if len(set(names)) < len(names):
            raise ValueError(f"a mixture must have different levels; got {' + '.join(names)}")
        if (self.middle is None) != (not self.middle_sizes):
            raise ValueError("'middle' and 'middle_sizes' must be set together")
        return self

    def list_levels(self) -> list[str]:
        """List the levels, the top level last."""
        return [name for name in (self.base, self.middle, self.top) if name is not None]

    def expand(self, n_train: int) -> Iterator[Mixture]:
        """Yield a mixture for each combination of the numbers below the top level and the energy weights.

        The name of a mixture contains those of its levels, joined by "+", and what differs from a base of all
        configurations with full energy weight: ``4+5``, ``4(n=100)+5``, ``4(w=0.25)+5``.

        Parameters
        ----------
        n_train : int
            Number of configurations in the training set.
        """
        levels = tuple(self.list_levels())
        lower = [[n_train if size == "all" else size for size in sizes]
                 for sizes in (self.base_sizes, self.middle_sizes) if sizes]  # fmt: skip
        for sizes, weight in product(product(*lower), self.base_energy_weight):
            names = [
                _format_level(level, size, n_train, weight) for level, size in zip(levels[:-1], sizes, strict=True)
            ]
            yield Mixture("+".join([*names, self.top]), levels, sizes, tuple(self.top_sizes),
                          self.top_sampling, weight)  # fmt: skip


def _format_level(level: str, size: int, n_train: int, weight: float) -> str:
    """Format a level below the top, with its number of configurations and its weight where they are not the default."""
    parts = [f"n={size}"] if size != n_train else []
    parts += [f"w={weight:g}"] if weight != 1 else []
    return f"{level}({','.join(parts)})" if parts else level


def expand_mixtures(settings: Sequence[MixtureSettings], n_train: int) -> list[Mixture]:
    """Expand all mixtures of a study, for a training set of `n_train` configurations."""
    return [mixture for mixture_settings in settings for mixture in mixture_settings.expand(n_train)]
