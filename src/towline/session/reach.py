"""The agent in a dev pod, reached: carrier, line and SSH, within a time or not at all."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable
from contextlib import AsyncExitStack, asynccontextmanager
from typing import TYPE_CHECKING

from towline.cluster.api import Api
from towline.errors import ConnectionLost, NotFound, TowlineError, Unreachable
from towline.transport.keys import Keys

if TYPE_CHECKING:
    from towline.line.carrier import CarrierConnection
    from towline.line.line import Line
    from towline.transport.ssh import SshSession

# The agent answers milliseconds after its container runs; a port-forward may be refused
# until the kubelet knows of it too. Two dials that hang fit in.
_FIRST_ANSWER_S = 20.0


@asynccontextmanager
async def agent_reached(
    api: Api,
    *,
    pod: str,
    port: int,
    keys: Keys,
    events: Callable[[object], None] = lambda event: None,
    give_up_after_s: float | None = None,
) -> AsyncIterator[tuple[Line, SshSession]]:
    """Connect to the agent of a running pod.

    Args:
        events: told those of the line.
        give_up_after_s: see `resumable_line`.

    Raises:
        ConnectionLost: the agent does not answer.
        Forbidden, NotFound, Unauthorized: the API server refuses.
    """
    # Imported while the pod starts: asyncssh takes 0.2 s.
    from towline.line.carrier import CarrierDialler
    from towline.line.line import DialFailed, resumable_line
    from towline.transport.ssh import ssh_session

    last: Exception | None = None

    def told(event: object) -> None:
        nonlocal last
        if isinstance(event, DialFailed):
            last = event.error
        events(event)

    dialler = CarrierDialler(api, pod=pod, port=port)

    async def dial_or_ask() -> CarrierConnection:
        try:
            return await dialler.dial()
        except NotFound as error:
            # A kubelet that has just started does not know its pods yet. Listed: a get takes
            # a right that nothing else needs (docs/rights.yaml).
            if not (await api.list_("pods", fields=f"metadata.name={pod}")).get("items"):
                raise
            raise Unreachable(f"its node does not know the pod: {error.message}") from error

    async with AsyncExitStack() as stack:
        try:
            async with asyncio.timeout(_FIRST_ANSWER_S):
                line = await stack.enter_async_context(
                    resumable_line(
                        # Without an end somebody else knows when the pod is gone.
                        dial=dialler.dial if give_up_after_s is None else dial_or_ask,
                        key=keys.line_key,
                        events=told,
                        give_up_after_s=give_up_after_s,
                    )
                )
                ssh = await stack.enter_async_context(ssh_session(line, keys=keys))
        except TimeoutError as error:
            raise _no_answer(pod, last) from error
        yield line, ssh


def _no_answer(pod: str, last: Exception | None) -> ConnectionLost:
    why = f": {last}" if last is not None else ""
    hint = last.hint if isinstance(last, TowlineError) else None
    return ConnectionLost(
        f"the agent in pod {pod} does not answer after {_FIRST_ANSWER_S:.0f} s{why}",
        hint=hint or f"see why: towline logs --pod, or kubectl logs {pod}",
    )
