"""The few requests to the API server that bringing a node up takes."""

from __future__ import annotations

import http.client
import json
import ssl
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from problem import Problem

Object = dict[str, Any]


@dataclass(frozen=True, slots=True)
class Api:
    """The API server at host:port, under the name its certificate has for that way in."""

    host: str
    port: int
    tls_name: str
    pki: Path

    def get(self, path: str, *, timeout_s: float = 5.0) -> Object | None:
        """The object at path, or None: not there, or no answer (yet)."""
        try:
            status, body = self._request("GET", path, None, timeout_s)
        except OSError:
            return None
        except http.client.HTTPException:
            return None
        if status != 200:
            return None
        return json.loads(body) if body.startswith(b"{") else {"text": body.decode()}

    def create(self, collection: str, item: Object) -> None:
        """Create item; one that exists already is left as it is."""
        body = json.dumps(item).encode()
        status, answer = self._request("POST", collection, body, 10.0)
        if status not in {200, 201, 202, 409}:
            named = f"{item['kind']} {item['metadata']['name']}"
            raise Problem(f"the API server refused {named}: {answer.decode(errors='replace')}")

    def _request(
        self, method: str, path: str, body: bytes | None, timeout_s: float
    ) -> tuple[int, bytes]:
        context = ssl.create_default_context(cafile=str(self.pki / "ca.crt"))
        context.load_cert_chain(self.pki / "admin.crt", self.pki / "admin.key")
        connection = _Connection(self.host, self.port, self.tls_name, context, timeout_s)
        try:
            headers = {"Content-Type": "application/json", "Accept": "application/json"}
            connection.request(method, path, body=body, headers=headers)
            response = connection.getresponse()
            return response.status, response.read()
        finally:
            connection.close()


class _Connection(http.client.HTTPSConnection):
    """HTTPS to an address, under another name than the address."""

    def __init__(
        self, host: str, port: int, tls_name: str, context: ssl.SSLContext, timeout_s: float
    ) -> None:
        super().__init__(host, port, timeout=timeout_s, context=context)
        self._tls_name = tls_name
        self._tls_context = context

    def connect(self) -> None:
        http.client.HTTPConnection.connect(self)
        self.sock = self._tls_context.wrap_socket(self.sock, server_hostname=self._tls_name)
