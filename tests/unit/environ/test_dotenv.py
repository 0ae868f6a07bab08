"""Files of variables: the forms, the places of what is wrong, several files."""

from __future__ import annotations

from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from towline.environ.dotenv import from_files, from_options, read_dotenv
from towline.errors import ManifestError, UsageError
from towline.manifest.places import Findings, as_lines


def read(text: str, **variables: str) -> dict[str, str | None]:
    findings = Findings()
    found = read_dotenv(text, file=".env", variables=variables, findings=findings)
    findings.raise_errors()
    return {assignment.name: assignment.value for assignment in found}


@pytest.mark.parametrize(
    ("text", "value"),
    [
        ("A=1", "1"),
        ("A = 1 ", "1"),
        ("export A=1", "1"),
        ("  export   A=1", "1"),
        ("A=", ""),
        ("A", None),
        ("A=a b c", "a b c"),
        ("A=a # comment", "a"),
        ("A=a#b", "a#b"),
        ("A=#b", ""),
        ("A='a # b' # c", "a # b"),
        ("A='$B ${B} \\n'", "$B ${B} \\n"),
        ('A="x\\ny\\t\\"\\\\\\$B"', 'x\ny\t"\\$B'),
        ('A="C:\\dir"', "C:\\dir"),
        ('A="one\ntwo"', "one\ntwo"),
        ("A='one\ntwo'", "one\ntwo"),
        ("A=it's", "it's"),
        ("A=b=c", "b=c"),
        ("\ufeffA=1\r\n", "1"),
        ("A=${B}/x", "bee/x"),
        ('A="${NOT:-d}"', "d"),
        ("A=$B", "bee"),
        ("A=5$", "5$"),
        ("A.b-c=1\nA=2", "2"),
        ("A=1\nA=2", "2"),
        ("X=1\nA=$X", "1"),
    ],
)
def test_the_forms(text: str, value: str | None) -> None:
    assert read(text, B="bee")["A"] == value


def test_what_is_given_beats_the_lines_above() -> None:
    assert read("B=file\nA=$B", B="given")["A"] == "given"


def test_each_problem_has_its_place_and_the_rest_is_read() -> None:
    findings = Findings()
    text = 'A=1\n=x\nB C\n"q"=1\nD=\'x\' y\nE=${X\nG=2\nF="open\n\n'
    found = read_dotenv(text, file=".env", variables={}, findings=findings)
    assert [assignment.name for assignment in found] == ["A", "G"]
    assert as_lines(findings.errors) == (
        ".env:2:1: this is no variable; write 'NAME=value'",
        ".env:3:1: after 'B' a '=' is missing",
        ".env:4:1: this is no variable; write 'NAME=value'",
        ".env:5:1: something follows the closing '",
        ".env:6:1: '${' is never closed; write '${NAME}', or '$$' for a dollar",
        '.env:8:1: the " is never closed',
    )


@given(st.text())
def test_any_text_is_survived(text: str) -> None:
    read_dotenv(text, file="f", variables={}, findings=Findings())


@given(st.text(alphabet="A=\"'$\\{}# \n", max_size=40))
def test_any_mix_of_signs_is_survived(text: str) -> None:
    read_dotenv(text, file="f", variables={}, findings=Findings())


def test_a_later_file_beats_an_earlier_one(tmp_path: Path) -> None:
    (tmp_path / "a").write_text("A=1\nB=1\nHOST\nGONE\n")
    (tmp_path / "b").write_bytes(b"B=2\nC=$A\nL=caf\xe9\n")
    got = from_files([tmp_path / "a", tmp_path / "b"], environ={"HOST": "laptop"})
    assert got == {"A": "1", "B": "2", "HOST": "laptop", "C": "1", "L": "caf\udce9"}


def test_a_file_that_is_not_there_is_named(tmp_path: Path) -> None:
    with pytest.raises(ManifestError, match=r"gone:1:1: cannot be read: No such file"):
        from_files([tmp_path / "gone"], environ={})


def test_options() -> None:
    got = from_options(["A=1", "B", "C", "D=x=y", "E="], environ={"B": "laptop"})
    assert got == {"A": "1", "B": "laptop", "D": "x=y", "E": ""}
    with pytest.raises(UsageError, match="names no variable"):
        from_options(["=x"], environ={})
