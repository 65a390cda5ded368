"""What neither the network nor the caller says, collected so that one line asks for all of it."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Final

from tcmoa_runtime.errors import InputError

_CHOICES: Final[Mapping[str, str]] = {
    "join": "channels|batch|depth",
    "order": "xy|yx",
    "layout": "nchw|nhwc",
    "x_content": "rgb|bgr|luma|gray",
    "y_content": "rgb|bgr|luma|gray",
    "range_in": "0..1|0..255|-1..1|mean-std",
    "range_out": "0..1|0..255|-1..1|mean-std",
    "color_out": "gray|chroma-x|chroma-weighted|chroma-nearest",
    "size": "WIDTHxHEIGHT",
    "padding": "reflect|symmetric|repeat|zero",
}


class QuestionsError(InputError):
    """Conventions that the network does not say and that were not given.

    Args:
        questions: Choices by the name of the convention.
        subject: Name of the network.
    """

    def __init__(self, questions: Mapping[str, str], subject: str) -> None:
        listed = ", ".join(f"{name} ({choices})" for name, choices in questions.items())
        asked = ", ".join("{" + name + "}" for name in questions)
        super().__init__(
            f"the network does not say {listed}; expected one of each",
            subject=subject,
            remedy=f"Set {asked}, or put a TOML file of the same name beside the network",
            settings=dict.fromkeys(questions, ...),
        )
        self.questions = dict(questions)


class Questions:
    """Collects what is open, so that one line asks for all of it."""

    def __init__(self, subject: str) -> None:
        self._subject = subject
        self._open: dict[str, str] = {}

    def ask(self, name: str) -> None:
        """Add a convention that is open."""
        self._open.setdefault(name, _CHOICES[name])

    def check(self) -> None:
        """Raise QuestionsError when anything is open."""
        if self._open:
            raise QuestionsError(self._open, self._subject)
