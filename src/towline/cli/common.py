"""What most commands share: options, the manifest, the way to the cluster, the event loop."""

from __future__ import annotations

import asyncio
import os
from collections.abc import AsyncIterator, Callable, Coroutine
from contextlib import asynccontextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeVar

import click

from towline.errors import UsageError

if TYPE_CHECKING:
    from towline.cluster.api import Api
    from towline.manifest.model import Entry, Manifest
    from towline.session.local import LocalSession

T = TypeVar("T")
F = TypeVar("F", bound=Callable[..., Any])


def cluster_options(command: F) -> F:
    """`--context`, `-n`, `--kubeconfig`, as kubectl has them."""
    for decorate in (
        click.option(
            "--kubeconfig", type=click.Path(path_type=Path), help="Read this kubeconfig file."
        ),
        click.option("--context", metavar="NAME", help="Use this context of the kubeconfig."),
        click.option("-n", "--namespace", metavar="NAME", help="Use this namespace."),
    ):
        command = decorate(command)
    return command


def manifest_option(command: F) -> F:
    """`-f FILE`."""
    return click.option(
        "-f",
        "--file",
        "file",
        type=click.Path(path_type=Path),
        help="The manifest; default: towline.yml or okteto.yml here or above.",
    )(command)


def output_option(command: F) -> F:
    """`-o json`."""
    return click.option(
        "-o",
        "--output",
        type=click.Choice(["text", "json"]),
        default="text",
        help="Text for people, JSON for programs.",
    )(command)


def read_manifest(file: Path | None, *, mode: str | None = None) -> Manifest:
    """Read the manifest that was named, or that is found from here.

    Args:
        mode: every entry's, whatever the file says.

    Raises:
        ManifestError: it is broken; UsageError: there is none.
    """
    from towline.manifest import find, load

    path = file or find(Path.cwd())
    if path is None:
        raise UsageError(
            f"there is no manifest in {Path.cwd()} or above it",
            hint="write a towline.yml (the README has one of eight lines), or name it with -f",
        )
    from towline.manifest.model import Mode

    return load(path, environ=os.environ, mode=None if mode is None else Mode(mode))


def pick_entry(manifest: Manifest, name: str | None, *, choose: bool = False) -> Entry:
    """The entry of that name, or the only one; asks in a terminal when `choose` is set.

    Raises:
        UsageError: there is no such entry, or which one is not said.
    """
    names = list(manifest.entries)
    if name is None and len(names) == 1:
        name = names[0]
    if name is None and choose and has_terminal():
        name = click.prompt("Which service", type=click.Choice(names), err=True, show_choices=True)
    if name is None:
        raise UsageError(
            f"{manifest.path.name} has {len(names)} services: {', '.join(names)}",
            hint=f"name one: towline up {names[0]}",
        )
    if name not in manifest.entries:
        raise UsageError(
            f"{manifest.path.name} has no service {name!r} (there: {', '.join(names)})",
        )
    return manifest.entries[name]


def pick_entries(
    manifest: Manifest, names: tuple[str, ...], *, choose: bool = False
) -> tuple[Entry, ...]:
    """The entries of these names; as `pick_entry` where there is one or none.

    Raises:
        UsageError: there is no such entry, it is named twice, or which one is not said.
    """
    if len(names) < 2:
        return (pick_entry(manifest, *names or (None,), choose=choose),)
    twice = sorted({name for name in names if names.count(name) > 1})
    if twice:
        raise UsageError(f"{', '.join(twice)} is named twice")
    unknown = [name for name in names[1:] if name not in manifest.entries]
    if unknown and names[0] in manifest.entries:
        there = ", ".join(manifest.entries)
        raise UsageError(
            f"{manifest.path.name} has no service {unknown[0]!r} (there: {there})",
            hint=f"a command stands behind `--`: towline up {names[0]} -- {' '.join(names[1:])}",
        )
    return tuple(pick_entry(manifest, name) for name in names)


def has_terminal() -> bool:
    import sys

    return sys.stdin.isatty() and sys.stderr.isatty()


@asynccontextmanager
async def open_api(
    *, kubeconfig: Path | None, context: str | None, namespace: str | None
) -> AsyncIterator[Api]:
    """A way to the cluster that the options name."""
    from towline.cluster.access import Access
    from towline.cluster.api import Api
    from towline.cluster.kubeconfig import read_target

    target = read_target(
        environ=os.environ, kubeconfig=kubeconfig, context=context, namespace=namespace
    )
    access = Access(target, environ=os.environ)
    async with Api(access, namespace=target.namespace, environ=os.environ) as api:
        yield api


def run(job: Coroutine[Any, Any, T]) -> T:
    """Run a command's coroutine to its end."""
    try:
        import uvloop
    except ImportError:  # Windows
        return asyncio.run(job)
    return uvloop.run(job)


@asynccontextmanager
async def open_session_api(session: LocalSession) -> AsyncIterator[Api]:
    """The way to the cluster that a session of this laptop uses."""
    from towline.cluster.access import Access
    from towline.cluster.api import Api
    from towline.cluster.kubeconfig import read_target

    environ = {**os.environ}
    if session.kubeconfig:
        environ["KUBECONFIG"] = session.kubeconfig
    target = read_target(environ=environ, context=session.context, namespace=session.namespace)
    async with Api(
        Access(target, environ=environ), namespace=session.namespace, environ=environ
    ) as api:
        yield api


def size_text(count: int) -> str:
    """A number of bytes for people: `3 KiB`."""
    size = float(count)
    for unit in ("B", "KiB", "MiB"):
        if size < 1024:
            return f"{size:.0f} {unit}"
        size /= 1024
    return f"{size:.1f} GiB"
