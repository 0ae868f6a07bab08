"""Debuggers: a client of the Debug Adapter Protocol, and the JDK's own of JDWP."""

from __future__ import annotations

import json
import os
import re
import select
import socket
import subprocess
import time
from pathlib import Path
from types import TracebackType
from typing import Any

ANSWER_TIMEOUT_S = 30.0


class Dap:
    """A client of the Debug Adapter Protocol, attached to `debugpy --listen`.

    https://microsoft.github.io/debug-adapter-protocol: a JSON object behind a
    Content-Length header; requests are answered by `request_seq`, events come at any time.
    """

    def __init__(self, port: int) -> None:
        self._socket = socket.create_connection(("localhost", port), ANSWER_TIMEOUT_S)
        self._stream = self._socket.makefile("rb")
        self._sequence = 0
        self._waiting: list[dict[str, Any]] = []

    def __enter__(self) -> Dap:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self._stream.close()
        self._socket.close()

    def attach(self, path: Path, line: int) -> None:
        """Attach, with a breakpoint."""
        self.request("initialize", adapterID="debugpy", pathFormat="path")
        attaching = self._send("attach", {"justMyCode": True})
        self.event("initialized")
        source = {"path": str(path)}
        set_ = self.request("setBreakpoints", source=source, breakpoints=[{"line": line}])
        assert set_["breakpoints"][0]["verified"], set_
        self.request("configurationDone")
        self._answer(attaching)

    def request(self, command: str, **arguments: Any) -> dict[str, Any]:
        return self._answer(self._send(command, arguments))

    def event(self, name: str) -> dict[str, Any]:
        return self._take(lambda message: message.get("event") == name)

    def stands_for(self, seconds: float) -> None:
        """See that for so long the debuggee neither goes on, ends, nor loses us."""
        deadline = time.monotonic() + seconds
        while (left := deadline - time.monotonic()) > 0:
            if not select.select([self._socket], [], [], left)[0]:
                return
            message = self._read()
            assert message.get("event") not in {"continued", "terminated", "exited"}, message
            self._waiting.append(message)

    def _send(self, command: str, arguments: dict[str, Any]) -> int:
        self._sequence += 1
        message = {"type": "request", "command": command, "arguments": arguments}
        body = json.dumps({"seq": self._sequence, **message}).encode()
        self._socket.sendall(b"Content-Length: %d\r\n\r\n%s" % (len(body), body))
        return self._sequence

    def _answer(self, sequence: int) -> dict[str, Any]:
        answer = self._take(lambda message: message.get("request_seq") == sequence)
        assert answer["success"], answer
        return dict(answer.get("body") or {})

    def _take(self, wanted: Any) -> dict[str, Any]:
        for message in self._waiting:
            if wanted(message):
                self._waiting.remove(message)
                return message
        while not wanted(message := self._read()):
            self._waiting.append(message)
        return message

    def _read(self) -> dict[str, Any]:
        length = 0
        while (line := self._stream.readline()).strip():
            name, _, value = line.decode().partition(":")
            if name.lower() == "content-length":
                length = int(value)
        assert length, "the debuggee is gone"
        message: dict[str, Any] = json.loads(self._stream.read(length))
        return message


class Jdb:
    """The JDK's debugger, attached over JDWP."""

    def __init__(self, port: int) -> None:
        self._process = subprocess.Popen(
            ["jdb", "-attach", f"localhost:{port}"],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
        )
        self._said = ""
        self._seen = 0
        self.until(r"> ")

    def __enter__(self) -> Jdb:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        # Its end resumes the debuggee.
        self._process.kill()
        self._process.wait(timeout=10)
        for pipe in (self._process.stdin, self._process.stdout):
            assert pipe is not None
            pipe.close()

    def ask(self, command: str, answer: str) -> re.Match[str]:
        """Type a command and read on to its answer."""
        assert self._process.stdin is not None
        self._process.stdin.write(f"{command}\n".encode())
        self._process.stdin.flush()
        return self.until(answer)

    def until(self, pattern: str) -> re.Match[str]:
        deadline = time.monotonic() + ANSWER_TIMEOUT_S
        while not (found := re.compile(pattern).search(self._said, self._seen)):
            assert self._more(deadline - time.monotonic()), f"no {pattern!r}: {self._said!r}"
        self._seen = found.end()
        return found

    def stands_for(self, seconds: float) -> None:
        """See that for so long the debuggee neither goes on, ends, nor loses us."""
        deadline = time.monotonic() + seconds
        while self._more(deadline - time.monotonic()):
            pass
        later = self._said[self._seen :]
        assert self._process.poll() is None and "disconnected" not in later, later

    def _more(self, within_s: float) -> bool:
        """Read what it says next; False if it says nothing."""
        assert self._process.stdout is not None
        output = self._process.stdout.fileno()
        if within_s <= 0 or not select.select([output], [], [], within_s)[0]:
            return False
        piece = os.read(output, 65536).decode(errors="replace")
        assert piece, f"jdb ended: {self._said!r}"
        self._said += piece
        return True
