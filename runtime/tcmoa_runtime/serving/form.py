"""The page for a browser: a form that fuses two images, in one document that loads nothing else."""

from __future__ import annotations

import html
from collections.abc import Sequence
from importlib.resources import files

from tcmoa_runtime.web.document import content_policy


def form_page(bundles: Sequence[str]) -> tuple[str, str]:
    """Return the document and its content security policy.

    Args:
        bundles: Names of the bundles to choose from.
    """
    choices = "".join(f"<option>{html.escape(name)}</option>" for name in bundles)
    page, style, script = (_read(name) for name in ("form.html", "form.css", "form.js"))
    policy = content_policy(script, style)
    page = page.replace("/*STYLE*/", style).replace("/*SCRIPT*/", script).replace("<!--BUNDLES-->", choices)
    return page, policy


def _read(name: str) -> str:
    return files("tcmoa_runtime.serving").joinpath("static", name).read_text(encoding="utf-8")
