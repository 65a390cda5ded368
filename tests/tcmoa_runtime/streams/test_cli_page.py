"""`tcmoa stream --page` in a process of its own."""

import json
import os
import re
import signal
import socket
import subprocess
import sys
from pathlib import Path
from types import SimpleNamespace

import pytest

from page_pieces import call, request
from stream_pieces import wait_until
from tcmoa_runtime.images import write_image
from video_pieces import gradient

pytest.importorskip("aiohttp", reason="aiohttp is not installed; `pip install 'tcmoa[stream]'` runs this")


@pytest.fixture(scope="module")
def images(tmp_path_factory):
    """Two folders of images, one minute at 10 frames per second."""
    folder = tmp_path_factory.mktemp("images")
    for side in "xy":
        (folder / side).mkdir()
        for i in range(600):
            if i < 4:
                write_image(folder / side / f"{i:03d}.png", gradient(i, 100, 130))
            else:
                (folder / side / f"{i:03d}.png").hardlink_to(folder / side / f"{i % 4:03d}.png")
    return folder


@pytest.fixture
def start(vif, images):
    """Start the command in real time; return (process, page)."""
    running = []

    def start_command(*arguments, environment=None):
        command = [Path(sys.executable).with_name("tcmoa"), "stream", vif, images / "x", images / "y", "--realtime",
                   "--rate", "10", *arguments]  # fmt: skip
        process = subprocess.Popen(
            [*map(str, command)], stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, env=environment,
            preexec_fn=lambda: signal.signal(signal.SIGINT, signal.default_int_handler),
        )  # fmt: skip
        running.append(process)
        line = process.stderr.readline()
        found = re.search(r"page: (http://\S+:(\d+)/\S*)", line)
        assert found, line + process.stderr.read()
        return process, SimpleNamespace(port=int(found[2]), url=found[1])

    yield start_command
    for process in running:
        process.kill()
        process.communicate()


def frames(page, **options):
    return call(page, "/api/stats", **options)[1]["frames"]


def wait_for_frames(page, count, **options):
    def are_there():
        try:
            return frames(page, **options) >= count
        except OSError:
            return False

    wait_until(are_there, f"fewer than {count} frames")


def test_the_page_is_an_output_and_controls_the_prompt(start):
    process, page = start("--page", "127.0.0.1:0", "--json", "--deflicker", "0.5")
    wait_for_frames(page, 3)
    assert call(page, "/api/control", "POST", {"shift": 0.2, "ramp": 0})[1]["shift"] == 0.2
    assert request(page, "/api/frame.jpg")[0] == 200
    process.send_signal(signal.SIGINT)
    out, err = process.communicate(timeout=120)
    assert process.returncode == 0, err
    assert json.loads(out)["outputs"] == ["page"]
    with pytest.raises(OSError, match="refused"):
        request(page, "/")


def test_on_other_addresses_the_printed_url_has_a_token(start):
    process, page = start("--page", "0.0.0.0:0")
    token = page.url.partition("?token=")[2]
    assert len(token) > 20
    wait_for_frames(page, 1, headers={"Authorization": f"Bearer {token}"})
    assert request(page, "/")[0] == 401
    assert request(page, f"/?token={token}")[0] == 303
    process.send_signal(signal.SIGTERM)
    _, err = process.communicate(timeout=120)
    assert process.returncode == 0, err


def test_the_token_is_read_from_the_environment(start):
    _, page = start("--page", "0", environment={**os.environ, "TCMOA_TOKEN": "from-the-environment"})
    assert page.url.endswith("?token=from-the-environment")


@pytest.mark.parametrize(
    ("arguments", "message"),
    [(["--page", "off"], "no output requested. Give --out, --page or --log, or --json for the statistics alone."),
     (["--page", "127.0.0.1:eighty"], "--page: '127.0.0.1:eighty'; expected HOST:PORT with a port of 0 to 65535, e.g. "
      "127.0.0.1:8080, or off"),
     (["--page", ""], "--page: ''; expected HOST:PORT with a port of 0 to 65535, e.g. 127.0.0.1:8080, or off"),
     (["--page", "OFF"], "--page: 'OFF'; expected HOST:PORT, or off"),
     (["--page", "0", "--token", "short"], "token: 5 characters; expected 8 or more"),
     (["--page", "0", "--deflicker", "-1"], "--deflicker: -1"),
     (["--page", "0", "--deflicker", "long"], "--deflicker: 'long'")],
)  # fmt: skip
def test_wrong_options_are_refused_in_one_line(tcmoa, vif, images, arguments, message):
    tcmoa("stream", vif, images / "x", images / "y", *arguments).assert_error(2, message)


def test_a_port_in_use_is_reported(tcmoa, vif, images):
    with socket.socket() as other:
        other.bind(("127.0.0.1", 0))
        other.listen()
        port = other.getsockname()[1]
        done = tcmoa("stream", vif, images / "x", images / "y", "--page", str(port))
        done.assert_error(2, f"cannot listen on 127.0.0.1:{port}")
