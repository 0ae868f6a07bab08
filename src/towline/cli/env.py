"""`towline env`."""

from __future__ import annotations

import json
import sys
from collections.abc import Sequence
from dataclasses import replace
from fnmatch import fnmatchcase
from pathlib import Path
from typing import TYPE_CHECKING

import click

from towline.cli.common import (
    cluster_options,
    manifest_option,
    open_api,
    open_session_api,
    pick_entry,
    read_manifest,
    run,
)
from towline.errors import UsageError

if TYPE_CHECKING:
    from towline.environ.explain import Explanation
    from towline.environ.formats import Rendered
    from towline.session.environment import Made
    from towline.session.local import LocalSession

_FORMATS = ("dotenv", "json", "sh", "ps1", "docker")


@click.command(
    epilog="\b\nExamples:\n"
    "  towline env frontend --format dotenv > .env.local\n"
    '  eval "$(towline env -o sh)"\n'
    "  towline env --explain PORT         where it comes from; NAME may be a glob\n"
    "  towline env frontend --explain -o json",
)
@click.argument("words", nargs=-1, metavar="[SERVICE] [NAME...]")
@click.option(
    "-o",
    "--format",
    "form",
    type=click.Choice(_FORMATS),
    help="How it is printed; dotenv where nothing is said. json is name → value.",
)
@click.option(
    "--explain", "explain", is_flag=True, help="Say where each value comes from; text or json."
)
@click.option("--show-secrets", is_flag=True, help="With --explain: Secrets' values, too.")
@manifest_option
@cluster_options
def env(
    words: tuple[str, ...],
    form: str | None,
    explain: bool,
    show_secrets: bool,
    file: Path | None,
    kubeconfig: Path | None,
    context: str | None,
    namespace: str | None,
) -> None:
    """Print the environment that the local process gets.

    Of a running session, with the container's own environment; without one, what the
    process of `towline up` would get, from the specs. What a format cannot hold is left
    out and named on stderr.
    """
    session, name, names = _meant(words, explain=explain, namespace=namespace)
    if session is not None and file is None:
        made = _of_session(session)
    else:
        made = _ahead(name, file=file, kubeconfig=kubeconfig, context=context, namespace=namespace)
        _note("there is no session: this is what `towline up` would give the process")
    for notice in made.explanation.notices:
        _note(notice)
    if explain:
        _explain(_only(made.explanation, names), form=form, show_secrets=show_secrets)
        return
    from towline.environ.formats import Format, rendered

    text = rendered(made.values, Format(form or "dotenv"))
    _tell(text, made.explanation)
    sys.stdout.buffer.write(text.content)
    sys.stdout.buffer.flush()


def _meant(
    words: Sequence[str], *, explain: bool, namespace: str | None
) -> tuple[LocalSession | None, str | None, tuple[str, ...]]:
    """The session that is meant, the service's name if it is said, and the variables'.

    Raises:
        UsageError: which session is not said, or there are words too many.
    """
    from towline.session.attach import pick_session
    from towline.session.local import sessions

    running = [s for s in sessions() if namespace in (None, s.namespace)]
    first, *rest = words or (None,)
    is_session = any(first in (s.entry, s.workload, s.session) for s in running)
    if not explain and rest:
        raise UsageError(
            f"{' '.join(rest)}: variables are named with --explain only",
            hint=f"towline env {first} --explain {' '.join(rest)}",
        )
    if is_session:
        return pick_session(first, namespace=namespace), first, tuple(rest)
    if first is not None and (not explain or _is_service(first)):
        return None, first, tuple(rest)
    session = pick_session(None, namespace=namespace) if running else None
    return session, None, tuple(words)


def _is_service(word: str) -> bool:
    """Whether the manifest here has a service of that name; it may be a variable's."""
    from towline.manifest import find

    path = find(Path.cwd())
    return path is not None and word in read_manifest(path).entries


def _of_session(session: LocalSession) -> Made:
    from towline.session.asking import NotAnswering, environment_of, environment_read_anew
    from towline.session.surroundings import Surroundings

    entry = read_manifest(Path(session.manifest)).entries[session.entry]
    try:
        made = environment_of(session, entry)
    except NotAnswering:
        made = run(environment_read_anew(session, entry, open_api=open_session_api))
    return Surroundings.of_session(session.folder).explained(made)


def _ahead(
    name: str | None,
    *,
    file: Path | None,
    kubeconfig: Path | None,
    context: str | None,
    namespace: str | None,
) -> Made:
    from towline.session.ahead import environment_ahead

    entry = pick_entry(read_manifest(file), name)

    async def read() -> Made:
        async with open_api(kubeconfig=kubeconfig, context=context, namespace=namespace) as api:
            return await environment_ahead(entry, api=api)

    return run(read())


def _only(explanation: Explanation, names: tuple[str, ...]) -> Explanation:
    """What these names and globs match.

    Raises:
        UsageError: one matches nothing.
    """
    if not names:
        return explanation

    def matches(name: bytes, globs: Sequence[str] = names) -> bool:
        return any(fnmatchcase(name.decode(errors="replace"), glob) for glob in globs)

    there = [*explanation.variables, *(each.name for each in explanation.kept_out)]
    for glob in names:
        if not any(matches(name, (glob,)) for name in there):
            raise UsageError(f"the process gets no variable {glob!r}, and none was kept out")
    return replace(
        explanation,
        variables={n: v for n, v in explanation.variables.items() if matches(n)},
        kept_out=tuple(each for each in explanation.kept_out if matches(each.name)),
    )


def _explain(explanation: Explanation, *, form: str | None, show_secrets: bool) -> None:
    from towline.environ.explain import as_json, as_lines
    from towline.ui.view import printable

    if form == "json":
        click.echo(json.dumps(as_json(explanation, show_secrets=show_secrets), indent=1))
    elif form is None:
        for line in as_lines(explanation, show_secrets=show_secrets):
            click.echo(printable(line))
    else:
        raise UsageError(f"--explain is text or json, not {form}")


def _tell(text: Rendered, explanation: Explanation) -> None:
    """On stderr: what is not in the text, or not known."""
    for name, reason in sorted(text.left_out.items()):
        _note(f"{_shown(name)} is left out: {reason}")
    for name, note in sorted(text.notes.items()):
        _note(f"{_shown(name)}: {note}")
    for each in explanation.kept_out:
        if any(of.unknown for of in each.definitions[:1]):
            _note(f"{_shown(each.name)} is not known yet: {each.reason}")


def _shown(name: bytes) -> str:
    return name.decode("utf-8", "backslashreplace")


def _note(text: str) -> None:
    from towline.ui.view import printable

    click.echo(printable(f"! {text}"), err=True)
