"""The short forms of a value."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import PurePosixPath
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from towline.manifest import forms
from towline.manifest.nearest import nearest


@pytest.mark.parametrize(
    ("text", "seconds"),
    [("90", 90), ("0", 0), ("1.5", 1.5), ("5m", 300), ("1h30m", 5400), ("250ms", 0.25),
     ("2d", 172_800), ("1m30.5s", 90.5), ("10s", 10)],
)  # fmt: skip
def test_times(text: str, seconds: float) -> None:
    assert forms.duration(text) == pytest.approx(seconds)


@pytest.mark.parametrize("text", ["", "m", "5 m", "-5", "5x", "1h30", "５m", "1e3", "9" * 40])
def test_what_is_no_time(text: str) -> None:
    with pytest.raises(ValueError):
        forms.duration(text)


@pytest.mark.parametrize("text", ["1", "65535", "08080"])
def test_ports(text: str) -> None:
    assert forms.port(text) == int(text)


@pytest.mark.parametrize("text", ["", "0", "65536", "-1", "8.0", "٣", "²", " 80", "9" * 5000])
def test_what_is_no_port(text: str) -> None:
    with pytest.raises(ValueError):
        forms.port(text)


@pytest.mark.parametrize(
    ("text", "value"),
    [
        ("80:8080", (80, None, 8080)),
        ("5432:db:5432", (5432, "db", 5432)),
        ("1:db.shop.svc.cluster.local:2", (1, "db.shop.svc.cluster.local", 2)),
        ("1:10.0.0.7:2", (1, "10.0.0.7", 2)),
        ("1:[fd00::7]:2", (1, "fd00::7", 2)),
        ("1:_srv._tcp.db:2", (1, "_srv._tcp.db", 2)),
    ],
)
def test_forwards(text: str, value: object) -> None:
    assert forms.forward(text) == value


@pytest.mark.parametrize("text", ["80", ":80", "1::2", "1:a b:2", "1:-a:2", "a:b", "1:2:3:4"])
def test_what_is_no_forward(text: str) -> None:
    with pytest.raises(ValueError):
        forms.forward(text)


@pytest.mark.parametrize(
    ("text", "value"),
    [
        ("a:/b", ("a", PurePosixPath("/b"), 0o644)),
        ("./a:/b:0400", ("./a", PurePosixPath("/b"), 0o400)),
        ("a:/b:600", ("a", PurePosixPath("/b"), 0o600)),
        (r"C:\key:/b", (r"C:\key", PurePosixPath("/b"), 0o644)),
        (r"C:\key:/b:400", (r"C:\key", PurePosixPath("/b"), 0o400)),
    ],
)
def test_secrets(text: str, value: object) -> None:
    assert forms.secret(text) == value


@pytest.mark.parametrize(
    ("text", "value"),
    [
        ("data:/var/lib", ("data", None, PurePosixPath("/var/lib"))),
        ("data:sub/dir:/x", ("data", "sub/dir", PurePosixPath("/x"))),
    ],
)
def test_external_volumes(text: str, value: object) -> None:
    assert forms.external_volume(text) == value


@pytest.mark.parametrize("text", ["1", "500m", "1.5", "2Gi", "1e3", ".5", "100k", "-1", "1E"])
def test_quantities(text: str) -> None:
    assert forms.quantity(text) == text


@pytest.mark.parametrize("text", ["", "lots", "1 Gi", "1GiB", "1.2.3", "Gi", "0x1"])
def test_what_is_no_quantity(text: str) -> None:
    with pytest.raises(ValueError):
        forms.quantity(text)


@pytest.mark.parametrize(
    ("text", "on"), [("true", True), ("Yes", True), ("on", True), ("FALSE", False), ("off", False)]
)
def test_booleans(text: str, on: bool) -> None:
    assert forms.boolean(text) is on


PARSERS: list[Callable[[str], Any]] = [
    forms.port, forms.forward, forms.reverse, forms.duration, forms.boolean, forms.integer,
    forms.octal_mode, forms.quantity, forms.object_name, forms.label_key, forms.label_value,
    forms.variable_name, forms.host, forms.container_path, forms.local_and_remote, forms.secret,
    forms.external_volume,
]  # fmt: skip


@pytest.mark.parametrize("parse", PARSERS, ids=lambda p: p.__name__)
@given(text=st.one_of(st.text(), st.text(alphabet="0123456789:/.-mhGi[]")))
def test_any_text_is_read_or_refused_with_a_reason(parse: Callable[[str], Any], text: str) -> None:
    try:
        parse(text)
    except ValueError as error:
        assert str(error)


@pytest.mark.parametrize(
    ("word", "meant"),
    [("revers", "reverse"), ("Reverse", "reverse"), ("forwards", "forward"), ("comand", "command"),
     ("mdoe", "mode"), ("zzz", None), ("x", None), ("", None)],
)  # fmt: skip
def test_the_nearest_word(word: str, meant: str | None) -> None:
    assert nearest(word, ["reverse", "forward", "command", "mode"], within=2) == meant
