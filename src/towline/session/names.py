"""The cluster's names on the laptop while a session lasts: watched, listened for, written down."""

from __future__ import annotations

import asyncio
import os
import sys
from collections.abc import Callable, Mapping
from contextlib import aclosing
from pathlib import Path
from typing import TYPE_CHECKING

from towline._kit.limits import room_for
from towline._kit.objects import JsonObject
from towline._kit.tasks import Tasks
from towline._kit.together import together
from towline.cluster.api import Api
from towline.cluster.watch import continuous_watch
from towline.environ.names import (
    DOMAIN,
    ClusterName,
    NotAName,
    added_name,
    api_server,
    cluster_names,
    dns_domain,
    hosts_file,
    joined,
    loopback_address,
    udp_ports,
)
from towline.environ.rewrite import End
from towline.errors import ClusterError, Forbidden, NotFound
from towline.manifest.model import Entry
from towline.process.listening import listeners

if TYPE_CHECKING:
    from towline.transport.control import AgentHello
    from towline.tunnels.named import LocalPort, NamedListeners

LAPTOP_HOSTS = Path("/etc/hosts")
# What a deployment changes comes in bursts.
_SETTLE_S = 0.05
_AGAIN_S = 10.0
# As tunnels.named says it, which takes too long to import here.
NEEDS_RIGHTS = "needs rights"
_SHARED_ADDRESS = "127.0.0.1"
_TOLD_AT_MOST = 5


class SessionNames:
    """The names of one session.

    Args:
        key: what the addresses depend on, beside the name: two sessions on one laptop
            have addresses of their own.
        hosts: the hosts file of the process's own; kept up to date in place.
        tell: says something worth knowing.
    """

    def __init__(
        self,
        entry: Entry,
        *,
        api: Api,
        key: str,
        hosts: Path,
        listening: NamedListeners,
        tell: Callable[[str], None],
    ) -> None:
        self._entry = entry
        self._api = api
        self._key = key
        self._hosts = hosts
        self._listeners = listening
        self._tell = tell
        self._told: set[str] = set()
        self._domain = DOMAIN
        self._services: dict[str, JsonObject] = {}
        self._slices: dict[str, JsonObject] | None = {}
        self._added: list[ClusterName] = []
        self._names: dict[str, ClusterName] = {}
        self._addresses: dict[str, str] = {}
        self._ports: dict[str, dict[int, LocalPort]] = {}
        self._changed = asyncio.Event()
        self._is_shown = False

    @property
    def count(self) -> int:
        return len(self._names)

    async def begin(self) -> None:
        """Read what there is and listen for all of it.

        Raises:
            ClusterError: the Services may not be read.
        """
        services, slices = await together(self._list("services"), self._list_slices())
        self._services = {_uid(each): each for each in services}
        self._slices = None if slices is None else {_uid(each): each for each in slices}
        self._added = await self._look_up()
        await self._apply()
        udp = udp_ports(services)
        if udp:
            shown = ", ".join(udp[:_TOLD_AT_MOST]) + (" …" if udp[_TOLD_AT_MOST:] else "")
            self._say(f"UDP is not carried: {shown}")

    async def follow(self) -> None:
        """Keep in step with the cluster until cancelled."""
        async with Tasks() as tasks:
            tasks.start(self._watch("services", self._services), name="services")
            if self._slices is not None:
                tasks.start(self._watch("endpointslices", self._slices), name="endpointslices")
            await self._apply_changes()

    async def use_container(
        self, hello: AgentHello, environ: Mapping[bytes, bytes], *, is_shown: bool
    ) -> None:
        """Go by what the container knows: the cluster's domain, and where its API server is.

        Args:
            is_shown: the process sees the hosts file, so it is written from now on.
        """
        self._is_shown = is_shown
        domain = dns_domain(hello.search, namespace=self._api.namespace)
        if domain != self._domain:
            self._domain = domain
            self._added = await self._look_up()
        address = environ.get(b"KUBERNETES_SERVICE_HOST", b"").decode("ascii", "replace")
        port = environ.get(b"KUBERNETES_SERVICE_PORT", b"")
        if address and port.isdigit():
            self._added.append(api_server(address, int(port), domain=self._domain))
        await self._apply()
        self.write_hosts()

    def ends(self) -> tuple[End, ...]:
        """Where each name is reached here."""
        return tuple(
            End(
                spellings=frozenset((*name.aliases, *name.addresses)),
                address=self._addresses[host],
                ports={port: local.number for port, local in self._ports[host].items()},
                is_found=self._is_shown and not self._is_hidden(host),
            )
            for host, name in self._names.items()
        )

    def added(self) -> tuple[str, ...]:
        """The spellings of names that no Service of the namespace has."""
        return tuple(alias for name in self._added for alias in name.aliases)

    def moved(self) -> dict[str, list[str]]:
        """What could not have its own port, by the reason: `needs rights` → [`api 80`, …]."""
        found: dict[str, list[str]] = {}
        for host, ports in self._ports.items():
            for port, local in ports.items():
                if local.why is not None:
                    short = min(self._names[host].aliases, key=len)
                    found.setdefault(local.why, []).append(f"{short} {port}")
        return found

    # What there is

    async def _list(self, resource: str) -> list[JsonObject]:
        return (await self._api.list_(resource)).get("items") or []

    async def _list_slices(self) -> list[JsonObject] | None:
        try:
            return await self._list("endpointslices")
        except (Forbidden, NotFound):
            return None

    async def _look_up(self) -> list[ClusterName]:
        found = []
        for text in self._entry.settings.names.add:
            try:
                namespace, name = added_name(
                    text, namespace=self._api.namespace, domain=self._domain
                )
            except NotAName as error:
                self._say(f"names: {error}")
                continue
            if namespace == self._api.namespace:
                continue  # a Service of this namespace is there by itself
            if namespace:
                service = name.aliases[0].partition(".")[0]
                try:
                    path = f"/api/v1/namespaces/{namespace}/services/{service}"
                    seen = await self._api.request("GET", path)
                except ClusterError as error:
                    self._say(
                        f"names: the ports of '{text}' are not known ({error.message}): "
                        f"say them, as {text}:8080"
                    )
                    continue
                [name] = [
                    each for each in cluster_names(
                        [seen], None, namespace=namespace, domain=self._domain
                    ) if each.host == name.host
                ]  # fmt: skip
                name = _without_short(name, service)
            found.append(name)
        return found

    async def _watch(self, resource: str, known: dict[str, JsonObject]) -> None:
        while True:
            try:
                async with aclosing(continuous_watch(self._api, resource)) as events:  # type: ignore[type-var]
                    async for event in events:
                        if event.kind == "DELETED":
                            known.pop(_uid(event.object), None)
                        else:
                            known[_uid(event.object)] = event.object
                        self._changed.set()
            except Forbidden:
                self._say(
                    f"{resource} may not be watched: those made or removed from now on are not seen"
                )
                return
            except ClusterError as error:
                # Names are no reason to end a session: credentials may be renewed.
                self._say(f"the cluster's names are not followed at the moment: {error.message}")
                await asyncio.sleep(_AGAIN_S)

    async def _apply_changes(self) -> None:
        while True:
            await self._changed.wait()
            await asyncio.sleep(_SETTLE_S)
            self._changed.clear()
            try:
                await self._apply()
            except OSError as error:
                self._say(f"the process's hosts file cannot be written: {error}")

    # What is done about it

    async def _apply(self) -> None:
        slices = None if self._slices is None else self._slices.values()
        made = cluster_names(
            self._services.values(), slices, namespace=self._api.namespace, domain=self._domain
        )
        wanted = joined((*made, *self._added))
        if wanted == self._names:
            return
        for host in self._names.keys() - wanted.keys():
            self._listeners.stop(self._asked(host))
            del self._addresses[host], self._ports[host]
        new = wanted.keys() - self._addresses.keys()
        taken = self._taken() if new else set()
        for host in sorted(new):
            address = _SHARED_ADDRESS
            if _has_own_addresses():
                address = loopback_address(f"{self._key}/{host}", taken=taken)
            taken.add(address)
            self._addresses[host], self._ports[host] = address, {}
        count = sum(len(name.ports) for name in wanted.values())
        self._listeners.at_most = room_for(count)
        for host, name in wanted.items():
            if self._names.get(host) != name:
                await self._listen(name)
        if self._listeners.at_most < count:
            self._say(
                f"{count} ports of the cluster's names are more than the open files that are "
                f"allowed here: some cannot be reached; raise the limit: ulimit -Hn {count + 1024}"
            )
        self._names = wanted
        self.write_hosts()

    def _taken(self) -> set[str]:
        """Addresses that somebody listens on; another session, mostly."""
        table = listeners() or ()
        return {each.address for each in table} | set(self._addresses.values())

    async def _listen(self, name: ClusterName) -> None:
        address, asked = self._addresses[name.host], self._asked(name.host)
        self._listeners.stop(asked, but=name.ports)
        is_known = self._ports[name.host].keys() >= set(name.ports)
        ports = {}
        for port in name.ports if not (name.is_empty and is_known) else ():
            opened = await self._listeners.open(
                asked, port, address=address, is_own=address != _SHARED_ADDRESS
            )
            if opened is not None:
                ports[port] = opened
        if name.is_empty:
            # As in the cluster: nobody is there, and the connection is refused.
            self._listeners.stop(asked)
        self._ports[name.host] = ports or {
            port: local for port, local in self._ports[name.host].items() if port in name.ports
        }

    def _asked(self, host: str) -> str:
        """The name as the pod resolves it: with a dot no search domains are tried."""
        return host + "." if host.endswith(f".svc.{self._domain}") else host

    def _is_hidden(self, host: str) -> bool:
        """Whether the name would only lead to programs of the laptop."""
        ports = self._ports[host].values()
        return bool(ports) and all(local.why not in (None, NEEDS_RIGHTS) for local in ports)

    def write_hosts(self) -> None:
        """Bring the process's own hosts file up to date, in place: it is mounted."""
        if not self._is_shown:
            return
        laptop = LAPTOP_HOSTS.read_text(errors="surrogateescape") if LAPTOP_HOSTS.exists() else ""
        made = hosts_file(
            laptop,
            {
                self._addresses[host]: name.aliases
                for host, name in self._names.items()
                if self._ports[host] and not self._is_hidden(host)
            },
        )
        write_in_place(self._hosts, made.text.encode(errors="surrogateescape"))
        if made.clashes:
            names = ", ".join(made.clashes[:_TOLD_AT_MOST])
            self._say(f"for the process {names} is the cluster's, not the laptop's own host")

    def _say(self, text: str) -> None:
        if text not in self._told:
            self._told.add(text)
            self._tell(text)


def _has_own_addresses() -> bool:
    """Linux answers on all of 127/8; elsewhere only the first is there without root."""
    return sys.platform == "linux"


def _without_short(name: ClusterName, service: str) -> ClusterName:
    aliases = tuple(alias for alias in name.aliases if alias != service)
    return ClusterName(host=name.host, aliases=aliases, ports=name.ports, addresses=name.addresses)


def _uid(item: JsonObject) -> str:
    return str(item["metadata"]["uid"])


def write_in_place(path: Path, data: bytes) -> None:
    """One write, then the end cut off: a reader finds old lines behind, never half of one.

    For files that are mounted below /etc: a command of root's that has become another user
    reads them, too.
    """
    handle = os.open(path, os.O_WRONLY | os.O_CREAT, 0o644)
    try:
        os.fchmod(handle, 0o644)
        os.pwrite(handle, data, 0)
        os.ftruncate(handle, len(data))
    finally:
        os.close(handle)
