"""Requests to the agent: one JSON object a line, over a subsystem of the SSH connection."""

from __future__ import annotations

import asyncio
import base64
import json
from collections.abc import Iterable
from contextlib import suppress
from dataclasses import dataclass
from typing import Any, Literal

import asyncssh

from towline.errors import ConnectionLost, TowlineError

SUBSYSTEM = "towline-control"


@dataclass(frozen=True, slots=True, kw_only=True)
class ReversePort:
    """One reverse port in the pod: `error` is None when the agent listens on it."""

    port: int
    error: str | None


@dataclass(frozen=True, slots=True, kw_only=True)
class AgentHello:
    """What the agent says of itself and its container."""

    version: str
    session: str
    boot: str
    arch: str
    hostname: str
    reverse: tuple[ReversePort, ...]
    search: tuple[str, ...] = ()
    uid: int = 0


class AgentError(TowlineError):
    """The agent refused a request."""


class Control(asyncssh.SSHClientSession[bytes]):
    """The client's end of the control subsystem; requests may overlap."""

    def __init__(self) -> None:
        self._channel: asyncssh.SSHClientChannel[bytes] | None = None
        self._buffer = b""
        self._next_id = 1
        self._waiting: dict[int, asyncio.Future[dict[str, Any]]] = {}
        self._listening: frozenset[int] | None = None
        self._listening_moved = asyncio.Event()

    def connection_made(self, chan: asyncssh.SSHClientChannel[bytes]) -> None:
        self._channel = chan

    def data_received(self, data: bytes, datatype: Any) -> None:
        if datatype is not None:
            return
        *lines, self._buffer = (self._buffer + data).split(b"\n")
        for line in lines:
            if line.strip():
                self._message(json.loads(line))

    def _message(self, message: dict[str, Any]) -> None:
        if "event" in message:
            if message["event"] == "listening":
                self._note_listening(message)
            return
        future = self._waiting.pop(int(message["id"]), None)
        if future is None or future.done():
            return
        if "error" in message:
            error = message["error"]
            future.set_exception(AgentError(f"the agent: {error['message']}"))
        else:
            future.set_result(message.get("result") or {})

    def connection_lost(self, exc: Exception | None) -> None:
        for future in self._waiting.values():
            if not future.done():
                future.set_exception(
                    ConnectionLost(f"the agent's control ended: {exc or 'closed'}")
                )
        self._waiting.clear()
        self._channel = None
        self._listening_moved.set()

    async def request(self, method: str, **params: Any) -> dict[str, Any]:
        """Ask the agent; waits out a lost network (the line resumes).

        Raises:
            AgentError: it refused, with its words.
            ConnectionLost: the connection is gone for good.
        """
        if self._channel is None:
            raise ConnectionLost("the agent's control is closed")
        number, self._next_id = self._next_id, self._next_id + 1
        future: asyncio.Future[dict[str, Any]] = asyncio.get_running_loop().create_future()
        self._waiting[number] = future
        message = {"id": number, "method": method, "params": params}
        self._channel.write(json.dumps(message).encode() + b"\n")
        try:
            return await future
        finally:
            self._waiting.pop(number, None)

    async def hello(self) -> AgentHello:
        """Ask who is there."""
        result = await self.request("hello")
        return AgentHello(
            version=str(result["version"]),
            session=str(result["session"]),
            boot=str(result["boot"]),
            arch=str(result["arch"]),
            hostname=str(result["hostname"]),
            uid=int(result["uid"]),
            search=tuple(map(str, result.get("search") or ())),
            reverse=tuple(
                ReversePort(port=int(r["port"]), error=r.get("error") or None)
                for r in result.get("reverse") or []
            ),
        )

    async def environ(self) -> dict[bytes, bytes]:
        """The environment of the container's first process, as the kubelet made it."""
        result = await self.request("environ")
        pairs = (base64.b64decode(each).partition(b"=") for each in result["vars"])
        return {name: value for name, _, value in pairs}

    async def gate(self, *, is_open: bool) -> None:
        """Open or shut the gate; it stays so until told otherwise, or the line is gone."""
        await self.request("gate", open=is_open)

    async def route(
        self,
        mode: Literal["client", "hold", "pass"],
        *,
        hold_for_s: float = 0.0,
        to: dict[int, list[str]] | None = None,
        listen: Iterable[int] = (),
    ) -> int:
        """Say where connections to the reverse ports go; returns how many wait now.

        Args:
            listen: ports that a process of the dev container leaves, or has left: what comes
                to them from then on is held, too.
        """
        result = await self.request(
            "route",
            mode=mode,
            hold_for_s=hold_for_s,
            listen=sorted(listen),
            **(
                {"pass": {str(port): list(addresses) for port, addresses in to.items()}}
                if to
                else {}
            ),
        )
        return int(result.get("held") or 0)

    async def listening(self, *, unlike: frozenset[int], within_s: float) -> frozenset[int]:
        """The TCP ports that somebody in the pod listens on for others.

        Waits until they are not `unlike`, `within_s` at most. The agent tells of changes by
        itself: to look sends nothing.

        Raises:
            ConnectionLost: the connection is gone for good.
        """
        if self._listening is None:
            self._note_listening(await self.request("listening"))
        with suppress(TimeoutError):
            async with asyncio.timeout(within_s):
                while self._channel is not None and self._listening == unlike:
                    self._listening_moved.clear()
                    await self._listening_moved.wait()
        if self._channel is None:
            raise ConnectionLost("the agent's control is closed")
        assert self._listening is not None
        return self._listening

    def _note_listening(self, message: dict[str, Any]) -> None:
        self._listening = frozenset(int(port) for port in message["ports"])
        self._listening_moved.set()

    async def status(self) -> dict[str, Any]:
        """The agent's own figures, as docs/protocol.md has them."""
        return await self.request("status")
