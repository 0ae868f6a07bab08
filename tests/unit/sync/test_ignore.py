from __future__ import annotations

import json
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis.strategies import text

from towline.errors import ManifestError
from towline.sync.ignore import Ignore, git_rules, syncthing_rules

CASES = json.loads((Path(__file__).parents[2] / "vectors" / "sync-ignore.json").read_text())


@pytest.mark.parametrize("case", CASES, ids=[case["name"] for case in CASES])
def test_the_vectors_that_the_agent_runs_too(case: dict) -> None:
    ignore = Ignore(
        first=syncthing_rules(
            case.get("stignore", ""), included=case.get("included", {}).__getitem__
        ),
        last=git_rules(case.get("towlineignore", "")),
    )
    assert json.loads(ignore.to_wire()) == case["rules"], "run tests/vectors/sync_ignore.py"
    for path, ignored in case["paths"]:
        is_folder = path.endswith("/")
        answer = ignore.hides(path.rstrip("/").encode(), is_folder=is_folder)
        assert answer is ignored, path


def test_a_name_that_is_not_utf_8_is_matched_by_its_bytes() -> None:
    ignore = Ignore(first=syncthing_rules("*.tmp\nna?ve\n"))
    assert ignore.hides(b"\xff\xfe.tmp", is_folder=False)
    assert ignore.hides(b"na\xefve", is_folder=False)
    assert not ignore.hides(b"\xff", is_folder=False)


def test_rules_of_a_folder_below_count_there_only() -> None:
    ignore = Ignore(last=git_rules("dist\n/x\n", base=b"web(1)"))
    assert ignore.hides(b"web(1)/dist", is_folder=True)
    assert ignore.hides(b"web(1)/a/dist", is_folder=True)
    assert not ignore.hides(b"dist", is_folder=True)
    assert not ignore.hides(b"web(1)/a/x", is_folder=False)


@pytest.mark.parametrize(
    ("line", "wrong"),
    [("[a", "'[' without"), ("{a", "'{' without"), ("x\\", "backslash"), ("#inc", "#include")],
)
def test_a_line_that_means_nothing_is_told_with_its_place(line: str, wrong: str) -> None:
    with pytest.raises(ManifestError, match=r"\.stignore:2:1: .*" + wrong.replace("[", r"\[")):
        syncthing_rules(f"good\n{line}\n")


def test_a_file_that_includes_itself_is_an_error() -> None:
    with pytest.raises(ManifestError, match="includes itself"):
        syncthing_rules("#include a", included=lambda name: "#include a")


@given(text(max_size=40))
def test_any_gitignore_is_read(line: str) -> None:
    ignore = Ignore(last=git_rules(line))
    ignore.hides(b"some/path", is_folder=False)


@given(text(max_size=40))
def test_any_stignore_is_read_or_refused(line: str) -> None:
    try:
        rules = syncthing_rules(line)
    except ManifestError:
        return
    Ignore(first=rules).hides(b"some/path", is_folder=True)
