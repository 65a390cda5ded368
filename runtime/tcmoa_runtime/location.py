"""Where a source or an output is: a file, or the URL of a network stream; and how it is shown without its secrets.

What exists as a file is a file, whatever its name looks like: `10:30.mp4`, `my%20drone.mp4`, `a://b`. All other text is
a URL if it holds `://`.
"""

from __future__ import annotations

import os
import re
import unicodedata
from pathlib import Path
from typing import Final
from urllib.parse import unquote

HIDDEN: Final = "***"
"""Stands for what is not shown."""

# fmt: off
_PLAIN_PARAMETERS: Final = frozenset([
    "buffer_size", "channel", "connect", "connect_timeout", "fifo_size", "fps", "height", "latency",
    "linger", "listen", "localaddr", "localport", "mode", "mss", "overrun_nonfatal", "pkt_size",
    "reconnect", "reuse", "rtsp_transport", "sources", "stimeout", "subtype", "tcp_nodelay", "timeout",
    "transport", "transtype", "ttl", "width",
])
# fmt: on
"""Parameters of URLs whose values are shown. All others are hidden: any name may be that of a secret."""

NUMBER: Final = re.compile(r"%0?\d*d")
"""The number in a pattern of files, as printf writes it."""
_URL: Final = re.compile(r"\b[A-Za-z][A-Za-z0-9+.-]*://\S*[^\s:;,.]")
"""A URL within a text, without the punctuation after it."""
_SCHEME: Final = re.compile(r"[A-Za-z][A-Za-z0-9+.-]*")
_PLAIN_VALUE: Final = re.compile(r"[\w.,:+-]*")
_SECRET_IN_PATH: Final = re.compile(
    r"(?i)((?:user|login|pass|pwd|passw\w*|passphrase|token|secret|key)=)[^/&]*"
)
"""Cameras take passwords in the path, too: `/user=admin&password=1234&channel=1.sdp`."""


def scheme_of(location: str) -> str:
    """Return the scheme of a URL in lower case, e.g. `rtsp`; empty for a file or folder."""
    scheme, mark, _ = location.partition("://")
    if not mark or _SCHEME.fullmatch(scheme) is None or os.path.lexists(location):
        return ""
    return scheme.lower()


def normalize_url(url: str) -> str:
    """Return a URL with its scheme in lower case, as FFmpeg takes it."""
    scheme, mark, rest = url.partition("://")
    return f"{scheme.lower()}{mark}{rest}"


def path_of(location: str) -> Path:
    """Return the path of a file or folder, also of a `file://` URL, in which characters may be escaped."""
    if scheme_of(location) != "file":
        return Path(location)
    plain = location.partition("://")[2].removeprefix("localhost")
    return Path(plain if os.path.lexists(plain) else unquote(plain))


def has_number(file_name: str) -> bool:
    """Return whether a file name is a pattern with a number, e.g. `%06d.png`."""
    return NUMBER.search(file_name) is not None


def file_url(path: Path) -> str:
    """Return what FFmpeg opens as this file: it takes `10:30.mp4` for a URL of the scheme `10`."""
    return f"file:{path}"


def redact(location: str) -> str:
    """Return a path or URL for display: without secrets, and with control characters escaped.

    User and password of a URL, the values of all parameters that are not known to be harmless, and the stream key of an
    RTMP URL become `***`. A password may hold any character, so all up to the last `@` is taken as part of it.
    """
    scheme, mark, rest = location.partition("://")
    if not mark or not scheme_of(location):
        return printable(location)
    user, at, after = rest.rpartition("@")
    if at and (":" in user or not re.search(r"[/?#]", user)):
        rest = f"{HIDDEN}@{after}"
    place, question, parameters = rest.partition("?")
    place = _SECRET_IN_PATH.sub(rf"\g<1>{HIDDEN}", place)
    if scheme.lower().startswith("rtmp"):
        place = _hide_stream_key(place)
    shown = "&".join(_hide_value(parameter) for parameter in parameters.split("&")) if question else ""
    return printable(f"{scheme}://{place}{question}{shown}")


def connection_remedy(url: str) -> str | None:
    """Return what to do about a URL that cannot be opened because its password holds `/`, `?` or `#`; else None."""
    user, at, _ = url.partition("://")[2].rpartition("@")
    if at and ":" in user and re.search(r"[/?#]", user):
        return "Escape characters of user and password: / as %2F, ? as %3F, # as %23, @ as %40."
    return None


def redact_text(text: str) -> str:
    """Return a text with every URL in it as `redact` shows it."""
    return _URL.sub(lambda match: redact(match[0]), text)


def printable(text: str) -> str:
    r"""Return a text with control characters escaped, e.g. `\x1b`: names may hold sequences that a terminal obeys."""
    if text.isprintable():
        return text
    return "".join(c if c.isprintable() or unicodedata.category(c) == "Zs" else ascii(c)[1:-1] for c in text)


def _hide_value(parameter: str) -> str:
    name, equals, value = parameter.partition("=")
    if name.lower() in _PLAIN_PARAMETERS and _PLAIN_VALUE.fullmatch(value):
        return parameter
    return f"{name}={HIDDEN}" if equals else HIDDEN


def _hide_stream_key(place: str) -> str:
    """Hide what follows host and application: `host/app/KEY`."""
    host, _, path = place.partition("/")
    application, slash, key = path.partition("/")
    return f"{host}/{application}/{HIDDEN}" if slash and key else place
