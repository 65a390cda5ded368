"""Check that the page or the service of this container answers: for HEALTHCHECK and for the probes of Kubernetes.

    python healthcheck.py [--alive] [URL ...]

Without a URL, TCMOA_HEALTH_URL holds it; without that too there is nothing to check, e.g. for `tcmoa fuse`. The token
in TCMOA_TOKEN is sent along. The exit code is 0 if every URL answers with status 200, else 1 after one line. With
--alive every answer is good, also that of a server which has no place for another connection.
"""

from __future__ import annotations

import os
import sys
import urllib.error
import urllib.request
from http import HTTPStatus

TIMEOUT_S = 4.0
"""Below the time limit of HEALTHCHECK and of the probes, 5 s: the line that says what is wrong is still printed."""


def find_problem(url: str, token: str | None, *, is_any_good: bool) -> str | None:
    """Return what is wrong with the answer of a URL; None if its status is 200, or every status is good."""
    headers = {"Authorization": f"Bearer {token}"} if token else {}
    # No proxy: the URL is of this container.
    opener = urllib.request.build_opener(urllib.request.ProxyHandler({}))
    try:
        with opener.open(urllib.request.Request(url, headers=headers), timeout=TIMEOUT_S) as response:
            status = response.status
    except urllib.error.HTTPError as error:
        status = error.code
    except (OSError, ValueError) as error:  # URLError is an OSError; ValueError: not a URL
        return f"{url}: {error}; expected an answer"
    if status != HTTPStatus.OK and not is_any_good:
        return f"{url}: status {status}; expected {HTTPStatus.OK.value}"
    return None


def main() -> int:
    """Check the URLs of the command line, or of TCMOA_HEALTH_URL."""
    words = sys.argv[1:]
    is_any_good = words[:1] == ["--alive"]
    urls = words[is_any_good:] or os.environ.get("TCMOA_HEALTH_URL", "").split()
    for url in urls:
        problem = find_problem(url, os.environ.get("TCMOA_TOKEN"), is_any_good=is_any_good)
        if problem is not None:
            print(problem)
            return 1
    return 0


if __name__ == "__main__":
    sys.exit(main())
