"""Showing the log of the library: which records, and as text or as JSON. Commands and their workers use it.

The environment decides, so that it holds for each process of a command, also on other machines: `TCMOA_LOG` is the
lowest level that is shown, `TCMOA_LOG_FORMAT=json` makes each line a JSON object.
"""

from __future__ import annotations

import json
import logging
import os
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import UTC, datetime
from types import MappingProxyType
from typing import Final, Literal, Self, TextIO, TypeAlias

from tcmoa_runtime.location import redact_text
from tcmoa_runtime.log import ROOT, fields_of
from tcmoa_runtime.options.option import check_choice

LogLevel: TypeAlias = Literal["debug", "info", "warning", "error"]
LogFormat: TypeAlias = Literal["text", "json"]

LEVEL_VARIABLE: Final = "TCMOA_LOG"
FORMAT_VARIABLE: Final = "TCMOA_LOG_FORMAT"

_LEVELS: Final[tuple[LogLevel, ...]] = ("debug", "info", "warning", "error")
_FORMATS: Final[tuple[LogFormat, ...]] = ("text", "json")


@dataclass(frozen=True, kw_only=True)
class LogSettings:
    """What is shown of the log, and how.

    Attributes:
        level: The lowest level that is shown.
        format: `text` for people, `json` for programs that collect logs.
    """

    level: LogLevel = "warning"
    format: LogFormat = "text"

    @classmethod
    def from_environment(cls, environment: Mapping[str, str] = os.environ) -> Self:
        """Read the environment variables; what is unset or empty has its default.

        Raises:
            InputError: A value is none of the choices; the subject is the variable.
        """
        level = environment.get(LEVEL_VARIABLE) or cls.level
        chosen = environment.get(FORMAT_VARIABLE) or cls.format
        check_choice(LEVEL_VARIABLE, level, _LEVELS)
        check_choice(FORMAT_VARIABLE, chosen, _FORMATS)
        return cls(
            level=next(name for name in _LEVELS if name == level),
            format=next(name for name in _FORMATS if name == chosen),
        )

    @property
    def level_number(self) -> int:
        """The level as a number of `logging`."""
        return logging.getLevelNamesMapping()[self.level.upper()]


class JsonFormatter(logging.Formatter):
    """Formats a record as one line of JSON: `time` in UTC, `level`, `logger`, `message`, and the record's fields."""

    def format(self, record: logging.LogRecord) -> str:
        """Return the line; a traceback is in `exception`."""
        fields = dict(fields_of(record))
        if record.exc_info:
            fields["exception"] = self.formatException(record.exc_info)
        level = record.levelname.lower()
        return json_line(level, record.getMessage(), fields, logger=record.name, seconds=record.created)


def json_line(
    level: str,
    message: str,
    fields: Mapping[str, object] = MappingProxyType({}),
    *,
    logger: str = ROOT.name,
    seconds: float | None = None,
) -> str:
    """Format a message as `JsonFormatter` does, secrets of URLs hidden; `seconds` since 1970 are now by default."""
    time = datetime.now(UTC) if seconds is None else datetime.fromtimestamp(seconds, UTC)
    entry = {
        "time": time.isoformat(timespec="milliseconds"),
        "level": level,
        "logger": logger,
        "message": redact_text(message),
        **{name: redact_text(value) if isinstance(value, str) else value for name, value in fields.items()},
    }
    return json.dumps(entry, default=str)


class TextFormatter(logging.Formatter):
    """Formats a record as text with its time, for the log of a process that has no command line."""

    def __init__(self) -> None:
        super().__init__("%(asctime)s tcmoa: %(levelname)s: %(message)s")

    def format(self, record: logging.LogRecord) -> str:
        """Return the text, secrets of URLs hidden; a traceback follows."""
        return redact_text(super().format(record))


def show_log_of_worker() -> None:
    """Show the log on stderr for the rest of this process, e.g. a Ray actor; further calls change nothing.

    Raises:
        InputError: As `LogSettings.from_environment`.
    """
    if any(isinstance(handler, _WorkerHandler) for handler in ROOT.handlers):
        return
    settings = LogSettings.from_environment()
    handler = _WorkerHandler()
    handler.setFormatter(JsonFormatter() if settings.format == "json" else TextFormatter())
    ROOT.addHandler(handler)
    ROOT.setLevel(settings.level_number)


class _WorkerHandler(logging.StreamHandler[TextIO]):
    """The handler of `show_log_of_worker`."""


@contextmanager
def shown_log(handler: logging.Handler, settings: LogSettings) -> Iterator[None]:
    """Show the library's records of a level and above with `handler` during a with-block."""
    level_before = ROOT.level
    handler.setLevel(settings.level_number)
    ROOT.addHandler(handler)
    ROOT.setLevel(settings.level_number)
    try:
        yield
    finally:
        ROOT.setLevel(level_before)
        ROOT.removeHandler(handler)
