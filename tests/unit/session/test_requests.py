"""What Ctrl-C and its like mean, phase by phase."""

from __future__ import annotations

import asyncio
import os
import signal

import pytest

from towline.session.requests import Phase, Requests, signals


async def test_before_the_command_it_cancels() -> None:
    requests = Requests()
    with signals(requests.end), pytest.raises(asyncio.CancelledError):
        os.kill(os.getpid(), signal.SIGINT)
        await asyncio.sleep(5)
    task = asyncio.current_task()
    assert task is not None
    task.uncancel()
    assert requests.signal == signal.SIGINT


async def test_while_serving_it_is_waited_for() -> None:
    requests = Requests()
    requests.phase = Phase.SERVING
    with signals(requests.end):
        os.kill(os.getpid(), signal.SIGTERM)
        async with asyncio.timeout(5):
            assert await requests.wait()
    assert requests.signal == signal.SIGTERM


async def test_on_the_way_back_only_the_second_one_cancels() -> None:
    requests = Requests()
    requests.phase = Phase.SERVING
    requests.end("Ctrl-C", number=2)
    requests.restoring()
    await asyncio.sleep(0)
    with pytest.raises(asyncio.CancelledError):
        requests.end("again", number=15)
        await asyncio.sleep(5)
    task = asyncio.current_task()
    assert task is not None
    task.uncancel()
    assert (requests.reason, requests.signal) == ("Ctrl-C", 2), "the first reason is the reason"


async def test_a_request_on_the_way_back_alone_does_not_stop_it() -> None:
    requests = Requests()
    requests.restoring()
    requests.end("Ctrl-C", number=2)
    await asyncio.sleep(0)
    assert requests.restoring() >= 0.0
