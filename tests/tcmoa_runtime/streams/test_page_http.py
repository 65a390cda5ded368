"""The HTTP API of the page: routes, control, errors and access."""

import asyncio
import json
import re

import cv2
import numpy as np
import pytest

from page_pieces import call, request, running_page, wait_for_frames
from stream_pieces import ListSink, LiveSource, ScriptedSource, copying_fuser, wait_until
from tcmoa_runtime import Fuser, Stream
from tcmoa_runtime.install import install_command
from tcmoa_runtime.streams.page import sink as page_sink
from tcmoa_runtime.streams.page.routes import API

pytest.importorskip("aiohttp", reason="aiohttp is not installed; `pip install 'tcmoa[stream]'` runs this")
TOKEN = "secret-of-this-test"


@pytest.fixture
def served(bundle):
    with running_page(bundle) as both:
        yield both


@pytest.fixture
def page(served):
    return served[0]


def test_the_page_answers_in_a_program_that_has_installed_uvloop(bundle):
    uvloop = pytest.importorskip(
        "uvloop", reason="uvloop is not installed; `pip install 'tcmoa[ray]'` runs this"
    )
    asyncio.set_event_loop_policy(uvloop.EventLoopPolicy())  # as Ray does in its workers, where fleets run
    try:
        with running_page(bundle) as (page, _):
            assert request(page, "/")[0] == 200
            assert call(page, "/api/state")[0] == 200
    finally:
        asyncio.set_event_loop_policy(None)


# Reading


def test_the_page_is_one_document_that_loads_nothing_else(page):
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


def test_state_holds_the_prompt_and_the_stream(page, bundle):
    status, state = call(page, "/api/state")
    assert status == 200
    assert (state["scale"], state["shift"], state["region"]) == (1.0, 0.0, None)
    assert state["grid"] == [13, 17]
    stream = state["stream"]
    assert (stream["x"], stream["y"], stream["width"], stream["height"]) == ("camera-x", "camera-y", 130, 100)
    assert stream["prompt_count"] == bundle.contract.prompts
    assert stream["roles"] == {"x": "visible", "y": "infrared"}


def test_statistics_and_prometheus_agree(served):
    page, stream = served
    wait_for_frames(page, stream, 5)
    before = call(page, "/api/stats")[1]["frames"]
    _, headers, text = request(page, "/metrics")
    assert headers["Content-Type"] == "text/plain; version=0.0.4; charset=utf-8"
    (counted,) = re.findall(rb"^tcmoa_frames_total (\d+)$", text, re.MULTILINE)
    assert 5 <= before <= int(counted) <= call(page, "/api/stats")[1]["frames"]


@pytest.mark.parametrize("view", ["fused", "x", "y"])
def test_the_newest_frame_is_a_jpeg(page, view):
    status, headers, body = request(page, f"/api/frame.jpg?view={view}")
    assert (status, headers["Content-Type"]) == (200, "image/jpeg")
    image = cv2.imdecode(np.frombuffer(body, np.uint8), cv2.IMREAD_COLOR)
    assert image.shape == (100, 130, 3)
    # `numbered` sets blue to 77 everywhere.
    assert abs(int(np.median(image[..., 0])) - 77) <= 3


@pytest.mark.parametrize("view", ["fused", "x", "y"])
def test_a_snapshot_is_a_png_of_the_frame_without_loss(bundle, view):
    image = np.random.default_rng(2).integers(0, 255, (100, 130, 3), np.uint8)
    sources = {side: LiveSource(50, images=lambda _: image) for side in "xy"}
    with running_page(bundle, **sources) as (page, _):
        status, headers, body = request(page, f"/api/snapshot.png?view={view}")
    assert (status, headers["Content-Type"]) == (200, "image/png")
    assert re.fullmatch(
        rf'attachment; filename="{view}-\d{{8}}-\d{{6}}-\d{{3}}\.png"', headers["Content-Disposition"]
    )
    # OpenCV decodes to BGR; the micro bundle is of RGB.
    np.testing.assert_array_equal(
        cv2.imdecode(np.frombuffer(body, np.uint8), cv2.IMREAD_COLOR)[..., ::-1], image
    )


def test_a_smaller_image_can_be_requested(page):
    _, _, body = request(page, "/api/frame.jpg?width=60")
    assert cv2.imdecode(np.frombuffer(body, np.uint8), cv2.IMREAD_COLOR).shape == (49, 64, 3)


@pytest.mark.parametrize(
    ("query", "message"),
    [
        ("view=z", "view: 'z'; expected one of fused, x, y"),
        ("width=0", "width: '0'"),
        ("width=wide", "width: 'wide'"),
        ("width=" + "9" * 5000, "width: '9999"),
    ],
)
def test_a_wrong_query_is_refused(page, query, message):
    status, answer = call(page, f"/api/frame.jpg?{query}")
    assert status == 400
    assert message in answer["error"]


# Control


def test_a_change_is_visible_within_two_frames(bundle, vif):
    """The real model: the first or second frame whose fusing began after the answer shows the change."""
    sink = ListSink()
    image = np.random.default_rng(5).integers(0, 255, (100, 130, 3), np.uint8)
    other = image[::-1].copy()
    with (
        Fuser.load(vif) as fuser,
        running_page(
            bundle,
            fuser=fuser,
            rate=10,
            x=LiveSource(10, images=lambda _: image),
            y=LiveSource(10, images=lambda _: other),
            sinks=[sink],
        ) as (page, stream),
    ):
        wait_for_frames(page, stream, 3)
        plain = fuser(image, other)
        assert all((frame.image == plain).all() for frame in sink.frames)
        status, state = call(page, "/api/control", "POST", {"shift": 0.4, "scale": 1.5, "ramp": 0})
        seen = len(sink.frames)
        assert (status, state["shift"], state["scale"]) == (200, 0.4, 1.5)
        wait_for_frames(page, stream, seen + 5)
        expected = fuser(image, other, scale=1.5, shift=0.4)
        call(page, "/api/reset", "POST", {"ramp": 0})
        back = len(sink.frames)
        wait_for_frames(page, stream, back + 5)
    assert (expected != plain).any()
    # One was being fused when the answer came, perhaps another in the queue to the sink.
    assert any((frame.image == expected).all() for frame in sink.frames[seen : seen + 3])
    assert (sink.frames[seen + 2].image == expected).all()
    assert (sink.frames[back + 2].image == plain).all()


def test_a_rectangle_and_a_mask_are_set_and_cleared(served):
    page, stream = served
    status, state = call(page, "/api/region", "PUT", {"rectangle": [8, 16, 24, 32], "shift": 0.5, "ramp": 0})
    assert status == 200
    assert state["region"] == {"scale": 1.0, "shift": 0.5, "rectangle": [8, 16, 24, 32]}
    expected = np.zeros((13, 17), np.float32)
    expected[2:6, 1:4] = 0.5
    np.testing.assert_array_equal(stream.control.values()[1], expected)
    mask = (expected > 0).astype(int).tolist()
    status, state = call(page, "/api/region", "PUT", {"mask": mask, "shift": 0.25, "ramp": 0})
    assert state["region"] == {"scale": 1.0, "shift": 0.25, "token_count": 12.0}
    np.testing.assert_array_equal(stream.control.values()[1], expected / 2)
    status, state = call(page, "/api/region", "DELETE", {"ramp": 0})
    assert (status, state["region"]) == (200, None)
    assert stream.control.values() == (1.0, 0.0)


def test_a_map_with_a_number_for_each_token_is_accepted(served):
    page, stream = served
    shift = np.linspace(-1, 1, 13 * 17).reshape(13, 17)
    assert call(page, "/api/control", "POST", {"shift": shift.tolist(), "ramp": 0})[0] == 200
    np.testing.assert_array_equal(stream.control.values()[1], shift.astype(np.float32))


@pytest.mark.parametrize(
    ("method", "path", "body", "message"),
    [
        ("POST", "/api/control", {}, "body: neither scale nor shift"),
        ("POST", "/api/control", {"shift": "left"}, "shift"),
        ("POST", "/api/control", {"shift": True}, "shift: True; expected a number"),
        ("POST", "/api/control", {"shift": 99}, "shift: holds 99; expected -16 to 16"),
        ("POST", "/api/control", {"scale": [[1, 2], [3]]}, "scale"),
        ("POST", "/api/control", {"scale": [1, 2, 3]}, "scale: shape [3]"),
        ("POST", "/api/control", {"shift": 0.1, "ramp": -1}, "ramp: -1"),
        ("POST", "/api/control", {"shift": 0.1, "ramp": "slow"}, "ramp: 'slow'"),
        ("POST", "/api/control", {"beta": 0.1}, "body: unknown key 'beta'; expected scale, shift, ramp"),
        ("POST", "/api/control", [1], "not a JSON object"),
        ("PUT", "/api/region", {"shift": 0.1}, "region: neither a rectangle nor a mask"),
        ("PUT", "/api/region", {"rectangle": [1, 2, 3]}, "rectangle"),
        ("PUT", "/api/region", {"rectangle": 5}, "region rectangle: 5"),
        ("PUT", "/api/region", {"rectangle": [900, 0, 5, 5]}, "within 130x100"),
        ("PUT", "/api/region", {"mask": [[1, 0], [0, 1]]}, "region mask: shape [2, 2]"),
        ("PUT", "/api/region", {"mask": [[1], [0, 1]]}, "region mask"),
        ("DELETE", "/api/region", {"shift": 1}, "unknown key 'shift'"),
        ("POST", "/api/reset", {"ramp": None, "all": 1}, "unknown key 'all'"),
    ],
)
def test_a_wrong_request_gets_one_line_and_changes_nothing(served, method, path, body, message):
    page, stream = served
    before = stream.control.state()["change_count"]
    status, answer = call(page, path, method, body)
    assert status == 400
    assert message in answer["error"]
    assert "\n" not in answer["error"]
    assert stream.control.state()["change_count"] == before


def test_a_body_that_is_not_json_is_refused(page):
    assert call(page, "/api/control", "POST", raw=b"{shift: 1}")[1]["error"].startswith(
        "body: not valid JSON:"
    )
    assert "NaN" in call(page, "/api/control", "POST", raw=b'{"shift": NaN}')[1]["error"]
    assert call(page, "/api/control", "POST", raw=b"\xff\xfe")[0] == 400
    form = {"Content-Type": "application/x-www-form-urlencoded"}
    status, answer = call(page, "/api/control", "POST", raw=b"shift=1", headers=form)
    assert status == 400
    assert "expected application/json" in answer["error"]
    status, answer = call(page, "/api/control", "POST", raw=b" " * (5 << 20) + b"{}")
    assert status == 413


def test_unknown_paths_and_methods_are_refused(page):
    assert call(page, "/api/none")[0] == 404
    status, headers, _ = request(page, "/api/control")
    assert (status, headers["Allow"]) == (405, "POST")
    assert request(page, "/../page.py")[0] == 404


# Access


def test_every_route_requires_the_token(bundle):
    with running_page(bundle, token=TOKEN) as (page, stream):
        for route in API.routes:
            method, path = route.method, route.path
            status, headers, body = request(page, path, method)
            assert status == 401, path
            assert headers["WWW-Authenticate"] == "Bearer"
            assert b"token is required" in body
            wrong = {"Authorization": "Bearer " + TOKEN[:-1]}
            assert request(page, path, method, headers=wrong)[0] == 401, path
        right = {"Authorization": f"Bearer {TOKEN}"}
        assert request(page, "/metrics", headers=right)[0] == 200
        assert call(page, "/api/control", "POST", {"shift": 0.2}, headers=right)[0] == 200
        assert stream.control.state()["shift"] == 0.2


def test_the_token_of_the_url_is_moved_into_a_cookie(bundle):
    with running_page(bundle, token=TOKEN) as (page, _):
        status, headers, _ = request(page, f"/?token={TOKEN}")
        assert (status, headers["Location"]) == (303, "/")
        cookie = headers["Set-Cookie"]
        assert "HttpOnly" in cookie
        assert "SameSite=Strict" in cookie
        assert cookie.startswith(f"tcmoa-token-{page.port}=")
        assert request(page, "/", headers={"Cookie": cookie.partition(";")[0]})[0] == 200
        assert request(page, "/?token=wrong-one")[0] == 401


def test_other_sites_in_the_same_browser_are_refused(served):
    page, stream = served
    foreign = {"Origin": "http://evil.example"}
    own = {"Origin": f"http://127.0.0.1:{page.port}"}
    status, answer = call(page, "/api/control", "POST", {"shift": 0.3}, headers=foreign)
    assert status == 403
    assert "other sites may not control" in answer["error"]
    upgrade = {"Upgrade": "websocket", "Connection": "Upgrade", **foreign}
    assert request(page, "/live", headers=upgrade)[0] == 403
    assert call(page, "/api/control", "POST", {"shift": 0.3}, headers={"Host": "evil.example"})[0] == 403
    assert stream.control.state()["change_count"] == 0
    assert call(page, "/api/control", "POST", {"shift": 0.3}, headers=own)[0] == 200


def test_the_page_accepts_the_names_of_loopback(page):
    for host in (f"localhost:{page.port}", f"127.0.0.1:{page.port}", f"[::1]:{page.port}"):
        assert request(page, "/", headers={"Host": host})[0] == 200


# Streams


def test_streams_of_files_without_prompts_are_shown(plain_bundle):
    x, y = (ScriptedSource([i * 40 for i in range(5)]) for _ in range(2))
    page = page_sink.Page("127.0.0.1:0")
    results = []

    def request_frame(frame):
        if frame.index == 4:
            wait_until(lambda: request(page, "/api/frame.jpg")[0] == 200)
            results.append((request(page, "/api/frame.jpg"), call(page, "/api/state")[1]))

    Stream(copying_fuser(plain_bundle), x, y, sinks=[page], on_frame=request_frame).run()
    ((image, state),) = results
    assert image[1]["Content-Type"] == "image/jpeg"
    assert state["stream"]["prompt_count"] == 0
    assert state["stream"]["live"] is False
    with pytest.raises(OSError, match="refused"):
        request(page, "/")


def test_without_aiohttp_the_message_says_what_to_install(monkeypatch):
    monkeypatch.setitem(__import__("sys").modules, "aiohttp", None)
    with pytest.raises(
        ImportError,
        match=rf"page: the package aiohttp is not installed .*{re.escape(install_command('stream'))}",
    ) as caught:
        page_sink.Page("127.0.0.1:0")
    assert caught.value.exit_code == 3


def test_responses_are_strict_json(page):
    for path in ("/api/state", "/api/stats"):
        json.loads(request(page, path)[2], parse_constant=lambda name: pytest.fail(name))
