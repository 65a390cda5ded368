"""The result of a run, and the table of the pairs that were not fused."""

from __future__ import annotations

import csv
import io
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Final

from tcmoa_runtime.bulk.units import PairFailure
from tcmoa_runtime.errors import SpellOption
from tcmoa_runtime.typing import JsonObject

ERROR_COLUMNS: Final = ("pair", "x", "y", "subject", "problem", "remedy")


@dataclass(frozen=True)
class BulkSummary:
    """What became of all pairs.

    Attributes:
        num_fused: Pairs whose results were written.
        num_skipped: Pairs whose results were there.
        num_outdated: Those of them whose results are older than a source.
        failures: The pairs that were not fused, by name.
        seconds: Time of the run.
        start_seconds: Time in it until the first pair was begun: to list the pairs, start Ray and load the bundle.
        fuse_seconds: Time in the actors from the first read of a unit to its last write, summed.
        cpu_seconds: CPU time of the actors in it.
        num_actors: Fusers.
        num_nodes: Nodes that take work.
        backend: Name of the backend; empty if nothing was fused.
        out: Location of the results.
        errors_path: The table of the failures; None without any.
    """

    num_fused: int
    num_skipped: int
    num_outdated: int
    failures: tuple[PairFailure, ...]
    seconds: float
    start_seconds: float
    fuse_seconds: float
    cpu_seconds: float
    num_actors: int
    num_nodes: int
    backend: str
    out: str
    errors_path: str | None

    @property
    def num_pairs(self) -> int:
        """All pairs."""
        return self.num_fused + self.num_skipped + len(self.failures)

    @property
    def pairs_per_second(self) -> float:
        """Rate of the pairs that were fused, without the start."""
        seconds = self.seconds - self.start_seconds
        return self.num_fused / seconds if seconds > 0 else 0.0

    def to_json(self) -> JsonObject:
        """Return the summary of `--json`."""
        return {
            "pairs": self.num_pairs,
            "fused": self.num_fused,
            "skipped": self.num_skipped,
            "outdated": self.num_outdated,
            "failed": len(self.failures),
            "errors": self.errors_path,
            "out": self.out,
            "seconds": round(self.seconds, 3),
            "start_seconds": round(self.start_seconds, 3),
            "pairs_per_second": round(self.pairs_per_second, 3),
            "cpu_ms_per_pair": round(1000 * self.cpu_seconds / self.num_fused, 3) if self.num_fused else None,
            "actors": self.num_actors,
            "nodes": self.num_nodes,
            "backend": self.backend or None,
        }


def write_error_table(failures: Sequence[PairFailure], spell_option: SpellOption) -> bytes:
    """Return a CSV file, UTF-8, with a row for each pair that was not fused and the columns `ERROR_COLUMNS`."""
    text = io.StringIO(newline="")
    writer = csv.writer(text, lineterminator="\n")
    writer.writerow(ERROR_COLUMNS)
    for failure in failures:
        error = failure.error
        remedy = error.render_remedy(spell_option) or ""
        writer.writerow([failure.name, failure.x, failure.y, error.subject or "", error.problem, remedy])
    return text.getvalue().encode("utf-8", "backslashreplace")
