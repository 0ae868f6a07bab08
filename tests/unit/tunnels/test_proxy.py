"""What a proxy's clients say first, however it is cut."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from towline.tunnels.forward import Target
from towline.tunnels.proxy import WAIT, Step, read_request

GREETING = b"\x05\x02\x00\x02"
BY_NAME = b"\x05\x01\x00\x03\x03api\x1f\x40"
GET = (
    b"GET http://api:8000/a?b HTTP/1.1\r\nHost: api:8000\r\nProxy-Connection: keep-alive\r\n"
    b"Proxy-Authorization: Basic x\r\nAccept: */*\r\n\r\n"
)


def request(data: bytes, *, greeted: bool = False) -> Step:
    """Read it whole; and see that no cut of it is taken for more than it is."""
    for cut in range(len(data)):
        assert read_request(data[:cut], is_greeted=greeted) is WAIT
    return read_request(data, is_greeted=greeted)


def test_socks_is_greeted_and_then_says_where_to() -> None:
    assert request(GREETING) == Step(b"\x05\x00", 4)
    asked = request(BY_NAME, greeted=True)
    assert (asked.target, asked.used) == (Target(host="api", port=8000), len(BY_NAME))
    assert asked.reply[:2] == b"\x05\x00" and len(asked.reply) == 10


@pytest.mark.parametrize(
    ("data", "host"),
    [
        (b"\x05\x01\x00\x01\x0a\x60\x00\x01\x00\x50", "10.96.0.1"),
        (b"\x05\x01\x00\x04" + bytes(15) + b"\x01\x00\x50", "0000:" * 7 + "0001"),
    ],
)
def test_socks_by_address(data: bytes, host: str) -> None:
    assert request(data, greeted=True).target == Target(host=host, port=80)


@pytest.mark.parametrize(
    ("data", "greeted", "reply"),
    [
        (b"\x05\x01\x02", False, b"\x05\xff"),
        (b"\x05\x02\x00\x01\x0a\x60\x00\x01\x00\x50", True, b"\x05\x07"),
        (b"\x05\x01\x00\x09\x0a\x60\x00", True, b"\x05\x08"),
        (b"\x05\x01\x00\x03\x00\x00\x50", True, b"\x05\x08"),
        (b"GET / HTTP/1.1\r\n\r\n", False, b"HTTP/1.1 400"),
        (b"GET https://api/ HTTP/1.1\r\n\r\n", False, b"HTTP/1.1 400"),
        (b"CONNECT api HTTP/1.1\r\n\r\n", False, b"HTTP/1.1 400"),
        (b"CONNECT api:99999 HTTP/1.1\r\n\r\n", False, b"HTTP/1.1 400"),
        (b"nonsense\r\n\r\n", False, b"HTTP/1.1 400"),
        (b"x" * 70_000, False, b"HTTP/1.1 400"),
    ],
)
def test_what_cannot_be_served_is_refused(data: bytes, greeted: bool, reply: bytes) -> None:
    step = read_request(data, is_greeted=greeted)
    assert step.is_refused and step.target is None and step.reply.startswith(reply)


def test_http_connect() -> None:
    step = request(b"CONNECT [fd00::1]:443 HTTP/1.1\r\nHost: x\r\n\r\n")
    assert step.target == Target(host="fd00::1", port=443)
    assert step.reply.startswith(b"HTTP/1.1 200 ") and step.first == b""


def test_http_is_asked_in_the_targets_own_form_and_for_one_request() -> None:
    step = request(GET)
    assert step.target == Target(host="api", port=8000)
    assert step.first == (
        b"GET /a?b HTTP/1.1\r\nHost: api:8000\r\nAccept: */*\r\nConnection: close\r\n\r\n"
    )
    assert read_request(GET + b"body", is_greeted=False).used == len(GET)


@given(st.binary(max_size=200), st.booleans())
def test_any_bytes_survive(data: bytes, greeted: bool) -> None:
    step = read_request(data, is_greeted=greeted)
    assert 0 <= step.used <= len(data)
    assert step.target is None or step.target.host
