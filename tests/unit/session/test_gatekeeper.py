"""When the gate moves."""

from __future__ import annotations

import asyncio
from collections.abc import Iterable

from towline.session.gatekeeper import Gatekeeper

PORT = 8080
HOLD_FOR_S = 0.1


class World:
    """Ports that are listened on, and the agent's gate."""

    def __init__(self) -> None:
        self.up: frozenset[int] = frozenset()
        self.moves: list[bool] = []
        self.looks = 0
        self.news = asyncio.Condition()
        self.keeper = Gatekeeper(
            ports=frozenset({PORT}),
            hold_for_s=HOLD_FOR_S,
            listening=self.listening,
            set_gate=self.set_gate,
            process_ports=lambda: (),
            events=lambda _: None,
        )

    async def listening(self, _: Iterable[int]) -> frozenset[int]:
        async with self.news:
            self.looks += 1
            self.news.notify_all()
        return self.up

    async def set_gate(self, is_open: bool) -> None:
        async with self.news:
            self.moves.append(is_open)
            self.news.notify_all()

    async def moved(self, *moves: bool) -> None:
        async with asyncio.timeout(20), self.news:
            await self.news.wait_for(lambda: self.moves == list(moves))

    async def looked(self, times: int) -> None:
        until = self.looks + times
        async with asyncio.timeout(20), self.news:
            await self.news.wait_for(lambda: self.looks >= until)


async def test_it_shuts_once_the_port_is_away_for_longer_than_connections_are_held() -> None:
    world = World()
    running = asyncio.ensure_future(world.keeper.run())
    try:
        world.up = frozenset({PORT})
        await world.moved(True)
        world.up = frozenset()
        await world.moved(True, False)
    finally:
        running.cancel()


async def test_on_the_way_back_it_stays_open_however_long_the_original_takes() -> None:
    """It was shut after holdFor: an original that was slower found its callers refused."""
    world = World()
    running = asyncio.ensure_future(world.keeper.run())
    try:
        world.up = frozenset({PORT})
        await world.moved(True)
        world.keeper.stay()
        world.up = frozenset()
        await world.looked(5)  # 0.1 s apart
        assert world.moves == [True]
    finally:
        running.cancel()
