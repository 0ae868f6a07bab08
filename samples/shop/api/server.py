"""The shop's backend: counts visits in Redis. Nothing but Python itself."""

from __future__ import annotations

import os
import signal
import socket
import sys
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from types import FrameType

PORT = int(os.environ.get("PORT", "8000"))
DB_ADDR = os.environ.get("DB_ADDR", "db:6379")
TIMEOUT_S = 3.0


def redis(*commands: str) -> list[str]:
    """Run commands whose answers are a line each; returns the answers."""
    host, _, port = DB_ADDR.partition(":")
    lines = [f"AUTH {os.environ.get('REDIS_PASSWORD', '')}", *commands]
    with (
        socket.create_connection((host, int(port)), timeout=TIMEOUT_S) as connection,
        connection.makefile("rw", newline="\r\n") as stream,
    ):
        stream.write("".join(f"{line}\n" for line in lines))
        stream.flush()
        answers = [stream.readline().strip() for _ in lines]
    if failed := next((answer for answer in answers if not answer or answer[0] == "-"), None):
        raise OSError(f"redis at {DB_ADDR}: {failed[1:]}")
    return [answer[1:] for answer in answers[1:]]


def visit() -> str:
    (count,) = redis("INCR visits")
    return f"visit {count}, counted by {socket.gethostname()}"


PAGES = {
    "/visit": visit,
    "/healthz": lambda: "ok",
    "/readyz": lambda: redis("PING")[0],
}


class Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"

    def do_GET(self) -> None:
        page = PAGES.get(self.path)
        if page is None:
            self._answer(404, "not found")
            return
        try:
            self._answer(200, page())
        except OSError as error:
            self._answer(502, str(error))

    def log_message(self, format: str, *args: object) -> None:
        """Probes would fill the log."""

    def _answer(self, status: int, text: str) -> None:
        body = f"{text}\n".encode()
        self.send_response(status)
        self.send_header("Content-Type", "text/plain; charset=utf-8")
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)


def stop(signum: int, frame: FrameType | None) -> None:
    sys.exit(0)


if __name__ == "__main__":
    # As process 1 of a container it would otherwise ignore SIGTERM.
    signal.signal(signal.SIGTERM, stop)
    server = ThreadingHTTPServer(("", PORT), Handler)
    print(f"api listens on {PORT}", flush=True)
    server.serve_forever()
