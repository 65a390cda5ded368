"""Every command and every line of Python in the README and the documentation runs, as a newcomer would run it."""

import contextlib
import io
import os
import re
import shlex
import subprocess
import sys
import tomllib
import warnings
from fractions import Fraction
from itertools import pairwise
from pathlib import Path

import numpy as np
import pytest
import typer.main

from one_thread import one_thread_per_session
from tcmoa_runtime.cli import make_app, run
from tcmoa_runtime.fleet.page.routes import API as FLEET_API
from tcmoa_runtime.images import read_frame, resize_frame, write_image
from tcmoa_runtime.serving.routes import API as SERVICE_API
from tcmoa_runtime.streams.interfaces import FusedFrame, StreamFormat
from tcmoa_runtime.streams.page.routes import API as PAGE_API
from tcmoa_runtime.streams.sinks import open_sink

__all__ = ["one_thread_per_session"]

ROOT = Path(__file__).parents[1]
GENERATED = {"command-line.md", "c.md", "http.md", "service.md", "fleet-api.md"}
PAGES = [
    ROOT / "README.md",
    ROOT / "CONTRIBUTING.md",
    ROOT / "SECURITY.md",
    *sorted(path for path in (ROOT / "docs").rglob("*.md") if path.name not in GENERATED),
]
"""The README first: later pages use the bundle that it exports."""


def blocks(language, pages=PAGES):
    """Code blocks of a language, in the order of the pages: (page, text)."""
    return [
        (page.name, text)
        for page in pages
        for text in re.findall(
            rf"^```{language}\n(.*?)^```", page.read_text(encoding="utf-8"), flags=re.MULTILINE | re.DOTALL
        )
    ]


def lines_of(language):
    """Commands of the blocks of a language: (page, words)."""
    for page, text in blocks(language):
        for line in text.replace("\\\n", " ").splitlines():
            words = shlex.split(line, comments=True)
            if words:
                yield page, words


@pytest.fixture(scope="module")
def place(tmp_path_factory):
    """A folder in which the demo has run; its pictures are smaller than the demo writes them, which saves time."""
    folder = tmp_path_factory.mktemp("newcomer")
    tcmoa(folder, ["demo", "--out", "demo-out"])
    for path in (folder / "demo-out").glob("*.png"):  # a quarter of the pixels, for what follows
        picture = read_frame(path)
        write_image(path, resize_frame(picture, (picture.shape[0] // 2, picture.shape[1] // 2)))
    for name in ("x", "y"):
        picture = read_frame(folder / "demo-out" / f"vif_rocket_{name}.png")
        film(folder / f"{name}.mp4", resize_frame(picture, (336, 448)))
    return folder


def film(path, picture):
    """The user's own video: here four frames of a picture that slides by."""
    sink = open_sink(str(path))
    sink.open(StreamFormat(*picture.shape[:2], "rgb", Fraction(1, 25), Fraction(25), live=False))
    for i in range(4):
        image = np.roll(picture, 4 * i, axis=1)
        sink.write(FusedFrame(image, i, Fraction(1, 25), i, "fused", None, None, None, None, 0.0))
    sink.close()


def tcmoa(folder, arguments):
    """Run the `tcmoa` command in `folder`, in this process, because imports take seconds."""
    out, err = io.StringIO(), io.StringIO()
    with (
        contextlib.chdir(folder),
        contextlib.redirect_stdout(out),
        contextlib.redirect_stderr(err),
        warnings.catch_warnings(),
    ):
        warnings.simplefilter("default")  # as in a process of its own
        code = run(arguments)
    assert code == 0, f"tcmoa {shlex.join(arguments)}: {err.getvalue()}"


@pytest.mark.slow
def test_the_demo_writes_the_images_of_the_documents(place):
    written = {path.name for path in (place / "demo-out").iterdir()}
    assert {"contact_sheet.jpg", "prompt_strip.jpg"} <= written
    assert {
        f"{pair}_{kind}.png"
        for pair in ("vif_rocket", "mef_coffee", "mff_chelsea")
        for kind in ("x", "y", "fused", "prompt")
    } <= written
    assert len(written) == 6 * 4 + 2
    assert (ROOT / "docs" / "contact_sheet.jpg").is_file()
    assert (ROOT / "docs" / "prompt_strip.jpg").is_file()


@pytest.mark.slow
def test_every_tcmoa_command_runs(place):
    seen = set()
    for page, words in lines_of("bash"):
        assert words[0] == "tcmoa", f"{page}: {words}"
        if tuple(words) not in seen:
            seen.add(tuple(words))
            tcmoa(place, words[1:])
    assert len(seen) >= 15
    assert (place / "fused.png").read_bytes() != (place / "more-visible.png").read_bytes()


@pytest.mark.slow
@pytest.mark.parametrize(("page", "code"), blocks("python"), ids=[page for page, _ in blocks("python")])
def test_every_block_of_python_runs(page, code, place):
    if not (place / "night-448x336").exists():
        tcmoa(place, shlex.split("export --weights tiny --task vif --size 448x336 --out night-448x336"))
    if "import logging" not in code:
        with contextlib.chdir(place), contextlib.redirect_stdout(io.StringIO()):
            exec(compile(code, page, "exec"), {"__name__": "__main__"})
        return
    # What it sets up stays for the rest of a process.
    done = subprocess.run(
        [sys.executable, "-c", code], cwd=place, capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, f"{page}: {done.stderr}"


def check_parses(words):
    """The command line knows the command, its options and the choices; nothing is run."""
    group = typer.main.get_command(make_app(()))
    name, *rest = words
    command = group.commands[name]
    if hasattr(command, "commands"):
        command, rest = command.commands[rest[0]], rest[1:]
    command.make_context(name, rest)


def check_make(words):
    makefile = (ROOT / "Makefile").read_text()
    for target in words:
        assert re.search(rf"^{target}:", makefile, flags=re.MULTILINE), target


def check_install(words):
    extras = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]["optional-dependencies"]
    for group in re.findall(r"\[([\w,]+)\]", " ".join(words)):
        assert set(group.split(",")) <= extras.keys()


def check_docker(words):
    """The Dockerfile and its extras exist, and a container runs a command of tcmoa."""
    if words[0] == "build":
        assert (ROOT / words[words.index("-f") + 1]).is_file()
        check_install([re.sub(r"^EXTRAS=(.*)", r"[\1]", word) for word in words])
    elif words[0] == "compose":
        files = [ROOT / following for word, following in pairwise(words) if word == "-f"]
        assert files
        assert all(path.is_file() for path in files)
        if "exec" in words:
            service, program, *rest = (word for word in words[words.index("exec") + 1 :] if word != "-e")
            assert re.search(rf"^  {service}:$", files[0].read_text(), flags=re.MULTILINE)
            assert program == "tcmoa"
            check_parses(rest)
        else:
            assert words[words.index(str(files[-1].relative_to(ROOT))) + 1] in ("up", "ps", "down")
    else:
        assert words[0] == "run"
        image = next(i for i, word in enumerate(words) if word.startswith("tcmoa:"))
        check_parses(words[image + 1 :])


def check_helm(words):
    """The chart and its values exist; returns the names of the objects of the release, None without Helm."""
    command, release, chart, *rest = words
    assert command in ("install", "upgrade")
    given = [ROOT / following for word, following in pairwise(rest) if word == "--values"]
    assert (ROOT / chart / "Chart.yaml").is_file()
    assert given
    assert all(path.is_file() for path in given)
    helm = ROOT / "build" / "tools" / "bin" / "helm"
    if not helm.exists():
        return None
    done = subprocess.run(
        [helm, "template", release, *rest, ROOT / chart],
        cwd=ROOT,
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    return set(re.findall(r"^  name: (\S+)$", done.stdout, flags=re.MULTILINE))


def check_kubectl(words, names):
    """The command is about an object of the release that was installed before."""
    assert words[0] == "port-forward"
    kind, _, name = words[1].partition("/")
    assert kind == "service"
    # KubeRay makes the Service of a RayService.
    assert names is None or name.removesuffix("-serve-svc") in names, name


def test_commands_that_are_not_run_here_exist():
    """`make` targets, extras, packages, routes and files that the other blocks name."""
    ci_packages = (ROOT / ".ci/run").read_text()
    examples = {
        tuple(shlex.split(example)) for api in (PAGE_API, SERVICE_API, FLEET_API) for example in api.examples
    }  # run by test_page_routes, test_service_routes and test_fleet_page
    count, installed = 0, None
    for page, words in lines_of("sh"):
        count += 1
        words = [word for word in words if not re.match(r"[A-Z_]+=", word)]
        program, rest = words[0], words[1:]
        if program == "make":
            check_make(rest)
        elif program == "tcmoa":
            check_parses(rest)
            for word in rest:
                assert not word.endswith(".toml") or (ROOT / word).is_file(), word
        elif program == "pip":
            check_install(rest)
        elif program == "docker":
            check_docker(rest)
        elif program == "helm":
            installed = check_helm(rest)
        elif program == "kubectl":
            check_kubectl(rest, installed)
        elif program == "curl":
            assert tuple(words) in examples, f"{page}: {shlex.join(words)}"
        elif program == "apt-get":
            assert all(package in ci_packages for package in rest[1:])
        elif program == "cmake":  # make cpp runs these with other paths
            assert rest[0] in ("-S", "--build", "--install")
        elif program == "python":  # tests/benchmarks runs it
            assert (ROOT / rest[0]).is_file()
        else:
            assert words == ["source", ".venv-demo/bin/activate"], f"{page}: {words}"
    assert count >= 30


@pytest.mark.parametrize("page", PAGES, ids=lambda path: str(path.relative_to(ROOT)))
def test_links_between_files_lead_somewhere(page):
    for link in re.findall(r"\]\((?!https?:|#)([^)#]+)", page.read_text(encoding="utf-8")):
        target = (page.parent / link).resolve()
        assert target.exists() or target.name in GENERATED, link


def test_the_readme_fits_on_two_screens():
    assert len((ROOT / "README.md").read_text().splitlines()) <= 90


@pytest.mark.slow
def test_the_documentation_builds_without_warnings():
    python = Path(sys.executable)
    subprocess.run([python, ROOT / "docs" / "reference.py"], check=True)
    command = [python.with_name("zensical"), "build", "--strict", "--config-file", ROOT / "zensical.toml"]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stdout + done.stderr
    for page in ("command-line", "python", "c", "http", "service", "fleet-api"):
        assert (ROOT / "build" / "site" / "reference" / page / "index.html").is_file()
    loads = r"<(?:script|img|iframe|link rel=\"?(?:stylesheet|preconnect)\"?)[^>]*(?:src|href)=[\"']?https?://[^\"' >]*"
    pages = (ROOT / "build" / "site").rglob("*.html")
    assert [found for page in pages for found in re.findall(loads, page.read_text(encoding="utf-8"))] == []


@pytest.mark.slow
def test_the_gstreamer_pipeline_fuses_two_videos(place):
    plugins = ROOT / "build" / "cpp" / "gst"
    if not (plugins / "libgsttcmoa.so").exists():
        pytest.skip("the GStreamer element is not built; `make cpp` builds it, and this runs")
    if not (place / "night-448x336").exists():
        tcmoa(place, shlex.split("export --weights tiny --task vif --size 448x336 --out night-448x336"))
    ((_, pipeline),) = blocks("gst")
    command = pipeline.replace(
        "GST_PLUGIN_PATH=build/cpp/gst", f"GST_PLUGIN_PATH={shlex.quote(str(plugins))}"
    )
    assert command != pipeline
    environment = {**os.environ, "GST_REGISTRY": str(place / "registry.bin")}
    done = subprocess.run(
        ["bash", "-c", command], cwd=place, env=environment, capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stdout + done.stderr
    assert len(list(read_video(place / "fused-gst.mp4"))) == 4


def read_video(path):
    import av

    with av.open(str(path)) as container:
        yield from (frame.to_ndarray(format="rgb24") for frame in container.decode(video=0))
