"""The gate's rule: open while the local ports that a Service routes to are listened on."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Awaitable, Callable, Iterable

from towline.session.events import Events, GateChanged, Warned

# Of the laptop's own table of listening sockets: no packet is sent, no process asked.
_LOOK_EVERY_S = 0.1
_TELL_AFTER_S = 20.0

Listening = Callable[[Iterable[int]], Awaitable[frozenset[int]]]


class Gatekeeper:
    """Watches the ports and opens or shuts the gate.

    Args:
        ports: the local ports that Services lead to; empty opens the gate at once.
        listening: which of some ports are listened on now.
        set_gate: tells the agent; waits out a lost network.
        where: whose ports they are, for the hint.
        shut_refuses: nobody waits for a port while the gate is shut: somebody else serves.
        process_ports: which ports the process listens on, for the hint when none fits.
    """

    def __init__(
        self,
        *,
        ports: frozenset[int],
        hold_for_s: float,
        listening: Listening,
        set_gate: Callable[[bool], Awaitable[None]],
        process_ports: Callable[[], Iterable[int]],
        events: Events,
        where: str = "localhost",
        shut_refuses: bool = False,
    ) -> None:
        self._ports = ports
        self._hold_for_s = hold_for_s
        self._listening = listening
        self._set_gate = set_gate
        self._process_ports = process_ports
        self._events = events
        self._where = where
        self._shut_refuses = shut_refuses
        self._is_over = False
        self._stays = False
        self.moved: Callable[[], None] = lambda: None
        self._up: frozenset[int] = frozenset()
        self._changed = asyncio.Condition()
        self._is_open = False
        self.opened = asyncio.Event()
        self.watched: set[int] = set(ports)

    @property
    def is_open(self) -> bool:
        """Whether the gate is open now."""
        return self._is_open

    def begin_anew(self, ports: frozenset[int]) -> None:
        """Another agent, whose gate is shut: it opens as the first one's did."""
        self._ports = ports
        self.watched |= ports
        self._is_open = False
        self.opened.clear()

    async def run(self) -> None:
        """Watch until cancelled."""
        away_since = time.monotonic()
        told = False
        while True:
            up = await self._listening(self.watched)
            if up != self._up:
                async with self._changed:
                    self._up = up
                    self._changed.notify_all()
            if self._ports <= up:
                away_since, told = time.monotonic(), True
                if not self._is_open:
                    await self._change(True)
            else:
                away_s = time.monotonic() - away_since
                if self._is_open and not self._stays and away_s > self._hold_for_s:
                    await self._change(False)
                if not told and away_s > _TELL_AFTER_S:
                    told = True
                    self._tell_missing(up)
            await asyncio.sleep(_LOOK_EVERY_S)

    async def wait_for_port(self, port: int) -> bool:
        """Wait, `hold_for_s` at most, until somebody listens on a port."""

        def over() -> bool:
            return port in self._up or self._gave_up

        self.watched.add(port)
        try:
            async with asyncio.timeout(self._hold_for_s), self._changed:
                # What was seen before the refused dial may be old: at least one fresh look.
                await self._changed.wait_for(over)
        except TimeoutError:
            return False
        if port not in self._up:
            return False
        # The table said so a moment ago; a port that flaps is dialled again right away.
        await asyncio.sleep(_LOOK_EVERY_S / 10)
        return True

    def stay(self) -> None:
        """Do not shut it any more: who waits for the original is held here, however long."""
        self._stays = True

    async def give_up(self) -> None:
        """The process is gone for good: nobody waits for a port any more."""
        async with self._changed:
            self._is_over = True
            self._changed.notify_all()

    @property
    def _gave_up(self) -> bool:
        is_shut = self.opened.is_set() and not self._is_open
        return self._is_over or (self._shut_refuses and is_shut)

    async def _change(self, is_open: bool) -> None:
        await self._set_gate(is_open)
        async with self._changed:
            self._is_open = is_open
            self._changed.notify_all()
        self.moved()
        if is_open:
            self.opened.set()
        self._events(
            GateChanged(
                is_open=is_open,
                ports=tuple(sorted(self._ports)),
                where=self._where,
                original_serves=self._shut_refuses and not is_open,
            )
        )

    def _tell_missing(self, up: frozenset[int]) -> None:
        missing = ", ".join(f"{self._where}:{p}" for p in sorted(self._ports - up))
        others = sorted(set(self._process_ports()) - self._ports)
        if others:
            ports = ", ".join(map(str, others))
            hint = f"; it listens on {ports}: set `reverse: <port in the cluster>:{others[0]}`"
        else:
            hint = "; it listens on no port yet"
        self._events(Warned(text=f"nothing listens on {missing} after 20 s{hint}"))
