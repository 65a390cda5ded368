"""File systems of pyarrow and fsspec: object stores and others that are not of this machine."""

from __future__ import annotations

import contextlib
import secrets
from collections.abc import Iterable, Iterator, Mapping
from datetime import datetime
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

from tcmoa_runtime.bulk.storage import ListedFile
from tcmoa_runtime.errors import InputError, first_line
from tcmoa_runtime.images import decode_image
from tcmoa_runtime.location import redact

if TYPE_CHECKING:
    from fsspec import AbstractFileSystem
    from numpy.typing import NDArray
    from pyarrow.fs import FileInfo, FileSystem

_OBJECT_STORES: Final = frozenset(
    {"s3", "s3a", "gs", "gcs", "abfs", "abfss", "az", "adl", "oss", "oci", "memory"}
)
"""Schemes of stores where an object appears at once and whole, so that it is written with one put."""
_STREAM_BYTES: Final = 4 << 20
_TIMES_OF_FSSPEC: Final = ("mtime", "LastModified", "last_modified", "updated", "modified", "created")
"""Names under which file systems of fsspec state when a file was changed last; objects are created anew."""


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
                try:
                    self._put(partial, data)
                except FileNotFoundError:  # the folder, which is part of the name of a pair
                    self.make_folder(folder)
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
        """Turn errors of the file system into one about the path; those of fsspec are of the libraries that it uses."""
        try:
            yield
        except MemoryError:
            raise
        except FileNotFoundError as error:
            raise InputError("no such file", subject=self.spell(path)) from error
        except Exception as error:
            raise InputError(
                f"cannot be {what}: {first_line(error, 200)}", subject=self.spell(path)
            ) from error


class FsspecStorage(RemoteStorage):
    """A file system of fsspec; pyarrow does not hand on when its files were changed.

    Some keep listings, which do not show what other processes have written since.
    """

    def __init__(self, filesystem: AbstractFileSystem, scheme: str) -> None:
        """Take a file system and the scheme of its URIs."""
        super().__init__(_as_pyarrow(filesystem), scheme)
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

    def _put(self, path: str, data: bytes) -> None:
        # Not as an open file, of which a part may be stored when it is closed after an error.
        self._fsspec.pipe_file(path, data)

    def find(self, path: str) -> ListedFile | None:
        """Return the file or folder at a path."""
        with self._about(path, "read"):
            self._fsspec.invalidate_cache(path.rpartition("/")[0])
            try:
                return _found_by_fsspec(self._fsspec.info(path))
            except FileNotFoundError:
                return None


def _as_pyarrow(filesystem: AbstractFileSystem) -> FileSystem:
    """Return a file system of fsspec as one of pyarrow; reading its files raises no other error than OSError."""
    from pyarrow import PythonFile
    from pyarrow.fs import FSSpecHandler, PyFileSystem

    class Handler(FSSpecHandler):  # type: ignore[misc]  # pyarrow has no types
        def open_input_stream(self, path: str) -> PythonFile:
            if not self.fs.isfile(path):
                raise FileNotFoundError(path)
            return PythonFile(_OsErrorFile(self.fs.open(path, mode="rb")), mode="r")

        def open_input_file(self, path: str) -> PythonFile:
            return self.open_input_stream(path)

    return PyFileSystem(Handler(filesystem))


class _OsErrorFile:
    """A file whose methods raise OSError in place of the errors of a library, e.g. of a connection that has ended."""

    def __init__(self, file: Any) -> None:
        self._file = file

    def __getattr__(self, name: str) -> Any:
        attribute = getattr(self._file, name)
        if not callable(attribute):
            return attribute

        def call(*args: Any) -> Any:
            try:
                return attribute(*args)
            except (OSError, MemoryError):
                raise
            except Exception as error:
                raise OSError(f"{type(error).__name__}: {first_line(error)}") from error

        return call


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
