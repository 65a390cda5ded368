"""Refusal of outputs that would overwrite a source, a bundle or another output, before anything is written."""

from __future__ import annotations

import os
import stat
from collections.abc import Iterable, Iterator, Mapping, Sequence
from pathlib import Path

from tcmoa_runtime.errors import InputError
from tcmoa_runtime.images import IMAGE_SUFFIXES
from tcmoa_runtime.location import NUMBER, path_of, printable, redact, scheme_of
from tcmoa_runtime.streams.interfaces import Sink, Source, outputs_of


def path_of_source(source: Source | str | Path) -> Path | None:
    """Return the file, folder or pattern of a source; None for a network stream."""
    if isinstance(source, Path):
        return source
    location = source if isinstance(source, str) else source.name
    if location == "-":
        return Path("/dev/stdin")
    return path_of(location) if scheme_of(location) in ("", "file") else None


def check_outputs(sinks: Sequence[Sink], inputs: Mapping[str, Path | None]) -> None:
    """Refuse sinks that would overwrite an input or the file of another sink.

    Files are compared as the file system does: through links, and whatever their paths look like. A folder of images
    may not be the folder of a source, whose next run would read them. Nothing may be written into a folder that is
    an input without being a source, which is a bundle.

    Args:
        sinks: The outputs; see `outputs_of` for how they say what they write.
        inputs: Files, folders and patterns that are read, by what they are, e.g. `source x`, `bundle`.

    Raises:
        InputError: An output is an input or another output; the subject is its path or URL.
    """
    written: list[str | Path] = []
    for sink in sinks:
        for path in outputs_of(sink):
            for name, source in inputs.items():
                if (
                    source is not None
                    and isinstance(path, Path)
                    and _overwrites(path, source, is_bundle=name == "bundle")
                ):
                    raise InputError(
                        f"would overwrite the {name}; expected another place",
                        subject=printable(str(path)),
                        remedy="Choose another output.",
                    )
            if any(_is_same(path, other) for other in written):
                raise InputError(
                    "two outputs write it; expected one",
                    subject=printable(redact(str(path))),
                    remedy="Choose another one.",
                )
            written.append(path)


def _overwrites(path: Path, source: Path, *, is_bundle: bool) -> bool:
    if is_bundle:
        return _is_inside(path, source)
    if source.is_dir():
        if NUMBER.search(path.name):
            return _is_same(path.parent, source)
        return _is_same(path, source) or any(_is_same(path, file) for file in _images(source))
    if not os.path.lexists(source) and NUMBER.search(source.name):
        return any(_is_same(path, file) or _matches(path, file) for file in _matching(source))
    return _is_same(path, source) or _matches(path, source)


def _is_same(path: str | Path, other: str | Path) -> bool:
    """Whether two paths lead to one file or folder, also to one that does not exist yet; not to a pipe or device.

    URLs are compared as text.
    """
    if isinstance(path, str) or isinstance(other, str):
        return path == other
    try:
        found, wanted = path.stat(), other.stat()
    except (OSError, ValueError):
        return os.path.realpath(path) == os.path.realpath(other)
    is_stored = stat.S_ISREG(found.st_mode) or stat.S_ISDIR(found.st_mode)
    return is_stored and os.path.samestat(found, wanted)


def _is_inside(path: Path, folder: Path) -> bool:
    place = Path(os.path.realpath(path))
    return any(_is_same(parent, folder) for parent in (place, *place.parents))


def _matches(pattern: Path, file: Path) -> bool:
    """Whether a pattern of output files can write over a file."""
    match = NUMBER.search(pattern.name)
    if match is None or os.path.lexists(pattern) or not _is_same(pattern.parent, file.parent):
        return False
    before, after = pattern.name[: match.start()], pattern.name[match.end() :]
    name = file.name
    return (
        name.startswith(before)
        and name.endswith(after)
        and name[len(before) : len(name) - len(after)].isdecimal()
    )


def _matching(pattern: Path) -> Iterator[Path]:
    return (file for file in _files(pattern.parent) if _matches(pattern, file))


def _images(folder: Path) -> Iterator[Path]:
    return (file for file in _files(folder) if file.suffix.lower() in IMAGE_SUFFIXES)


def _files(folder: Path) -> Iterable[Path]:
    try:
        return sorted(folder.iterdir())
    except OSError:
        return ()
