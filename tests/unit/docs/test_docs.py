"""The documents say what is: their commands run, their flags, links and examples exist.

A shell block marked `sh` needs no cluster, and is run here. One marked `console` does;
of it, as of the prose, every command and flag is looked up.
"""

from __future__ import annotations

import os
import re
import shlex
import shutil
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import click
import pytest

from towline import errors
from towline.cli.main import towline

CHECKOUT = Path(__file__).resolve().parents[3]
DOCUMENTS = sorted(
    [*CHECKOUT.glob("*.md"), *(CHECKOUT / "docs").glob("*.md")], key=lambda path: path.name
)
README = CHECKOUT / "README.md"
# Words with which a command line goes on after towline's own part has ended.
_ENDS = {"|", "&&", "||", ";", ">", ">>", "<", "--"}


def _blocks(path: Path, kind: str) -> list[str]:
    found = re.findall(rf"^```{kind}\n(.*?)^```$", path.read_text(), re.MULTILINE | re.DOTALL)
    return [str(block) for block in found]


def _spans(path: Path) -> list[str]:
    """Everything in code: spans of the prose, and lines of the shell blocks."""
    text = path.read_text()
    prose = re.sub(r"^```.*?^```$", "", text, flags=re.MULTILINE | re.DOTALL)
    lines = [
        line for kind in ("sh", "console") for b in _blocks(path, kind) for line in b.split("\n")
    ]
    return [*re.findall(r"`([^`\n]+)`", prose), *lines]


def _commands(path: Path) -> Iterator[list[str]]:
    """Each call of towline: the words up to where something else begins."""
    for span in _spans(path):
        for part in re.split(r"(?:^|\s|\()(?=towline [a-z-])", span):
            if not part.startswith("towline ") or part.startswith("towline …"):
                continue
            lexer = shlex.shlex(part, posix=True, punctuation_chars="|&;<>()")
            lexer.whitespace_split = True
            words = []
            for word in lexer:
                if word in _ENDS or set(word) <= set("|&;<>()"):
                    break
                words.append(word.rstrip("…,"))
            yield words


def _options(command: click.Command) -> set[str]:
    named = {option for each in command.params for option in (*each.opts, *each.secondary_opts)}
    return {option for option in named if option.startswith("-")} | {"-h", "--help"}


def _command(name: str) -> click.Command | None:
    return (
        towline.get_command(click.Context(towline), name)
        if isinstance(towline, click.Group)
        else None
    )


@pytest.mark.parametrize("path", DOCUMENTS, ids=lambda path: path.name)
def test_every_command_and_flag_exists(path: Path) -> None:
    for words in _commands(path):
        name, rest = words[1], words[2:]
        if name.startswith("-"):
            assert name in _options(towline), words
            continue
        command = _command(name)
        assert command is not None, f"{path.name}: towline {name} is no command"
        if name == "sandbox":  # has a parser of its own
            continue
        for flag in (word.partition("=")[0] for word in rest if word.startswith("-")):
            assert flag in _options(command), f"{path.name}: towline {name} has no {flag}"


def test_every_flag_of_the_command_table_exists() -> None:
    rows = re.findall(r"^\| (`towline .*?) \| (.*) \|$", README.read_text(), re.MULTILINE)
    assert len(rows) >= 10
    for left, right in rows:
        commands = [_command(name) for name in re.findall(r"`towline ([a-z]+)", left)]
        known = set().union(*(_options(command) for command in commands if command))
        for flag in re.findall(r"`(--?[a-z][\w-]*)", right):
            assert flag in known, f"{left} has no {flag}"


def test_every_command_is_in_the_readme() -> None:
    text = README.read_text()
    assert isinstance(towline, click.Group)
    for name in towline.list_commands(click.Context(towline)):
        assert f"`towline {name}" in text or name == "version", name


@pytest.mark.parametrize("block", _blocks(README, "sh"))
def test_the_blocks_that_need_no_cluster_run(block: str, tmp_path: Path) -> None:
    shutil.copytree(CHECKOUT / "samples", tmp_path / "samples")
    programs = f"{Path(sys.executable).parent}:{os.environ['PATH']}"
    done = subprocess.run(
        ["bash", "-euo", "pipefail", "-c", block],
        cwd=tmp_path,
        env={**os.environ, "PATH": programs, "KUBECONFIG": str(tmp_path / "none")},
        stdin=subprocess.DEVNULL,
        capture_output=True,
        text=True,
        timeout=50,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    assert "up:" in done.stdout and "down:" in done.stdout


@pytest.mark.parametrize("text", [b for p in DOCUMENTS for b in _blocks(p, "yaml")])
def test_every_manifest_is_valid(text: str, tmp_path: Path) -> None:
    (tmp_path / "frontend").mkdir()
    (tmp_path / "towline.yml").write_text(text)
    done = subprocess.run(
        [Path(sys.executable).with_name("towline"), "validate"],
        cwd=tmp_path,
        capture_output=True,
        text=True,
        timeout=30,
        check=False,
    )
    assert done.returncode == 0, done.stderr


@pytest.mark.parametrize("path", DOCUMENTS, ids=lambda path: path.name)
def test_every_link_leads_somewhere(path: Path) -> None:
    for target in re.findall(r"\]\(([^)]+)\)", path.read_text()):
        file, _, heading = target.partition("#")
        if re.match(r"https?:", target):
            continue
        found = path.parent / file if file else path
        assert found.exists(), f"{path.name} links to {target}"
        if heading:
            titles = re.findall(r"^#+ (.*)$", found.read_text(), re.MULTILINE)
            slugs = {re.sub(r"[^\w -]", "", title).lower().replace(" ", "-") for title in titles}
            assert heading in slugs, f"{path.name} links to {target}"


@pytest.mark.parametrize("path", DOCUMENTS, ids=lambda path: path.name)
def test_every_make_target_and_folder_exists(path: Path) -> None:
    targets = set(re.findall(r"^([a-z-]+):", (CHECKOUT / "Makefile").read_text(), re.MULTILINE))
    for span in _spans(path):
        for name in re.findall(r"\bmake ([a-z]+)", span):
            assert name in targets, f"{path.name}: make {name}"
        if re.fullmatch(
            r"[\w./-]+/[\w./-]*\.(py|md|go|yaml|json)|(src|tests|agent)/[\w./-]+", span
        ):
            roots = (CHECKOUT, CHECKOUT / "src/towline", path.parent)
            assert any((root / span).exists() for root in roots), f"{path.name}: {span}"


def test_the_exit_codes_are_those_of_the_errors() -> None:
    told = {int(n) for n in re.findall(r"^\| (\d+) \|", README.read_text(), re.MULTILINE)}
    kinds = [each for each in vars(errors).values() if isinstance(each, type)]
    used = {each.exit_code for each in kinds if issubclass(each, errors.TowlineError)}
    assert told == used | {0, 130}


_SETTINGS = {
    "original": "original",
    "handover": "handover",
    "environmentOrder": "environment_order",
    "inheritEnvironment": "inherit_environment",
    "files": "files",
    "names": "names",
    "giveBackAfter": "give_back_after_s",
    "keepFor": "keep_for_s",
    "holdFor": "hold_for_s",
    "initContainers": "init_containers",
    "agent.image": "agent_image",
    "contexts": "contexts",
}


@pytest.mark.parametrize("name", _SETTINGS)
def test_the_readme_names_the_settings_that_have_no_effect(name: str) -> None:
    package = CHECKOUT / "src/towline"
    sources = [p for p in package.rglob("*.py") if p.parent.name not in {"manifest", "_sandbox"}]
    reads = re.compile(rf"settings\.{_SETTINGS[name]}\b")
    has_effect = any(reads.search(path.read_text()) for path in sources)
    said = README.read_text().partition("have **no effect yet**")[2].partition("\n")[0]
    assert (f"`{name}" in said) != has_effect
