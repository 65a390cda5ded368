"""JSON files that describe a bundle or an engine: reading with checks, and hashes."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any, Final, NoReturn

from tcmoa_runtime.contract import Contract, TensorSpec
from tcmoa_runtime.errors import BundleError

SELF_HASH: Final = "manifest_sha256"

_MOST_MANIFEST_BYTES = 1 << 20
LARGEST_NUMBER = 1 << 20
"""Beyond any frame side, batch or prompt: refused before arithmetic overflows."""
_MOST_SHOWN = 200
"""Characters of a wrong value in a message."""
_AGAIN = "export it again with `tcmoa export`"


def file_sha256(path: Path) -> str:
    """SHA-256 of a file, hexadecimal."""
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def manifest_sha256(manifest: Mapping[str, Any]) -> str:
    """SHA-256 over a manifest without its own hash, as canonical JSON."""
    rest = {key: value for key, value in manifest.items() if key != SELF_HASH}
    text = json.dumps(rest, sort_keys=True, separators=(",", ":"), ensure_ascii=True)
    return hashlib.sha256(text.encode()).hexdigest()


def contract_to_json(contract: Contract) -> dict[str, Any]:
    """Inputs and outputs by name, for the manifest."""

    def plain(specs: tuple[TensorSpec, ...]) -> dict[str, Any]:
        return {spec.name: {"dtype": spec.dtype, "shape": list(spec.shape)} for spec in specs}

    return {"inputs": plain(contract.inputs), "outputs": plain(contract.outputs)}


class ManifestReader:
    """Typed access to a manifest; every fault is a BundleError that names the key and says `again`."""

    def __init__(self, path: Path, values: Mapping[str, Any], again: str = _AGAIN, prefix: str = "") -> None:
        self.path, self.values, self.again, self.prefix = path, values, again, prefix

    def get(self, key: str, kind: type, *, among: tuple[Any, ...] | None = None) -> Any:
        """The value at `key`, of the type `kind` and one of `among`."""
        value = self.values.get(key)
        # bool is an int to Python, not to a person who writes JSON.
        wrong = not isinstance(value, kind) or (kind in (int, float) and isinstance(value, bool))
        if kind is float and isinstance(value, int | float) and not isinstance(value, bool):
            wrong = not abs(value) <= LARGEST_NUMBER  # NaN and infinity, too
        if wrong or (among is not None and value not in among):
            wanted = ", ".join(map(repr, among)) if among else f"a value of type {kind.__name__}"
            self.refuse(key, wanted)
        return value

    def refuse(self, key: str, wanted: str) -> NoReturn:
        """Raise BundleError: what is at `key`, and what was expected."""
        shown = repr(self.values.get(key))
        shown = shown if len(shown) <= _MOST_SHOWN else f"{shown[:_MOST_SHOWN]}…"
        raise BundleError(
            f"{self.path}: '{self.prefix}{key}' is {shown}, expected {wanted}; "
            f"it was damaged or made by other software: {self.again}"
        )

    def part(self, key: str) -> ManifestReader:
        """The object at `key`."""
        return ManifestReader(self.path, self.get(key, dict), self.again, f"{self.prefix}{key}.")


def read_manifest(path: Path, form: str, newest: int, kind: str, again: str) -> dict[str, Any]:
    """The JSON object of `path`, of format `form` up to version `newest`, with the right hash of its own.

    Raises BundleError when it is unreadable, too large, no JSON, foreign (not `kind`), of a newer format, or
    edited; `again` is the advice.
    """
    try:
        if path.stat().st_size > _MOST_MANIFEST_BYTES:
            raise BundleError(
                f"{path}: is {path.stat().st_size} bytes, no {path.name} is that large; {again}"
            )
        text = path.read_bytes()
    except OSError as error:
        raise BundleError(f"{path}: cannot be read: {error.strerror}; {again}") from error
    try:
        manifest = json.loads(text, parse_constant=_refuse_constant)
        own_hash = manifest_sha256(manifest) if isinstance(manifest, dict) else ""
    except (ValueError, RecursionError) as error:
        raise BundleError(
            f"{path}: not valid JSON, perhaps truncated ({_one_line(error)}); {again}"
        ) from error
    if not isinstance(manifest, dict) or manifest.get("format") != form:
        raise BundleError(f"{path}: not {kind} ('format' is not {form!r}); {again}")
    version = manifest.get("format_version")
    if not isinstance(version, int) or isinstance(version, bool) or version < 1:
        raise BundleError(f"{path}: 'format_version' is {version!r}, expected {newest}; {again}")
    if version > newest:
        raise BundleError(
            f"{path}: format {version} is newer than this runtime reads ({newest}); "
            f"upgrade with `pip install -U tcmoa`, or {again}"
        )
    if manifest.get(SELF_HASH) != own_hash:
        raise BundleError(
            f"{path}: was edited or damaged since it was written (its own hash differs); {again}"
        )
    return manifest


def _refuse_constant(name: str) -> None:
    raise ValueError(f"{name} is no JSON number")


def _one_line(error: BaseException) -> str:
    return (str(error).splitlines() or [type(error).__name__])[0][:120]
