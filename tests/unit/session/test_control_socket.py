"""Questions to a session by its socket: real sockets, real processes."""

from __future__ import annotations

import asyncio
import json
import os
import socket
import stat
import sys
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from towline._kit.tasks import Tasks
from towline.errors import TowlineError
from towline.session import control_socket
from towline.session.control_socket import (
    NotAnswering,
    WithSockets,
    answering,
    ask,
    ask_for_sockets,
)


async def double(params: dict[str, Any]) -> dict[str, Any]:
    return {"value": params["value"] * 2}


async def refuse(_params: dict[str, Any]) -> dict[str, Any]:
    raise TowlineError("not now")


@asynccontextmanager
async def session(folder: Path) -> AsyncIterator[None]:
    methods = {"double": double, "refuse": refuse}
    async with Tasks() as tasks, answering(folder, methods, tasks=tasks):
        yield


async def test_a_question_is_answered(tmp_path: Path) -> None:
    async with session(tmp_path):
        assert await asyncio.to_thread(ask, tmp_path, "double", value=21) == {"value": 42}
        with pytest.raises(NotAnswering, match="not now"):
            await asyncio.to_thread(ask, tmp_path, "refuse")
        with pytest.raises(NotAnswering, match="knows no 'other'"):
            await asyncio.to_thread(ask, tmp_path, "other")
        mode = (tmp_path / "control.sock").stat().st_mode
        assert stat.S_ISSOCK(mode) and stat.S_IMODE(mode) == 0o600
    assert not (tmp_path / "control.sock").exists()
    with pytest.raises(NotAnswering, match="does not answer"):
        ask(tmp_path, "double")


async def test_a_large_answer_comes_whole(tmp_path: Path) -> None:
    async with session(tmp_path):
        text = "x" * 500_000
        answer = await asyncio.to_thread(ask, tmp_path, "double", value=text)
        assert answer["value"] == text * 2


async def test_sockets_come_with_an_answer_and_outlive_who_gave_them(tmp_path: Path) -> None:
    given_away = socket.create_server(("127.0.0.1", 0))
    port = given_away.getsockname()[1]

    async def pass_on(_params: dict[str, Any]) -> WithSockets:
        return WithSockets({"port": port}, (given_away,))

    async with Tasks() as tasks, answering(tmp_path, {"socket": pass_on}, tasks=tasks):
        answer, (copy,) = await asyncio.to_thread(ask_for_sockets, tmp_path, "socket")
        assert answer == {"port": port}
        assert not copy.get_inheritable(), "the local process would keep the port"
        assert await asyncio.to_thread(ask, tmp_path, "socket") == answer, "and without them"
    with socket.create_connection(("127.0.0.1", port), timeout=5):
        given_away.close()
        with copy, copy.accept()[0] as accepted:
            assert accepted.getsockname()[1] == port
    with pytest.raises(ConnectionRefusedError):
        socket.create_connection(("127.0.0.1", port), timeout=5)


@pytest.mark.skipif(sys.platform != "linux", reason="by /proc")
async def test_a_long_path_is_no_obstacle(tmp_path: Path) -> None:
    folder = tmp_path / ("long" * 20) / ("path" * 20)
    folder.mkdir(parents=True)
    async with session(folder):
        assert await asyncio.to_thread(ask, folder, "double", value=1) == {"value": 2}


@pytest.mark.skipif(os.getuid() != 0, reason="only root may become another user")
async def test_another_user_is_not_answered(tmp_path: Path) -> None:
    for path in (tmp_path, *tmp_path.parents):
        if path.owner() == "root" and path != Path("/"):
            path.chmod(path.stat().st_mode | 0o011)
    script = (
        "import os, socket, sys\n"
        "os.setuid(12345)\n"
        "s = socket.socket(socket.AF_UNIX)\n"
        "s.connect(sys.argv[1])\n"
        's.sendall(b\'{"method": "double", "params": {"value": 1}}\\n\')\n'
        "print(s.recv(100))\n"
    )
    async with session(tmp_path):
        (tmp_path / "control.sock").chmod(0o666)
        words = ("-c", script, str(tmp_path / "control.sock"))
        process = await asyncio.create_subprocess_exec(
            sys.executable, *words, stdout=asyncio.subprocess.PIPE, stderr=asyncio.subprocess.PIPE
        )
        out, error = await process.communicate()
        assert out in (b"b''\n", b"") and b"double" not in out, (out, error)
        assert b"Permission" not in error, "it got as far as the socket"
        assert await asyncio.to_thread(ask, tmp_path, "double", value=1) == {"value": 2}


@settings(max_examples=30, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(st.binary(max_size=60) | st.just(json.dumps([1, 2]).encode()))
async def test_any_bytes_are_survived(tmp_path: Path, data: bytes) -> None:
    async with session(tmp_path):
        await asyncio.to_thread(_send, tmp_path, data)
        assert await asyncio.to_thread(ask, tmp_path, "double", value=1) == {"value": 2}


def _send(folder: Path, data: bytes) -> None:
    with socket.socket(socket.AF_UNIX) as asking, control_socket._reachable(folder) as path:
        asking.settimeout(5)
        asking.connect(path)
        asking.sendall(data)
        asking.shutdown(socket.SHUT_WR)
        while asking.recv(1000):
            pass
