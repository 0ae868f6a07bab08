"""`towline up --dry-run`."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Any

import click

from towline.cli.common import size_text
from towline.errors import ManifestError, UsageError

if TYPE_CHECKING:
    from towline.manifest.model import Entry


def show(entry: Entry, *, output: str) -> int:
    """Print what the first sync would find; the cluster is not asked.

    Raises:
        UsageError: the entry syncs nothing.
        ManifestError: a folder cannot be read, or its rules cannot.
    """
    from towline.manifest.model import Mode
    from towline.sync.preview import look_ahead
    from towline.ui.view import printable

    if entry.mode is not Mode.SYNC or not entry.sync.folders:
        raise UsageError(
            f"{entry.name} syncs no folder: there is nothing to try",
            hint=f"what happens to the cluster: towline plan {entry.name}",
        )
    rows = []
    for folder in entry.sync.folders:
        try:
            found = look_ahead(folder.local).to_json()
        except OSError as error:
            raise ManifestError(f"{folder.local} cannot be synced: {error.strerror}") from error
        rows.append({"local": str(folder.local), "remote": str(folder.remote), **found})
    if output == "json":
        click.echo(json.dumps({"folders": rows}, indent=1))
        return 0
    click.echo(f"{entry.name} · dry run: nothing is changed, and the cluster is not asked")
    for row in rows:
        for line in _lines(row):
            click.echo(printable(line))
    click.echo(
        "What the container has of these files is kept on this machine before it is replaced; "
        "what it has beside them stays there.\n"
        f"What happens to the cluster: towline plan {entry.name}"
    )
    return 0


def _lines(row: dict[str, Any]) -> list[str]:
    links = f" and {row['links']} links" if row["links"] else ""
    lines = [
        f"{row['local']} → {row['remote']}",
        f"  goes over   {row['files']} files{links}, {size_text(row['bytes'])}, "
        f"in {row['folders']} folders",
    ]
    large = [each for each in row["largest"] if each["bytes"] >= 1 << 20]
    if large:
        text = " · ".join(f"{each['path']} {size_text(each['bytes'])}" for each in large)
        lines.append(f"  largest     {text}")
    lines.append(f"  ignored     {_some(row['first_ignored'], row['ignored']) or 'nothing'}")
    if row["not_synced"]:
        away = [f"{each['path']} ({each['reason']})" for each in row["first_not_synced"]]
        lines.append(f"  not synced  {_some(away, row['not_synced'])}")
    allowed = row["watches_allowed"]
    if allowed is not None:
        lines.append(f"  watches     {row['watches']} of {allowed} that your user may have here")
        if row["watches"] > allowed:
            lines.append("              more than that: the folder would be looked at every 2 s")
    return lines


def _some(names: list[str], count: int) -> str:
    shown = ", ".join(names[:8])
    return shown + (f" and {count - 8} more" if count > 8 else "")
