"""A service of an entry while its session lasts."""

from __future__ import annotations

import asyncio

from towline.session.events import Restoring, Warned
from towline.session.requests import Phase
from towline.session.sync_serving import SyncServing

# As the kubelet does, with less patience: somebody sits and edits.
_AGAIN_S, _AGAIN_AT_MOST_S = 1.0, 30.0


class ServiceServing(SyncServing):
    """As `SyncServing`, with nobody at the terminal: a command that ends starts again."""

    has_input = False

    async def _until_the_command_ends(self) -> int:
        self._requests.phase = Phase.SERVING
        again_s = _AGAIN_S
        while True:
            ending = await self._run_command()
            if ending is not None:
                text = f"the command ended ({ending}): it starts again in {again_s:g} s"
                self._events(Warned(text=text))
            if ending is None or await self._is_asked_within(again_s):
                self._events(Restoring(reason=self._requests.reason or ""))
                return 0
            again_s = min(again_s * 2, _AGAIN_AT_MOST_S)

    async def _is_asked_within(self, seconds: float) -> bool:
        try:
            async with asyncio.timeout(seconds):
                await self._requests.wait()
        except TimeoutError:
            return False
        return True
