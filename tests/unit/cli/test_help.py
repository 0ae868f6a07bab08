"""`--help` of every command, as it was when somebody last looked at it.

After a change on purpose: TOWLINE_SNAPSHOTS=write pytest tests/unit/cli
"""

from __future__ import annotations

import os
from pathlib import Path

import click
import pytest
from click.testing import CliRunner

from towline import errors
from towline.cli.main import _COMMANDS, towline

_KEPT = Path(__file__).parent / "help"
# Its own program has its own parser and help.
_COMMANDS_HERE = [name for name in _COMMANDS if name != "sandbox"]


@pytest.mark.parametrize("command", ["", *_COMMANDS_HERE])
def test_help_is_as_kept(command: str) -> None:
    words = [command] if command else []
    done = CliRunner().invoke(towline, [*words, "--help"], prog_name="towline", terminal_width=80)
    assert done.exit_code == 0
    file = _KEPT / f"{command or 'towline'}.txt"
    if os.environ.get("TOWLINE_SNAPSHOTS") == "write":
        file.parent.mkdir(exist_ok=True)
        file.write_text(done.output)
    assert done.output == file.read_text(), f"changed on purpose? {__doc__}"


@pytest.mark.parametrize("command", _COMMANDS_HERE)
def test_every_command_has_an_example(command: str) -> None:
    found = towline.get_command(click.Context(towline), command)
    assert found is not None
    assert "Example" in (found.epilog or "") and f"towline {command}" in (found.epilog or "")


def test_every_option_is_explained() -> None:
    for name in _COMMANDS_HERE:
        found = towline.get_command(click.Context(towline), name)
        assert found is not None
        for parameter in found.params:
            if isinstance(parameter, click.Option):
                assert parameter.help, f"{name} {parameter.opts}"


def test_short_options_mean_what_they_mean_to_kubectl() -> None:
    meanings = {"-n": "namespace", "-o": "output", "-f": "file"}
    for name in _COMMANDS_HERE:
        found = towline.get_command(click.Context(towline), name)
        assert found is not None
        for parameter in found.params:
            for flag in {*parameter.opts} & {*meanings, "-l"}:
                # `logs -f` follows, there as well; `env -o` has more forms than two.
                allowed = {meanings.get(flag), {"logs": "follow", "env": "form"}.get(name)}
                assert parameter.name in allowed, f"{name} {flag}"


def test_the_exit_codes_in_the_help_are_those_of_the_errors() -> None:
    classes = [
        each
        for each in vars(errors).values()
        if isinstance(each, type) and issubclass(each, errors.TowlineError)
    ]
    text = " ".join(CliRunner().invoke(towline, ["--help"]).output.split())
    for code in {each.exit_code for each in classes}:
        assert f" {code} " in text
    assert errors.__doc__ is not None
    for each in classes:
        assert each.__name__ in errors.__doc__, "the tree in the docstring is whole"
