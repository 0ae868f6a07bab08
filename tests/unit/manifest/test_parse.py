"""YAML text → nodes: source text, places, aliases, and no text that breaks it."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from towline.manifest.parse import MAX_DEPTH, ListNode, MapNode, Node, ScalarNode, parse
from towline.manifest.places import Dialect, Findings, Place, Source, as_lines

SOURCE = Source(name="m.yml", folder=Path("/app"), dialect=Dialect.TOWLINE)


def plain(node: Node | None) -> Any:
    if isinstance(node, MapNode):
        return {key.text: plain(value) for key, value in node.entries}
    if isinstance(node, ListNode):
        return [plain(item) for item in node.items]
    return node.text if node is not None else None


def read(text: str) -> Any:
    findings = Findings()
    node = parse(text, source=SOURCE, findings=findings)
    assert not findings.errors, as_lines(findings.errors)
    return plain(node)


def errors(text: str) -> tuple[str, ...]:
    findings = Findings()
    parse(text, source=SOURCE, findings=findings)
    return as_lines(findings.errors)


@pytest.mark.parametrize(
    "text",
    ["8080:22", "1.10", "010", "0x1F", "yes", "On", "2020-01-01", "1_000", ".5", "1e3", "12:30:45",
     "+1", "true", "=", "0o17", "-", "a: b".replace(": ", ":")],
)  # fmt: skip
def test_a_scalar_keeps_its_source_text(text: str) -> None:
    assert read(f"a: {text}x") == {"a": text + "x"} or text == "-"
    if text != "-":
        assert read(f"a: {text}") == {"a": text}


@pytest.mark.parametrize("text", ["", "~", "null", "Null", "NULL", "''", '""', "# comment"])
def test_nothing_is_the_empty_string(text: str) -> None:
    assert read(f"a: {text}") == {"a": ""}


def test_a_quoted_null_is_a_word() -> None:
    assert read("a: 'null'\nb: \"~\"\nc: !!str null") == {"a": "null", "b": "~", "c": "null"}


def test_anchors_aliases_and_merge_keys() -> None:
    text = """
base: &base {a: 1, b: [x]}
more: &more
  b: 2
  c: 3
one: {<<: *base, a: own}
two: {c: own, <<: [*base, *more]}
three: *base
"""
    assert read(text) == {
        "base": {"a": "1", "b": ["x"]},
        "more": {"b": "2", "c": "3"},
        "one": {"a": "own", "b": ["x"]},
        "two": {"c": "own", "a": "1", "b": ["x"]},
        "three": {"a": "1", "b": ["x"]},
    }


def test_an_anchor_may_be_given_anew() -> None:
    assert read("a: &x 1\nb: *x\nc: &x 2\nd: *x") == {"a": "1", "b": "1", "c": "2", "d": "2"}


def test_places_count_characters_from_one() -> None:
    node = parse("ä: é\nlist:\n- {key:   value}\n", source=SOURCE, findings=Findings())
    assert isinstance(node, MapNode)
    assert node.entries[0][1].place == Place("m.yml", 1, 4)
    items = node.entries[1][1]
    assert isinstance(items, ListNode) and isinstance(items.items[0], MapNode)
    key, value = items.items[0].entries[0]
    assert (key.place, value.place) == (Place("m.yml", 3, 4), Place("m.yml", 3, 11))


def test_what_an_alias_stands_for_keeps_its_own_place() -> None:
    node = parse("a: &x\n  b: 1\nc: *x\n", source=SOURCE, findings=Findings())
    assert isinstance(node, MapNode)
    value = node.get("c")
    assert isinstance(value, MapNode) and value.entries[0][1].place == Place("m.yml", 2, 6)


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("a: 1\nb: 2\na: 3", "m.yml:3:1: the key 'a' is here twice"),
        ("a: {b: 1, b: 2}", "m.yml:1:11: the key 'b' is here twice"),
        ("x: &x {}\na: {<<: *x, <<: *x}", "m.yml:2:13: the key '<<' is here twice"),
        ("a: *gone", "m.yml:1:4: '*gone' names no anchor; write '&gone' above"),
        ("a: &a [*a]", "m.yml:1:8: '*a' stands inside what it names"),
        ("a: {<<: 3}", "m.yml:1:9: '<<' takes a map, or a list of maps"),
        ("{a: 1}: 2", "m.yml:1:1: a key must be a text, not a list or a map"),
        ("a: !env HOME", "m.yml:1:4: the tag '!env' means nothing here"),
        ("a: !!binary aGk=", "m.yml:1:4: the tag 'tag:yaml.org,2002:binary' means nothing here"),
        ("a: 1\n---\nb: 2", "m.yml:2:1: a second YAML document starts here; a manifest is one "
                            "document"),
        ("a: [1", "m.yml:1:6: this is not YAML: did not find expected ',' or ']' (while parsing a "
                  "flow sequence)"),
        ("a:\n\t- b", "m.yml:2:1: this is not YAML: found character that cannot start any token "
                      "(while scanning for the next token)"),
        ("a: b: c", "m.yml:1:5: this is not YAML: mapping values are not allowed in this context"),
        ("ä\na: \x01", "m.yml:2:4: this is not YAML: the character U+0001 may not stand here"),
    ],
)  # fmt: skip
def test_what_is_wrong_has_its_place(text: str, message: str) -> None:
    assert errors(text)[0] == message


def test_all_duplicate_keys_are_told_at_once() -> None:
    assert len(errors("a: {x: 1, x: 2}\nb: {y: 1, y: 2}\na: 3")) == 3


def test_deep_nesting_is_an_error_and_not_the_end_of_the_process() -> None:
    assert "nested more than" in errors("[" * 500 + "]" * 500)[0]
    # libyaml has a limit of its own since 0.2.6 (PyYAML 6.0.4), and looks ahead.
    assert "nest" in errors("[" * 100_000)[0]
    assert read("[" * MAX_DEPTH + "]" * MAX_DEPTH) is not None


def test_aliases_that_double_at_each_line_are_an_error() -> None:
    lines = ["a0: &a0 [x, x]"] + [f"a{i}: &a{i} [*a{i - 1}, *a{i - 1}]" for i in range(1, 60)]
    assert "more than 100000 values" in errors("\n".join(lines))[0]


def test_half_a_character_is_an_error() -> None:
    assert errors("a: 1\nb: \ud800") == ("m.yml:2:4: this character is not Unicode text",)


def test_an_empty_file_is_an_empty_map() -> None:
    assert read("") == {} and read("# nothing\n") == {}


@given(st.text(st.characters()))
def test_any_text_is_survived(text: str) -> None:
    parse(text, source=SOURCE, findings=Findings())


@given(st.text(alphabet="abc:-[]{}&*<!|>'\"#,? \n\t", max_size=60))
def test_any_mix_of_yaml_signs_is_survived(text: str) -> None:
    findings = Findings()
    node = parse(text, source=SOURCE, findings=findings)
    assert node is not None or findings.errors


def test_a_scalar_node_says_whether_it_was_quoted() -> None:
    node = parse("[a, 'a']", source=SOURCE, findings=Findings())
    assert isinstance(node, ListNode)
    assert [n.plain for n in node.items if isinstance(n, ScalarNode)] == [True, False]
