"""The file systems of locations, which are paths or URIs."""

from __future__ import annotations

import os
from typing import Final

from tcmoa_runtime.bulk.remote_storage import FsspecStorage, RemoteStorage
from tcmoa_runtime.bulk.storage import DiskStorage, Storage
from tcmoa_runtime.errors import InputError, MissingError, first_line
from tcmoa_runtime.location import path_of, redact, scheme_of

_MAX_URI_BYTES: Final = 4096


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
