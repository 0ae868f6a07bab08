"""HTTP/1.1 to the API server: one dialling function, connections, a small pool.

Requests, watches and carriers all come through `Dialler.dial`, so proxies, TLS and
credentials behave the same for each. The grammar is h11's.
"""

from __future__ import annotations

import asyncio
import base64
import socket
import ssl
from collections.abc import AsyncIterator, Mapping
from contextlib import asynccontextmanager, suppress
from dataclasses import dataclass, field
from typing import cast
from urllib.parse import unquote, urlsplit

import h11

from towline.cluster.access import Access
from towline.errors import Unreachable

DIAL_TIMEOUT_S = 10.0
# A slow API server (admission webhooks may take 10 s, Kubernetes' default) is still one.
ANSWER_TIMEOUT_S = 35.0
_ADVICE_AT_MOST_S = 30.0
_IDLE_CONNECTIONS = 8


class ConnectionEnded(Exception):
    """The connection ended before the answer was complete."""


@dataclass(slots=True)
class Answer:
    """A complete answer: status code, headers in lower case, the body."""

    status: int
    headers: dict[str, str]
    body: bytes = field(repr=False)

    def retry_after_s(self, otherwise: float) -> float:
        """How long to wait by the server's own advice, half a minute at most."""
        try:
            return min(float(self.headers.get("retry-after", otherwise)), _ADVICE_AT_MOST_S)
        except ValueError:
            return otherwise


class HttpConnection(asyncio.Protocol):
    """One HTTP/1.1 connection; one request at a time."""

    def __init__(self) -> None:
        self.transport: asyncio.Transport | None = None
        self.tls: ssl.SSLContext | None = None
        self._http = h11.Connection(h11.CLIENT, max_incomplete_event_size=256 * 1024)
        self._wake: asyncio.Future[None] | None = None
        self._lost: Exception | None = None
        self._is_at_end = False

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        # A cast: uvloop's transports do not derive from asyncio's.
        self.transport = cast(asyncio.Transport, transport)

    def data_received(self, data: bytes) -> None:
        self._http.receive_data(data)
        self._notify()

    def eof_received(self) -> bool:
        self._is_at_end = True
        self._http.receive_data(b"")
        self._notify()
        return False

    def connection_lost(self, exc: Exception | None) -> None:
        self._lost = exc or ConnectionEnded("closed by the other side")
        self._notify()

    def _notify(self) -> None:
        if self._wake is not None and not self._wake.done():
            self._wake.set_result(None)

    @property
    def reusable(self) -> bool:
        """Whether another request may be sent on it."""
        return (
            self._lost is None
            and self._http.our_state is h11.IDLE
            and self.transport is not None
            and not self.transport.is_closing()
        )

    def close(self) -> None:
        """Close at once, without waiting."""
        if self.transport is not None:
            self.transport.abort()

    def send(self, method: str, target: str, headers: list[tuple[str, str]], body: bytes) -> None:
        """Send a whole request. `headers` must hold Host; Content-Length is added."""
        if body or method in ("POST", "PUT", "PATCH"):
            headers = [*headers, ("Content-Length", str(len(body)))]
        parts = [self._http.send(h11.Request(method=method, target=target, headers=headers))]
        if body:
            parts.append(self._http.send(h11.Data(data=body)))
        if method != "CONNECT":
            parts.append(self._http.send(h11.EndOfMessage()))
        assert self.transport is not None
        self.transport.write(b"".join(part for part in parts if part))

    async def head(self) -> h11.Response | h11.InformationalResponse:
        """Wait for the answer's status and headers (a 101 counts as an answer).

        Raises:
            ConnectionEnded: the connection ended first, or what came is not HTTP.
        """
        while True:
            event = await self._event()
            if isinstance(event, h11.Response):
                return event
            if isinstance(event, h11.InformationalResponse) and event.status_code == 101:
                return event

    async def chunks(self) -> AsyncIterator[bytes]:
        """The body's pieces as they arrive."""
        while True:
            event = await self._event()
            if isinstance(event, h11.Data):
                yield bytes(event.data)
            elif isinstance(event, h11.EndOfMessage):
                break
        if self._http.our_state is h11.DONE and self._http.their_state is h11.DONE:
            self._http.start_next_cycle()

    async def answer(self) -> Answer:
        """Wait for the whole answer."""
        return await self.rest(await self.head())

    async def rest(self, head: h11.Response | h11.InformationalResponse) -> Answer:
        """The whole answer that begins with a head."""
        body = b"".join([chunk async for chunk in self.chunks()])
        headers = {k.decode("ascii").lower(): v.decode("latin-1") for k, v in head.headers}
        return Answer(head.status_code, headers, body)

    def trailing(self) -> bytes:
        """What came behind a 101's headers: the first bytes of the other protocol."""
        return bytes(self._http.trailing_data[0])

    async def _event(self) -> object:
        while True:
            try:
                event = self._http.next_event()
            except h11.RemoteProtocolError as error:
                # Of an end where none was due h11 speaks in its own words.
                ended = "before its answer was whole" if self._is_at_end else str(error)
                raise ConnectionEnded(ended) from error
            if isinstance(event, h11.ConnectionClosed):
                raise ConnectionEnded("closed by the other side")
            if event is h11.PAUSED:
                raise ConnectionEnded("an answer came out of turn")
            if event is not h11.NEED_DATA:
                return event
            if self._lost is not None:
                raise ConnectionEnded(str(self._lost)) from self._lost
            self._wake = asyncio.get_running_loop().create_future()
            await self._wake


class Dialler:
    """Opens connections to one API server: TCP, the proxy's CONNECT, TLS."""

    def __init__(self, access: Access, *, environ: Mapping[str, str]) -> None:
        self.access = access
        url = urlsplit(access.target.cluster.server)
        self.host = url.hostname or ""
        self.port = url.port or (443 if url.scheme == "https" else 80)
        self.base_path = url.path.rstrip("/")
        self.host_header = url.netloc
        self._proxy = access.target.cluster.proxy_url or proxy_for(
            self.host, scheme=url.scheme, environ=environ
        )

    async def dial(self) -> HttpConnection:
        """Open one connection, within DIAL_TIMEOUT_S.

        Raises:
            Unreachable: nobody answers, or TLS does not come about.
        """
        try:
            async with asyncio.timeout(DIAL_TIMEOUT_S):
                return await self._dial()
        except TimeoutError as error:
            raise self._unreachable(f"no answer within {DIAL_TIMEOUT_S:.0f} s") from error
        except ssl.SSLCertVerificationError as error:
            raise self._unreachable(
                f"its certificate is not accepted: {error.verify_message}"
            ) from error
        except (OSError, ssl.SSLError, ConnectionEnded) as error:
            text = error.strerror if isinstance(error, OSError) and error.strerror else str(error)
            raise self._unreachable(text) from error

    async def _dial(self) -> HttpConnection:
        loop = asyncio.get_running_loop()
        tls = await self.access.tls()
        server_name = (self.access.target.cluster.server_name or self.host) if tls else None
        if self._proxy is None:
            _, connection = await loop.create_connection(
                HttpConnection, self.host, self.port, ssl=tls, server_hostname=server_name
            )
        else:
            connection = await self._through_proxy(self._proxy, tls, server_name)
        connection.tls = tls
        _tune(connection)
        return connection

    async def _through_proxy(
        self, proxy: str, tls: ssl.SSLContext | None, server_name: str | None
    ) -> HttpConnection:
        url = urlsplit(proxy if "://" in proxy else f"http://{proxy}")
        if url.scheme not in ("http", "https"):
            raise ConnectionEnded(f"the proxy {url.scheme}://… is of a kind that is not supported")
        loop = asyncio.get_running_loop()
        proxy_tls = ssl.create_default_context() if url.scheme == "https" else None
        port = url.port or (443 if proxy_tls else 80)
        _, asking = await loop.create_connection(
            HttpConnection, url.hostname or "", port, ssl=proxy_tls
        )
        target = f"{self.host}:{self.port}"
        headers = [("Host", target)]
        if url.username is not None:
            pair = f"{unquote(url.username)}:{unquote(url.password or '')}".encode()
            headers.append(("Proxy-Authorization", f"Basic {base64.b64encode(pair).decode()}"))
        connection = HttpConnection()
        try:
            asking.send("CONNECT", target, headers, b"")
            head = await asking.head()
            if not 200 <= head.status_code < 300:
                raise ConnectionEnded(
                    f"the proxy {url.hostname}:{port} refused: {head.status_code} "
                    f"{head.reason.decode('latin-1')}"
                )
            assert asking.transport is not None
            transport: asyncio.BaseTransport | None = asking.transport
            asking.transport.set_protocol(connection)
            if tls is not None:
                transport = await loop.start_tls(
                    asking.transport, connection, tls, server_hostname=server_name
                )
            assert transport is not None
        except BaseException:
            asking.close()
            raise
        connection.connection_made(transport)
        return connection

    def _unreachable(self, why: str) -> Unreachable:
        # Without what is before the @: a password may be there.
        proxy = urlsplit(self._proxy or "").netloc.rpartition("@")[2]
        via = f" through the proxy {proxy}" if self._proxy else ""
        return Unreachable(
            f"the API server of context {self.access.target.context!r} "
            f"({self.access.target.cluster.server}{via}) cannot be reached: {why}",
            hint="is the cluster up and your VPN on? another one: `--context NAME`",
        )


# A watch may be silent for a minute: only probes tell a quiet server from a lost network.
_KEEP_ALIVE = (("TCP_KEEPIDLE", 10), ("TCP_KEEPINTVL", 5), ("TCP_KEEPCNT", 3))


def _tune(connection: HttpConnection) -> None:
    assert connection.transport is not None
    raw = connection.transport.get_extra_info("socket")
    if raw is None:
        return
    with suppress(OSError):
        raw.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        raw.setsockopt(socket.SOL_SOCKET, socket.SO_KEEPALIVE, 1)
        for name, value in _KEEP_ALIVE:
            if hasattr(socket, name):  # Windows and macOS have some of them only
                raw.setsockopt(socket.IPPROTO_TCP, getattr(socket, name), value)


def proxy_for(host: str, *, scheme: str, environ: Mapping[str, str]) -> str | None:
    """The proxy that HTTPS_PROXY/HTTP_PROXY and NO_PROXY give for a host, as kubectl reads them."""
    key = f"{scheme}_proxy"
    proxy = environ.get(key.upper()) or environ.get(key)
    if not proxy:
        return None
    if host in ("localhost", "::1") or host.startswith("127."):
        return None
    for entry in (environ.get("NO_PROXY") or environ.get("no_proxy") or "").split(","):
        if "/" in entry and _in_network(host, entry.strip()):
            return None
        name = entry.strip().lstrip(".")
        # A port may follow, but for an IPv6 address without brackets.
        name = name.partition(":")[0] if name.count(":") == 1 else name.strip("[]")
        if name == "*" or (name and (host == name or host.endswith(f".{name}"))):
            return None
    return proxy


def _in_network(host: str, network: str) -> bool:
    import ipaddress

    try:
        return ipaddress.ip_address(host) in ipaddress.ip_network(network, strict=False)
    except ValueError:
        return False


class HttpPool:
    """Requests over kept connections; a stale one is replaced unnoticed."""

    def __init__(self, dialler: Dialler) -> None:
        self.dialler = dialler
        self._idle: list[HttpConnection] = []

    async def request(
        self,
        method: str,
        path: str,
        *,
        headers: list[tuple[str, str]],
        body: bytes = b"",
    ) -> Answer:
        """Send one request and wait for its whole answer.

        Raises:
            Unreachable: nobody answers, or the connection ended before the answer was whole.
        """
        tls = await self.dialler.access.tls()
        for connection, kept in self._candidates(tls):
            opened = connection or await self.dialler.dial()
            try:
                async with asyncio.timeout(ANSWER_TIMEOUT_S):
                    opened.send(method, path, [*self._common(), *headers], body)
                    answer = await opened.answer()
            except ConnectionEnded as error:
                opened.close()
                if kept:
                    # The server closed an idle connection while we picked it: nothing of
                    # the request was answered, and a fresh connection tells the truth.
                    continue
                raise Unreachable(f"the API server ended the connection: {error}") from error
            except TimeoutError as error:
                opened.close()
                raise Unreachable(
                    f"the API server did not answer {method} {path} in {ANSWER_TIMEOUT_S:.0f} s"
                ) from error
            except BaseException:
                opened.close()
                raise
            self._keep(opened)
            return answer
        raise AssertionError("the last candidate is always a new connection")

    def _candidates(self, tls: ssl.SSLContext | None) -> list[tuple[HttpConnection | None, bool]]:
        while self._idle:
            connection = self._idle.pop()
            # One with another context was made with a client certificate of yesterday.
            if connection.reusable and connection.tls is tls:
                return [(connection, True), (None, False)]
            connection.close()
        return [(None, False)]

    def _common(self) -> list[tuple[str, str]]:
        return [("Host", self.dialler.host_header), ("User-Agent", "towline")]

    def _keep(self, connection: HttpConnection) -> None:
        if connection.reusable and len(self._idle) < _IDLE_CONNECTIONS:
            self._idle.append(connection)
        else:
            connection.close()

    @asynccontextmanager
    async def stream(
        self, path: str, *, headers: list[tuple[str, str]]
    ) -> AsyncIterator[tuple[Answer | None, AsyncIterator[bytes]]]:
        """A GET whose body is read as it comes, on a connection of its own.

        Returns:
            The answer, whole, if it is no success, and then nothing more; the body's pieces.
        """
        connection = await self.dialler.dial()
        try:
            connection.send("GET", path, [*self._common(), *headers], b"")
            try:
                async with asyncio.timeout(ANSWER_TIMEOUT_S):
                    head = await connection.head()
            except (ConnectionEnded, TimeoutError) as error:
                raise Unreachable(f"the API server ended a watch: {error}") from error
            refused = await connection.rest(head) if head.status_code >= 300 else None
            yield refused, connection.chunks()
        finally:
            connection.close()

    def close(self) -> None:
        """Close the kept connections."""
        while self._idle:
            self._idle.pop().close()
