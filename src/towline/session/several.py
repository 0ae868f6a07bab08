"""Several services in development at once (`up a b`): each a session of its own.

They begin together: nothing is changed before each has looked, asked and got its ports,
and where one cannot begin, the others are given back. From there on each goes by itself.
"""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from dataclasses import dataclass, replace

from towline._kit.tasks import Tasks
from towline.cluster.api import Api
from towline.errors import NeedsConfirmation, TowlineError
from towline.manifest.model import Entry
from towline.session.events import Event, Events, Holding, Restoring, StageDone, Warned
from towline.session.options import Options
from towline.session.requests import Phase, Requests
from towline.session.services import Develop


@dataclass(frozen=True, slots=True, kw_only=True)
class Part:
    """One of them, and where what happens in it is told."""

    entry: Entry
    options: Options
    events: Events


class Several:
    """Sessions that begin together. `end` may be called from a signal's callback."""

    def __init__(self, parts: Sequence[Part], *, develop: Develop, api: Api) -> None:
        self._parts = parts
        self._develop = develop
        self._api = api
        self._requests: dict[str, Requests] = {}
        self._begun: set[str] = set()
        self._codes: list[int] = []
        self._error: TowlineError | None = None
        self._over: tuple[str, int | None] | None = None

    async def run(self) -> int:
        """Run all of them, until the last has ended.

        Returns:
            The first exit code that is not 0.

        Raises:
            TowlineError: one could not begin; the others are given back.
        """
        together = asyncio.Barrier(len(self._parts))
        async with Tasks() as tasks:
            running = [
                tasks.start(self._one(part, together=together), name=part.entry.name)
                for part in self._parts
            ]
            await asyncio.wait(running)
        if self._error is not None:
            raise self._error
        return next((code for code in self._codes if code), 0)

    def end(self, reason: str, *, number: int | None = None) -> None:
        """Ask all of them to end."""
        self._over = self._over or (reason, number)
        for each in list(self._requests.values()):
            each.end(reason, number=number)

    async def _one(self, part: Part, *, together: asyncio.Barrier) -> None:
        name = part.entry.name
        if self._over is not None:
            return
        requests = self._requests[name] = Requests()

        async def all_are_here() -> None:
            await together.wait()

        try:
            code = await self._develop(
                part.entry,
                api=self._api,
                options=replace(part.options, before_change=all_are_here),
                events=self._noting(part),
                requests=requests,
            )
        except asyncio.CancelledError:
            if requests.reason is None:
                raise
            code = 128 + requests.signal if requests.signal else 0
        except TowlineError as error:
            code = error.exit_code
            self._failed(part, error)
        finally:
            del self._requests[name]
        self._codes.append(code)
        if code and name not in self._begun:
            self._end_others(f"{name} could not begin")

    def _failed(self, part: Part, error: TowlineError) -> None:
        name = part.entry.name
        if name in self._begun:
            hint = f"; {error.hint}" if error.hint else ""
            part.events(Warned(text=f"ended: {error.message}{hint}"))
        elif self._error is None:
            self._error = error
            error.message = f"{name}: {error.message}"
            if isinstance(error, NeedsConfirmation):
                others = ", ".join(p.entry.name for p in self._parts if p is not part)
                error.message += f"; with it goes {others}"

    def _end_others(self, reason: str) -> None:
        # Asked twice they would leave the way back to the guard, as after two Ctrl-C.
        self._over = self._over or (reason, None)
        for part in self._parts:
            each = self._requests.get(part.entry.name)
            if each is None or each.reason is not None:
                continue
            if each.phase is Phase.SETUP:  # later on it tells that itself
                part.events(Restoring(reason=reason))
            each.end(reason)

    def _noting(self, part: Part) -> Events:
        """Its events, with a note of when it has begun: the service is here, or it holds."""

        def tell(event: Event) -> None:
            match event:
                case Holding() | StageDone(stage="takeover"):
                    self._begun.add(part.entry.name)
                case _:
                    pass
            part.events(event)

        return tell
