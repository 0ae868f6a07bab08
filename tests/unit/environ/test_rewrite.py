"""Values that lead to the cluster, changed to lead there from here."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from towline.environ.rewrite import End, rewritten_names, rewritten_paths

VECTORS = json.loads(
    (Path(__file__).parents[2] / "vectors/environ_rewrite.json").read_text(encoding="utf-8")
)


def ends(*, is_found: bool) -> tuple[End, ...]:
    return tuple(
        End(
            spellings=frozenset(each["spellings"]),
            address=each["address"],
            ports={int(port): local for port, local in each["ports"].items()},
            is_found=is_found,
        )
        for each in VECTORS["ends"]
    )


@pytest.mark.parametrize("case", VECTORS["cases"], ids=lambda case: case["title"])
@pytest.mark.parametrize("is_found", [False, True], ids=["by address", "by name"])
def test_vectors(case: dict[str, Any], is_found: bool) -> None:
    values = {name.encode(): value.encode() for name, value in case["values"].items()}
    found = rewritten_names(values, ends(is_found=is_found), keep=case.get("keep", ()))
    wanted = case["by name" if is_found else "by address"]
    assert {each.name.decode(): each.now.decode() for each in found} == wanted
    assert all(each.why and each.was == values[each.name] for each in found)


@given(
    st.dictionaries(st.binary(min_size=1, max_size=12), st.binary(max_size=40), max_size=5),
    st.booleans(),
)
def test_any_bytes_survive_and_a_second_pass_changes_nothing(
    values: dict[bytes, bytes], is_found: bool
) -> None:
    found = rewritten_names(values, ends(is_found=is_found))
    assert all(each.name in values and each.now != each.was for each in found)
    again = values | {each.name: each.now for each in found}
    if not is_found:
        assert rewritten_names(again, ends(is_found=False)) == ()


@pytest.mark.parametrize(
    ("value", "wanted"),
    [
        ("/etc/app/x.yml", "/r/etc/app/x.yml"),
        ("/etc/app", "/r/etc/app"),
        ("file:///etc/app/", "file:///r/etc/app/"),
        ("optional:file:/etc/app/,classpath:/x", "optional:file:/r/etc/app/,classpath:/x"),
        ("--config=/etc/app/a:/etc/app/b", "--config=/r/etc/app/a:/r/etc/app/b"),
        ("/etc/app/secret/key", "/r/etc/app/secret/key"),
        ("/etc/apple", None),
        ("/opt/etc/app", None),
        ("../etc/app", None),
        ("http://api/etc/app", None),
        ("the folder /etc/app, please", "the folder /r/etc/app, please"),
    ],
)
def test_paths_are_led_below_the_root(value: str, wanted: str | None) -> None:
    found = rewritten_paths({b"A": value.encode()}, ["/etc/app", "/etc/app/secret"], root="/r")
    assert [each.now.decode() for each in found] == ([wanted] if wanted else [])
