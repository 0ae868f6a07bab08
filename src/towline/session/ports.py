"""A session's ports over its connection of the moment."""

from __future__ import annotations

from collections.abc import Sequence
from functools import partial
from typing import TYPE_CHECKING

from towline._kit.tasks import Tasks
from towline.errors import PortInUse
from towline.manifest.model import Entry
from towline.plan.keep import way_back_name
from towline.session.gatekeeper import Gatekeeper
from towline.session.link import Connection
from towline.tunnels.forward import Forward, Target
from towline.tunnels.reverse import Reverse
from towline.tunnels.spares import SPARE_HOST, Spares

if TYPE_CHECKING:
    from towline.transport.channel import TunnelChannel


async def connect_ports(
    entry: Entry,
    current: Connection,
    opened: Sequence[Forward],
    keeper: Gatekeeper,
    *,
    spares: Spares,
    tasks: Tasks,
    kept_by: str | None = None,
) -> tuple[Reverse, ...]:
    """Lead all ports through a new connection.

    Args:
        spares: of all that leads to the cluster; those who wait there get their channels.
        kept_by: the session, where the original is kept: it gets what nobody takes here.

    Raises:
        PortInUse: the agent cannot listen on a reverse port; names it and says why.
    """
    hello = await current.ssh.control.hello()
    for port in hello.reverse:
        if port.error is not None:
            raise PortInUse(
                f"port {port.port} cannot be listened on in the dev pod: {port.error}",
                hint="another container of the pod has it, or it needs rights: "
                "choose another port in `reverse`",
            )
    spares.use(partial(current.ssh.open_channel, SPARE_HOST, 0))
    if opened:
        spares.fill()
    for forward in opened:
        await forward.begin()

    async def to_original(port: int) -> TunnelChannel:
        assert kept_by is not None
        channel = await spares.take()
        channel.write_header(Target(host=way_back_name(kept_by), port=port).header())
        return channel

    reverses = tuple(
        Reverse(
            remote=each.remote,
            local=each.local,
            interface=entry.interface,
            ssh=current.ssh,
            tasks=tasks,
            wait_for_port=keeper.wait_for_port,
            instead=to_original if kept_by is not None else None,
        )
        for each in entry.reverse
    )
    for reverse in reverses:
        reverse.fill()
    return reverses


def ports_text(entry: Entry, opened: Sequence[Forward]) -> str:
    """The ports in one line, as the terminal shows them."""
    shared = {each.local: each.shared_with for each in opened if each.shared_with}
    here = f"[{entry.interface}]" if ":" in entry.interface else entry.interface
    parts = [f"cluster {r.remote} → {here}:{r.local}" for r in entry.reverse]
    for each in entry.forward:
        text = f"{here}:{each.local} → {each.host or 'dev pod'}:{each.remote}"
        with_whom = f", shared with {shared[each.local]}" if each.local in shared else ""
        parts.append(text + with_whom)
    return " · ".join(parts) or "none"
