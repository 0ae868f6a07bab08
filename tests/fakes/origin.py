"""A small HTTP server, and an HTTP proxy for plain requests that keeps what it was asked."""

from __future__ import annotations

import threading
from collections.abc import Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer


class Answering(ThreadingHTTPServer):
    """Attributes: `asked` has the target of every request; `port` is where it listens.

    A proxy is asked with the whole URL, and answers by itself, whatever it is asked for.
    """

    def __init__(self, text: str) -> None:
        super().__init__(("127.0.0.1", 0), _Request)
        self.text = text
        self.asked: list[str] = []
        self.port = int(self.server_address[1])


class _Request(BaseHTTPRequestHandler):
    server: Answering

    def do_GET(self) -> None:
        self.server.asked.append(self.path)
        body = self.server.text.encode()
        self.send_response(200)
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)

    def log_message(self, *_: object) -> None:
        pass


@contextmanager
def answering(text: str) -> Iterator[Answering]:
    """Answer every request with `text` while the block runs."""
    with Answering(text) as server:
        thread = threading.Thread(target=server.serve_forever)
        thread.start()
        try:
            yield server
        finally:
            server.shutdown()
            thread.join()
