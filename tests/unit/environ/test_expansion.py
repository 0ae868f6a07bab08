"""`$(NAME)`: the rules one by one; the kubelet itself is asked in tests/e2e."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from towline.environ.expansion import references_in

from .pods import pod, resolved, values

KNOWN = [{"name": "A", "value": "1"}, {"name": "EMPTY", "value": ""}, {"name": "B C", "value": "2"}]


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("$(A)", "1"),
        ("x$(A)y$(A)", "x1y1"),
        ("$(EMPTY)|", "|"),
        ("$(B C)", "2"),
        ("$(NOT)", "$(NOT)"),
        ("$()", "$()"),
        ("$$(A)", "$(A)"),
        ("$$$(A)", "$1"),
        ("$$$$(A)", "$$(A)"),
        ("$$A", "$A"),
        ("$A", "$A"),
        ("${A}", "${A}"),
        ("$", "$"),
        ("$$", "$"),
        ("$(A", "$(A"),
        ("$(A$(A)", "$(A$(A)"),
        ("$((A))", "$((A))"),
        ("$(A))", "1)"),
        ("(A)", "(A)"),
        ("$é$(A)", "$é1"),
        ("$\n$(A)", "$\n1"),
    ],
)
def test_the_forms(text: str, expected: str) -> None:
    found = values(resolved(pod(env=[*KNOWN, {"name": "X", "value": text}])))
    assert found["X"] == expected.encode()


def test_only_what_is_defined_before_counts() -> None:
    env = [
        {"name": "X", "value": "$(LATER) $(X)"},
        {"name": "LATER", "value": "2"},
        {"name": "X", "value": "$(X)!"},
    ]
    assert values(resolved(pod(env=env)))["X"] == b"$(LATER) $(X)!"


@given(st.binary(max_size=40))
def test_without_dollars_it_is_itself(text: bytes) -> None:
    text = text.replace(b"$", b"")
    assert references_in(text) == [(text, None)]


@given(st.text(alphabet="$()A", max_size=12))
def test_doubled_dollars_undo_any_expansion(text: str) -> None:
    assert references_in(text.replace("$", "$$").encode()) == [(text.encode(), None)]
