"""What is to be done so that a fleet becomes what its file says: the difference between two sets of streams."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass


@dataclass(frozen=True)
class Changes:
    """Names of pairs, by what is to be done with their streams.

    Attributes:
        start: Those that have none.
        restart: Those whose stream runs something else; it is stopped, and started as the file says.
        stop: Those that the file does not list.
    """

    start: tuple[str, ...] = ()
    restart: tuple[str, ...] = ()
    stop: tuple[str, ...] = ()

    def __bool__(self) -> bool:
        return bool(self.start or self.restart or self.stop)

    def __str__(self) -> str:
        parts = [
            f"{word} {', '.join(names)}"
            for word, names in (("start", self.start), ("restart", self.restart), ("stop", self.stop))
            if names
        ]
        return "; ".join(parts) or "nothing changed"


def find_changes(wanted: Mapping[str, str], present: Mapping[str, str | None]) -> Changes:
    """Compare what is wanted with what is there.

    Args:
        wanted: Digest of what each pair is to run, by name.
        present: Digest of what each stream runs, by name; None where it is not known yet, which changes nothing.

    Returns:
        The changes, in the order of `wanted`.
    """
    return Changes(
        start=tuple(name for name in wanted if name not in present),
        restart=tuple(
            name
            for name, digest in wanted.items()
            if present.get(name) is not None and present[name] != digest
        ),
        stop=tuple(name for name in present if name not in wanted),
    )
