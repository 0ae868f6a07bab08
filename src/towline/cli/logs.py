"""`towline logs`."""

from __future__ import annotations

import sys
import time
from typing import TYPE_CHECKING

import click

from towline.cli.common import open_session_api, run
from towline.errors import UsageError

if TYPE_CHECKING:
    from towline.session.local import LocalSession

# A file has no way to tell a reader that it grew, but inotify; people read slower than this.
_LOOK_EVERY_S = 0.2


@click.command(epilog="\b\nExamples:\n  towline logs -f\n  towline logs frontend --pod")
@click.argument("service", required=False)
@click.option("--pod", is_flag=True, help="The dev pod's output instead of the local process's.")
@click.option("-f", "--follow", is_flag=True, help="Go on as it grows.")
def logs(service: str | None, pod: bool, follow: bool) -> None:
    """Show the local process's output (of a session with --detach), or the dev pod's."""
    from towline.session.attach import pick_session

    session = pick_session(service)
    if pod:
        run(_pod_log(session, follow=follow))
        return
    if not session.log.exists():
        raise UsageError(
            f"the output of {session.entry} is in the terminal where `towline up` runs",
            hint="towline up --detach keeps it; towline logs --pod shows the dev pod's",
        )
    with session.log.open("rb") as file:
        out = sys.stdout.buffer
        while True:
            if data := file.read(65536):
                out.write(data)
                out.flush()
            elif not follow or not session.alive:
                return
            else:
                time.sleep(_LOOK_EVERY_S)


async def _pod_log(session: LocalSession, *, follow: bool) -> None:
    if session.pod is None:
        raise UsageError(f"session {session.session} has no dev pod yet")
    log = ("pods", session.pod, "log", {"container": session.container})
    async with open_session_api(session) as api:
        if not follow:
            click.echo(await api.text(*log), nl=False)
            return
        async for data in api.follow(*log):
            sys.stdout.buffer.write(data)
            sys.stdout.buffer.flush()
