"""The address of the page, and errors of addresses that cannot be bound."""

import re
import socket

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tcmoa_runtime import InputError
from tcmoa_runtime.streams.interfaces import SinkError
from tcmoa_runtime.streams.page.sink import Page
from tcmoa_runtime.web.address import Address, parse_page


@pytest.mark.parametrize(
    ("text", "host", "port"),
    [
        ("127.0.0.1:8080", "127.0.0.1", 8080),
        ("127.0.0.1", "127.0.0.1", 8080),
        (":9000", "127.0.0.1", 9000),
        ("9000", "127.0.0.1", 9000),
        ("0", "127.0.0.1", 0),
        ("0.0.0.0:80", "0.0.0.0", 80),
        ("localhost:1", "localhost", 1),
        ("[::1]:65535", "::1", 65535),
        ("[::1]", "::1", 8080),
        ("::1", "::1", 8080),
    ],
)
def test_an_address_is_parsed(text, host, port):
    assert Address.parse(text, subject="page") == Address(host, port)


@given(st.ip_addresses(), st.integers(0, 65535))
def test_a_printed_address_is_parsed_back(host, port):
    address = Address(str(host), port)
    assert Address.parse(str(address), subject="page") == address


@pytest.mark.parametrize(
    "text",
    [
        "",
        ":",
        "[]",
        "[]:80",
        "127.0.0.1:x",
        "h:65536",
        "h:-1",
        "[::1",
        "[::1]8080",
        "http://h/",
        "a b:1",
        "u@h",
        "h:٣",
        "h:" + "1" * 5000,
        "9" * 5000,
        "h\0:80",
    ],
)
def test_a_wrong_address_is_refused_in_one_line(text):
    with pytest.raises(InputError, match=re.escape(repr(text))) as caught:
        parse_page(text)
    assert "\n" not in str(caught.value)
    assert "127.0.0.1:8080" in str(caught.value)


@pytest.mark.parametrize("text", ["OFF", "Off", "off:0", "OFF:8080"])
def test_off_is_no_host_however_it_is_spelled(text):
    with pytest.raises(InputError) as caught:
        parse_page(text)
    assert str(caught.value) == f"page: {text!r}; expected HOST:PORT, or off"
    assert parse_page("off") is None


@pytest.mark.parametrize(
    ("host", "loopback"),
    [("127.0.0.1", True), ("127.8.9.1", True), ("localhost", True), ("::1", True), ("0.0.0.0", False),
     ("::", False), ("192.168.1.2", False), ("example.com", False)],
)  # fmt: skip
def test_loopback(host, loopback):
    assert Address(host, 1).is_loopback is loopback


def test_a_port_in_use_is_reported():
    with socket.socket() as other:
        other.bind(("127.0.0.1", 0))
        other.listen()
        port = other.getsockname()[1]
        with pytest.raises(
            SinkError, match=rf"page: cannot listen on 127.0.0.1:{port}: .*\. Choose another port"
        ):
            Page(f"127.0.0.1:{port}")


@pytest.mark.parametrize("host", ["203.0.113.7", "no-such-host.invalid"])
def test_a_host_of_another_machine_is_refused(host):
    with pytest.raises(SinkError, match=f"page: .*{re.escape(host)}"):
        Page(f"{host}:0", token="long-enough")


def test_port_0_is_a_free_port_and_the_url_has_it():
    page = Page("127.0.0.1:0")
    assert page.url == f"http://127.0.0.1:{page.port}/"
    assert page.port > 0
    page.close()
    page.close()


def test_other_addresses_than_loopback_get_a_token():
    pages = [
        Page("127.0.0.1:0"),
        Page("0.0.0.0:0"),
        Page("0.0.0.0:0"),
        Page("127.0.0.1:0", token="my-own-token"),
    ]
    for page in pages:
        page.close()
    tokens = [page.token for page in pages]
    assert tokens[0] is None
    assert tokens[3] == "my-own-token"
    assert len({tokens[1], tokens[2]}) == 2
    assert all(len(token) >= 20 for token in tokens[1:3])
    assert pages[1].url.endswith(f"?token={tokens[1]}")
    assert "0.0.0.0" not in pages[1].url


@pytest.mark.parametrize(
    "token",
    [
        "",
        "short",
        "with space",
        "ünïcödé-token",
        "new\nline-token",
        "semi;colon-token",
        "a&b#cdefgh",
        "per%20cent",
    ],
)
def test_a_wrong_token_is_refused(token):
    with pytest.raises(InputError, match="token"):
        Page("127.0.0.1:0", token=token)


def test_a_page_without_a_stream_cannot_be_opened():
    page = Page("127.0.0.1:0")
    with pytest.raises(Exception, match="page: has no stream"):
        page.open(None)
    page.close()
