"""`tcmoa wrap --try`: likely conventions of a network on pairs, as a list with their commands and a contact sheet."""

from __future__ import annotations

import shlex
from collections.abc import Iterator
from dataclasses import fields
from pathlib import Path
from typing import Any, Final, TypeAlias

from tcmoa_runtime.cli.extras import require
from tcmoa_runtime.cli.options import spell_for_command_line
from tcmoa_runtime.cli.printing import print_json, print_line
from tcmoa_runtime.cli.progress import counted_bar
from tcmoa_runtime.images import check_writable, format_size, write_image
from tcmoa_runtime.options.wrap import Conventions, WrapOptions
from tcmoa_runtime.typing import FrameSize, JsonObject

Candidate: TypeAlias = Any
TryReport: TypeAlias = Any
"""Of `tcmoa_export.wrap.tryout.run`, which this package does not import."""

DEFAULT_SIZE: Final[FrameSize] = (480, 640)
"""Height and width in the commands if none is given and the network takes any."""

CLOSE_SCORES: Final = 0.02
"""Difference of two scores below which the pictures must decide."""


def try_wrap(
    network: Path, options: WrapOptions, out: Path | None, sheet: Path | None, as_json: bool
) -> None:
    """Run the likely conventions, write the contact sheet, and print every one with its command, best first.

    Raises:
        InputError: The network cannot be wrapped or does not run, or the sheet cannot be written.
    """
    sheet = check_writable(sheet or f"{network.stem}-try.png")
    tryout = require("tcmoa_export.wrap.tryout.run", "wrap", "export")
    drawing = require("tcmoa_export.wrap.tryout.sheet", "wrap", "export")
    with counted_bar("trying") as (_, on_progress):
        report: TryReport = tryout.try_conventions(network, options, on_progress=on_progress)
    write_image(sheet, drawing.draw_sheet(report, _label(options)))
    size = options.size or report.size or DEFAULT_SIZE
    target = out or Path(f"{network.stem}-{options.task}")
    commands = [
        [_command(network, options, size, target, stated) for stated in candidate.conventions]
        for candidate in report.candidates
    ]
    if as_json:
        print_json(_to_json(report, sheet, commands))
        return
    is_size_assumed = options.size is None and report.size is None
    for line in _lines(report, sheet, commands, drawing.MAX_SHOWN, is_size_assumed=is_size_assumed):
        print_line(line)


def _command(network: Path, options: WrapOptions, size: FrameSize, out: Path, stated: Conventions) -> str:
    """Return the command that wraps the network with conventions, as a shell reads it."""
    words = [
        "tcmoa",
        "wrap",
        shlex.quote(str(network)),
        f"--task {options.task}",
        f"--size {format_size(size)}",
    ]
    defaults = WrapOptions(task=options.task)
    for field in fields(WrapOptions):
        value = getattr(options, field.name)
        if field.name not in ("task", "size", "conventions", "overrides") and value != getattr(
            defaults, field.name
        ):
            words.append(_spell("conventions" if field.name == "conventions_file" else field.name, value))
    given = stated.given() | {name: getattr(stated, name) for name in options.overrides}
    words += [_spell(name, value) for name, value in given.items()]
    return " ".join([*words, f"--out {shlex.quote(str(out))}"])


def _spell(name: str, value: object) -> str:
    return spell_for_command_line(name, value if isinstance(value, bool | tuple) else str(value))


def _lines(
    report: TryReport, sheet: Path, commands: list[list[str]], max_shown: int, *, is_size_assumed: bool
) -> Iterator[str]:
    for line in report.read:
        yield f"read: {line}"
    for number, (candidate, spelled) in enumerate(zip(report.candidates, commands, strict=True), 1):
        yield f"{number}  score {candidate.score.value:.3f} ({_describe(candidate)})"
        yield f"   {spelled[0]}"
        for equal in spelled[1:]:
            yield f"   equal picture: {equal}"
    close = _count_close(report)
    if close > 1:
        yield f"The first {close} scores differ by less than {CLOSE_SCORES:g}: compare their pictures."
    if is_size_assumed:
        yield f"No size was given: the commands are for {format_size(DEFAULT_SIZE)}."
    for problem in report.refused:
        yield f"does not fit: {problem}"
    shown = min(len(report.candidates), max_shown)
    names = ", ".join(pair.name for pair in report.pairs)
    yield f"{sheet}: the first {shown} of {len(report.candidates)} pictures, on {names}"


def _label(options: WrapOptions) -> str:
    """Return the label of the sources."""
    is_synthetic = options.task == "vif" and not options.has_pairs
    return "x and y, SYNTHETIC infrared" if is_synthetic else "x and y"


def _describe(candidate: Candidate) -> str:
    score = candidate.score
    return (
        f"structure {score.structure:.3f}; off by {score.brightness:.1f} gray levels in brightness, "
        f"{score.color:.1f} in color, {score.identity:.1f} where both sources are equal"
    )


def _count_close(report: TryReport) -> int:
    values = [candidate.score.value for candidate in report.candidates]
    return sum(values[0] - value < CLOSE_SCORES for value in values)


def _to_json(report: TryReport, sheet: Path, commands: list[list[str]]) -> JsonObject:
    return {
        "sheet": str(sheet),
        "pairs": [pair.name for pair in report.pairs],
        "read": list(report.read),
        "refused": list(report.refused),
        "candidates": [
            {
                "score": round(candidate.score.value, 4),
                "structure": round(candidate.score.structure, 4),
                "brightness": round(candidate.score.brightness, 2),
                "color": round(candidate.score.color, 2),
                "identity": round(candidate.score.identity, 2),
                "conventions": candidate.conventions[0].to_json(),
                "command": spelled[0],
                "equal": spelled[1:],
            }
            for candidate, spelled in zip(report.candidates, commands, strict=True)
        ],
    }
