"""What the library reports to the program that uses it: records of the logger `tcmoa` and its children.

The library prints nothing and sets up no handler that does; `docs/guides/logging.md` lists the records. A record may
carry fields, e.g. `extra={"event": "source-lost", "source": "x"}`, which a formatter can write beside the text.
"""

from __future__ import annotations

import logging
from collections.abc import Iterator
from contextlib import contextmanager
from os import PathLike
from typing import Final, Literal, TypeAlias, get_args

from tcmoa_runtime.location import redact_text

LogTopic: TypeAlias = Literal[
    "backends",
    "bulk",
    "bundle",
    "cluster",
    "engines",
    "fleet",
    "page",
    "repository",
    "service",
    "steps",
    "streams",
]
"""Children of the logger `tcmoa`, e.g. `tcmoa.streams`."""

ROOT: Final = logging.getLogger("tcmoa")
ROOT.addHandler(logging.NullHandler())  # else Python prints warnings of programs that set up no logging

_STANDARD_FIELDS: Final = frozenset(logging.makeLogRecord({}).__dict__) | {"message", "asctime", "taskName"}


def fields_of(record: logging.LogRecord) -> Iterator[tuple[str, object]]:
    """Yield the fields that a record carries beside those of every record, by `extra`."""
    return (
        (name, value)
        for name, value in vars(record).items()
        if name not in _STANDARD_FIELDS and not name.startswith("_")  # e.g. Ray's `_ray_timestamp_ns`
    )


class _Redaction(logging.Filter):
    """Hides the secrets of URLs in the text and the fields of a record, before any handler sees it."""

    def filter(self, record: logging.LogRecord) -> bool:
        record.msg = _redact(record.msg)
        if isinstance(record.args, tuple):
            record.args = tuple(_redact(value) for value in record.args)
        for name, value in list(fields_of(record)):
            setattr(record, name, _redact(value))
        return True


_REDACTION: Final = _Redaction()


def _redact(value: object) -> object:
    if not isinstance(value, str | PathLike | BaseException):
        return value
    text = str(value)
    shown = redact_text(text)
    return value if shown == text else shown


def get_logger(topic: LogTopic) -> logging.Logger:
    """Return the logger of a topic, whose records hide the secrets of URLs."""
    logger = logging.getLogger(f"{ROOT.name}.{topic}")
    logger.addFilter(_REDACTION)
    return logger


_LOGGERS: Final = tuple(get_logger(topic) for topic in get_args(LogTopic))


def log_step(message: str) -> None:
    """Log a step of a long task: the default of `on_message` parameters."""
    get_logger("steps").debug("%s", message)


@contextmanager
def silenced_log() -> Iterator[None]:
    """Drop all records in the with-block, also those of other threads."""

    def drop(_record: logging.LogRecord) -> bool:
        return False

    for logger in (ROOT, *_LOGGERS):
        logger.addFilter(drop)
    try:
        yield
    finally:
        for logger in (ROOT, *_LOGGERS):
            logger.removeFilter(drop)
