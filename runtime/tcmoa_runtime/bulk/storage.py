"""File systems that pairs are read from and results are written to: the disk, and those of pyarrow and fsspec."""

from __future__ import annotations

import contextlib
import os
import secrets
from collections.abc import Iterable, Iterator, Mapping
from datetime import datetime
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final, NamedTuple, Protocol

from tcmoa_runtime.errors import InputError, MissingError, first_line
from tcmoa_runtime.images import MAX_FILE_BYTES, decode_image, read_image, write_bytes
from tcmoa_runtime.location import path_of, redact, scheme_of
from tcmoa_runtime.pairs import DiskFolders, FolderReader, scan_folder
from tcmoa_runtime.regular_file import open_regular_file

if TYPE_CHECKING:
    from fsspec import AbstractFileSystem
    from numpy.typing import NDArray
    from pyarrow.fs import FileInfo, FileSystem

_OBJECT_STORES: Final = frozenset(
    {"s3", "s3a", "gs", "gcs", "abfs", "abfss", "az", "adl", "oss", "oci", "memory"}
)
"""Schemes of stores where an object appears at once and whole, so that it is written with one put."""
_MAX_URI_BYTES: Final = 4096
_STREAM_BYTES: Final = 4 << 20


_TIMES_OF_FSSPEC: Final = ("mtime", "LastModified", "last_modified", "updated", "modified", "created")
"""Names under which file systems of fsspec state when a file was changed last; objects are created anew."""


class ListedFile(NamedTuple):
    """A file or folder that a file system lists.

    Attributes:
        name: Its name, without those of the folders that it is in.
        is_folder: Whether it is a folder.
        modified_ns: When it was changed last, in nanoseconds since 1970; None if the file system does not say.
    """

    name: str
    is_folder: bool
    modified_ns: int | None


class Storage(FolderReader, Protocol):
    """A file system; its paths are separated by slashes.

    Attributes:
        is_remote: Whether it is not that of this machine.
        has_partial_files: Whether a process that is killed while it writes leaves a temporary file.
    """

    is_remote: bool
    has_partial_files: bool

    def list_files(self, folder: str) -> Iterable[ListedFile]:
        """Yield each file and folder in a folder: one listing, which takes no call for each in an object store."""
        ...

    def find(self, path: str) -> ListedFile | None:
        """Return the file or folder at a path; None if there is none."""
        ...

    def read(self, path: str) -> bytes:
        """Return the bytes of a file; raises InputError about the path."""
        ...

    def read_image(self, path: str) -> NDArray[Any]:
        """Read an image file like `images.read_image`."""
        ...

    def open(self, path: str) -> Any:
        """Open a file for reading as a file object that can seek; raises InputError about the path."""
        ...

    def open_stream(self, path: str) -> Any:
        """Open a file for reading from its start to its end; raises InputError about the path."""
        ...

    def write(self, path: str, data: bytes) -> None:
        """Write a file, whole or not at all; raises InputError about the path."""
        ...

    def exists(self, path: str) -> bool:
        """Return whether there is a file or folder."""
        ...

    def delete(self, path: str) -> None:
        """Remove a file, if it is there."""
        ...

    def make_folder(self, path: str) -> None:
        """Create a folder and those above it; raises InputError about the path."""
        ...


class DiskStorage(DiskFolders):
    """The file system of this machine, or one that all nodes have mounted at the same path."""

    is_remote = False
    has_partial_files = True

    def list_files(self, folder: str) -> Iterator[ListedFile]:
        """Yield each file and folder in a folder."""
        for entry, is_folder in scan_folder(folder):
            yield ListedFile(entry.name, is_folder, _time_of(entry))

    def find(self, path: str) -> ListedFile | None:
        """Return the file or folder at a path, also if it is a link that leads nowhere."""
        found = Path(path)
        return ListedFile(found.name, found.is_dir(), _time_of(found)) if self.exists(path) else None

    def read(self, path: str) -> bytes:
        """Return the bytes of a regular file."""
        try:
            with open_regular_file(path, max_bytes=MAX_FILE_BYTES, follow_links=True) as file:
                return file.read()
        except FileNotFoundError:
            raise InputError("no such file", subject=path) from None
        except (OSError, ValueError) as error:
            raise InputError(f"cannot be read: {getattr(error, 'strerror', error)}", subject=path) from error

    def read_image(self, path: str) -> NDArray[Any]:
        """Read an image file."""
        return read_image(path)

    def open(self, path: str) -> Any:
        """Open a regular file."""
        try:
            return open_regular_file(path, follow_links=True)
        except FileNotFoundError:
            raise InputError("no such file", subject=path) from None
        except OSError as error:
            raise InputError(f"cannot be read: {error.strerror}", subject=path) from error

    def open_stream(self, path: str) -> Any:
        """Open a regular file."""
        return self.open(path)

    def write(self, path: str, data: bytes) -> None:
        """Write a file beside its target, and rename it."""
        target = Path(path)
        if not target.parent.is_dir():
            self.make_folder(str(target.parent))
        write_bytes(target, data)

    def exists(self, path: str) -> bool:
        """Return whether there is a file or folder."""
        return os.path.lexists(path)

    def delete(self, path: str) -> None:
        """Remove a file."""
        try:
            Path(path).unlink(missing_ok=True)
        except OSError as error:
            raise InputError(f"cannot be removed: {error.strerror}", subject=path) from error

    def make_folder(self, path: str) -> None:
        """Create a folder and those above it."""
        try:
            Path(path).mkdir(parents=True, exist_ok=True)
        except FileExistsError as error:
            raise InputError("a file; expected a folder", subject=path) from error
        except OSError as error:
            raise InputError(f"cannot be created: {error.strerror}", subject=path) from error


def _time_of(entry: os.DirEntry[str] | Path) -> int | None:
    try:
        return entry.stat().st_mtime_ns
    except OSError:  # a link that leads nowhere
        return None


class RemoteStorage:
    """A file system of pyarrow."""

    is_remote = True

    def __init__(self, filesystem: FileSystem, scheme: str) -> None:
        """Take a file system and the scheme of its URIs."""
        self._filesystem, self._scheme = filesystem, scheme
        self.has_partial_files = scheme not in _OBJECT_STORES

    def spell(self, path: str) -> str:
        """Return the URI of a path, without the parameters that it was given with."""
        return redact(path) if "://" in path else f"{self._scheme}://{path}"  # of HTTP, the path is the URI

    def is_folder(self, folder: Path) -> bool:
        """Return whether there is a folder, or an object whose name begins with it and a slash."""
        found = self.find(str(folder))
        return found is not None and found.is_folder

    def list_entries(self, folder: Path) -> Iterable[tuple[str, bool]]:
        """Yield the name of each file and folder in a folder, and whether it is a folder."""
        for file in self.list_files(str(folder)):
            yield file.name, file.is_folder

    def list_files(self, folder: str) -> Iterator[ListedFile]:
        """Yield each file and folder in a folder."""
        from pyarrow.fs import FileSelector

        with self._about(folder, "listed"):
            found = self._filesystem.get_file_info(FileSelector(folder, allow_not_found=True))
        yield from map(_found, found)

    def find(self, path: str) -> ListedFile | None:
        """Return the file or folder at a path."""
        from pyarrow.fs import FileType

        with self._about(path, "read"):
            info = self._filesystem.get_file_info(path)
        return None if info.type == FileType.NotFound else _found(info)

    def read(self, path: str) -> bytes:
        """Return the bytes of a file."""
        with self._about(path, "read"), self._filesystem.open_input_stream(path, compression=None) as stream:
            return bytes(stream.read())

    def read_image(self, path: str) -> NDArray[Any]:
        """Read an image file."""
        return decode_image(self.read(path), self.spell(path))

    def open(self, path: str) -> Any:
        """Open a file."""
        with self._about(path, "read"):
            return self._filesystem.open_input_file(path)

    def open_stream(self, path: str) -> Any:
        """Open a file for reading in large steps."""
        with self._about(path, "read"):
            return self._filesystem.open_input_stream(path, compression=None, buffer_size=_STREAM_BYTES)

    def write(self, path: str, data: bytes) -> None:
        """Put an object; in other file systems than object stores, write beside the target and move."""
        with self._about(path, "written"):
            if not self.has_partial_files:
                self._put(path, data)
                return
            folder, _, name = path.rpartition("/")
            partial = f"{folder}/.{name[:50]}.{secrets.token_hex(8)}.partial"
            try:
                self._put(partial, data)
                self._filesystem.move(partial, path)
            except BaseException:
                with contextlib.suppress(OSError):
                    self._filesystem.delete_file(partial)
                raise

    def _put(self, path: str, data: bytes) -> None:
        with self._filesystem.open_output_stream(path, compression=None) as stream:
            stream.write(data)

    def exists(self, path: str) -> bool:
        """Return whether there is a file or folder."""
        return self.find(path) is not None

    def delete(self, path: str) -> None:
        """Remove a file."""
        with self._about(path, "removed"), contextlib.suppress(FileNotFoundError):
            self._filesystem.delete_file(path)

    def make_folder(self, path: str) -> None:
        """Create a folder, except in an object store of pyarrow, where names make folders."""
        if self._filesystem.type_name in ("s3", "gcs"):
            return
        with self._about(path, "created"):
            self._filesystem.create_dir(path, recursive=True)

    @contextlib.contextmanager
    def _about(self, path: str, what: str) -> Iterator[None]:
        """Turn errors of the file system into one about the path."""
        try:
            yield
        except FileNotFoundError as error:
            raise InputError("no such file", subject=self.spell(path)) from error
        except (OSError, ValueError) as error:
            raise InputError(
                f"cannot be {what}: {first_line(error, 200)}", subject=self.spell(path)
            ) from error


class FsspecStorage(RemoteStorage):
    """A file system of fsspec; pyarrow does not hand on when its files were changed.

    Some keep listings, which do not show what other processes have written since.
    """

    def __init__(self, filesystem: AbstractFileSystem, scheme: str) -> None:
        """Take a file system and the scheme of its URIs."""
        from pyarrow.fs import FSSpecHandler, PyFileSystem

        super().__init__(PyFileSystem(FSSpecHandler(filesystem)), scheme)
        self._fsspec = filesystem

    def list_files(self, folder: str) -> Iterator[ListedFile]:
        """Yield each file and folder in a folder."""
        with self._about(folder, "listed"):
            self._fsspec.invalidate_cache(folder)
            try:
                found = self._fsspec.ls(folder, detail=True)
            except FileNotFoundError:
                return
        for info in found:
            if info["name"].strip("/") != folder.strip("/"):  # some stores list an object for the folder
                yield _found_by_fsspec(info)

    def find(self, path: str) -> ListedFile | None:
        """Return the file or folder at a path."""
        with self._about(path, "read"):
            self._fsspec.invalidate_cache(path.rpartition("/")[0])
            try:
                return _found_by_fsspec(self._fsspec.info(path))
            except FileNotFoundError:
                return None


def _found(info: FileInfo) -> ListedFile:
    from pyarrow.fs import FileType

    return ListedFile(info.base_name, info.type == FileType.Directory, info.mtime_ns)


def _found_by_fsspec(info: Mapping[str, Any]) -> ListedFile:
    name = str(info["name"]).rstrip("/").rpartition("/")[2]
    time = next((info[key] for key in _TIMES_OF_FSSPEC if info.get(key) is not None), None)
    if isinstance(time, str):
        with contextlib.suppress(ValueError):
            time = datetime.fromisoformat(time)
    if isinstance(time, datetime):
        time = time.timestamp()
    modified_ns = int(time * 1e9) if isinstance(time, int | float) else None
    return ListedFile(name, info["type"] == "directory", modified_ns)


def make_absolute(location: str | os.PathLike[str]) -> str:
    """Return a path as an absolute one, for processes that are in other folders; a URI unchanged."""
    text = os.fspath(location)
    return text if scheme_of(text) not in ("", "file") else str(path_of(text).absolute())


def is_one_file_system(first: Storage, second: Storage) -> bool:
    """Return whether two locations are on the disk, or under one scheme; of an object store, buckets are folders."""
    return first.is_remote == second.is_remote and first.spell("") == second.spell("")


def open_storage(location: str) -> tuple[Storage, str]:
    """Return the file system of a location, and the path there.

    Args:
        location: A path of this machine, or a URI: that of a file system of pyarrow (s3, gs, abfs, hdfs, file), with
            its parameters, or of fsspec.

    Raises:
        InputError: The URI is of no known file system, or misses something.
        MissingError: The package for its file system is not installed.
    """
    scheme = scheme_of(location)
    if scheme in ("", "file"):
        return DiskStorage(), str(path_of(location))
    shown = redact(location)
    if len(location) > _MAX_URI_BYTES:
        raise InputError("a URI that is too long", subject=shown)
    from pyarrow import ArrowInvalid, ArrowNotImplementedError
    from pyarrow.fs import FileSystem

    try:
        filesystem, path = FileSystem.from_uri(location)
    except (ArrowInvalid, ArrowNotImplementedError) as error:
        if "nrecognized filesystem" not in str(error) and "not built" not in str(error).lower():
            raise InputError(
                f"not a location of {scheme}: {first_line(error, 200)}", subject=shown
            ) from error
        return _open_fsspec(location, scheme)
    except OSError as error:
        raise InputError(f"cannot be opened: {first_line(error, 200)}", subject=shown) from error
    return RemoteStorage(filesystem, scheme), path.rstrip("/")


def _open_fsspec(location: str, scheme: str) -> tuple[Storage, str]:
    import fsspec

    shown = redact(location)
    try:
        filesystem, path = fsspec.core.url_to_fs(location)
    except ImportError as error:
        raise MissingError(
            f"no file system for {scheme}://: {first_line(error, 200)}", subject=shown
        ) from error
    except ValueError as error:
        raise InputError(
            f"an unknown scheme {scheme!r}; expected a path, or a URI of pyarrow or fsspec, e.g. s3://bucket/folder",
            subject=shown,
        ) from error
    except OSError as error:
        raise InputError(f"cannot be opened: {first_line(error, 200)}", subject=shown) from error
    return FsspecStorage(filesystem, scheme), path.rstrip("/")
