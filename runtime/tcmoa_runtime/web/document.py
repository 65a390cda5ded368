"""Security policy of pages that are one document with an inline script and style."""

from __future__ import annotations

import base64
import hashlib


def content_policy(script: str, style: str) -> str:
    """Return the content security policy of a page, which allows only its own inline script and style.

    Args:
        script: Text of the script element.
        style: Text of the style element.
    """
    return (
        f"default-src 'none'; script-src {_hash_source(script)}; style-src {_hash_source(style)}; "
        "img-src 'self' blob: data:; connect-src 'self'; base-uri 'none'; form-action 'none'; frame-ancestors 'none'"
    )


def _hash_source(inline: str) -> str:
    """Return the expression of the policy that allows an inline script or style."""
    return "'sha256-" + base64.b64encode(hashlib.sha256(inline.encode()).digest()).decode() + "'"
