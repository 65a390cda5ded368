"""The route table of the service: every route is served, every example works, and the documentation lists all."""

import re
import shlex
import subprocess
import sys
from pathlib import Path

import pytest

from service_pieces import running_service
from tcmoa_runtime import Fuser
from tcmoa_runtime.images import write_image
from tcmoa_runtime.serving.routes import API, EXAMPLE_MODEL

pytest.importorskip("uvicorn", reason="uvicorn is not installed; `pip install 'tcmoa[serve]'` runs this")

WITHOUT_STARLETTE = """
import sys
sys.modules["starlette"] = sys.modules["uvicorn"] = None
from tcmoa_runtime.serving.routes import API
print(API.describe("##"), end="")
"""


def test_every_example_works(vif, pair, tmp_path):
    for name, image in zip(("visible", "infrared"), pair, strict=True):
        write_image(tmp_path / f"{name}.png", image)
    with Fuser.load(vif, threads=1) as fuser, running_service({EXAMPLE_MODEL: fuser}) as running:
        for route in API.routes:
            if not route.has_example:
                continue
            words = shlex.split(route.curl(f"http://127.0.0.1:{running.port}"))
            done = subprocess.run(
                [*words, "--fail", "--silent", "--show-error"],
                cwd=tmp_path,
                capture_output=True,
                text=True,
                check=False,
            )
            assert done.returncode == 0, (route.path, done.stderr)
        paths = {route.path for route in running.service.routes()}
    assert (tmp_path / "fused.png").read_bytes()[1:4] == b"PNG"
    assert (tmp_path / "service.html").read_text().startswith("<!doctype html>")
    assert {route.path for route in API.routes} <= paths


def test_the_documentation_lists_every_route_and_needs_no_starlette():
    done = subprocess.run(
        [sys.executable, "-c", WITHOUT_STARLETTE], capture_output=True, text=True, check=True
    )
    page = API.describe("##")
    assert done.stdout == page
    for route in API.routes:
        assert f"\n## `{route.method} {route.path}`\n" in page
        for parameter in (*route.query, *route.body):
            assert f"| `{parameter.name}` | {parameter.value} |" in page
        if route.has_example:
            assert f"```sh\n{route.curl(API.url)}\n```" in page


def test_the_page_posts_to_the_route_and_with_its_fields():
    script = (
        Path(sys.modules["tcmoa_runtime.serving.routes"].__file__).with_name("static") / "form.js"
    ).read_text()
    fuse = next(route for route in API.routes if route.path == "/v1/fuse")
    assert 'fetch("v1/fuse", { method: "POST"' in script
    names = set(re.findall(r'"(\w+)"', script))
    assert {parameter.name for parameter in fuse.body} <= names


def test_the_description_of_the_body_of_infer_names_what_is_read():
    (infer,) = (route for route in API.routes if route.path.endswith("/infer"))
    named = " ".join(parameter.name for parameter in infer.body)
    for word in ("x", "y", "prompt_scale", "prompt_shift", "timeout", "binary_data_output", "outputs", "id"):
        assert re.search(rf"\b{word}\b", named), word
