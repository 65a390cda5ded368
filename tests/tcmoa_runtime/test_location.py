"""Where a source or an output is, and how it is shown without its secrets."""

from pathlib import Path

import pytest

from tcmoa_runtime.location import (
    connection_remedy,
    path_of,
    printable,
    redact,
    redact_text,
    scheme_of,
)

SHOWN = {
    "rtsp://user:pass@host:554/live": "rtsp://***@host:554/live",
    "rtsp://user:pa/ss@host/live": "rtsp://***@host/live",
    "rtsp://user:p?a#s@host/live": "rtsp://***@host/live",
    "rtsp://user:p@ss@host/live": "rtsp://***@host/live",
    "rtsp://token@host/live": "rtsp://***@host/live",
    "rtsp://host:554/live": "rtsp://host:554/live",
    "rtsp://host/cam@2x": "rtsp://host/cam@2x",
    "rtsp://[::1]:8554/live": "rtsp://[::1]:8554/live",
    "rtsp://u:p@host/cam?channel=1&subtype=0": "rtsp://***@host/cam?channel=1&subtype=0",
    "srt://host:9000?passphrase=0123456789&mode=caller": "srt://host:9000?passphrase=***&mode=caller",
    "srt://host:9000?streamid=#!::u=me,p=secret": "srt://host:9000?streamid=***",
    "srt://host:9000?mode=caller;passphrase=secret": "srt://host:9000?mode=***",
    "http://host/x.m3u8?password=a&kennwort=b&t=1": "http://host/x.m3u8?password=***&kennwort=***&t=***",
    "http://host/x?secret": "http://host/x?***",
    "rtsp://host/user=admin&password=tl&channel=1.sdp": "rtsp://host/user=***&password=***&channel=1.sdp",
    "rtmp://host/live2/abcd-efgh": "rtmp://host/live2/***",
    "rtmp://host/live2": "rtmp://host/live2",
    "RTSP://user:pass@host": "RTSP://***@host",
    "visible.mp4": "visible.mp4",
    "user:pass@host.mp4": "user:pass@host.mp4",
    "a\x1b[31mb\r.mp4": r"a\x1b[31mb\r.mp4",
    "rtsp://host/a\x1b]0;title\x07": r"rtsp://host/a\x1b]0;title\x07",
}


@pytest.mark.parametrize("location", SHOWN, ids=ascii)
def test_secrets_and_control_characters_are_not_shown(location):
    assert redact(location) == SHOWN[location]


def test_a_password_that_must_be_escaped_is_said():
    remedy = "Escape characters of user and password: / as %2F, ? as %3F, # as %23, @ as %40."
    assert connection_remedy("rtsp://user:pa/ss@host/live") == remedy
    for url in ("rtsp://user:pa%2Fss@host/live", "rtsp://host:554/live", "rtsp://host/cam@2x"):
        assert connection_remedy(url) is None


def test_urls_within_a_text_are_shown_without_secrets():
    text = "unexpected argument (rtsp://u:p@h/x) beside http://h/y?key=1 and visible.mp4"
    assert (
        redact_text(text) == "unexpected argument (rtsp://***@h/x) beside http://h/y?key=*** and visible.mp4"
    )


@pytest.mark.parametrize("url", ["rtmp://h/live/***", "http://h/y?key=***", "rtsp://***@h/x"])
def test_what_follows_a_url_that_is_shown_already_stays(url):
    assert redact_text(f"{url}: failed; see {url}, {url}.") == f"{url}: failed; see {url}, {url}."


def test_plain_text_of_any_script_is_printable():
    assert printable("gr\u00fcn \u6e29\u5ea6.mp4") == "gr\u00fcn \u6e29\u5ea6.mp4"


def test_what_exists_is_a_file(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    Path("http:/host").mkdir(parents=True)
    Path("http:/host/v.mp4").write_text("")
    assert scheme_of("http://host/v.mp4") == ""
    assert scheme_of("http://host/w.mp4") == "http"
    assert scheme_of("10:30.mp4") == scheme_of("a b://c") == ""


def test_escaped_characters_of_a_file_url(tmp_path):
    assert path_of("file:///a/my%20drone.mp4") == Path("/a/my drone.mp4")
    literal = tmp_path / "my%20drone.mp4"
    literal.write_text("")
    assert path_of(f"file://{literal}") == path_of(f"file://localhost{literal}") == literal
    assert path_of("my%20drone.mp4") == Path("my%20drone.mp4")
