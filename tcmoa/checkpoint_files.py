"""Reading checkpoint files, PyTorch's formats and safetensors, and messages about files of other kinds."""

from __future__ import annotations

import argparse
import codecs
import json
import struct
import warnings
import zipfile
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path, PurePosixPath
from typing import Any, Final

import torch
from safetensors import SafetensorError, safe_open
from torch import Tensor

from tcmoa.checkpoint_names import WRAPPERS, printable_name
from tcmoa.checkpoint_pickles import describe_pickle, summarize_pickle
from tcmoa_runtime.errors import InputError

SIZES_KEY: Final = "tcmoa.sizes"
"""Key of the sizes, as JSON, in the metadata of safetensors files and in the checkpoints of training runs."""
AVERAGE_KEY: Final = "average"
"""Key of the averaged parameters in the checkpoints of training runs."""

_EXPECTED: Final = "expected a checkpoint (.pth, .safetensors)"
_DOWNLOAD: Final = "Download or copy the file once more"
_MAX_NESTING: Final = 8
_MAX_HEADER_BYTES: Final = 100_000_000
"""Limit of safetensors itself."""

_TORCH_MAGIC: Final = bytes.fromhex("8a0a6cfc9c46f9206aa85019")
"""The number with which `torch.save` began its files before PyTorch 1.6."""

_ARCHIVES: Final = (
    (0, b"\x1f\x8b", "a gzip archive"),
    (0, b"BZh", "a bzip2 archive"),
    (0, b"\xfd7zXZ\x00", "an xz archive"),
    (0, b"(\xb5/\xfd", "a Zstandard archive"),
    (0, b"7z\xbc\xaf\x27\x1c", "a 7-Zip archive"),
    (0, b"Rar!\x1a\x07", "a RAR archive"),
    (257, b"ustar", "a tar archive"),
)
_WEIGHT_SUFFIXES: Final = (".pth", ".pt", ".ckpt", ".bin", ".safetensors")


@dataclass(frozen=True)
class Checkpoint:
    """The content of a file: tensors by the names in the file, and text metadata."""

    tensors: dict[str, Tensor]
    metadata: dict[str, str] = field(default_factory=dict)


def read_checkpoint(path: Path) -> Checkpoint:
    """Read a file of weights; its content decides the format, not its name.

    Pickles are opened with `weights_only=True`, so that no code of the file runs. Dictionaries around the state dict
    are removed. In the checkpoint of a training run, averaged parameters replace those of the last step.

    Raises:
        InputError: The file is missing, unreadable or not a checkpoint.
    """
    if path.is_dir():
        raise InputError(f"a folder; {_EXPECTED}", subject=path)
    if not path.is_file():
        raise InputError(
            "no such weights file",
            subject=path,
            remedy="Give a .pth or .safetensors file, or 'tiny' or 'nano'",
        )
    try:
        size = path.stat().st_size
        with path.open("rb") as file:
            head = file.read(1024)
    except OSError as error:
        raise InputError(f"cannot be read: {error.strerror}", subject=path) from error
    if _is_safetensors(head):
        return _read_safetensors(path, head, size)
    _check_kind(path, head, size)
    if head.startswith(b"PK\x03\x04"):
        loaded = _load_archive(path)
    elif head.startswith(b"\x80"):
        loaded = _load_pickle(path, head)
    else:
        raise InputError(f"a file of another kind; {_EXPECTED}", subject=path, remedy=_DOWNLOAD)
    return _unwrap(loaded, path)


def _is_safetensors(head: bytes) -> bool:
    """Return whether a file begins with the length of a header and a JSON object.

    The length is checked first: its bytes may equal the first ones of a pickle or an archive.
    """
    return head[8:9] == b"{" and int.from_bytes(head[:8], "little") <= _MAX_HEADER_BYTES


def _check_kind(path: Path, head: bytes, size: int) -> None:
    """Refuse files that are no checkpoint by their first bytes."""
    if not size:
        raise InputError(f"an empty file; {_EXPECTED}", subject=path, remedy=_DOWNLOAD)
    if head.startswith(b"version https://git-lfs.github.com/spec/"):
        raise InputError(
            f"a Git LFS pointer to the file; {_EXPECTED}",
            subject=path,
            remedy="Run `git lfs pull` in the repository that it comes from",
        )
    if head.lstrip(b"\xef\xbb\xbf \t\r\n").lower().startswith((b"<!doctype html", b"<html")):
        raise InputError(
            f"an HTML page; {_EXPECTED}",
            subject=path,
            remedy="Download the file itself, e.g. with the link that the page shows",
        )
    text = _as_text(head)
    if text is not None:
        shown = printable_name(text.strip().split("\n")[0].strip(), 60)
        raise InputError(f"a text file that begins with '{shown}'; {_EXPECTED}", subject=path)
    for offset, magic, kind in _ARCHIVES:
        if head[offset:].startswith(magic):
            raise InputError(
                f"{kind}; {_EXPECTED}", subject=path, remedy="Unpack it and give the checkpoint in it"
            )


def _as_text(head: bytes) -> str | None:
    try:
        text = codecs.getincrementaldecoder("utf-8")().decode(head)  # the last character may be cut
    except UnicodeDecodeError:
        return None
    return text if all(c.isprintable() or c.isspace() for c in text) else None


def _load_archive(path: Path) -> object:
    """Load a file of PyTorch 1.6 or newer, which is a zip archive."""
    try:
        with zipfile.ZipFile(path) as archive:
            names = archive.namelist()
    except (zipfile.BadZipFile, OSError, ValueError, NotImplementedError) as error:
        raise InputError(
            f"a zip archive that is cut short or damaged; {_EXPECTED}",
            subject=path,
            remedy=_DOWNLOAD,
        ) from error
    inside = [PurePosixPath(name) for name in names]
    if any(name.name == "constants.pkl" for name in inside):
        out = f"{path.stem}-tensors.pth"
        raise InputError(
            "a TorchScript archive; expected a state dict",
            subject=path,
            remedy=(
                f"If you trust the file, save its tensors: `m = torch.jit.load({str(path)!r}, map_location='cpu')`, "
                f"then `torch.save(m.state_dict(), {out!r})`"
            ),
        )
    if not any(name.name == "data.pkl" for name in inside):
        weights = next((name for name in inside if name.suffix in _WEIGHT_SUFFIXES), None)
        first = next(iter(inside), None)
        content = (
            "an empty zip archive" if first is None else f"a zip archive of '{printable_name(str(first))}'"
        )
        if weights is not None:
            raise InputError(
                f"a zip archive of other files; {_EXPECTED}",
                subject=path,
                remedy=f"Unpack it and give '{printable_name(str(weights))}'",
            )
        rest = f" and {len(inside) - 1} more" if len(inside) > 1 else ""
        raise InputError(f"{content}{rest}; {_EXPECTED}", subject=path)
    try:
        return _torch_load(path)
    except Exception as error:  # damaged files raise various types: IndexError, struct.error, ...
        raise _describe_archive(path) or _damaged(path) from error


def _describe_archive(path: Path) -> InputError | None:
    """Return the error about an archive whose pickle refers to more than tensors."""
    try:
        with zipfile.ZipFile(path) as archive:
            name = next(name for name in archive.namelist() if PurePosixPath(name).name == "data.pkl")
            with archive.open(name) as file:
                return describe_pickle(summarize_pickle(file), path)
    except Exception:  # zipfile has no common base class for damaged archives
        return None


def _load_pickle(path: Path, head: bytes) -> object:
    """Load a file of PyTorch before 1.6, which is a sequence of pickles."""
    if _TORCH_MAGIC not in head[:64]:
        raise InputError(
            "a pickle that torch.save did not write; expected a state dict",
            subject=path,
            remedy="Save the state dict with `torch.save`",
        )
    try:
        return _torch_load(path)
    except Exception as error:  # damaged files raise various types: IndexError, struct.error, ...
        with path.open("rb") as file:
            described = describe_pickle(summarize_pickle(file), path)
        raise described or _damaged(path) from error


def _torch_load(path: Path) -> object:
    # Scripts that parse their options with argparse keep them in the file, as MAE's do. A Namespace is plain data.
    allowed = torch.serialization.safe_globals([argparse.Namespace])
    # A file object, because torch.load takes a name's suffix for its format.
    with warnings.catch_warnings(), allowed, path.open("rb") as file:
        warnings.simplefilter("ignore")
        loaded: object = torch.load(file, map_location="cpu", weights_only=True)
    return loaded


def _damaged(path: Path) -> InputError:
    return InputError(
        "a damaged PyTorch checkpoint; expected one that torch.load reads", subject=path, remedy=_DOWNLOAD
    )


def _read_safetensors(path: Path, head: bytes, size: int) -> Checkpoint:
    (length,) = struct.unpack("<Q", head[:8])
    try:
        with safe_open(path, framework="pt") as file:
            metadata: dict[str, str] = dict(file.metadata() or {})
            tensors = {str(key): file.get_tensor(key) for key in file.keys()}  # noqa: SIM118
    except (SafetensorError, OSError, ValueError) as error:
        expected = _safetensors_bytes(path, length, size)
        if expected is not None and expected > size:
            problem = f"cut short: {size} bytes; expected at least {expected} by its header"
        else:
            problem = "a damaged safetensors file; expected a header that fits its tensors"
        raise InputError(problem, subject=path, remedy=_DOWNLOAD) from error
    if not tensors:
        raise _without_tensors(path)
    return Checkpoint(tensors, metadata)


def _safetensors_bytes(path: Path, length: int, size: int) -> int | None:
    """Return the size of the file by its header, or None if the header is damaged."""
    if 8 + length > size:
        return 8 + length
    try:
        with path.open("rb") as file:
            file.seek(8)
            header: dict[str, Any] = json.loads(file.read(length))
        ends = [entry["data_offsets"][1] for name, entry in header.items() if name != "__metadata__"]
        return 8 + length + max(map(int, ends), default=0)
    except (ValueError, TypeError, LookupError, AttributeError, RecursionError):
        return None


def _unwrap(loaded: object, path: Path) -> Checkpoint:
    """Find the state dict in what a file holds."""
    metadata: dict[str, str] = {}
    average: Mapping[Any, Any] = {}
    for _ in range(_MAX_NESTING):
        if not isinstance(loaded, Mapping):
            break
        inner = next((loaded[key] for key in WRAPPERS if isinstance(loaded.get(key), Mapping)), None)
        if inner is None:
            break
        sizes = loaded.get(SIZES_KEY)
        if isinstance(sizes, str):
            metadata[SIZES_KEY] = sizes
        if isinstance(loaded.get(AVERAGE_KEY), Mapping):
            average = loaded[AVERAGE_KEY]
        loaded = inner
    if isinstance(loaded, Tensor):
        raise InputError("holds a single tensor; expected a dictionary of tensors", subject=path)
    if not isinstance(loaded, Mapping):
        raise InputError(f"holds a {type(loaded).__name__}; expected a dictionary of tensors", subject=path)
    merged = {**loaded, **average} if average.keys() <= loaded.keys() else loaded
    tensors = {str(key): value for key, value in merged.items() if isinstance(value, Tensor)}
    if not tensors:
        raise _without_tensors(path)
    for name, value in tensors.items():
        if value.is_meta or value.layout != torch.strided or value.is_quantized or value.is_complex():
            kind = "without values" if value.is_meta else f"of type {value.dtype}, {value.layout}"
            raise InputError(
                f"tensor '{printable_name(name)}' is {kind}; expected dense real numbers", subject=path
            )
    return Checkpoint(tensors, metadata)


def _without_tensors(path: Path) -> InputError:
    return InputError("holds no tensors; expected a TC-MoA checkpoint or an MAE backbone", subject=path)
