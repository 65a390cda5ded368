"""What the parts of planning the inputs of a network share."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field

from tcmoa_export.wrap.network import Arrays, TensorInfo
from tcmoa_export.wrap.questions import Questions
from tcmoa_runtime.contract import Task
from tcmoa_runtime.errors import InputError
from tcmoa_runtime.options.wrap import Conventions


@dataclass(frozen=True)
class InputContext:
    """A network's inputs and what was given about them.

    Attributes:
        infos: Inputs of the network by name.
        given: The conventions that were given.
        task: Task of the bundle.
        batch: Number of frames.
        takes: Whether the network runs with given inputs; None if it cannot be tried.
        subject: Name of the network in messages.
        questions: What is open.
        read: What was read off the network, in words.
    """

    infos: Mapping[str, TensorInfo]
    given: Conventions
    task: Task
    batch: int
    takes: Callable[[Arrays], bool] | None
    subject: str
    questions: Questions
    read: list[str] = field(default_factory=list)

    def refuse(self, problem: str, remedy: str | None = None, **settings: object) -> InputError:
        """Make the error for a network that does not fit the conventions."""
        return InputError(problem, subject=self.subject, remedy=remedy, settings=settings)
