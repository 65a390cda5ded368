"""The commands of "Past one machine" in the README, as they stand there, on this machine and on a cluster."""

import contextlib
import json
import os
import re
import shlex
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path
from types import SimpleNamespace

import httpx
import numpy as np
import pytest

from fleet_pieces import check_videos
from free_ports import free_port
from ray_cluster import cluster, connected  # noqa: F401  # fixtures
from tcmoa_runtime import Fuser
from tcmoa_runtime.images import decode_image, read_frame, read_image, resize_frame, write_image
from tcmoa_runtime.shipped_pairs import shipped_pairs

pytest.importorskip("ray", reason="Ray is not installed; `pip install 'tcmoa[ray]'` runs this")
pytestmark = pytest.mark.slow

ROOT = Path(__file__).parents[1]
TCMOA = (sys.executable, "-c", "import sys; from tcmoa_runtime.cli import run; sys.exit(run(sys.argv[1:]))")
START_SECONDS = 240
NAMES = ("astronaut", "rocket")


def readme_commands():
    """Return the commands of the section by their first word, as lists of words."""
    section = (ROOT / "README.md").read_text(encoding="utf-8").split("## Past one machine", 1)[1]
    lines = re.search(r"```sh\n(.*?)```", section, flags=re.DOTALL)[1].splitlines()
    commands = [shlex.split(line, comments=True) for line in lines]
    return {words[1]: words[1:] for words in commands if words[0] == "tcmoa"}


@pytest.fixture(params=["one machine", "cluster"])
def where(request):
    """Options that say where a command runs, and whether that is a cluster."""
    if request.param == "one machine":
        return [], False
    return ["--address", request.getfixturevalue("connected").address], True


@pytest.fixture(scope="module")
def place(tmp_path_factory):
    """A folder with pairs and the examples, as a newcomer would have."""
    folder = tmp_path_factory.mktemp("growing")
    for source in ("visible", "infrared"):
        (folder / source).mkdir()
    for name, pair in zip(NAMES, shipped_pairs("vif"), strict=True):
        for source, path in (("visible", pair.x), ("infrared", pair.y)):
            write_image(folder / source / f"{name}.png", resize_frame(read_frame(path), (120, 160)))
    shutil.copytree(ROOT / "examples", folder / "examples", ignore=shutil.ignore_patterns("__pycache__"))
    return folder


@pytest.fixture(scope="module")
def fused(place):
    """What the fuser makes of each pair."""
    with Fuser.load("nano-vif") as fuser:
        return {
            name: fuser(*(read_frame(place / source / f"{name}.png") for source in ("visible", "infrared")))
            for name in NAMES
        }


@contextlib.contextmanager
def running(words, folder, end=signal.SIGTERM):
    """Run a command until the end of the block; yield its process, its log, and the URL that it prints first."""
    log = folder / f"{words[0]}-{time.monotonic_ns()}.log"
    with log.open("wb") as output:
        process = subprocess.Popen([*TCMOA, *words], cwd=folder, stdout=output, stderr=output)
    try:
        deadline = time.monotonic() + START_SECONDS
        while (url := re.search(r"http://127\.0\.0\.1:\d+", log.read_text())) is None:
            assert process.poll() is None, log.read_text()
            assert time.monotonic() < deadline, log.read_text()
            time.sleep(0.1)
        yield SimpleNamespace(process=process, url=url[0], log=log)
        process.send_signal(end)
        assert process.wait(180) in (0, -signal.SIGTERM, 128 + signal.SIGTERM), log.read_text()
    finally:
        process.kill()
        process.wait()


def test_the_readme_has_the_three_commands():
    assert list(readme_commands()) == ["bulk", "serve", "fleet"]


def test_bulk_fuses_two_folders(where, place, fused):
    options, is_cluster = where
    words = readme_commands()["bulk"]
    out = place / f"fused-{is_cluster}"
    words[words.index("-o") + 1] = out.name
    done = subprocess.run(
        [*TCMOA, *words, *options, "--json"], cwd=place, capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stderr
    summary = json.loads(done.stdout)
    assert (summary["pairs"], summary["fused"], summary["failed"]) == (2, 2, 0)
    for name, frame in fused.items():
        assert np.array_equal(read_image(out / f"{name}.png"), frame)


def test_serve_fuses_files_that_are_posted(where, place, fused):
    options, _ = where
    with running([*readme_commands()["serve"], *options, "--port", str(free_port())], place) as service:
        url = service.url
        assert httpx.get(f"{url}/v2/health/ready", timeout=60).status_code == 200
        for name, frame in fused.items():
            files = {
                side: (place / source / f"{name}.png").read_bytes()
                for side, source in (("x", "visible"), ("y", "infrared"))
            }
            response = httpx.post(f"{url}/v1/fuse", files=files, timeout=60)
            assert response.status_code == 200, response.text
            assert np.array_equal(decode_image(response.content, name), frame)


def test_a_fleet_streams_all_of_its_pairs_and_completes_its_files(where, place):
    options, is_cluster = where
    words = readme_commands()["fleet"]
    file, out = place / words[1], place / f"videos-{is_cluster}"
    assert (ROOT / words[1]).is_file()
    out.mkdir()
    outputs = f'[defaults]\nout = "{out}/{{pair}}-{{time}}.mkv"\ncodec = "mjpeg"'
    file.write_text((ROOT / words[1]).read_text().replace("[defaults]", outputs))
    page = ["--page", f"127.0.0.1:{free_port()}"]
    try:
        with running([*words, *options, *page], place, signal.SIGINT) as fleet:

            def until(condition):
                deadline = time.monotonic() + START_SECONDS
                while not condition():
                    assert time.monotonic() < deadline, fleet.log.read_text()
                    time.sleep(0.1)

            def pairs():
                return httpx.get(f"{fleet.url}/api/fleet", timeout=60).json()["pairs"]

            until(lambda: pairs() and all(pair["state"] == "running" for pair in pairs()))
            url = f"{fleet.url}/api/pairs/{pairs()[0]['name']}/picture.jpg"
            assert decode_image(httpx.get(url, timeout=60).content, "picture").ndim == 3
            fleet.process.send_signal(signal.SIGHUP)
            until(lambda: f"{words[1]}: read again: nothing changed" in fleet.log.read_text())
    finally:
        if is_cluster:  # where the streams outlive the command
            subprocess.run([*TCMOA, *words, *options, "--stop"], cwd=place, check=True, env=os.environ)
    lines = fleet.log.read_text().splitlines()
    assert (fleet.process.returncode, any(line.startswith("gate: running on ") for line in lines)) == (
        0,
        True,
    )
    assert ("stopping 3 streams, which complete their files" in lines) is not is_cluster
    assert {name.partition("-")[0] for name in check_videos(out)} == {"gate", "yard", "roof"}
