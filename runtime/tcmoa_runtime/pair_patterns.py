"""Patterns for the names of pairs, e.g. `VIS{id}.png` and `IR{id}.png`.

`{id}`, or any other name in braces, is text that both files of a pair share, `*` is any text, and `/` separates folders
below the one that is searched. A pattern without the extension of an image format stands for all of them.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from difflib import SequenceMatcher
from pathlib import Path
from typing import Final

from tcmoa_runtime.errors import InputError
from tcmoa_runtime.images import IMAGE_SUFFIXES

_FIELD: Final = re.compile(r"\{([A-Za-z_][A-Za-z0-9_]*)\}")
_MAX_COUNTED: Final = 2000
"""Names per folder that suggestions are counted on."""
_MAX_TRIED: Final = 8
"""Names of x for which a partner is searched."""

Key = tuple[str, ...]
ListEntries = Callable[[Path], Iterable[tuple[str, bool]]]


@dataclass(frozen=True)
class NamePattern:
    """A parsed pattern.

    Attributes:
        segments: Its parts between slashes.
        fields: Names in braces, sorted.
    """

    segments: tuple[str, ...]
    fields: tuple[str, ...]

    def find(self, folder: Path, list_entries: ListEntries) -> Iterator[tuple[Key, Path]]:
        """Yield the images below a folder that match, with the values of the fields.

        Args:
            folder: Where to search.
            list_entries: Yields name and kind of what a folder holds, see `pairs.FolderReader`.
        """
        for values, path in _walk(folder, self.segments, {}, list_entries):
            if path.suffix.lower() in IMAGE_SUFFIXES:
                yield tuple(values[field] for field in self.fields), path


def parse_pattern(text: str, subject: str) -> NamePattern:
    """Parse a pattern.

    Args:
        text: The pattern.
        subject: Name of the option, for errors.

    Raises:
        InputError: It has no field, other braces, or leaves its folder.
    """
    segments = text.split("/")
    fields = tuple(sorted(set(_FIELD.findall(text))))
    rest = _FIELD.sub("", text)
    if not fields or "{" in rest or "}" in rest:
        raise InputError(f"{text!r}; expected a file name with {{id}}, e.g. 'VIS{{id}}.png'", subject=subject)
    if any(segment in ("", ".", "..") for segment in segments):
        raise InputError(
            f"{text!r}; expected a path below the folder of the images, without . and ..", subject=subject
        )
    if not segments[-1].endswith(".*") and Path(segments[-1]).suffix.lower() not in IMAGE_SUFFIXES:
        segments[-1] += ".*"
    return NamePattern(tuple(segments), fields)


def _walk(
    folder: Path, segments: Sequence[str], values: Mapping[str, str], list_entries: ListEntries
) -> Iterator[tuple[Mapping[str, str], Path]]:
    expression = _expression(segments[0], values)
    is_last = len(segments) == 1
    names = sorted(name for name, is_folder in list_entries(folder) if is_folder != is_last)
    for name in names:
        match = expression.fullmatch(name)
        if match is None or (name.startswith(".") and not segments[0].startswith(".")):
            continue
        bound = {**values, **match.groupdict()}
        if is_last:
            yield bound, folder / name
        else:
            yield from _walk(folder / name, segments[1:], bound, list_entries)


def _expression(segment: str, values: Mapping[str, str]) -> re.Pattern[str]:
    """Compile a segment; a field with a value stands for that value, also within the segment."""
    parts, seen, position = [], set(values), 0
    for match in _FIELD.finditer(segment):
        parts.append(_any_text(segment[position : match.start()]))
        name = match[1]
        if name in values:
            parts.append(re.escape(values[name]))
        else:
            parts.append(f"(?P={name})" if name in seen else f"(?P<{name}>.+)")
        seen.add(name)
        position = match.end()
    parts.append(_any_text(segment[position:]))
    return re.compile("".join(parts), re.DOTALL)


def _any_text(text: str) -> str:
    return ".*".join(map(re.escape, text.split("*")))


def nearest_names(names_x: Sequence[str], names_y: Sequence[str]) -> tuple[str, str] | None:
    """Return the two most similar different names, one of each list; only the first names of x are compared."""
    pairs = [(x, y) for x in names_x[:_MAX_TRIED] for y in names_y[:_MAX_COUNTED] if x != y]
    return max(pairs, key=_similarity, default=None)


def _similarity(pair: tuple[str, str]) -> float:
    return SequenceMatcher(None, pair[0], pair[1], autojunk=False).quick_ratio()


def suggest_patterns(names_x: Sequence[str], names_y: Sequence[str]) -> tuple[str, str] | None:
    """Suggest two patterns that make pairs of file names, or None if at most one name fits."""
    names_x, names_y = names_x[:_MAX_COUNTED], names_y[:_MAX_COUNTED]
    counts: dict[tuple[str, str], int] = {}
    for x in names_x[:_MAX_TRIED]:
        nearest = nearest_names([x], names_y)
        if nearest is None:
            continue
        for candidate in _candidates(x, nearest[1]):
            if candidate not in counts:
                keys_x, keys_y = (
                    _keys(pattern, names)
                    for pattern, names in zip(candidate, (names_x, names_y), strict=True)
                )
                counts[candidate] = len(keys_x & keys_y)
    best = max(counts, key=lambda candidate: counts[candidate], default=None)
    if best is None or counts[best] < min(2, len(names_x), len(names_y)) or best[0] == best[1]:
        return None
    return best


def _candidates(x: str, y: str) -> Iterator[tuple[str, str]]:
    """Replace what two names share by `{id}`: the longest equal number, and the longest equal text."""
    stem_x, stem_y = Path(x).stem, Path(y).stem
    if any(brace in x + y for brace in "{}"):
        return
    numbers_y = {match[0]: match.start() for match in re.finditer(r"[0-9]+", stem_y)}
    shared = [match for match in re.finditer(r"[0-9]+", stem_x) if match[0] in numbers_y]
    spans = [(match.start(), numbers_y[match[0]], len(match[0])) for match in shared]
    spans.sort(key=lambda span: -span[2])
    longest = SequenceMatcher(None, stem_x, stem_y, autojunk=False).find_longest_match()
    for start_x, start_y, size in [*spans[:1], tuple(longest)]:
        if size:
            yield (
                f"{stem_x[:start_x]}{{id}}{x[start_x + size :]}",
                f"{stem_y[:start_y]}{{id}}{y[start_y + size :]}",
            )


def _keys(pattern: str, names: Sequence[str]) -> set[str]:
    expression = _expression(pattern, {})
    return {match["id"] for match in map(expression.fullmatch, names) if match is not None}
