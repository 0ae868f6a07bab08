"""Names that a shell completes: of the manifest, and of this laptop's sessions."""

from __future__ import annotations

from collections.abc import Iterable
from typing import TYPE_CHECKING

from towline.errors import TowlineError

if TYPE_CHECKING:
    import click


def manifest_entries(ctx: click.Context, param: click.Parameter, incomplete: str) -> list[str]:
    """The manifest's services that are not on the line yet."""
    from towline.cli.common import read_manifest

    try:
        names = read_manifest(ctx.params.get("file")).entries
    except TowlineError:
        return []
    return _left(names, ctx, param, incomplete)


def session_entries(ctx: click.Context, param: click.Parameter, incomplete: str) -> list[str]:
    """What is in development from here and not on the line yet."""
    from towline.session.local import sessions

    return _left({session.entry for session in sessions()}, ctx, param, incomplete)


def _left(
    names: Iterable[str], ctx: click.Context, param: click.Parameter, incomplete: str
) -> list[str]:
    given = ctx.params.get(param.name or "") or ()
    return sorted(name for name in names if name.startswith(incomplete) and name not in given)
