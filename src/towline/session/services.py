"""The `services` of an entry: further workloads, each in a session of its own beside it.

A service has its own record, dev pod, line and folders, so that it is given back like
any other; the entry's session begins them and ends them. Their names are
`ENTRY/SERVICE`, which is how `down ENTRY` finds them from any machine.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable, Coroutine
from contextlib import asynccontextmanager
from dataclasses import fields, replace
from typing import Protocol

from towline._kit.tasks import Tasks, finish
from towline.cluster.api import Api
from towline.manifest.model import Entry, Mode, Service, Workload
from towline.session.events import (
    Event,
    Events,
    PodReplaced,
    Restored,
    StageDone,
    Waiting,
    Warned,
)
from towline.session.options import Options
from towline.session.requests import Requests

_STAGES = ("cluster", "dev pod", "sync", "takeover")


class Develop(Protocol):
    """`session.run.develop`."""

    def __call__(
        self, entry: Entry, *, api: Api, options: Options, events: Events, requests: Requests
    ) -> Coroutine[object, object, int]: ...


def service_entry(entry: Entry, service: Service) -> Entry:
    """A service as an entry of its own; the folders are the entry's where it names none."""
    own = {each.name: getattr(service, each.name) for each in fields(Workload)}
    return Entry(
        **{
            **own,
            "name": f"{entry.name}/{service.name or service_label(service)}",
            "sync": service.sync if service.sync.folders else entry.sync,
        },
        is_service=True,
        mode=Mode.SYNC,
        interface=entry.interface,
        persistent_volume=entry.persistent_volume,
        timeout_s=entry.timeout_s,
        resources_timeout_s=entry.resources_timeout_s,
        settings=entry.settings,
    )


def service_label(service: Service) -> str:
    """What a service without a name is called: its selector's values."""
    return service.workload or "-".join((service.selector or {}).values())


class Services:
    """The sessions beside an entry's."""

    def __init__(self) -> None:
        self._requests: list[Requests] = []

    def end(self) -> None:
        """Ask all of them to end; the block that they run in waits for that."""
        for each in self._requests:
            # Asked twice they would leave the way back to the guard, as after two Ctrl-C.
            if each.reason is None:
                each.end("the session ends")

    async def run(
        self, develop: Develop, entry: Entry, *, api: Api, options: Options, events: Events
    ) -> None:
        """One of them, from its plan to its workload as it was."""
        requests = Requests()
        self._requests.append(requests)
        try:
            await develop(entry, api=api, options=options, events=events, requests=requests)
        except asyncio.CancelledError:
            if requests.reason is None:
                raise


@asynccontextmanager
async def services_beside(
    entry: Entry, develop: Develop, *, api: Api, options: Options, events: Events
) -> AsyncIterator[Services]:
    """Take the entry's services into development while the block runs.

    Raises:
        TowlineError: one of them cannot be; the block is cancelled.
    """
    services = Services()
    if not entry.services or entry.mode is not Mode.SYNC:
        yield services
        return
    running: list[asyncio.Task[None]] = []
    async with Tasks() as tasks:
        for service in entry.services:
            made = service_entry(entry, service)
            if service.replicas not in (None, 1):
                text = f"{made.name} has one dev pod in development, not {service.replicas}"
                events(Warned(text=text))
            job = services.run(
                develop,
                made,
                api=api,
                options=_options(options),
                events=_told_as(made.name, events),
            )
            running.append(tasks.start(job, name=made.name))
        try:
            yield services
        finally:
            services.end()
            await finish(_ended(running))


async def _ended(running: list[asyncio.Task[None]]) -> None:
    if running:
        await asyncio.wait(running)


def _options(options: Options) -> Options:
    """Nobody types into a service, and its output is kept for `logs`."""
    return replace(
        options,
        variables=(),
        ask=None,
        offer=None,
        assume_yes=True,
        terminal=False,
        outputs=None,
        before_change=None,
        keep_output=True,
    )


def _told_as(name: str, events: Events) -> Callable[[Event], None]:
    """What is worth telling of a service, with its name."""

    def tell(event: Event) -> None:
        match event:
            case StageDone() if event.stage in _STAGES:
                text = f"{event.stage}: {event.text}"
                events(StageDone(stage=name, text=text, seconds=event.seconds))
            case Waiting():
                events(Waiting(stage=name, reason=event.reason))
            case Warned():
                events(Warned(text=f"{name}: {event.text}"))
            case PodReplaced():
                events(Warned(text=f"{name}: {event.pod} stands in after {event.after_s:.1f} s"))
            case Restored():
                events(StageDone(stage=name, text=event.text, seconds=event.seconds))
            case _:
                pass  # what is of the connection is the entry's session's, too

    return tell
