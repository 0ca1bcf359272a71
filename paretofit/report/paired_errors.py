"""Errors of settings in the same samples, so that their differences are paired."""

from collections.abc import Iterator, Mapping, Sequence
from functools import cached_property
from typing import Any, NamedTuple, TypeAlias

import numpy as np
import pandas as pd

from paretofit.core import Array
from paretofit.pareto import BASIS_COLUMN, INTERVAL_COVERAGE, compute_sign_shares
from paretofit.report.tables.summaries import ERROR_KINDS, SETTING, compute_weight_ratio

MIN_RELATIVE_CHANGE = 0.01  # smaller changes of an error are no clear difference, however many samples have them
MIN_SAMPLES = 5  # number of samples; with fewer, such as a single repetition, no difference is clear
WHOLE_SET = "all"  # sampling method of the whole training set in further splits
INTERVAL_SUFFIXES = ("", "_low", "_high")  # of the columns of a value and the ends of its interval
NO_CLEAR_DIFFERENCE = "no clear difference"


SettingIndex: TypeAlias = dict[tuple[Any, ...], dict[Any, int]]  # positions by setting without its size, then by size


class PairedErrors(NamedTuple):
    """Errors of settings in train/test splits and samples.

    Attributes
    ----------
    settings : DataFrame
        A row for each setting: ``twojmax``, ``level``, ``sampling``, ``n_train``, ``w_energy``, ``w_force``, and
        ``basis`` if there are several. The sampling method of the whole training set may be `WHOLE_SET`.
    errors : mapping of str to (n_splits, n_samples, n_settings) float
        Errors by their column (meV/atom, meV/Å); the first sample is the test set of a split.
    """

    settings: pd.DataFrame
    errors: Mapping[str, Array]

    @classmethod
    def from_repetitions(cls, results: pd.DataFrame) -> "PairedErrors":
        """Build the table of a study without further splits: its repetitions are the samples of one split."""
        keys = ["twojmax", "level", "sampling", "n_train", "w_energy", "w_force"]
        keys += [BASIS_COLUMN] if BASIS_COLUMN in results else []
        names = [name for name in (*ERROR_KINDS, "test_energy", "test_force") if name in results]
        tables = {name: results.pivot_table(index=keys, columns="repeat", values=name) for name in names}
        settings = tables["ref_energy"].index.to_frame(index=False)
        repetitions = tables["ref_energy"].columns
        errors = {
            name: table.reindex(index=tables["ref_energy"].index, columns=repetitions).to_numpy().T[None]
            for name, table in tables.items()
        }
        return cls(settings, errors)

    @classmethod
    def join_bases(cls, by_basis: Mapping[str, "PairedErrors | None"]) -> "PairedErrors | None":
        """Join the errors of several bases in the same splits and samples; None if a basis has none."""
        parts = {name: part for name, part in by_basis.items() if part is not None}
        if not parts or len(parts) < len(by_basis):
            return None
        settings = pd.concat([part.settings.assign(**{BASIS_COLUMN: name}) for name, part in parts.items()])
        names = set.intersection(*(set(part.errors) for part in parts.values()))
        errors = {name: np.concatenate([part.errors[name] for part in parts.values()], axis=-1) for name in names}
        return cls(settings.reset_index(drop=True), errors)

    def collect_setting(self, setting: Mapping[Any, Any]) -> dict[str, Array]:
        """Collect the samples of a setting (columns `SETTING`), ``(n_samples,)`` by error; ``both``: geometric mean."""
        position = _find_position(self.index_settings(), setting)
        if position is None:
            return {}
        samples = {name: values[:, :, position].ravel().astype(float) for name, values in self.errors.items()}
        return samples | {"both": np.sqrt(samples["ref_energy"] * samples["ref_force"])}

    def index_settings(self) -> SettingIndex:
        """Map (basis, 2Jmax, level, sampling, w_E/w_F), then the size, to the position of the setting."""
        table = self.settings.assign(
            level=self.settings["level"].astype(str), weight_ratio=compute_weight_ratio(self.settings)
        )
        if BASIS_COLUMN not in table:
            table[BASIS_COLUMN] = ""
        index: SettingIndex = {}
        for position, values in enumerate(table[[BASIS_COLUMN, *SETTING]].itertuples(index=False, name=None)):
            basis, twojmax, level, sampling, size, weight_ratio = values
            index.setdefault((basis, twojmax, level, sampling, weight_ratio), {})[size] = position
        return index


class ErrorComparison:
    """Comparison of the errors of two settings in further splits, or in repetitions if a setting has no such fits."""

    def __init__(self, results: pd.DataFrame, split_errors: PairedErrors | None = None) -> None:
        self._results, self._split_errors = results, split_errors
        self.has_splits = split_errors is not None

    def _iterate_sources(self) -> Iterator[tuple[PairedErrors, SettingIndex]]:
        """Yield the errors in further splits, if there are any, and those of the repetitions, each with its index."""
        if self._split_errors is not None:
            yield self._split_errors, self._split_index
        yield self._repetition_index

    @cached_property
    def _split_index(self) -> SettingIndex:
        return {} if self._split_errors is None else self._split_errors.index_settings()

    @cached_property
    def _repetition_index(self) -> tuple[PairedErrors, SettingIndex]:
        table = PairedErrors.from_repetitions(self._results)
        return table, table.index_settings()

    def name_change(self, column: str, first: Mapping[Any, Any], second: Mapping[Any, Any]) -> str:
        """Return whether an error ``"falls"`` or ``"rises"`` from one setting to another.

        Parameters
        ----------
        column : ``"ref_energy"`` or ``"ref_force"``
        first, second : rows of the medians: the columns `SETTING` and the error

        Returns
        -------
        str
            `NO_CLEAR_DIFFERENCE` if the median changes by less than 1 %, or if the central 90 % of the paired
            differences contain zero, or with fewer than `MIN_SAMPLES` of them; ``"unknown"`` if a median is missing.
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

    def compute_share_above(self, columns: Sequence[str], first: Mapping[Any, Any], second: Mapping[Any, Any]) -> float:
        """Compute the share of paired samples in which the product of some errors is higher for the first setting.

        Parameters
        ----------
        columns : of ``"ref_energy"`` and ``"ref_force"``
        first, second : rows with the columns `SETTING`
            A number of configurations that was not fitted is replaced by the nearest one of the setting.

        Returns
        -------
        float
            NaN with fewer than `MIN_SAMPLES` samples.
        """
        pair = self.collect_samples(columns, [first, second])
        return float(compute_sign_shares(pair[None, :, 0], pair[None, :, 1])) if len(pair) else float("nan")

    def find_ties(self, columns: list[str], rows: pd.DataFrame, best: Mapping[Any, Any]) -> Array:
        """Find the settings whose product of some errors is not clearly above that of the best one, ``(n,)`` bool.

        It is not if the geometric mean of the medians is less than 1 % higher.

        Parameters
        ----------
        columns : of ``"ref_energy"`` and ``"ref_force"``
        rows : settings, with the columns `SETTING` and the medians of the errors
        best : one of the rows, which is not tied with itself
        """
        shares = [self.compute_share_above(columns, row, best) for row in rows.to_dict("records")]
        is_other = rows[SETTING].astype(str).ne(pd.Series(best)[SETTING].astype(str)).any(axis=1).to_numpy()
        is_close = (rows[columns].prod(axis=1) / np.prod([best[name] for name in columns])) ** (1 / len(columns)) < (
            1 + MIN_RELATIVE_CHANGE
        )
        return np.asarray(is_other & (is_close | ~(np.array(shares) > (1 + INTERVAL_COVERAGE) / 2)))

    def collect_samples(self, columns: Sequence[str], settings: Sequence[Mapping[Any, Any]]) -> Array:
        """Collect the products of some errors of several settings in the samples that all of them have.

        Parameters
        ----------
        columns : of ``"ref_energy"`` and ``"ref_force"``
        settings : rows with the columns `SETTING`
            A number of configurations that was not fitted is replaced by the nearest one of the setting.

        Returns
        -------
        (n_samples, n_settings) float64
            Empty if there are fewer than `MIN_SAMPLES`.
        """
        return self._collect_products([columns] * len(settings), settings)

    def _collect_products(self, columns: Sequence[Sequence[str]], settings: Sequence[Mapping[Any, Any]]) -> Array:
        """Collect samples as `collect_samples`, for settings with their own columns."""
        for table, index in self._iterate_sources():
            candidates = [_find_position(index, row) for row in settings]
            positions = [position for position in candidates if position is not None]
            if len(positions) == len(settings) and all(name in table.errors for names in columns for name in names):
                products = [
                    np.prod([table.errors[name][:, :, position].astype(float) for name in names], axis=0)
                    for names, position in zip(columns, positions, strict=True)
                ]
                samples = np.stack(products, axis=-1)
                samples = samples[np.isfinite(samples).all(axis=-1)]
                if len(samples) >= MIN_SAMPLES:
                    return np.asarray(samples)
        return np.empty((0, len(settings)))

    def estimate_ratio(
        self, column: str, first: Mapping[Any, Any], second: Mapping[Any, Any], second_column: str = ""
    ) -> tuple[float, float, float]:
        """Estimate the error of the second setting divided by that of the first one.

        Parameters
        ----------
        column : column of the error
        first, second : rows of the medians, with the columns `SETTING` and the error
        second_column : column of the error of the second setting, if it is another one

        Returns
        -------
        tuple of float
            Ratio of the medians, and the ends of the central 90 % of the paired ratios, which are NaN with fewer than
            `MIN_SAMPLES` of them. If the ratio of the medians, which are those of one split, is outside of this
            interval, the median of the paired ratios replaces it.
        """
        names = [column, second_column or column]
        samples = self._collect_products([[name] for name in names], [first, second])
        with np.errstate(divide="ignore", invalid="ignore"):
            ratio, ratios = np.divide(float(second[names[1]]), float(first[names[0]])), samples[:, 1] / samples[:, 0]
            low, high = compute_central_interval(ratios)
            if ratio < low or ratio > high:
                ratio = np.median(ratios)
            return float(ratio), low, high

    @property
    def samples(self) -> str:
        """What the samples are, as part of a sentence."""
        splits = "further train/test splits and bootstrap samples of their test sets"
        return splits if self.has_splits else "the repetitions"

    def describe(self) -> str:
        """Describe when a difference is not clear."""
        return (
            f"A change is called {NO_CLEAR_DIFFERENCE} if it is below {100 * MIN_RELATIVE_CHANGE:.0f} %, or if the "
            f"central {100 * INTERVAL_COVERAGE:.0f} % of the paired differences in {self.samples} contain zero, or if "
            f"there are fewer than {MIN_SAMPLES} of them."
        )


def compute_central_interval(samples: Array) -> tuple[float, float]:
    """Compute the ends of the central 90 % of samples, ``(n,)`` float; NaN without samples."""
    samples = samples[np.isfinite(samples)]
    if not len(samples):
        return float("nan"), float("nan")
    low, high = np.quantile(samples, [(1 - INTERVAL_COVERAGE) / 2, (1 + INTERVAL_COVERAGE) / 2])
    return float(low), float(high)


def _find_position(index: SettingIndex, row: Mapping[Any, Any]) -> int | None:
    """Find the fits of a setting with the number of configurations that is nearest to that of the row."""
    twojmax, level, sampling, size, weight_ratio = (row[name] for name in SETTING)

    def get_sizes(method: Any) -> dict[Any, int]:
        """Return the positions by size; a table of a single basis does not name it."""
        keys = ((basis, twojmax, level, method, weight_ratio) for basis in (row.get(BASIS_COLUMN, ""), ""))
        return next((index[key] for key in keys if key in index), {})

    sizes = get_sizes(sampling)
    if size in sizes:
        return sizes[size]
    sizes = sizes | get_sizes(WHOLE_SET)
    return sizes[min(sizes, key=lambda n: abs(np.log(n / size)))] if sizes else None
