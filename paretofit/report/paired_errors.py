"""Errors of settings in the same samples, so that the differences between settings are paired.

A sample is a repetition, or in further train/test splits the test set of a split or a bootstrap sample of it.
"""

from collections.abc import Iterator, Mapping, Sequence
from functools import cached_property
from typing import Any, NamedTuple, TypeAlias

import numpy as np
import pandas as pd

from paretofit.core import Array
from paretofit.pareto import BASIS_COLUMN, INTERVAL_COVERAGE, compute_sign_shares
from paretofit.report.tables.summaries import ERROR_KINDS, SETTING, compute_weight_ratio

MIN_RELATIVE_CHANGE = 0.01  # a smaller change of an error is no clear difference, even if all samples agree on its sign
MIN_DRAWS = 5  # number of further splits, or of different repetitions; with fewer, no difference is clear
WHOLE_SET = "all"  # name of the sampling method in further splits if the subset is the whole training set
INTERVAL_SUFFIXES = ("", "_low", "_high")  # of the columns of a number and of the ends of its interval
NO_CLEAR_DIFFERENCE = "no clear difference"

# Positions of settings: by (basis, 2Jmax, level, sampling, w_E/w_F), then by the number of configurations.
SettingIndex: TypeAlias = dict[tuple[Any, ...], dict[Any, int]]


class PairedErrors(NamedTuple):
    """Errors of settings in train/test splits and samples.

    Attributes
    ----------
    settings : DataFrame
        A row for each setting: ``twojmax``, ``level``, ``sampling``, ``n_train``, ``w_energy``, ``w_force``, and
        ``basis`` if there are several. The sampling method of the whole training set may be `WHOLE_SET`.
    errors : mapping of str to (n_splits, n_samples, n_settings) float
        Errors by their column of results (meV/atom, meV/Å), NaN where a setting was not fitted. The first sample of a
        split is its test set, and the others are bootstrap samples of it.
    """

    settings: pd.DataFrame
    errors: Mapping[str, Array]

    @classmethod
    def from_repetitions(cls, results: pd.DataFrame) -> "PairedErrors":
        """Collect errors from a results table, in which each repetition (``repeat``) becomes a split with one sample.

        Fits with the same setting and repetition are averaged; without a column ``repeat``, all are one repetition.
        """
        results = results if "repeat" in results else results.assign(repeat=0)
        keys = ["twojmax", "level", "sampling", "n_train", "w_energy", "w_force"]
        keys += [BASIS_COLUMN] if BASIS_COLUMN in results else []
        names = [name for name in (*ERROR_KINDS, "test_energy", "test_force") if name in results]
        tables = {name: results.pivot_table(index=keys, columns="repeat", values=name) for name in names}
        # pivot_table omits settings without any value, so that the tables may differ in their rows.
        settings, repetitions = tables["ref_energy"].index, tables["ref_energy"].columns
        errors = {
            name: table.reindex(index=settings, columns=repetitions).to_numpy().T[:, None]
            for name, table in tables.items()
        }
        return cls(settings.to_frame(index=False), errors)

    @classmethod
    def join_bases(cls, by_basis: Mapping[str, "PairedErrors | None"]) -> "PairedErrors | None":
        """Join the errors of several bases, which must have the same splits and samples.

        Parameters
        ----------
        by_basis : mapping of str to PairedErrors or None
            Errors by the name of the basis; None if a basis was not fitted in further splits.

        Returns
        -------
        PairedErrors or None
            Settings of all bases, with the columns of errors that all bases have; None if a basis has no errors, or
            there are no bases.
        """
        tables = {basis: table for basis, table in by_basis.items() if table is not None}
        if not tables or len(tables) < len(by_basis):
            return None
        settings = pd.concat([table.settings.assign(**{BASIS_COLUMN: basis}) for basis, table in tables.items()])
        names = set.intersection(*(set(table.errors) for table in tables.values()))
        errors = {name: np.concatenate([table.errors[name] for table in tables.values()], axis=-1) for name in names}
        return cls(settings.reset_index(drop=True), errors)

    @property
    def n_splits(self) -> int:
        """Number of train/test splits."""
        return len(next(iter(self.errors.values())))

    def collect_setting_samples(self, setting: Mapping[Any, Any]) -> dict[str, Array]:
        """Collect the errors of a setting in all samples.

        Parameters
        ----------
        setting : mapping
            Values of the columns `SETTING`, and of ``basis`` if there are several. If its number of configurations was
            not fitted, the nearest one is used.

        Returns
        -------
        dict of str to (n_splits * n_samples,) float64
            Errors by their column, and in ``both`` the geometric means of the energy and force errors. Empty if the
            setting was not fitted.
        """
        position = _find_position(self.index_settings(), setting)
        if position is None:
            return {}
        samples = {name: errors[:, :, position].ravel().astype(float) for name, errors in self.errors.items()}
        return samples | {"both": np.sqrt(samples["ref_energy"] * samples["ref_force"])}

    def index_settings(self) -> SettingIndex:
        """Map each setting to its position in `settings`; the name of the basis is empty if there is only one."""
        table = self.settings.assign(
            level=self.settings["level"].astype(str), weight_ratio=compute_weight_ratio(self.settings)
        )
        if BASIS_COLUMN not in table:
            table[BASIS_COLUMN] = ""
        index: SettingIndex = {}
        for position, row in enumerate(table[[BASIS_COLUMN, *SETTING]].itertuples(index=False, name=None)):
            basis, twojmax, level, sampling, size, weight_ratio = row
            index.setdefault((basis, twojmax, level, sampling, weight_ratio), {})[size] = position
        return index


class ErrorComparison:
    """Comparison of errors of settings in the same samples.

    The samples are those of the further splits if all compared settings have errors in at least `MIN_DRAWS` splits,
    because two or three splits often have the same sign of a difference by chance. Otherwise, the samples are the
    repetitions. If there are further splits, but too few, at least `MIN_DRAWS` repetitions must differ, which those of
    the whole training set do not.

    Parameters
    ----------
    results : DataFrame
        A row for each fit, from which the errors of the repetitions are taken.
    split_errors : PairedErrors, optional
        Errors in further train/test splits; by default, only the repetitions are used.

    Attributes
    ----------
    has_splits : bool
        Whether there are errors in further splits.
    """

    def __init__(self, results: pd.DataFrame, split_errors: PairedErrors | None = None) -> None:
        self._results, self._split_errors = results, split_errors
        self.has_splits = split_errors is not None

    def _iterate_sources(self) -> Iterator[tuple[PairedErrors, SettingIndex]]:
        """Yield tables of errors, each with the positions of its settings: first further splits, then repetitions."""
        if self._split_errors is not None:
            yield self._split_errors, self._split_index
        yield self._repetition_index

    @cached_property
    def _split_index(self) -> SettingIndex:
        """Positions of the settings in the further splits; computed once, because many settings are looked up."""
        return {} if self._split_errors is None else self._split_errors.index_settings()

    @cached_property
    def _repetition_index(self) -> tuple[PairedErrors, SettingIndex]:
        """Errors of the repetitions and the positions of their settings; computed once, when they are first needed."""
        table = PairedErrors.from_repetitions(self._results)
        return table, table.index_settings()

    def classify_change(self, column: str, first: Mapping[Any, Any], second: Mapping[Any, Any]) -> str:
        """Classify the change of an error from the first setting to the second.

        Parameters
        ----------
        column : ``"ref_energy"`` or ``"ref_force"``
        first, second : rows of the medians: the columns `SETTING` and the error

        Returns
        -------
        str
            ``"falls"`` or ``"rises"``; `NO_CLEAR_DIFFERENCE` if the ratio of `estimate_ratio` differs from 1 by less
            than 1 %, if the central 90 % of the paired differences contain zero, or if there are no samples;
            ``"unknown"`` if a median is missing.
        """
        before, after = float(first[column]), float(second[column])
        if np.isnan(before) or np.isnan(after):
            return "unknown"
        ratio = self.estimate_ratio(column, first, second)[0]
        is_lower, is_higher = ratio < 1 - MIN_RELATIVE_CHANGE, ratio > 1 + MIN_RELATIVE_CHANGE
        share, margin = self.compute_share_above([column], first, second), (1 - INTERVAL_COVERAGE) / 2
        if is_lower and share >= 1 - margin:
            return "falls"
        return "rises" if is_higher and share <= margin else NO_CLEAR_DIFFERENCE

    @cached_property
    def fitted_sizes(self) -> set[int]:
        """Numbers of training configurations that were fitted."""
        return set(self._results["n_train"])

    def compute_share_above(
        self, columns: Sequence[str], first: Mapping[Any, Any], second: Mapping[Any, Any], factor: float = 1.0
    ) -> float:
        """Compute the share of paired samples in which the product of some errors is higher for the first setting.

        Parameters
        ----------
        columns : ``"ref_energy"``, ``"ref_force"`` or both
        first, second : rows with the columns `SETTING`, as in `collect_samples`
        factor : factor by which the products of the first setting are multiplied

        Returns
        -------
        float
            Share from 0 to 1, equal products counting half; NaN without samples.
        """
        samples = self.collect_samples(columns, [first, second])
        if not len(samples):
            return float("nan")
        return float(compute_sign_shares(factor * samples[None, :, 0], samples[None, :, 1]))

    def find_ties(self, columns: list[str], rows: pd.DataFrame, best: Mapping[Any, Any]) -> Array:
        """Find the settings that are tied with the best one: those whose product of some errors is not clearly higher.

        It is clearly higher if the geometric mean of the medians is at least 1 % higher and the product is higher in
        more than 95 % of the paired samples.

        Parameters
        ----------
        columns : ``"ref_energy"``, ``"ref_force"`` or both
        rows : n settings, with the columns `SETTING` and the medians of the errors
        best : one of the rows, which is not tied with itself

        Returns
        -------
        (n,) bool
        """
        shares = np.array([self.compute_share_above(columns, row, best) for row in rows.to_dict("records")])
        is_other = rows[SETTING].astype(str).ne(pd.Series(best)[SETTING].astype(str)).any(axis=1).to_numpy()
        product_ratios = rows[columns].prod(axis=1) / np.prod([best[name] for name in columns])
        is_close = product_ratios ** (1 / len(columns)) < 1 + MIN_RELATIVE_CHANGE
        is_clear = shares > (1 + INTERVAL_COVERAGE) / 2  # false where a share is NaN
        return np.asarray(is_other & (is_close | ~is_clear))

    def collect_samples(self, columns: Sequence[str], settings: Sequence[Mapping[Any, Any]]) -> Array:
        """Collect the product of some errors of each setting, in the samples in which all settings have finite errors.

        Parameters
        ----------
        columns : ``"ref_energy"``, ``"ref_force"`` or both
        settings : rows with the columns `SETTING`, and ``basis`` if there are several
            A number of configurations that was not fitted is replaced by the nearest one of the setting.

        Returns
        -------
        (n_samples, n_settings) float64
            No rows if there are fewer than `MIN_DRAWS` splits or different repetitions with such samples.
        """
        return self._collect_products([columns] * len(settings), settings)

    def _collect_products(self, columns: Sequence[Sequence[str]], settings: Sequence[Mapping[Any, Any]]) -> Array:
        """Collect samples as `collect_samples` does, where `columns` has an entry for each setting."""
        for table, index in self._iterate_sources():
            positions = [position for row in settings if (position := _find_position(index, row)) is not None]
            has_columns = all(name in table.errors for names in columns for name in names)
            if len(positions) == len(settings) and has_columns:
                products = [
                    np.prod([table.errors[name][:, :, position].astype(float) for name in names], axis=0)
                    for names, position in zip(columns, positions, strict=True)
                ]
                samples = np.stack(products, axis=-1)
                is_finite = np.isfinite(samples).all(axis=-1)
                draws = samples[is_finite[:, 0], 0]
                # equal repetitions, such as those of the whole training set, do not replace missing splits
                if len(np.unique(draws, axis=0) if self.has_splits else draws) >= MIN_DRAWS:
                    return np.asarray(samples[is_finite])
        return np.empty((0, len(settings)))

    def estimate_ratio(
        self, column: str, first: Mapping[Any, Any], second: Mapping[Any, Any], second_column: str = ""
    ) -> tuple[float, float, float]:
        """Estimate the error of the second setting divided by that of the first one.

        Parameters
        ----------
        column : column of the error
        first, second : rows of the medians, with the columns `SETTING` and the error
        second_column : column of the error of the second setting; by default, it is `column`

        Returns
        -------
        ratio, low, high : float
            Ratio of the medians, and the ends of the central 90 % of the paired ratios, which are NaN without samples.
            The medians are those of one split; if their ratio is outside of the interval, it is replaced by the median
            of the paired ratios.
        """
        names = [column, second_column or column]
        samples = self._collect_products([[name] for name in names], [first, second])
        with np.errstate(divide="ignore", invalid="ignore"):
            ratio = np.divide(float(second[names[1]]), float(first[names[0]]))
            paired_ratios = samples[:, 1] / samples[:, 0]
            low, high = compute_central_interval(paired_ratios)
            if ratio < low or ratio > high:  # false if the ends are NaN
                ratio = np.median(paired_ratios)
            return float(ratio), low, high

    @property
    def sample_description(self) -> str:
        """Description of the samples as part of a sentence."""
        splits = "further train/test splits and bootstrap samples of their test sets"
        return splits if self.has_splits else "the repetitions"

    def describe_criterion(self) -> str:
        """Describe in one sentence when a change is called no clear difference."""
        return (
            f"A change is called {NO_CLEAR_DIFFERENCE} if it is below {100 * MIN_RELATIVE_CHANGE:.0f} %, or if the "
            f"central {100 * INTERVAL_COVERAGE:.0f} % of the paired differences in {self.sample_description} contain "
            f"zero, or if there are fewer than {MIN_DRAWS} further splits or different repetitions."
        )


def compute_central_interval(samples: Array) -> tuple[float, float]:
    """Compute the ends of the central 90 % of the finite samples, ``(n,)`` float; NaN if there are none."""
    samples = samples[np.isfinite(samples)]
    if not len(samples):
        return float("nan"), float("nan")
    low, high = np.quantile(samples, [(1 - INTERVAL_COVERAGE) / 2, (1 + INTERVAL_COVERAGE) / 2])
    return float(low), float(high)


def _find_position(index: SettingIndex, row: Mapping[Any, Any]) -> int | None:
    """Find the position of a setting, at its number of configurations or the nearest one; None if it was not fitted.

    The whole training set, which has its own sampling method `WHOLE_SET`, counts as a subset of every sampling method.
    Sizes are compared by their logarithms.
    """
    twojmax, level, sampling, size, weight_ratio = (row[name] for name in SETTING)

    def get_sizes(method: Any) -> dict[Any, int]:
        """Return the positions by size; in a table of a single basis, the name of the basis is empty."""
        keys = ((basis, twojmax, level, method, weight_ratio) for basis in (row.get(BASIS_COLUMN, ""), ""))
        return next((index[key] for key in keys if key in index), {})

    sizes = get_sizes(sampling)
    if size in sizes:
        return sizes[size]
    sizes = sizes | get_sizes(WHOLE_SET)
    return sizes[min(sizes, key=lambda n: abs(np.log(n / size)))] if sizes else None
