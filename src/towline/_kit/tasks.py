"""Tasks with a lexical lifetime that callbacks may start, too."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Coroutine
from typing import Any, TypeVar

T = TypeVar("T")


class Tasks:
    """A TaskGroup whose tasks end with the block: `async with Tasks() as tasks`.

    Leaving the block cancels what still runs and waits for it. The first error of a
    task cancels the block and is raised from it as itself.
    """

    def __init__(self) -> None:
        self._running: set[asyncio.Task[Any]] = set()
        self._owner: asyncio.Task[Any] | None = None
        self._error: BaseException | None = None
        self._closing = False

    async def __aenter__(self) -> Tasks:
        self._owner = asyncio.current_task()
        return self

    async def __aexit__(self, kind: object, error: BaseException | None, trace: object) -> None:
        self._closing = True
        for task in self._running:
            task.cancel()
        while self._running:
            await asyncio.wait(self._running)
        if self._error is not None:
            owner = asyncio.current_task()
            if isinstance(error, asyncio.CancelledError) and owner is not None:
                owner.uncancel()
            if error is None or isinstance(error, asyncio.CancelledError):
                raise self._error

    def start(self, job: Coroutine[Any, Any, T], *, name: str) -> asyncio.Task[T]:
        """Run a coroutine until the block ends. After its end the coroutine is closed unrun."""
        loop = asyncio.get_running_loop()
        task = loop.create_task(job, name=name)
        self._running.add(task)
        task.add_done_callback(self._ended)
        if self._closing:
            task.cancel()
        return task

    def _ended(self, task: asyncio.Task[Any]) -> None:
        self._running.discard(task)
        if task.cancelled() or task.exception() is None:
            return
        if self._error is None:
            self._error = task.exception()
            if not self._closing and self._owner is not None:
                self._owner.cancel()


async def finish(job: Coroutine[Any, Any, T]) -> T:
    """Run a coroutine to its end in a task of its own, also when the caller was cancelled.

    A caller that is being cancelled cannot await in peace: each time-out and group inside
    would count its cancellation as theirs. Cancelled again while it waits, it cancels the
    coroutine too, waits for it, and raises the cancellation.
    """
    task = asyncio.get_running_loop().create_task(job)
    try:
        return await asyncio.shield(task)
    except asyncio.CancelledError:
        if not task.done():
            task.cancel()
            await asyncio.wait([task])
        raise


async def settled(job: Coroutine[Any, Any, T], *, undo: Callable[[T], Awaitable[object]]) -> T:
    """Run a coroutine whose effect must be known; cancelled meanwhile, undo it once it is there.

    Cancelled again while it waits for that, it gives up.
    """
    task = asyncio.get_running_loop().create_task(job)
    try:
        return await asyncio.shield(task)
    except asyncio.CancelledError:
        if not task.done():
            await asyncio.wait([task])
        if not task.cancelled() and task.exception() is None:
            await undo(task.result())
        raise
