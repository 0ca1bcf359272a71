"""A finding: a question, the answer that the results give, and the numbers behind it."""

from dataclasses import dataclass, field
from typing import Literal

import pandas as pd

FindingStatus = Literal["yes", "no", "mixed", "not tested", "measured"]


@dataclass(frozen=True)
class Finding:
    """The answer that a results table gives to one question of the published study.

    Attributes
    ----------
    name : short name, also of the file of its numbers
    question : question that the finding answers
    status : ``"yes"``, ``"no"``, ``"mixed"``, ``"not tested"``, or ``"measured"`` if yes and no do not apply
    answer : a few plain sentences with numbers and units
    published_result : result of the published study
    numbers : table behind the answer; empty if nothing could be tested
    """

    name: str
    question: str
    status: FindingStatus
    answer: str
    published_result: str
    numbers: pd.DataFrame = field(default_factory=pd.DataFrame, compare=False)

    @classmethod
    def not_tested(cls, name: str, question: str, reason: str, published_result: str) -> "Finding":
        """Build a finding that could not be tested, with the reason as its answer."""
        return cls(name, question, "not tested", f"Not tested: {reason}.", published_result)

    @property
    def text(self) -> str:
        """Answer, followed by the result of the published study."""
        return f"{self.answer} {self.published_result}"


def combine_answers(answers: list[str]) -> FindingStatus:
    """Return ``"yes"`` or ``"no"`` if all answers agree, else ``"mixed"``; without answers ``"not tested"``."""
    if not answers:
        return "not tested"
    if set(answers) == {"yes"}:
        return "yes"
    return "no" if set(answers) == {"no"} else "mixed"
