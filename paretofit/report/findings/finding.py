"""What a finding is: a question, what the numbers answer, and the numbers."""

from dataclasses import dataclass, field
from typing import Literal

import pandas as pd

FindingStatus = Literal["yes", "no", "mixed", "not tested", "measured"]


@dataclass(frozen=True)
class Finding:
    """The answer that a results table gives to one question of the published study.

    Attributes
    ----------
    name : short name, used for the file of its numbers
    question : as a reader would ask it
    status : ``"yes"``, ``"no"``, ``"mixed"``, ``"not tested"``, or ``"measured"`` where the question is "how much"
    answer : a few plain sentences with numbers and units
    published_result : what the published study found
    numbers : the table behind the text, empty where nothing could be tested
    """

    name: str
    question: str
    status: FindingStatus
    answer: str
    published_result: str
    numbers: pd.DataFrame = field(default_factory=pd.DataFrame, compare=False)

    @property
    def text(self) -> str:
        """The answer, and what the paper found."""
        return f"{self.answer} {self.published_result}"


def combine_answers(answers: list[str]) -> FindingStatus:
    """``"yes"`` or ``"no"`` where all answers agree, else ``"mixed"``; without answers ``"not tested"``."""
    if not answers:
        return "not tested"
    if set(answers) == {"yes"}:
        return "yes"
    return "no" if set(answers) == {"no"} else "mixed"
