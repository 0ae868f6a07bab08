"""`${VAR}` and its forms."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from towline.manifest.expand import ExpansionError, expand

VARIABLES = {"A": "a", "B": "bee", "EMPTY": "", "DOLLAR": "$A", "PORT": "8080"}


@pytest.mark.parametrize(
    ("text", "result"),
    [
        ("plain", "plain"),
        ("${A}", "a"),
        ("$A", "a"),
        ("$A-$B", "a-bee"),
        ("${A}${B}", "abee"),
        ("x${A}y", "xay"),
        ("${PORT}:80", "8080:80"),
        ("$$", "$"),
        ("$$A", "$A"),
        ("$${A}", "${A}"),
        ("$$$A", "$a"),
        ("5$", "5$"),
        ("$5", "$5"),
        ("$-", "$-"),
        ("}", "}"),
        ("${EMPTY}", ""),
        ("${EMPTY:-d}", "d"),
        ("${EMPTY-d}", ""),
        ("${NO:-d}", "d"),
        ("${NO-d}", "d"),
        ("${A:-d}", "a"),
        ("${NO:-}", ""),
        ("${A:+alt}", "alt"),
        ("${EMPTY:+alt}", ""),
        ("${EMPTY+alt}", "alt"),
        ("${NO:+alt}", ""),
        ("${A:?needed}", "a"),
        ("${EMPTY?needed}", ""),
        ("${NO:-${B}}", "bee"),
        ("${NO:-${ALSO:-${A}!}}", "a!"),
        ("${NO:-x${A}y$$z}", "xay$z"),
        ("${A:+${NO:-$B}}", "bee"),
        ("${NO:-a:b}", "a:b"),
        ("${NO:- spaced }", " spaced "),
        ("${DOLLAR}", "$A"),
        ("${NO:-http://h/$A}", "http://h/a"),
        ("${A:+}", ""),
    ],
)
def test_the_forms(text: str, result: str) -> None:
    expanded = expand(text, VARIABLES)
    assert (expanded.text, expanded.unset) == (result, ())


def test_what_is_unset_is_empty_and_told_once() -> None:
    expanded = expand("$X-${Y}-${X}", VARIABLES)
    assert (expanded.text, expanded.unset) == ("--", ("X", "Y"))


def test_what_is_not_taken_is_not_missing() -> None:
    assert expand("${A:-$X}${NO:+$X}${A:-${X:?}}", VARIABLES).unset == ()


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("${A", "'${' is never closed; write '${NAME}', or '$$' for a dollar"),
        ("${A:-b", "'${' is never closed; write '${NAME}', or '$$' for a dollar"),
        ("${NO:-${A}", "'${' is never closed; write '${NAME}', or '$$' for a dollar"),
        ("${}", "'${}' has no name; write '${NAME}'"),
        ("${1}", "'${1}' has no name; write '${NAME}'"),
        ("${ A}", "'${ A}' has no name; write '${NAME}'"),
        ("${A^^}", "'${A^^}' is no known form; there are ${NAME}, ${NAME:-default}, "
                   "${NAME:+alternative} and ${NAME:?message}"),
        ("${A:1:2}", "'${A:1:2}' is no known form; there are ${NAME}, ${NAME:-default}, "
                     "${NAME:+alternative} and ${NAME:?message}"),
        ("${NO:?set it in .env}", "'NO' is needed: set it in .env"),
        ("${EMPTY:?}", "'EMPTY' is needed: it is not set"),
        ("${NO?not ${B}}", "'NO' is needed: not bee"),
    ],
)  # fmt: skip
def test_what_cannot_be_expanded(text: str, message: str) -> None:
    with pytest.raises(ExpansionError) as caught:
        expand(text, VARIABLES)
    assert str(caught.value) == message


def test_deep_nesting_is_an_error() -> None:
    with pytest.raises(ExpansionError, match="nested more than"):
        expand("${N:-" * 5000, {})


@given(st.text())
def test_doubled_dollars_come_through_as_they_were(text: str) -> None:
    assert expand(text.replace("$", "$$"), VARIABLES).text == text


@given(st.text(alphabet="${}AB:-+?$ "))
def test_any_text_expands_or_says_why(text: str) -> None:
    try:
        expanded = expand(text, VARIABLES)
    except ExpansionError as error:
        assert str(error)
    else:
        assert "$" in text or expanded.text == text


@given(st.text(), st.text())
def test_a_value_is_never_expanded_again(value: str, default: str) -> None:
    assert expand("${V}", {"V": value}).text == value
    word = default.replace("$", "$$").replace("}", "")
    assert expand("${V:-" + word + "}", {}).text == default.replace("}", "")
