"""Remote file systems of bulk fusion by themselves: listings, times, errors, and files that are whole or not there."""

from pathlib import Path
from typing import ClassVar

import pytest
from fsspec.implementations.local import LocalFileSystem
from fsspec.implementations.memory import MemoryFileSystem

from tcmoa_runtime.bulk.file_systems import open_storage
from tcmoa_runtime.bulk.remote_storage import FsspecStorage
from tcmoa_runtime.bulk.tar_samples import read_samples
from tcmoa_runtime.errors import InputError


def test_a_file_system_of_fsspec_reads_lists_and_writes():
    storage, path = open_storage("memory://archive/x")
    storage.make_folder(path)
    storage.write(f"{path}/a.png", b"1")
    storage.write(f"{path}/a.png", b"2")
    assert storage.read(f"{path}/a.png") == b"2"
    assert list(storage.list_entries(Path(path))) == [("a.png", False)]
    storage.delete(f"{path}/a.png")
    storage.delete(f"{path}/a.png")
    assert not storage.exists(f"{path}/a.png")
    with pytest.raises(InputError, match=r"^memory:///archive/x/a.png: no such file$"):
        storage.read(f"{path}/a.png")


def test_listings_that_fsspec_keeps_do_not_hide_what_others_write():
    class Keeping(MemoryFileSystem):
        kept: ClassVar[dict] = {}

        def ls(self, path, detail=True, **kwargs):
            return self.kept.setdefault(path, super().ls(path, detail, **kwargs))

        def invalidate_cache(self, path=None):
            self.kept.clear()

    storage, other = FsspecStorage(Keeping(), "keeping"), MemoryFileSystem()
    for name in "ab":
        other.pipe(f"/kept/{name}.png", b"")
        assert [file.name for file in storage.list_files("/kept")][-1] == f"{name}.png"


def test_errors_of_the_libraries_of_fsspec_are_errors_of_the_file():
    class Lost(MemoryFileSystem):
        def open(self, path, mode="rb", **kwargs):
            file = super().open(path, mode, **kwargs)
            file.read = self.read_lost
            return file

        def read_lost(self, *_):
            raise RuntimeError("the connection\nwas lost")  # as aiohttp and botocore, of kinds of their own

    storage = FsspecStorage(Lost(), "memory")
    MemoryFileSystem().pipe("/lost/a", b"1")
    with pytest.raises(InputError) as caught:
        storage.read("/lost/a")
    line = "RuntimeError: the connection"
    assert str(caught.value) == f"memory:///lost/a: cannot be read: {line}"
    with (
        storage.open_stream("/lost/a") as file,
        pytest.raises(InputError, match=rf"not a readable tar file: {line}$"),
    ):
        list(read_samples(file, "a.tar", ("x", "y")))
    MemoryFileSystem().rm("/lost/a")


def test_folders_in_names_are_created_where_files_need_them(tmp_path):
    storage = FsspecStorage(LocalFileSystem(), "other")
    for data in (b"1", b"2"):
        storage.write(f"{tmp_path}/day/a.png", data)
    assert [path.name for path in (tmp_path / "day").iterdir()] == ["a.png"]
    assert (tmp_path / "day" / "a.png").read_bytes() == b"2"


def test_a_write_that_fails_stores_nothing():
    class Full(MemoryFileSystem):
        def open(self, path, mode="rb", **kwargs):
            file = super().open(path, mode, **kwargs)
            file.write = lambda _: 1 / 0
            return file

        def pipe_file(self, path, value, **kwargs):
            raise PermissionError(13, "no quota is left")

    storage = FsspecStorage(Full(), "memory")
    with pytest.raises(InputError, match=r"^memory:///full/a: cannot be written: .*no quota is left$"):
        storage.write("/full/a", b"1")
    assert not MemoryFileSystem().exists("/full/a")


def test_times_of_fsspec_are_found_under_their_usual_names():
    storage, path = open_storage("memory://times/a.png")
    storage.write(path, b"")
    (listed,) = storage.list_files("/times")
    assert listed == storage.find(path)
    assert (listed.name, listed.is_folder, listed.modified_ns > 1_700_000_000 * 10**9) == (
        "a.png",
        False,
        True,
    )
    assert list(storage.list_files("/times/none")) == []
    assert storage.find("/times/none") is None
    assert storage.is_folder(Path("/times"))


def test_a_uri_is_the_whole_path_in_file_systems_of_http():
    pytest.importorskip("aiohttp")
    storage, path = open_storage("https://user:s3cr3t@host/x.png?signature=s3cr3t")
    assert storage.spell(path) == "https://***@host/x.png?signature=***"
