"""What comes from a cluster or a manifest never makes the terminal do anything."""

from __future__ import annotations

import dataclasses
import typing
from pathlib import Path

import click
import pytest

from towline.cli import main
from towline.cli.asking import _answer
from towline.errors import ManifestError, NotFound, Refused, TowlineError
from towline.session import events
from towline.ui.view import lines_for

# A title set by OSC 0, a colour by CSI, the cursor moved, C1's own CSI, a bell, a line
# written over, text that runs backwards.
HOSTILE = "web\x1b]0;pwned\x07\x1b[31m\x1b[2J\x9b1m\b\b\r\u202eend"


def harmless(text: str) -> bool:
    return not any((ord(c) < 0x20 and c not in "\n\t") or 0x7F <= ord(c) < 0xA0 for c in text) and (
        "\u202e" not in text
    )


@pytest.mark.parametrize("kind", typing.get_args(events.Event))
def test_an_event_of_any_kind(kind: type) -> None:
    given: dict[str, object] = {}
    hints = typing.get_type_hints(kind)
    for field in dataclasses.fields(kind):
        given[field.name] = {
            str: HOSTILE, int: 1, float: 1.0, bool: True, float | None: 1.0, int | None: None,
            str | None: HOSTILE, tuple[int, ...]: (1,), tuple[str, ...]: (HOSTILE,),
        }[hints[field.name]]  # fmt: skip
    for line in lines_for(kind(**given)):
        assert harmless(line.text), repr(line.text)
        assert "\n" not in line.text


@pytest.mark.parametrize("kind", [TowlineError, NotFound, Refused, ManifestError])
def test_an_error_of_any_kind(kind: type[TowlineError], capsys: pytest.CaptureFixture[str]) -> None:
    main._tell(kind(f"Deployment {HOSTILE}", hint=f"ask {HOSTILE}"), debug=False)
    said = capsys.readouterr().err
    assert "end" in said and harmless(said), repr(said)


async def test_a_question(capsys: pytest.CaptureFixture[str], monkeypatch: typing.Any) -> None:
    async def nothing() -> bytes:
        return b""

    monkeypatch.setattr("towline.cli.asking._typed", nothing)
    await _answer(f"{HOSTILE}? ")
    said = capsys.readouterr().err
    assert "end" in said and harmless(said), repr(said)


def test_a_manifest_with_such_names(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    path = tmp_path / "towline.yml"
    path.write_text('dev:\n  "we\\e]0;pwned\\ab":\n    "mo\\e[31mde": hybrid\n', encoding="utf-8")
    monkeypatch.setattr("sys.argv", ["towline", "validate", "-f", str(path)])
    with pytest.raises(SystemExit) as ended:
        main.main()
    said = capsys.readouterr()
    assert ended.value.code == 3
    assert said.err and harmless(said.out + said.err), repr(said)
    assert click.unstyle(said.err) == said.err
