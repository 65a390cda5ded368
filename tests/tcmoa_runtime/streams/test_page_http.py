"""Steering and watching a stream over HTTP, and who may."""

import json
import re
import time

import cv2
import numpy as np
import pytest

from page_pieces import call, request, running_page, wait_for_frames
from stream_pieces import ListSink, LiveSource, ScriptedSource, copying_fuser
from tcmoa_runtime import Fuser, Stream
from tcmoa_runtime.streams.page import sink as page_sink

pytest.importorskip("aiohttp", reason="aiohttp is not installed; `pip install 'tcmoa[stream]'` runs this")
TOKEN = "secret-of-this-test"


@pytest.fixture
def served(bundle):
    with running_page(bundle) as both:
        yield both


@pytest.fixture
def page(served):
    return served[0]


# What there is to see


def test_the_page_is_one_piece_that_asks_nobody_else(page):
    status, headers, body = request(page, "/")
    text = body.decode()
    assert status == 200
    assert "/*STYLE*/" not in text
    assert "/*SCRIPT*/" not in text
    assert not re.findall(r"""(?:src|href)=["'](?!data:)[^"']""", text)
    assert not re.findall(r"https?://", text)
    policy = headers["Content-Security-Policy"]
    assert "default-src 'none'" in policy
    assert "unsafe" not in policy
    assert headers["X-Frame-Options"] == "DENY"
    assert headers["Cache-Control"] == "no-store"


def test_state_tells_the_prompt_and_the_stream(page, bundle):
    status, state = call(page, "/api/state")
    assert status == 200
    assert (state["scale"], state["shift"], state["region"]) == (1.0, 0.0, None)
    assert state["grid"] == [13, 17]
    stream = state["stream"]
    assert (stream["x"], stream["y"], stream["width"], stream["height"]) == ("camera-x", "camera-y", 130, 100)
    assert stream["prompts"] == bundle.contract.prompts
    assert stream["roles"] == {"x": "visible", "y": "infrared"}


def test_figures_and_prometheus_count_alike(served):
    page, stream = served
    wait_for_frames(page, stream, 5)
    before = call(page, "/api/figures")[1]["frames"]
    _, headers, text = request(page, "/metrics")
    assert headers["Content-Type"] == "text/plain; version=0.0.4; charset=utf-8"
    (counted,) = re.findall(rb"^tcmoa_frames_total (\d+)$", text, re.MULTILINE)
    assert 5 <= before <= int(counted) <= call(page, "/api/figures")[1]["frames"]


@pytest.mark.parametrize("view", ["fused", "x", "y"])
def test_the_newest_picture_is_a_jpeg_of_the_view(page, view):
    status, headers, body = request(page, f"/api/frame.jpg?view={view}")
    assert (status, headers["Content-Type"]) == (200, "image/jpeg")
    image = cv2.imdecode(np.frombuffer(body, np.uint8), cv2.IMREAD_COLOR)
    assert image.shape == (100, 130, 3)
    # `numbered`: red is the number, green its hundreds, blue 77 everywhere.
    assert abs(int(np.median(image[..., 0])) - 77) <= 3


def test_a_picture_may_be_smaller(page):
    _, _, body = request(page, "/api/frame.jpg?width=60")
    assert cv2.imdecode(np.frombuffer(body, np.uint8), cv2.IMREAD_COLOR).shape == (49, 64, 3)


@pytest.mark.parametrize(
    ("query", "told"),
    [("view=z", "view is 'z'"), ("width=0", "width is '0'"), ("width=wide", "width is 'wide'")],
)
def test_a_wrong_picture_is_told(page, query, told):
    status, answer = call(page, f"/api/frame.jpg?{query}")
    assert status == 400
    assert told in answer["error"]


# Steering


def test_a_change_reaches_the_picture_within_two_frames(bundle, vif):
    """The real model: the first or second frame whose fusing began after the answer shows the change."""
    sink = ListSink()
    picture = np.random.default_rng(5).integers(0, 255, (100, 130, 3), np.uint8)
    other = picture[::-1].copy()
    with (
        Fuser.load(vif) as fuser,
        running_page(
            bundle,
            fuser=fuser,
            rate=10,
            x=LiveSource(10, images=lambda _: picture),
            y=LiveSource(10, images=lambda _: other),
            sinks=[sink],
        ) as (page, stream),
    ):
        wait_for_frames(page, stream, 3)
        plain = fuser(picture, other)
        assert all((frame.image == plain).all() for frame in sink.frames)
        status, state = call(page, "/api/control", "POST", {"shift": 0.4, "scale": 1.5, "ramp": 0})
        seen = len(sink.frames)
        assert (status, state["shift"], state["scale"]) == (200, 0.4, 1.5)
        wait_for_frames(page, stream, seen + 5)
        wanted = fuser(picture, other, scale=1.5, shift=0.4)
        call(page, "/api/reset", "POST", {"ramp": 0})
        back = len(sink.frames)
        wait_for_frames(page, stream, back + 5)
    assert (wanted != plain).any()
    # One was being fused when the answer came, perhaps another in the queue to the sink.
    assert any((frame.image == wanted).all() for frame in sink.frames[seen : seen + 3])
    assert (sink.frames[seen + 2].image == wanted).all()
    assert (sink.frames[back + 2].image == plain).all()


def test_a_rectangle_and_a_mask_are_regions_and_go_again(served):
    page, stream = served
    status, state = call(page, "/api/region", "PUT", {"rectangle": [8, 16, 24, 32], "shift": 0.5, "ramp": 0})
    assert status == 200
    assert state["region"] == {"scale": 1.0, "shift": 0.5, "rectangle": [8, 16, 24, 32]}
    wanted = np.zeros((13, 17), np.float32)
    wanted[2:6, 1:4] = 0.5
    np.testing.assert_array_equal(stream.control.values()[1], wanted)
    mask = (wanted > 0).astype(int).tolist()
    status, state = call(page, "/api/region", "PUT", {"mask": mask, "shift": 0.25, "ramp": 0})
    assert state["region"] == {"scale": 1.0, "shift": 0.25, "tokens": 12.0}
    np.testing.assert_array_equal(stream.control.values()[1], wanted / 2)
    status, state = call(page, "/api/region", "DELETE", {"ramp": 0})
    assert (status, state["region"]) == (200, None)
    assert stream.control.values() == (1.0, 0.0)


def test_a_map_of_a_number_per_token_is_taken(served):
    page, stream = served
    shift = np.linspace(-1, 1, 13 * 17).reshape(13, 17)
    assert call(page, "/api/control", "POST", {"shift": shift.tolist(), "ramp": 0})[0] == 200
    np.testing.assert_array_equal(stream.control.values()[1], shift.astype(np.float32))


@pytest.mark.parametrize(
    ("method", "path", "body", "told"),
    [
        ("POST", "/api/control", {}, "nothing to change"),
        ("POST", "/api/control", {"shift": "left"}, "shift"),
        ("POST", "/api/control", {"shift": True}, "shift is True"),
        ("POST", "/api/control", {"shift": 99}, "shift holds 99: expected -16 to 16"),
        ("POST", "/api/control", {"scale": [[1, 2], [3]]}, "scale"),
        ("POST", "/api/control", {"scale": [1, 2, 3]}, "scale has shape [3]"),
        ("POST", "/api/control", {"shift": 0.1, "ramp": -1}, "ramp is -1"),
        ("POST", "/api/control", {"shift": 0.1, "ramp": "slow"}, "ramp is 'slow'"),
        ("POST", "/api/control", {"beta": 0.1}, "'beta' is not known here: expected scale, shift, ramp"),
        ("POST", "/api/control", [1], "no JSON object"),
        ("PUT", "/api/region", {"shift": 0.1}, "either a rectangle or a mask"),
        ("PUT", "/api/region", {"rectangle": [1, 2, 3]}, "rectangle"),
        ("PUT", "/api/region", {"rectangle": 5}, "rectangle is 5"),
        ("PUT", "/api/region", {"rectangle": [900, 0, 5, 5]}, "within 130x100"),
        ("PUT", "/api/region", {"mask": [[1, 0], [0, 1]]}, "region mask has shape [2, 2]"),
        ("PUT", "/api/region", {"mask": [[1], [0, 1]]}, "region mask"),
        ("DELETE", "/api/region", {"shift": 1}, "'shift' is not known here"),
        ("POST", "/api/reset", {"ramp": None, "all": 1}, "'all' is not known here"),
    ],
)
def test_wrong_requests_are_told_in_one_line_and_change_nothing(served, method, path, body, told):
    page, stream = served
    before = stream.control.state()["changes"]
    status, answer = call(page, path, method, body)
    assert status == 400
    assert told in answer["error"]
    assert "\n" not in answer["error"]
    assert stream.control.state()["changes"] == before


def test_bodies_that_are_no_json_are_told(page):
    assert call(page, "/api/control", "POST", raw=b"{shift: 1}")[1]["error"].startswith(
        "the body is no JSON:"
    )
    assert "NaN" in call(page, "/api/control", "POST", raw=b'{"shift": NaN}')[1]["error"]
    assert call(page, "/api/control", "POST", raw=b"\xff\xfe")[0] == 400
    form = {"Content-Type": "application/x-www-form-urlencoded"}
    status, answer = call(page, "/api/control", "POST", raw=b"shift=1", headers=form)
    assert status == 400
    assert "expected application/json" in answer["error"]
    status, answer = call(page, "/api/control", "POST", raw=b" " * (5 << 20) + b"{}")
    assert status == 413


def test_places_and_methods_that_are_not_there_are_told(page):
    assert call(page, "/api/none")[0] == 404
    status, headers, _ = request(page, "/api/control")
    assert (status, headers["Allow"]) == (405, "POST")
    assert request(page, "/../page.py")[0] == 404


# Who may


def test_with_a_token_nothing_is_had_without_it(bundle):
    with running_page(bundle, token=TOKEN) as (page, stream):
        for method, path in (
            ("GET", "/"), ("GET", "/live"), ("GET", "/metrics"), ("GET", "/api/state"), ("GET", "/api/figures"),
            ("GET", "/api/frame.jpg"), ("POST", "/api/control"), ("PUT", "/api/region"), ("DELETE", "/api/region"),
            ("POST", "/api/reset"),
        ):  # fmt: skip
            status, headers, body = request(page, path, method)
            assert status == 401, path
            assert headers["WWW-Authenticate"] == "Bearer"
            assert b"token is needed" in body
            wrong = {"Authorization": "Bearer " + TOKEN[:-1]}
            assert request(page, path, method, headers=wrong)[0] == 401, path
        right = {"Authorization": f"Bearer {TOKEN}"}
        assert request(page, "/metrics", headers=right)[0] == 200
        assert call(page, "/api/control", "POST", {"shift": 0.2}, headers=right)[0] == 200
        assert stream.control.state()["shift"] == 0.2


def test_the_token_of_the_url_becomes_a_cookie_and_leaves_the_address(bundle):
    with running_page(bundle, token=TOKEN) as (page, _):
        status, headers, _ = request(page, f"/?token={TOKEN}")
        assert (status, headers["Location"]) == (303, "/")
        cookie = headers["Set-Cookie"]
        assert "HttpOnly" in cookie
        assert "SameSite=Strict" in cookie
        assert cookie.startswith(f"tcmoa-token-{page.port}=")
        assert request(page, "/", headers={"Cookie": cookie.partition(";")[0]})[0] == 200
        assert request(page, "/?token=wrong-one")[0] == 401


def test_other_sites_in_the_same_browser_get_nothing(served):
    page, stream = served
    theirs = {"Origin": "http://evil.example"}
    ours = {"Origin": f"http://127.0.0.1:{page.port}"}
    status, answer = call(page, "/api/control", "POST", {"shift": 0.3}, headers=theirs)
    assert status == 403
    assert "other sites may not steer" in answer["error"]
    upgrade = {"Upgrade": "websocket", "Connection": "Upgrade", **theirs}
    assert request(page, "/live", headers=upgrade)[0] == 403
    assert call(page, "/api/control", "POST", {"shift": 0.3}, headers={"Host": "evil.example"})[0] == 403
    assert stream.control.state()["changes"] == 0
    assert call(page, "/api/control", "POST", {"shift": 0.3}, headers=ours)[0] == 200


def test_the_page_answers_under_the_names_of_loopback(page):
    for host in (f"localhost:{page.port}", f"127.0.0.1:{page.port}", f"[::1]:{page.port}"):
        assert request(page, "/", headers={"Host": host})[0] == 200


# The stream goes on


def test_files_that_fuse_without_prompts_are_shown_too(plain_bundle):
    x, y = (ScriptedSource([i * 40 for i in range(5)]) for _ in range(2))
    page = page_sink.Page("127.0.0.1:0")
    seen = []

    def look(frame):
        if frame.index == 4:
            while (answer := request(page, "/api/frame.jpg"))[0] != 200:
                time.sleep(0.01)
            seen.append((answer, call(page, "/api/state")[1]))

    Stream(copying_fuser(plain_bundle), x, y, sinks=[page], on_frame=look).run()
    ((picture, state),) = seen
    assert picture[1]["Content-Type"] == "image/jpeg"
    assert state["stream"]["prompts"] == 0
    assert state["stream"]["live"] is False
    with pytest.raises(OSError, match="refused"):
        request(page, "/")


def test_a_page_without_aiohttp_is_told(monkeypatch):
    monkeypatch.setitem(__import__("sys").modules, "aiohttp", None)
    with pytest.raises(
        ImportError, match=r"page needs the package aiohttp .*pip install 'tcmoa\[stream\]'"
    ) as told:
        page_sink.Page("127.0.0.1:0")
    assert told.value.exit_code == 3


def test_state_is_json_that_any_parser_reads(page):
    for path in ("/api/state", "/api/figures"):
        json.loads(request(page, path)[2], parse_constant=lambda name: pytest.fail(name))
