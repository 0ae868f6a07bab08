"""Watches that last: list, then watch, then list again when the watch ends."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import aclosing
from typing import TypeVar

from towline._kit.objects import JsonObject
from towline.cluster.api import Api, WatchEvent
from towline.errors import Unreachable

# After a failure. A watch that the server ended in order is renewed at once.
_PAUSE_S = 0.5
T = TypeVar("T")


async def continuous_watch(
    api: Api, resource: str, *, labels: str | None = None, fields: str | None = None
) -> AsyncIterator[WatchEvent]:
    """Yield ADDED for all that is there, then every change, for as long as it is read.

    A lost network is waited out, also one that is away at the beginning: a session that heals
    may lose it again in the same moment. After it, what is there is told again as ADDED and
    what went meanwhile as DELETED (with the last object known).

    Raises:
        ClusterError: the server refuses (rights, credentials).
    """
    known: dict[str, JsonObject] = {}
    while True:
        try:
            listed = await api.list_(resource, labels=labels, fields=fields)
            now = {str(item["metadata"]["uid"]): item for item in listed.get("items", [])}
            for uid in known.keys() - now.keys():
                yield WatchEvent("DELETED", known[uid])
            for item in now.values():
                yield WatchEvent("ADDED", item)
            known = now
            version = str(listed["metadata"]["resourceVersion"])
            events = api.watch(resource, resource_version=version, labels=labels, fields=fields)
            async with aclosing(events) as changes:  # type: ignore[type-var]
                async for event in changes:
                    if event.kind == "BOOKMARK":
                        continue
                    uid = str(event.object["metadata"]["uid"])
                    if event.kind == "DELETED":
                        known.pop(uid, None)
                    else:
                        known[uid] = event.object
                    yield event
        except Unreachable:
            await asyncio.sleep(_PAUSE_S)


async def patiently(
    action: Callable[[], Awaitable[T]], *, waiting: Callable[[str], None] = lambda reason: None
) -> T:
    """Do what may be done twice, again for as long as the network is away.

    Args:
        waiting: told of the first failure, and no other.
    """
    is_told = False
    while True:
        try:
            return await action()
        except Unreachable as error:
            if not is_told:
                waiting(error.message)
            is_told = True
            await asyncio.sleep(_PAUSE_S)


async def until(
    api: Api,
    resource: str,
    condition: Callable[[WatchEvent], bool],
    *,
    labels: str | None = None,
    fields: str | None = None,
) -> WatchEvent:
    """Watch until an event meets the condition, and return it."""
    async with aclosing(continuous_watch(api, resource, labels=labels, fields=fields)) as events:  # type: ignore[type-var]
        async for event in events:
            if condition(event):
                return event
    raise AssertionError("a continuous watch does not end")


async def until_gone(api: Api, resource: str, *, labels: str) -> None:
    """Wait until no object with these labels is left; at once when there is none."""
    while True:
        listed = await api.list_(resource, labels=labels)
        left = {str(item["metadata"]["uid"]) for item in listed.get("items") or []}
        if not left:
            return
        version = str(listed["metadata"]["resourceVersion"])
        changes = api.watch(resource, resource_version=version, labels=labels)
        async with aclosing(changes) as events:  # type: ignore[type-var]
            async for event in events:
                if event.kind == "DELETED":
                    left.discard(str(event.object["metadata"]["uid"]))
                if not left:
                    break
