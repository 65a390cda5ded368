"""Results of fusing pairs: times, outputs, and failures by their kind."""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass, field
from pathlib import Path
from typing import Final

import numpy as np

from tcmoa_runtime.cli.command_line import repeat_command
from tcmoa_runtime.cli.options import spell_for_command_line
from tcmoa_runtime.errors import InputError, TcmoaError
from tcmoa_runtime.images import format_size
from tcmoa_runtime.size_errors import FrameSizeError, SourceSizesError
from tcmoa_runtime.typing import JsonObject

MAX_EXAMPLES: Final = 3
MAX_SIZES: Final = 5


@dataclass
class FailureKind:
    """Pairs that failed for one reason.

    Attributes:
        problem: The reason, without names and sizes.
        remedy: What to do, one or more sentences.
        names: Names of the pairs.
        sizes: How often each size occurred, e.g. `640x480`, or `640x480 and 320x240` for two sources.
        command: The command to run next, if one would fuse the pairs.
    """

    problem: str
    remedy: str | None
    command: str | None
    names: list[str] = field(default_factory=list)
    sizes: Counter[str] = field(default_factory=Counter)

    def describe(self) -> str:
        """Describe the failures in one line."""
        examples = ", ".join(self.names[:MAX_EXAMPLES])
        parts = [f"{len(self.names)} pairs, e.g. {examples}: {self.problem}"]
        if self.sizes:
            most = [f"{size} ({count})" for size, count in self.sizes.most_common(MAX_SIZES)]
            rest = len(self.sizes) - MAX_SIZES
            parts.append(f"Sizes: {', '.join(most)}" + (f" and {rest} more" if rest > 0 else ""))
        if self.command is not None:
            parts.append(f"Run `{self.command}`")
        elif self.remedy is not None:
            parts.append(self.remedy.rstrip("."))
        return ". ".join(parts)

    def to_json(self) -> JsonObject:
        """Return the kind for `--json`."""
        return {
            "problem": self.problem,
            "count": len(self.names),
            "names": list(self.names),
            "sizes": dict(self.sizes.most_common()),
            "command": self.command,
        }


@dataclass
class FuseReport:
    """Results of fusing pairs.

    Attributes:
        align_command: The command that aligns sources of two sizes.
        fix_fit: Value of `fit` with which frames of other sizes are fused, if that is not the chosen one.
        seconds: Time of each pair.
        outputs: Paths of the results.
        skipped: Number of results that were there already; None for a single pair.
        failed: Name and error of each pair that was not fused.
        kinds: The failures by kind.
    """

    align_command: str | None = None
    fix_fit: str | None = None
    seconds: list[float] = field(default_factory=list)
    outputs: list[str] = field(default_factory=list)
    skipped: int | None = None
    failed: list[dict[str, str]] = field(default_factory=list)
    kinds: dict[tuple[str, str], FailureKind] = field(default_factory=dict)

    def add_failure(self, name: str, error: TcmoaError, *, shown: TcmoaError | None = None) -> None:
        """Record a pair that was not fused; `shown` is the error with the pair in its subject."""
        line = (shown or error).render(spell_for_command_line)
        self.failed.append({"name": name, "error": line})
        problem, sizes = _generalize(error)
        key = (type(error).__name__, problem)
        if key not in self.kinds:
            remedy = error.render_remedy(spell_for_command_line)
            self.kinds[key] = FailureKind(problem, remedy, self._command_for(error))
        kind = self.kinds[key]
        kind.names.append(name)
        if sizes is not None:
            kind.sizes[sizes] += 1

    def describe_failures(self) -> list[str]:
        """Describe the failures, one line for each kind; a kind with one pair is that pair's error."""
        errors = {failure["name"]: failure["error"] for failure in self.failed}
        return [
            errors[kind.names[0]] if len(kind.names) == 1 else kind.describe() for kind in self.kinds.values()
        ]

    def median_ms(self) -> float:
        """Median time of a pair."""
        return float(np.median(self.seconds)) * 1000

    def to_json(self, backend: str) -> JsonObject:
        """Return the summary of `--json`."""
        times = np.array(self.seconds) * 1000
        ms: JsonObject = {
            f"p{q}": round(float(np.percentile(times, q)), 3) if len(times) else None for q in (50, 95)
        }
        result: JsonObject = {
            "backend": backend,
            "images": len(self.outputs),
            "ms": ms,
            "outputs": list(self.outputs),
        }
        if self.skipped is not None:
            result["skipped"] = self.skipped
        if self.failed:
            result["failed"] = list(self.failed)
            result["failures"] = [kind.to_json() for kind in self.kinds.values()]
        return result

    def error_for(self, num_pairs: int, out: Path) -> InputError:
        """Return the error of a run in which pairs failed."""
        there = len(self.outputs) + (self.skipped or 0)
        others = "none was written" if not there else f"the other {there} are in {out}"
        if there == 1:
            others = f"the other one is in {out}"
        return InputError(
            f"{len(self.failed)} of {num_pairs} pairs were not fused, see above; {others}",
            remedy="A second run fuses only what is missing" if there else None,
        )

    def _command_for(self, error: TcmoaError) -> str | None:
        if isinstance(error, FrameSizeError) and self.fix_fit is not None:
            return repeat_command(fit=self.fix_fit)
        return self.align_command if isinstance(error, SourceSizesError) else None


def _generalize(error: TcmoaError) -> tuple[str, str | None]:
    """Return the problem without what differs between pairs, and the sizes that it is about."""
    if isinstance(error, FrameSizeError):
        return f"another size; expected {error.expected}", format_size(error.size)
    if isinstance(error, SourceSizesError):
        sizes = f"{format_size(error.x_size)} and {format_size(error.y_size)}"
        return "x and y differ in size; expected two registered images of one size", sizes
    return error.problem, None
