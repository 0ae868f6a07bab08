"""The cluster's names as the local process finds them: which there are, and where. [pure]

Each name of the cluster (a Service, a pod of a headless one, a name of the manifest)
gets a loopback address of its own, so that it keeps its own port. The hosts file that
only the process sees leads its spellings there.
"""

from __future__ import annotations

import hashlib
from collections.abc import Collection, Iterable, Mapping
from dataclasses import dataclass

from towline._kit.objects import JsonObject

DOMAIN = "cluster.local"
# musl reads a hosts file in pieces of 512 bytes, and a longer line not to its end.
_LINE_BYTES = 500
# Programs count on these being the machine itself.
_LAPTOPS_ALWAYS = frozenset({"localhost", "localhost.localdomain", "ip6-localhost"})


@dataclass(frozen=True, slots=True, kw_only=True)
class ClusterName:
    """A name of the cluster.

    Attributes:
        host: the whole name, as the pod is asked to resolve it.
        aliases: how the process may spell it, the whole name first.
        ports: TCP, as the cluster has them.
        addresses: the cluster's own addresses of it, as service links have them.
        is_empty: nothing answers there at the moment: connections are refused.
    """

    host: str
    aliases: tuple[str, ...]
    ports: tuple[int, ...]
    addresses: tuple[str, ...] = ()
    is_empty: bool = False


def cluster_names(
    services: Iterable[JsonObject],
    slices: Iterable[JsonObject] | None,
    *,
    namespace: str,
    domain: str = DOMAIN,
) -> tuple[ClusterName, ...]:
    """The names that a namespace's Services make, as the cluster's DNS has them.

    Args:
        slices: EndpointSlices: pods of headless Services come from them, and whether a
            Service has anybody to answer. None where they may not be read.
    """
    by_service: dict[str, list[JsonObject]] = {}
    for each in slices or ():
        owner = (each["metadata"].get("labels") or {}).get("kubernetes.io/service-name")
        by_service.setdefault(str(owner), []).append(each)
    found: dict[str, ClusterName] = {}
    for service in services:
        name = str(service["metadata"]["name"])
        own = by_service.get(name, [])
        for made in _of_service(service, own, namespace=namespace, domain=domain):
            found[made.host] = made
        if slices is not None and not _answers(service, own):
            host = f"{name}.{namespace}.svc.{domain}"
            found[host] = _emptied(found[host])
    return tuple(found.values())


def _of_service(
    service: JsonObject, slices: list[JsonObject], *, namespace: str, domain: str
) -> list[ClusterName]:
    name, spec = str(service["metadata"]["name"]), service["spec"]
    ports = [int(p["port"]) for p in spec.get("ports") or [] if _is_tcp(p)]
    addresses = [a for a in spec.get("clusterIPs") or [spec.get("clusterIP")] if a]
    is_headless = addresses == ["None"]
    if is_headless:
        # Its name is its pods' addresses: their own ports are what is reached.
        addresses = []
        ports += _slice_ports(slices)
    made = [
        ClusterName(
            host=f"{name}.{namespace}.svc.{domain}",
            aliases=_aliases(name, namespace=namespace, domain=domain),
            ports=tuple(dict.fromkeys(ports)),
            addresses=tuple(map(str, addresses)),
        )
    ]
    if is_headless:
        made += _pods(name, slices, ports, namespace=namespace, domain=domain)
    return made


def _pods(
    service: str, slices: list[JsonObject], ports: list[int], *, namespace: str, domain: str
) -> list[ClusterName]:
    """The pods of a headless Service that have a host name: a StatefulSet's."""
    made = []
    for each in slices:
        for endpoint in each.get("endpoints") or []:
            hostname = endpoint.get("hostname")
            if not hostname:
                continue
            name = f"{hostname}.{service}"
            made.append(
                ClusterName(
                    host=f"{name}.{namespace}.svc.{domain}",
                    aliases=_aliases(name, namespace=namespace, domain=domain),
                    ports=tuple(dict.fromkeys([*ports, *_slice_ports([each])])),
                    addresses=tuple(map(str, endpoint.get("addresses") or ())),
                )
            )
    return made


def _aliases(name: str, *, namespace: str, domain: str) -> tuple[str, ...]:
    # The whole name first: the first on a line is the canonical one (hosts(5)). With the
    # root's dot last: programs in clusters write it, to spare the search domains.
    short = f"{name}.{namespace}.svc"
    return (f"{short}.{domain}", name, f"{name}.{namespace}", short, f"{short}.{domain}.")


def _slice_ports(slices: Iterable[JsonObject]) -> list[int]:
    return [int(p["port"]) for s in slices for p in s.get("ports") or [] if p.get("port")
            and _is_tcp(p)]  # fmt: skip


def _is_tcp(port: JsonObject) -> bool:
    return port.get("protocol") in (None, "TCP")


def _answers(service: JsonObject, slices: Iterable[JsonObject]) -> bool:
    if service["spec"].get("type") == "ExternalName":
        return True
    for each in slices:
        for endpoint in each.get("endpoints") or []:
            # Absent means ready (EndpointConditions in the API's reference).
            if (endpoint.get("conditions") or {}).get("ready") is not False:
                return True
    return bool(service["spec"].get("publishNotReadyAddresses")) and any(
        each.get("endpoints") for each in slices
    )


def _emptied(name: ClusterName) -> ClusterName:
    return ClusterName(
        host=name.host,
        aliases=name.aliases,
        ports=name.ports,
        addresses=name.addresses,
        is_empty=True,
    )


def api_server(address: str, port: int, *, domain: str = DOMAIN) -> ClusterName:
    """The API server by the names that are in its certificate in every cluster."""
    host = f"kubernetes.default.svc.{domain}"
    aliases = (host, "kubernetes.default", "kubernetes.default.svc", host + ".")
    return ClusterName(host=host, aliases=aliases, ports=(port,), addresses=(address,))


def joined(names: Iterable[ClusterName]) -> dict[str, ClusterName]:
    """Names by their host; of those that come twice, all that either has."""
    found: dict[str, ClusterName] = {}
    for name in names:
        was = found.get(name.host)
        found[name.host] = name if was is None else ClusterName(
            host=name.host,
            aliases=tuple(dict.fromkeys((*was.aliases, *name.aliases))),
            ports=tuple(dict.fromkeys((*was.ports, *name.ports))),
            addresses=tuple(dict.fromkeys((*was.addresses, *name.addresses))),
            is_empty=was.is_empty and name.is_empty,
        )  # fmt: skip
    return found


def dns_domain(search: Iterable[str], *, namespace: str) -> str:
    """The cluster's domain, by the search domains in the pod's resolv.conf."""
    for each in search:
        before, found, domain = each.rstrip(".").partition(f"{namespace}.svc.")
        if found and not before:
            return domain
    return DOMAIN


def udp_ports(services: Iterable[JsonObject]) -> tuple[str, ...]:
    """The Services' ports that are not carried, as `dns 53/UDP`."""
    return tuple(
        f"{service['metadata']['name']} {port['port']}/{port['protocol']}"
        for service in services
        for port in service["spec"].get("ports") or []
        if not _is_tcp(port)
    )


def low_ports(services: Iterable[JsonObject]) -> tuple[tuple[str, int], ...]:
    """The Services' ports that most systems keep for root: (name, port)."""
    return tuple(
        (str(service["metadata"]["name"]), int(port["port"]))
        for service in services
        for port in service["spec"].get("ports") or []
        if _is_tcp(port) and int(port["port"]) < 1024
    )


class NotAName(ValueError):
    """An entry of the manifest's `names` that says no name and ports."""


def added_name(text: str, *, namespace: str, domain: str = DOMAIN) -> tuple[str, ClusterName]:
    """A name that the manifest adds: `redis.infra`, `pg.example.com:5432,6432`.

    Returns:
        The namespace of the Service to look up for its ports where none are given ("" where
        they are), and the name.

    Raises:
        NotAName: it cannot be read, or a name outside of the cluster comes without ports.
    """
    host, _, rest = text.partition(":")
    host = host.rstrip(".").lower()
    try:
        ports = tuple(int(port) for port in rest.split(",")) if rest else ()
    except ValueError:
        raise NotAName(f"'{text}': a name and its ports are expected: host:5432,5433") from None
    if not host or any(not 0 < port < 65536 for port in ports):
        raise NotAName(f"'{text}': a name and its ports are expected: host:5432,5433")
    service = host.removesuffix(f".{domain}").removesuffix(".svc")
    words = service.split(".")
    if service == host and (len(words) > 2 or (len(words) == 2 and ports)):
        # Perhaps not a Service's: resolved in the pod just as it is.
        if not ports:
            raise NotAName(f"'{text}': say its ports too, such as {host}:443")
        return "", ClusterName(host=host, aliases=(host,), ports=ports)
    if len(words) == 1:
        words.append(namespace)
    name, space = ".".join(words[:-1]), words[-1]
    aliases = _aliases(name, namespace=space, domain=domain)
    if space != namespace:
        aliases = tuple(alias for alias in aliases if alias != name)
    made = ClusterName(host=aliases[0], aliases=aliases, ports=ports)
    return ("" if ports else space), made


def loopback_address(key: str, *, taken: Collection[str]) -> str:
    """An address of 127/8 for a name: the same one each time, unless it is taken.

    From 127.64.0.0 to 127.127.255.255: systemd-resolved, Debian's own host name and
    people's own aliases have low ones.
    """
    number = int.from_bytes(hashlib.sha256(key.encode()).digest()[:8], "big")
    while True:
        number %= 64 * 256 * 254
        upper, last = divmod(number, 254)
        address = f"127.{64 + upper // 256}.{upper % 256}.{last + 1}"
        if address not in taken:
            return address
        number += 1


@dataclass(frozen=True, slots=True)
class HostsFile:
    """A hosts file, and the laptop's own names that the cluster's stand in front of."""

    text: str
    clashes: tuple[str, ...]


def hosts_file(laptop: str, names: Mapping[str, Iterable[str]]) -> HostsFile:
    """The laptop's hosts file with the cluster's names (address → spellings) in it.

    A name that both have is the cluster's here: of two lines some programs take the
    first, others both.
    """
    ours = {n for aliases in names.values() for n in aliases} - _LAPTOPS_ALWAYS
    clashes: dict[str, None] = {}
    lines = []
    for line in laptop.splitlines():
        words = line.partition("#")[0].split()
        hidden = [word for word in words[1:] if word.lower() in ours]
        if not hidden:
            lines.append(line)
            continue
        clashes.update(dict.fromkeys(hidden))
        left = [word for word in words[1:] if word.lower() not in ours]
        if left:
            lines.append(" ".join([words[0], *left]))
    for address, aliases in names.items():
        lines += _lines(address, [a for a in aliases if a not in _LAPTOPS_ALWAYS])
    return HostsFile("\n".join(lines) + "\n", tuple(clashes))


def files_first(nsswitch: str) -> str | None:
    """An nsswitch.conf(5) in which names are looked up in the hosts file first; None as it is.

    systemd-resolved asked first (as on Arch Linux) reads the laptop's own hosts file, and
    says for good that there is no such name.
    """
    lines = nsswitch.splitlines()
    for at, line in enumerate(lines):
        database, colon, rest = line.partition("#")[0].partition(":")
        if database.strip() != "hosts" or not colon:
            continue
        words = rest.split()
        if words[:1] == ["files"]:
            return None
        lines[at] = " ".join(["hosts: files", *[word for word in words if word != "files"]])
        return "\n".join(lines) + "\n"
    return None


def _lines(address: str, aliases: list[str]) -> list[str]:
    lines, line = [], address
    for alias in aliases:
        if len(line) + 1 + len(alias) > _LINE_BYTES:
            lines.append(line)
            line = address
        line += " " + alias
    return [*lines, line] if line != address else lines
