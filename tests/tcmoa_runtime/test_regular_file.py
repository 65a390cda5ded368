"""Only regular files of a bounded size are read, and nothing is waited for."""

import os
import socket

import pytest

from tcmoa_runtime.regular_file import (
    FileTooLargeError,
    NotRegularFileError,
    open_regular_file,
    read_regular_file,
)


def link_to(path, target):
    path.symlink_to(target)
    return path


def make_pipe(folder):
    os.mkfifo(folder / "pipe")
    return folder / "pipe"


def make_socket(folder):
    with socket.socket(socket.AF_UNIX) as server:
        server.bind(str(folder / "socket"))
    return folder / "socket"


def make_link(folder):
    (folder / "file").write_bytes(b"content")
    return link_to(folder / "link", "file")


MAKERS = {
    "a folder": lambda folder: folder,
    "a named pipe": make_pipe,
    "a socket": make_socket,
    "a device": lambda _: "/dev/zero",
    "a symbolic link": make_link,
}


@pytest.mark.parametrize("kind", MAKERS)
def test_only_regular_files_are_read(tmp_path, monkeypatch, kind):
    monkeypatch.chdir(tmp_path)  # a socket's path is short
    path = MAKERS[kind](tmp_path)
    with pytest.raises(NotRegularFileError) as caught:
        read_regular_file(path, max_bytes=100)
    assert caught.value.strerror == f"{kind}; expected a regular file"
    assert caught.value.filename == os.fspath(path)


@pytest.mark.parametrize("kind", [kind for kind in MAKERS if kind != "a symbolic link"])
def test_a_link_is_followed_on_request_but_not_to_something_else(tmp_path, monkeypatch, kind):
    monkeypatch.chdir(tmp_path)
    target = MAKERS[kind](tmp_path)
    with pytest.raises(NotRegularFileError, match=kind):
        read_regular_file(link_to(tmp_path / "another", target), max_bytes=100, follow_links=True)
    assert read_regular_file(make_link(tmp_path), max_bytes=100, follow_links=True) == b"content"


def test_a_file_is_read_up_to_its_bound(tmp_path):
    path = tmp_path / "file"
    path.write_bytes(b"12345")
    assert read_regular_file(path, max_bytes=5) == b"12345"
    with pytest.raises(FileTooLargeError) as caught:
        read_regular_file(path, max_bytes=4)
    assert caught.value.strerror == "5 bytes; expected at most 4"


def test_a_sparse_file_is_refused_by_its_size_before_it_is_read(tmp_path):
    path = tmp_path / "sparse"
    with path.open("wb") as file:
        file.truncate(30 << 30)
    with pytest.raises(FileTooLargeError, match="32212254720 bytes; expected at most 1000"):
        read_regular_file(path, max_bytes=1000)


def test_without_a_bound_a_file_can_be_read_in_parts(tmp_path):
    path = tmp_path / "file"
    path.write_bytes(b"12345")
    with open_regular_file(path) as file:
        assert (file.read(2), file.read()) == (b"12", b"345")


def test_a_missing_file_is_reported_as_such(tmp_path):
    with pytest.raises(FileNotFoundError):
        read_regular_file(tmp_path / "absent", max_bytes=1)


def test_a_file_that_grows_while_it_is_read_is_refused(tmp_path, monkeypatch):
    path = tmp_path / "file"
    path.write_bytes(bytes(10))
    real = os.fstat

    def fstat(descriptor):
        status = real(descriptor)
        if status.st_size == 10 and not grown:
            grown.append(True)
        elif grown:
            path.write_bytes(bytes(5000))
        return status

    grown = []
    monkeypatch.setattr(os, "fstat", fstat)
    with pytest.raises(FileTooLargeError) as caught:
        read_regular_file(path, max_bytes=1 << 20)
    assert caught.value.strerror == "grew while it was read"
