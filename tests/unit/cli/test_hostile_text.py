"""What comes from a cluster or a manifest never makes the terminal do anything."""

from __future__ import annotations

import dataclasses
import typing
from pathlib import Path

import click
import pytest

from towline.cli import down, env, inside, main, status
from towline.cli.asking import _answer
from towline.cluster.claims import Claim
from towline.environ.definitions import Definition, Kind, Variable
from towline.environ.explain import Explanation, KeptOut
from towline.environ.formats import Rendered
from towline.errors import ManifestError, NotFound, Refused, TowlineError
from towline.session import events
from towline.ui.view import lines_for

if typing.TYPE_CHECKING:
    from towline.cluster.api import Api

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


CLAIM = Claim(name=HOSTILE, entry=HOSTILE, workload=HOSTILE, owner=HOSTILE, size=HOSTILE,
              since=HOSTILE)  # fmt: skip


def test_a_claims_annotations() -> None:
    line = status._claim_line(dataclasses.asdict(CLAIM))
    assert line.count("end") == 5 and harmless(line), repr(line)


async def test_whose_claim_it_is(capsys: pytest.CaptureFixture[str]) -> None:
    await down._delete(CLAIM, api=typing.cast("Api", None), anyones=False)
    said = capsys.readouterr().err
    assert "kept" in said and harmless(said), repr(said)


def test_what_is_not_there_for_a_command(capsys: pytest.CaptureFixture[str]) -> None:
    inside._tell_unseen(HOSTILE)
    said = capsys.readouterr().err
    assert "end" in said and harmless(said), repr(said)


def hostile_explanation() -> Explanation:
    """A container's environment, hostile wherever its image or spec has a say."""
    name = HOSTILE.encode()
    defined = Definition(
        name=HOSTILE, value=name, kind=Kind.CONFIG_MAP, object=HOSTILE, key=HOSTILE, note=HOSTILE
    )
    unknown = dataclasses.replace(defined, value=None, unknown=HOSTILE)
    return Explanation(
        variables={name: Variable(definition=defined, shadows=(defined, unknown))},
        kept_out=(KeptOut(name=name, reason=HOSTILE, definitions=(unknown,)),),
        notices=(HOSTILE,),
    )


def test_an_environment_explained(capsys: pytest.CaptureFixture[str]) -> None:
    env._explain(hostile_explanation(), form=None, show_secrets=False)
    said = capsys.readouterr().out
    assert said.count("over ConfigMap") == 2 and "Kept out:" in said
    assert harmless(said), repr(said)


def test_what_a_format_cannot_hold(capsys: pytest.CaptureFixture[str]) -> None:
    name = HOSTILE.encode()
    text = Rendered(content=b"", left_out={name: HOSTILE}, notes={name: HOSTILE})
    env._tell(text, hostile_explanation())
    said = capsys.readouterr().err
    assert "left out" in said and "not known yet" in said
    assert len(said.splitlines()) == 3 and harmless(said), repr(said)


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
