"""The page itself: HTML, CSS and JavaScript in one document, so that it loads nothing else."""

from __future__ import annotations

import base64
import hashlib
from functools import cache
from importlib.resources import files
from typing import Final

SCRIPTS: Final = ("charts.js", "prompt_map.js", "recorder.js", "region.js", "page.js")


@cache
def page_document() -> tuple[str, str]:
    """Return the document and its content security policy, which allows only its own script and style."""
    html, style = _read("page.html"), _read("page.css")
    script = "\n".join(map(_read, SCRIPTS))
    policy = (
        f"default-src 'none'; script-src {_hash_source(script)}; style-src {_hash_source(style)}; "
        "img-src 'self' blob: data:; connect-src 'self'; base-uri 'none'; form-action 'none'; frame-ancestors 'none'"
    )
    return html.replace("/*STYLE*/", style).replace("/*SCRIPT*/", script), policy


def _read(name: str) -> str:
    return files("tcmoa_runtime.streams.page").joinpath("static", name).read_text(encoding="utf-8")


def _hash_source(inline: str) -> str:
    """Return the expression of the policy that allows an inline script or style."""
    return "'sha256-" + base64.b64encode(hashlib.sha256(inline.encode()).digest()).decode() + "'"
