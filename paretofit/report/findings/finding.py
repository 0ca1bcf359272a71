"""A finding: a question about the results, the answer, and the numbers that support the answer."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Literal

import pandas as pd

FindingStatus = Literal["yes", "no", "mixed", "not tested", "measured"]


@dataclass(frozen=True)
class FindingDots:
    """Content of the small picture of a finding: values in groups, with intervals, beside a reference value.

    Attributes
    ----------
    table : a row per dot: ``error`` (kind, energy or force), ``group``, ``value``, and the ends of its interval,
        ``low`` and ``high`` (NaN if unknown)
    label : label of the axis of the values
    reference : value that means no effect; 1 for ratios, which are drawn on a logarithmic axis, or 0
    """

    table: pd.DataFrame
    label: str
    reference: float = 1.0

    @classmethod
    def collect(
        cls, numbers: pd.DataFrame, groups: pd.Series, columns: Mapping[str, str], label: str, reference: float = 1.0
    ) -> "FindingDots":
        """Collect dots, with their intervals if the table has these, from columns of a table.

        Parameters
        ----------
        numbers : table; the ends of an interval have the name of the column with the suffixes ``_low`` and ``_high``
        groups : group of each row
        columns : names of the columns with the values, by the kind of error; with the key ``""`` instead of a kind, the
            kind of each row is in the column ``error`` of the table
        label, reference : as in `FindingDots`
        """
        tables = [
            pd.DataFrame({
                "error": kind or numbers["error"], "group": groups, "value": numbers[column],
                **{end: numbers.get(f"{column}_{end}", float("nan")) for end in ("low", "high")},
            })
            for kind, column in columns.items()
        ]  # fmt: skip
        return cls(pd.concat(tables, ignore_index=True), label, reference)


@dataclass(frozen=True)
class Finding:
    """Answer to a question about a results table, with the numbers that support it.

    Attributes
    ----------
    name : short name, also part of the name of the file with the numbers
    question : question that the finding answers
    status : ``"yes"``, ``"no"``, ``"mixed"``, ``"not tested"``, or ``"measured"`` if it is not a yes/no question
    answer : a few sentences with numbers and units
    published_result : sentence with the answer of the published study (Baghishov et al., Digital Discovery, 2025), "the
        paper" in all texts; empty if it does not answer the question
    numbers : table with the numbers of the answer; empty if the question could not be tested
    dots : content of the picture of the finding; None if the report shows it in another figure or not at all
    """

    name: str
    question: str
    status: FindingStatus
    answer: str
    published_result: str = ""
    numbers: pd.DataFrame = field(default_factory=pd.DataFrame, compare=False)
    dots: FindingDots | None = field(default=None, compare=False)

    @classmethod
    def not_tested(cls, name: str, question: str, reason: str, published_result: str) -> "Finding":
        """Build a finding that could not be tested, with the reason as its answer."""
        return cls(name, question, "not tested", f"Not tested: {reason}.", published_result)

    @property
    def figure_name(self) -> str:
        """Name of the figure of the dots."""
        return f"finding_{self.name}"

    @property
    def text(self) -> str:
        """Answer, followed by the published result if there is one."""
        return f"{self.answer} {self.published_result}".strip()


def combine_answers(answers: list[str]) -> FindingStatus:
    """Return ``"yes"`` or ``"no"`` if all answers are this word, ``"not tested"`` without answers, else ``"mixed"``."""
    if not answers:
        return "not tested"
    if set(answers) == {"yes"}:
        return "yes"
    return "no" if set(answers) == {"no"} else "mixed"
