"""A finding: a question about the results, the answer, and the numbers that support the answer."""

from dataclasses import dataclass, field
from typing import Literal

import pandas as pd

FindingStatus = Literal["yes", "no", "mixed", "not tested", "measured"]


@dataclass(frozen=True)
class Finding:
    """Answer to a question about a results table, with the numbers that support it.

    Attributes
    ----------
    name : short name, also part of the name of the file with the numbers
    question : question that the finding answers
    status : ``"yes"``, ``"no"``, ``"mixed"``, ``"not tested"``, or ``"measured"`` if it is not a yes/no question
    answer : a few sentences with numbers and units
    published_result : answer in the published study; empty if the study does not answer the question
    numbers : table with the numbers of the answer; empty if the question could not be tested
    """

    name: str
    question: str
    status: FindingStatus
    answer: str
    published_result: str = ""
    numbers: pd.DataFrame = field(default_factory=pd.DataFrame, compare=False)

    @classmethod
    def not_tested(cls, name: str, question: str, reason: str, published_result: str) -> "Finding":
        """Build a finding that could not be tested, with the reason as its answer."""
        return cls(name, question, "not tested", f"Not tested: {reason}.", published_result)

    @property
    def text(self) -> str:
        """Answer, followed by the result of the published study if there is one."""
        return f"{self.answer} {self.published_result}".strip()


def combine_answers(answers: list[str]) -> FindingStatus:
    """Return ``"yes"`` or ``"no"`` if every answer is this word, otherwise ``"mixed"``; ``"not tested"`` if none."""
    if not answers:
        return "not tested"
    if set(answers) == {"yes"}:
        return "yes"
    return "no" if set(answers) == {"no"} else "mixed"
