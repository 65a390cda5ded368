"""Exceptions of the project, as one small tree.

    TcmoaError                         exit 1   an internal error
    ├── InputError (ValueError)        exit 2   the user's input is wrong
    │   ├── NoPromptError              exit 2   a prompt for a network that has none
    │   └── BundleError                exit 2   a bundle that must not be loaded
    │       ├── EngineMismatchError    exit 2   engines built for other libraries or GPUs
    │       └── UntrustedEngineError   exit 2   engines that this user did not build
    ├── MissingError (ImportError)     exit 3   a required package or device is missing
    └── MemoryShortageError            exit 3   a device has less memory than required

An error carries its parts: `subject` (the file, tensor or option), `problem` (what arrived and what was expected) and
`remedy` (what to do). `str(error)` composes them into one line:

    night.png: 1280x720; expected 640x480. Resize the frames, or export a bundle for 1280x720.

The library refers to an option by its Python spelling (`overwrite=True`). The command line renders the same error with
its own spelling (`--overwrite`), see `TcmoaError.render`.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Self

SpellOption = Callable[[str, object], str]
"""Spells an option and its value for the reader, e.g. `("precision", "fp16")` as `precision='fp16'`."""


def spell_for_python(name: str, value: object) -> str:
    """Spell an option as a Python keyword argument; a value of `...` leaves the value out."""
    return name if value is ... else f"{name}={value!r}"


def first_line(error: BaseException, max_characters: int = 500) -> str:
    """Return the first line with text of an error's message, or the name of its type; what is cut ends in "..."."""
    lines = [line for line in str(error).splitlines() if line.strip()]
    line = lines[0] if lines else type(error).__name__
    return line if len(line) <= max_characters else f"{line[: max_characters - 3].rstrip()}..."


def in_remedy(value: object) -> str:
    """Escape the braces of a value, e.g. a path, that goes into a `remedy` with `settings`."""
    return str(value).replace("{", "{{").replace("}", "}}")


class TcmoaError(Exception):
    """Base class of the exceptions of this project.

    Attributes:
        subject: What the error is about, e.g. a path, a tensor's name or an option.
        problem: What arrived, and after `; expected` what was expected.
        remedy: What to do, one or more sentences. `{name}` stands for an option of `settings`.
        settings: Options that `remedy` refers to, by name, with the value to set; `...` for an option without a value.
        exit_code: Exit code of the command line.
    """

    exit_code = 1

    def __init__(
        self,
        problem: str,
        *,
        subject: object = None,
        remedy: str | None = None,
        settings: Mapping[str, object] | None = None,
    ) -> None:
        super().__init__(problem)
        self.problem = problem
        self.subject = None if subject is None else str(subject)
        self.remedy = remedy
        self.settings = dict(settings or {})

    def render(self, spell_option: SpellOption = spell_for_python) -> str:
        """Compose the one line `subject: problem. Remedy.`, with options spelled by `spell_option`."""
        line, remedy = self.render_problem(), self.render_remedy(spell_option)
        return line if remedy is None else f"{line.rstrip('.')}. {remedy}"

    def render_problem(self) -> str:
        """Compose `subject: problem`."""
        return self.problem if self.subject is None else f"{self.subject}: {self.problem}"

    def render_remedy(self, spell_option: SpellOption = spell_for_python) -> str | None:
        """Compose the remedy as a sentence, with options spelled by `spell_option`."""
        if self.remedy is None:
            return None
        remedy = self.remedy
        if self.settings:
            spelled = {name: spell_option(name, value) for name, value in self.settings.items()}
            remedy = remedy.format_map(spelled)
        return remedy if remedy.endswith((".", "!", "?", "`")) else f"{remedy}."

    def __str__(self) -> str:
        return self.render()

    def with_subject(self, subject: object) -> Self:
        """Return a copy about another subject, e.g. the option that the wrong value came from."""
        copy = self._rebuild(self._parts() | {"subject": str(subject)})
        copy.__cause__ = self.__cause__
        return copy

    def _parts(self) -> dict[str, object]:
        """Return the parts of which a copy is made, in this or another process."""
        return {
            "problem": self.problem,
            "subject": self.subject,
            "remedy": self.remedy,
            "settings": self.settings,
        }

    @classmethod
    def _rebuild(cls, parts: Mapping[str, object]) -> Self:
        error = cls.__new__(cls)
        error.args = (parts["problem"],)
        error.__dict__.update(parts)
        return error

    def __reduce__(self) -> tuple[object, ...]:
        return self._rebuild, (self.__dict__ | self._parts(),)


class InputError(TcmoaError, ValueError):
    """The caller's input is wrong: a file, a frame, a prompt or an option."""

    exit_code = 2


class NoPromptError(InputError):
    """A prompt was given for a network that has none: one that was wrapped (`tcmoa wrap`)."""

    def __init__(self, subject: object, remedy: str = "Leave it out") -> None:
        super().__init__(
            "this network has no prompt; expected a bundle of `tcmoa export`", subject=subject, remedy=remedy
        )


class BundleError(InputError):
    """A bundle is damaged, of another or newer format, or differs from its description; it was not loaded."""


class EngineMismatchError(BundleError):
    """The engines of a bundle are intact, but none was built for the libraries and the GPU of this machine."""


class UntrustedEngineError(BundleError):
    """The engines of a bundle are native code that this user neither built nor trusts; none was loaded."""


class MissingError(TcmoaError, ImportError):
    """A package or device that the call needs is missing."""

    exit_code = 3


class MemoryShortageError(TcmoaError):
    """A device has less free memory than required.

    Not a MissingError: `backend="auto"` must not fall back to another backend silently.
    """

    exit_code = 3
