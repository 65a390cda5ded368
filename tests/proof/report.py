"""What the proof found, as rows of a table."""

from dataclasses import dataclass
from typing import Literal

Status = Literal["ok", "FAILED", "skipped"]


class SkippedError(Exception):
    """A piece that cannot run here: why, and what would run it."""

    def __init__(self, reason, needs):
        super().__init__(f"{reason}; needs {needs}")


@dataclass(frozen=True)
class Row:
    """One line of the table.

    Attributes:
        piece: Name of the check.
        subject: What was checked, with its version.
        status: The result.
        detail: What was compared, or what is wrong.
    """

    piece: str
    subject: str
    status: Status
    detail: str


def format_table(rows):
    """Format rows as a table; the details of failures have several lines."""
    widths = [max(len(getattr(row, name)) for row in rows) for name in ("status", "piece", "subject")]
    lines = []
    for row in rows:
        first, *rest = row.detail.splitlines() or [""]
        head = "  ".join(
            text.ljust(width)
            for text, width in zip((row.status, row.piece, row.subject), widths, strict=True)
        )
        lines.append(f"{head}  {first}".rstrip())
        lines += [" " * (len(head) + 2) + line for line in rest]
    return "\n".join(lines)
