"""File systems that pairs are read from and results are written to: what all offer, and that of this machine."""

from __future__ import annotations

import os
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple, Protocol

from tcmoa_runtime.errors import InputError
from tcmoa_runtime.images import MAX_FILE_BYTES, read_image, write_bytes
from tcmoa_runtime.pairs import DiskFolders, FolderReader, scan_folder
from tcmoa_runtime.regular_file import open_regular_file

if TYPE_CHECKING:
    from numpy.typing import NDArray


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
