"""The page itself: HTML, CSS and JavaScript in one document, so that it loads nothing else."""

from __future__ import annotations

from functools import cache
from importlib.resources import files
from typing import Final

from tcmoa_runtime.web.document import content_policy

SCRIPTS: Final = ("charts.js", "prompt_map.js", "recorder.js", "region.js", "page.js")


@cache
def page_document() -> tuple[str, str]:
    """Return the document and its content security policy, which allows only its own script and style."""
    html, style = _read("page.html"), _read("page.css")
    script = "\n".join(map(_read, SCRIPTS))
    return html.replace("/*STYLE*/", style).replace("/*SCRIPT*/", script), content_policy(script, style)


def _read(name: str) -> str:
    return files("tcmoa_runtime.streams.page").joinpath("static", name).read_text(encoding="utf-8")
