"""The route table: every route is served, every example works, and the documentation lists all of them."""

import json
import shlex
import subprocess
import sys

import pytest

from page_pieces import running_page, wait_for_frames
from tcmoa_runtime.streams.page.routes import API

pytest.importorskip("aiohttp", reason="aiohttp is not installed; `pip install 'tcmoa[stream]'` runs this")

WITHOUT_AIOHTTP = """
import sys
sys.modules["aiohttp"] = None
from tcmoa_runtime.streams.page.routes import API
print(API.describe(), end="")
"""


def test_every_example_works(bundle, tmp_path):
    with running_page(bundle) as (page, stream):
        wait_for_frames(page, stream)
        for route in API.routes:
            if not route.has_example:
                continue
            command = [
                *shlex.split(route.curl(f"http://127.0.0.1:{page.port}")),
                "--fail",
                "--silent",
                "--show-error",
            ]
            done = subprocess.run(command, cwd=tmp_path, capture_output=True, text=True, check=False)
            assert done.returncode == 0, (route.path, done.stderr)
            if route.path.startswith("/api/") and not route.example_file:
                json.loads(done.stdout)
        assert stream.control.state()["change_count"] == 4
    assert (tmp_path / "frame.jpg").read_bytes()[:2] == b"\xff\xd8"
    assert (tmp_path / "page.html").read_text().startswith("<!doctype html>")


def test_the_documentation_lists_every_route_and_key():
    text = API.describe("##")
    for route in API.routes:
        assert f"\n## `{route.method} {route.path}`\n" in text
        assert f"| {route.method} | `{route.path}` | {route.summary} |" in text
        for parameter in (*route.query, *route.body):
            assert f"| `{parameter.name}` | {parameter.value} |" in text
        if route.has_example:
            assert f"```sh\n{route.curl(API.url)}\n```" in text


def test_the_documentation_needs_no_aiohttp():
    done = subprocess.run([sys.executable, "-c", WITHOUT_AIOHTTP], capture_output=True, text=True, check=True)
    assert done.stdout == API.describe()
