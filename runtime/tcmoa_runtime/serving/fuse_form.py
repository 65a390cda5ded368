"""The form of `POST /v1/fuse`: two image files and fields of text."""

from __future__ import annotations

from collections.abc import AsyncGenerator, Mapping, Sequence
from dataclasses import dataclass
from http import HTTPStatus
from typing import Final, TypeAlias

from starlette.datastructures import UploadFile
from starlette.formparsers import MultiPartException, MultiPartParser
from starlette.requests import Request

from tcmoa_runtime.errors import InputError
from tcmoa_runtime.image_header import ImageFormat
from tcmoa_runtime.serving.image_formats import choose_format
from tcmoa_runtime.web.refusal import RefusedError

FIELDS: Final = ("x", "y", "bundle", "scale", "shift", "format")

_EXPECTED: Final = "expected multipart/form-data with the files x and y"
_CHUNK: Final = 1 << 20

_Values: TypeAlias = Mapping[str, Sequence[str | bytes]]
"""Values of each field; bytes are a file."""


@dataclass(frozen=True, kw_only=True)
class FuseForm:
    """What a form asks for.

    Attributes:
        x: The first source, an image file.
        y: The second source.
        bundle: Name of the bundle; empty for the first one.
        scale: Alpha of Eq. 8.
        shift: Beta of Eq. 8.
        image_format: Format of the result.
    """

    x: bytes
    y: bytes
    bundle: str
    scale: float | None
    shift: float | None
    image_format: ImageFormat


async def read_form(request: Request, body: memoryview) -> FuseForm:
    """Read the form of a request, all of it in memory.

    Args:
        request: The request.
        body: Its body, which has been read.

    Raises:
        RefusedError: 415: the body is no form. 406: the Accept header allows no format.
        InputError: The form is malformed, or a field is unknown, missing, wrong or in the query.
    """
    in_query = next(iter(request.query_params), None)
    if in_query is not None:
        raise InputError(f"in the query; expected fields of the form: {', '.join(FIELDS)}", subject=in_query)
    values = await _parse(request, body)
    unknown = next((name for name in values if name not in FIELDS), None)
    if unknown is not None:
        raise InputError(f"no such field; expected {', '.join(FIELDS)}", subject=unknown)
    return FuseForm(
        x=_file(values, "x"),
        y=_file(values, "y"),
        bundle=_text(values, "bundle"),
        scale=_number(values, "scale"),
        shift=_number(values, "shift"),
        image_format=choose_format(_text(values, "format"), request.headers.get("accept", "*/*")),
    )


class _InMemoryParser(MultiPartParser):
    """A parser that writes no file to the disk; the size of the body is limited before."""

    spool_max_size = 1 << 62


async def _parse(request: Request, body: memoryview) -> _Values:
    content_type = request.headers.get("content-type", "")
    if content_type.partition(";")[0].strip().lower() != "multipart/form-data":
        raise RefusedError(
            HTTPStatus.UNSUPPORTED_MEDIA_TYPE, f"body: content type {content_type or 'none'!r}; {_EXPECTED}."
        )
    parser = _InMemoryParser(request.headers, _chunks(body), max_files=2, max_fields=16)
    values: dict[str, list[str | bytes]] = {}
    try:
        form = await parser.parse()
    except (MultiPartException, ValueError, KeyError) as error:
        message = getattr(error, "message", None) or str(error)
        raise InputError(f"not a form: {message.rstrip('.')}; {_EXPECTED}", subject="body") from error
    try:
        for name, value in form.multi_items():
            data = await value.read() if isinstance(value, UploadFile) else value
            values.setdefault(name, []).append(data)
    finally:
        await form.close()
    return values


async def _chunks(body: memoryview) -> AsyncGenerator[bytes, None]:
    for start in range(0, len(body), _CHUNK):
        yield bytes(body[start : start + _CHUNK])


def _text(values: _Values, name: str) -> str:
    """Return a field of text; empty if it is missing."""
    given = values.get(name, ())
    if not given:
        return ""
    if len(given) > 1 or isinstance(given[0], bytes):
        raise InputError("a file, or given twice; expected one field of text", subject=name)
    return given[0].strip()


def _number(values: _Values, name: str) -> float | None:
    text = _text(values, name)
    if not text:
        return None
    try:
        return float(text)
    except ValueError:
        raise InputError(f"{text!r}; expected a number", subject=name) from None


def _file(values: _Values, name: str) -> bytes:
    given = values.get(name, ())
    if len(given) != 1 or isinstance(given[0], str):
        what = "given twice" if len(given) > 1 else "text" if given else "missing"
        raise InputError(
            f"{what}; expected one image file, e.g. -F {name}=@{name}.png with curl", subject=name
        )
    return given[0]
