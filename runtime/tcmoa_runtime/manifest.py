"""JSON files that describe a bundle or an engine: reading with checks, and hashes."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Collection, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Final, NoReturn, TypeVar

from tcmoa_runtime.contract import Contract, TensorSpec
from tcmoa_runtime.errors import BundleError
from tcmoa_runtime.regular_file import FileTooLargeError, read_regular_file
from tcmoa_runtime.typing import JsonObject, JsonValue

SELF_HASH: Final = "manifest_sha256"
"""Key of the hash of the manifest itself."""
MAX_NUMBER: Final = 1 << 20
"""Largest number that a manifest may hold, beyond any frame side, batch or prompt."""

_MAX_BYTES: Final = 1 << 20
_MAX_SHOWN_CHARACTERS: Final = 200
_MAX_DEPTH: Final = 64
_MAX_INTEGER_DIGITS: Final = 20

ValueT = TypeVar("ValueT")


@dataclass(frozen=True)
class ManifestFormat:
    """The kind of file that is expected.

    Attributes:
        name: Value of the key `format`.
        version: Newest `format_version` that this runtime reads.
        description: Noun phrase for messages, e.g. `a TC-MoA bundle`.
        remedy: What to do with a file that is refused.
        upgrade_remedy: What to do with a file of a newer version.
    """

    name: str
    version: int
    description: str
    remedy: str
    upgrade_remedy: str = "Upgrade with `pip install -U tcmoa`"


def file_sha256(path: Path) -> str:
    """Compute the SHA-256 of a file, hexadecimal."""
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def manifest_sha256(manifest: Mapping[str, object]) -> str:
    """Compute the SHA-256 of a manifest without its own hash, as canonical JSON."""
    rest = {key: value for key, value in manifest.items() if key != SELF_HASH}
    text = json.dumps(rest, sort_keys=True, separators=(",", ":"), ensure_ascii=True)
    return hashlib.sha256(text.encode()).hexdigest()


def contract_to_json(contract: Contract) -> JsonObject:
    """Describe inputs and outputs by name, as the manifests of bundles and engines do."""

    def describe(specs: tuple[TensorSpec, ...]) -> JsonObject:
        return {spec.name: {"dtype": spec.dtype, "shape": list(spec.shape)} for spec in specs}

    return {"inputs": describe(contract.inputs), "outputs": describe(contract.outputs)}


def shown(value: object) -> str:
    """Return a value of a manifest for messages: without control characters, and not too long."""
    text = repr(value)
    return f"{text[:_MAX_SHOWN_CHARACTERS]}…" if len(text) > _MAX_SHOWN_CHARACTERS else text


class ManifestReader:
    """Typed access to the values of a manifest.

    Attributes:
        path: The file, for error messages.
        values: The JSON object.
        remedy: What to do when a value is wrong.
        prefix: Path of the object in the manifest, e.g. `graph.`.
    """

    def __init__(self, path: Path, values: Mapping[str, JsonValue], remedy: str, prefix: str = "") -> None:
        self.path, self.values, self.remedy, self.prefix = path, values, remedy, prefix

    def get(self, key: str, kind: type[ValueT], *, among: Collection[object] | None = None) -> ValueT:
        """Return the value at `key`.

        Args:
            key: Name of the value.
            kind: Its type. `float` accepts integers too, but not NaN, infinity or a magnitude above `MAX_NUMBER`.
            among: Allowed values.

        Raises:
            BundleError: The value is missing, of another type or not among the allowed ones.
        """
        value = self.values.get(key)
        is_bool = isinstance(value, bool)  # which is an int in Python, but not in JSON
        if kind is float:
            is_wrong = is_bool or not isinstance(value, int | float) or not abs(value) <= MAX_NUMBER
        else:
            is_wrong = not isinstance(value, kind) or (kind is int and is_bool)
        if is_wrong or (among is not None and value not in among):
            self.refuse(key, _describe(kind, among))
        return value  # type: ignore[return-value]  # checked above; mypy does not narrow by `kind`

    def refuse(self, key: str, expected: str) -> NoReturn:
        """Raise the BundleError for a wrong value at `key`."""
        raise BundleError(
            f"'{self.prefix}{key}' is {shown(self.values.get(key))}; expected {expected}",
            subject=self.path,
            remedy=self.remedy,
        )

    def part(self, key: str) -> ManifestReader:
        """Return a reader of the object at `key`."""
        return ManifestReader(self.path, self.get(key, dict), self.remedy, f"{self.prefix}{key}.")


def read_manifest(path: Path, form: ManifestFormat) -> JsonObject:
    """Read a manifest and check its format, version and own hash.

    Raises:
        BundleError: The file is unreadable, too large, not JSON, of another format, of a newer version, or edited.
    """

    def refusal(problem: str, remedy: str = form.remedy) -> BundleError:
        return BundleError(problem, subject=path, remedy=remedy)

    try:
        data = read_regular_file(path, max_bytes=_MAX_BYTES)
    except FileTooLargeError as error:
        raise refusal(str(error.strerror)) from error
    except OSError as error:
        raise refusal(f"cannot be read: {error.strerror}") from error
    try:
        manifest = _parse(data)
        own_hash = manifest_sha256(manifest) if isinstance(manifest, dict) else ""
    except (ValueError, RecursionError) as error:
        raise refusal(f"not valid JSON ({_first_line(error)}); expected {form.description}") from error
    if not isinstance(manifest, dict) or manifest.get("format") != form.name:
        raise refusal(f"not {form.description}; expected 'format' to be {form.name!r}")
    version = manifest.get("format_version")
    if not isinstance(version, int) or isinstance(version, bool) or version < 1:
        versions = "1" if form.version == 1 else f"1 to {form.version}"
        raise refusal(f"'format_version' is {shown(version)}; expected {versions}")
    if version > form.version:
        raise refusal(
            f"format version {version} is newer than this runtime; expected at most {form.version}",
            f"{form.upgrade_remedy}, or: {form.remedy}",
        )
    if manifest.get(SELF_HASH) != own_hash:
        raise refusal("edited or damaged since it was written; expected the hash in 'manifest_sha256'")
    return manifest


def _describe(kind: type, among: Collection[object] | None) -> str:
    """Describe what a value may be."""
    if isinstance(among, range):
        return f"an integer from {among[0]} to {among[-1]}"
    return ", ".join(map(repr, among)) if among else f"a value of type {kind.__name__}"


def _parse(data: bytes) -> JsonValue:
    """Parse JSON as strictly as libtcmoa: UTF-8, no key twice, numbers of 64 bits, text that can be encoded.

    Raises:
        ValueError: The text is not such JSON.
    """
    value: JsonValue = json.loads(
        data.decode(),
        parse_constant=_refuse_constant,
        parse_int=_parse_integer,
        parse_float=_parse_float,
        object_pairs_hook=_as_object,
    )
    json.dumps(value, ensure_ascii=False).encode()  # refuses lone surrogates
    level = [value]
    for _ in range(_MAX_DEPTH):
        level = [child for parent in level for child in _children(parent)]
    if any(isinstance(value, dict | list) for value in level):
        raise ValueError("nested too deeply")
    return value


def _children(value: JsonValue) -> list[JsonValue]:
    if isinstance(value, dict):
        return list(value.values())
    return list(value) if isinstance(value, list) else []


def _as_object(pairs: list[tuple[str, JsonValue]]) -> JsonObject:
    values = dict(pairs)
    if len(values) != len(pairs):
        raise ValueError("a key occurs twice")
    return values


def _parse_integer(text: str) -> int:
    value = int(text) if len(text) <= _MAX_INTEGER_DIGITS else 1 << 64
    if not -(1 << 63) <= value < 1 << 64:
        raise ValueError("an integer of more than 64 bits")
    return value


def _parse_float(text: str) -> float:
    # libtcmoa hashes a number as it is written, Python as it writes it.
    value = float(text)
    if repr(value) != text:
        raise ValueError(f"the number {shown(text)[:40]}, which is written differently")
    return value


def _refuse_constant(name: str) -> None:
    raise ValueError(f"{name} is not a JSON number")


def _first_line(error: BaseException) -> str:
    return (str(error).splitlines() or [type(error).__name__])[0][:120]
