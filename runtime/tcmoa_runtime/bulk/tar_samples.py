"""Tar files of the WebDataset format: files of one key, `KEY.x.png` and `KEY.y.png`, are a sample."""

from __future__ import annotations

import io
import tarfile
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from decimal import Decimal, InvalidOperation
from typing import BinaryIO, Final, Literal

from tcmoa_runtime.errors import InputError, first_line
from tcmoa_runtime.images import MAX_FILE_BYTES

_NS: Final = 10**9


@dataclass(frozen=True)
class Sample:
    """A sample.

    Attributes:
        key: Its name.
        sources: Encoded images by the name of their source; one that is missing is left out.
        files: Their names in the tar file.
    """

    key: str
    sources: Mapping[str, bytes]
    files: Mapping[str, str]


def count_samples(file: BinaryIO, subject: str) -> int:
    """Count the samples of a tar file that can seek; raises InputError if it is none."""
    count, last = 0, None
    for member, _ in _members(file, subject, lambda _: False, mode="r:"):
        key = split_name(member.name)[0]
        count += key != last
        last = key
    return count


def read_samples(
    file: BinaryIO, subject: str, names: Sequence[str], start: int = 0, stop: int | None = None
) -> Iterator[Sample]:
    """Yield the samples of a tar file from `start` up to `stop`.

    Args:
        file: The tar file.
        subject: What errors call it.
        names: Names of the two sources in file names, e.g. `x` and `y`.
        start: First sample.
        stop: Sample after the last one.

    Raises:
        InputError: The file is damaged.
    """
    number, key = -1, None
    sources: dict[str, bytes] = {}
    files: dict[str, str] = {}
    for member, data in _members(file, subject, lambda name: _source_of(name, names) is not None):
        file_name, name = member.name, split_name(member.name)[0]
        if name != key:
            if key is not None and number >= start:
                yield Sample(key, sources, files)
            number, key, sources, files = number + 1, name, {}, {}
            if stop is not None and number >= stop:
                return
        source = _source_of(file_name, names)
        if source is not None:
            sources[source], files[source] = data, file_name
    if key is not None and number >= start:
        yield Sample(key, sources, files)


def read_files(file: BinaryIO, subject: str) -> dict[str, tuple[bytes, int | None]]:
    """Return the files of a tar file by name, and the time of each as `list_files`."""
    return {member.name: (data, _time_of(member)) for member, data in _members(file, subject, lambda _: True)}


def list_files(file: BinaryIO, subject: str) -> dict[str, int | None]:
    """Return the names of the files of a tar file that can seek, and their times; what they hold is not read.

    A time is in nanoseconds since 1970, and None if the file was written without one.
    """
    return {
        member.name: _time_of(member) for member, _ in _members(file, subject, lambda _: False, mode="r:")
    }


def write_files(files: Mapping[str, tuple[bytes, int | None]]) -> bytes:
    """Return a tar file that holds files by name, with the times of those that have one, as of `list_files`.

    Equal files give equal bytes.
    """
    target = io.BytesIO()
    with tarfile.open(fileobj=target, mode="w", format=tarfile.PAX_FORMAT) as archive:
        for name, (data, time_ns) in files.items():
            member = tarfile.TarInfo(name)
            member.size, member.mode = len(data), 0o644
            if time_ns is not None:
                seconds, rest = divmod(time_ns, _NS)
                member.mtime, member.pax_headers = seconds, {"mtime": f"{seconds}.{rest:09}"}
            archive.addfile(member, io.BytesIO(data))
    return target.getvalue()


def _time_of(member: tarfile.TarInfo) -> int | None:
    """Return the time in the extended header of a file, which is exact to the nanosecond."""
    try:
        time_ns = int(Decimal(member.pax_headers["mtime"]) * _NS)
    except (KeyError, InvalidOperation, ValueError, OverflowError):
        return None
    return time_ns if 0 <= time_ns < 1 << 63 else None


def split_name(name: str) -> tuple[str, str]:
    """Split the name of a file into the key and what follows its first point, as WebDataset does."""
    folder, slash, base = name.rpartition("/")
    key, _, rest = base.partition(".")
    return folder + slash + key, rest


def _source_of(name: str, names: Sequence[str]) -> str | None:
    source = split_name(name)[1].partition(".")[0]
    return source if source in names else None


def _members(
    file: BinaryIO, subject: str, is_read: Callable[[str], bool], *, mode: Literal["r|", "r:"] = "r|"
) -> Iterator[tuple[tarfile.TarInfo, bytes]]:
    """Yield each file in a tar file and its bytes; no bytes for those that are not read.

    Mode `r|` reads the file from its start to its end, `r:` seeks over what is not read.
    """
    try:
        with tarfile.open(fileobj=file, mode=mode) as archive:
            for member in archive:
                if not member.isfile() or member.name.rpartition("/")[2].startswith("."):
                    continue
                data = b""
                if is_read(member.name):
                    if member.issparse():  # its size is not that of its bytes in the file
                        raise InputError(
                            f"{member.name} is a sparse file; expected its bytes", subject=subject
                        )
                    if member.size > MAX_FILE_BYTES:
                        raise InputError(
                            f"{member.name} has {member.size} bytes; expected at most {MAX_FILE_BYTES}",
                            subject=subject,
                        )
                    extracted = archive.extractfile(member)
                    data = b"" if extracted is None else extracted.read()
                yield member, data
    except (tarfile.TarError, OSError, EOFError, ValueError, LookupError) as error:
        raise InputError(f"not a readable tar file: {first_line(error, 200)}", subject=subject) from error
