"""The page for a browser: a form that fuses two images, in one document that loads nothing else."""

from __future__ import annotations

import html
from collections.abc import Mapping
from importlib.resources import files

from tcmoa_runtime.contract import SOURCE_ROLES, Task, X, Y
from tcmoa_runtime.web.document import content_policy


def form_page(bundles: Mapping[str, Task]) -> tuple[str, str]:
    """Return the document and its content security policy.

    Args:
        bundles: Names of the bundles to choose from, and their tasks, which say what x and y show.
    """
    choices = "".join(_option(name, SOURCE_ROLES[task]) for name, task in bundles.items())
    page, style, script = (_read(name) for name in ("form.html", "form.css", "form.js"))
    policy = content_policy(script, style)
    page = page.replace("/*STYLE*/", style).replace("/*SCRIPT*/", script).replace("<!--BUNDLES-->", choices)
    return page, policy


def _option(name: str, roles: Mapping[str, str]) -> str:
    return f'<option data-x="{roles[X]}" data-y="{roles[Y]}">{html.escape(name)}</option>'


def _read(name: str) -> str:
    return files("tcmoa_runtime.serving").joinpath("static", name).read_text(encoding="utf-8")
