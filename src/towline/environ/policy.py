"""Which environment the local process gets, and where each value comes from.

Values in, values out; bytes all the way, for neither names nor values need be
UTF-8. The order, highest first: the dev entry (`environment`, envFiles, `-e`),
the container's real environment without what means its own disk and user, the
laptop's own.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from enum import StrEnum
from fnmatch import fnmatchcase

from towline.environ.laptop import LAPTOPS_OWN, MINIMAL
from towline.manifest.model import Settings


class Origin(StrEnum):
    """Who a value comes from."""

    MANIFEST = "manifest"
    CONTAINER = "container"
    LAPTOP = "laptop"


class Reason(StrEnum):
    """Why it is that one, where there was a choice."""

    HIGHEST = "highest"
    """It comes first in the order."""
    LAPTOPS_OWN = "laptop's own"
    """The name means the laptop's disk or user (`LAPTOPS_OWN`), or is in keepEnvironment."""
    ADDED = "added"
    """NO_PROXY, with the cluster's names added."""
    DROPPED = "dropped"
    """The manifest's dropEnvironment names it."""
    NOT_INHERITED = "not inherited"
    """The laptop's, which inheritEnvironment leaves out."""


# The kernel takes 128 KiB for one variable; thousands of Services would fill that.
_NO_PROXY_BYTES = 64 * 1024
_PROXIES = frozenset({"HTTP_PROXY", "HTTPS_PROXY", "ALL_PROXY", "FTP_PROXY"})


@dataclass(frozen=True, slots=True, kw_only=True)
class Policy:
    """What the manifest's settings say of the local process's environment.

    Attributes:
        inherit: `all`, `minimal`, or globs of the laptop's variables that go in.
            What a program needs to run at all (`MINIMAL`) goes in with any of them.
        keep: globs of names that stay the laptop's, beside its own.
        drop: globs of names that the process never gets, from the laptop or
            the container; the dev entry's own `environment` is not asked.
        no_proxy: names, suffixes and addresses that no proxy may be asked for.
        platform: as sys.platform has it.
    """

    inherit: str | tuple[str, ...] = "all"
    keep: tuple[str, ...] = ()
    drop: tuple[str, ...] = ()
    no_proxy: tuple[str, ...] = ()
    platform: str = "linux"

    @classmethod
    def of(cls, settings: Settings, *, platform: str, no_proxy: Iterable[str] = ()) -> Policy:
        return cls(
            inherit=settings.inherit_environment,
            keep=settings.keep_environment,
            drop=settings.drop_environment,
            no_proxy=tuple(no_proxy),
            platform=platform,
        )


@dataclass(frozen=True, slots=True, kw_only=True)
class Source:
    """Where a value comes from, why, and what it was chosen over."""

    origin: Origin
    reason: Reason = Reason.HIGHEST
    over: tuple[Origin, ...] = ()


@dataclass(frozen=True, slots=True, kw_only=True)
class LocalEnvironment:
    """The whole environment of the local process.

    Attributes:
        values: name → value, as given to exec.
        origins: for each of `values`, where it comes from.
        left_out: the variables that the process does not get, of the container or the
            laptop, and why: the name is the laptop's own and unset there, it is dropped,
            or it is the laptop's and not inherited.
    """

    values: Mapping[bytes, bytes]
    origins: Mapping[bytes, Source]
    left_out: Mapping[bytes, Reason] = field(default_factory=dict)


def local_environment(
    *,
    container: Mapping[bytes, bytes],
    manifest: Mapping[bytes, bytes],
    laptop: Mapping[bytes, bytes],
    policy: Policy,
) -> LocalEnvironment:
    """Put together what the local process gets (design §8).

    Args:
        container: the container's real environment, the image's part in it.
        manifest: `environment`, envFiles and `-e`, put together already.
        laptop: this process's own environment.
        policy: which of it goes in.
    """
    names = _Names(policy)
    own = {n: v for n, v in laptop.items() if names.is_inherited(n) and not names.is_dropped(n)}
    theirs = {n: v for n, v in container.items() if _is_possible(n)}
    mine = {n: v for n, v in manifest.items() if _is_possible(n)}
    values: dict[bytes, bytes] = {}
    origins: dict[bytes, Source] = {}
    left_out = {
        name: Reason.DROPPED if names.is_dropped(name) else Reason.NOT_INHERITED
        for name in laptop.keys() - own.keys() - theirs.keys() - mine.keys()
    }
    for name in dict.fromkeys([*own, *theirs, *mine]):
        layers = {Origin.MANIFEST: mine, Origin.CONTAINER: theirs, Origin.LAPTOP: own}
        has_it = [origin for origin, layer in layers.items() if name in layer]
        reason = Reason.HIGHEST
        if name not in mine and name in theirs and names.is_laptops(name):
            has_it.remove(Origin.CONTAINER)
            reason = Reason.LAPTOPS_OWN
        elif name not in mine and name in theirs and names.is_dropped(name):
            has_it, reason = [], Reason.DROPPED
        if not has_it:
            left_out[name] = reason
            continue
        values[name] = layers[has_it[0]][name]
        over = [o for o, layer in layers.items() if name in layer and o is not has_it[0]]
        origins[name] = Source(origin=has_it[0], reason=reason, over=tuple(over))
    _add_no_proxy(values, origins, policy)
    return LocalEnvironment(values=values, origins=origins, left_out=left_out)


class _Names:
    """The policy's globs and the platform's lists, asked by name."""

    def __init__(self, policy: Policy) -> None:
        self._policy = policy
        self._own = LAPTOPS_OWN.get(policy.platform, LAPTOPS_OWN["linux"])
        self._minimal = MINIMAL.get(policy.platform, MINIMAL["linux"])

    def is_laptops(self, name: bytes) -> bool:
        text = self._text(name)
        return self._own.has(text) or self._matches(text, self._policy.keep)

    def is_dropped(self, name: bytes) -> bool:
        return self._matches(self._text(name), self._policy.drop)

    def is_inherited(self, name: bytes) -> bool:
        inherit, text = self._policy.inherit, self._text(name)
        if inherit == "all":
            return True
        if text in self._minimal or self._matches(text, self._policy.keep):
            return True
        return not isinstance(inherit, str) and self._matches(text, inherit)

    def _text(self, name: bytes) -> str:
        text = name.decode("utf-8", "surrogateescape")
        # Windows has one variable for Path and PATH.
        return text.upper() if self._policy.platform == "win32" else text

    def _matches(self, text: str, globs: tuple[str, ...]) -> bool:
        if self._policy.platform == "win32":
            globs = tuple(glob.upper() for glob in globs)
        return any(fnmatchcase(text, glob) for glob in globs)


def _is_possible(name: bytes) -> bool:
    """Whether exec can pass it: a container's environment is any bytes, the laptop's is not."""
    return bool(name) and b"=" not in name and b"\0" not in name


def _add_no_proxy(values: dict[bytes, bytes], origins: dict[bytes, Source], policy: Policy) -> None:
    """Where a proxy is set, keep it away from the cluster: in both spellings.

    Programs differ in which they read, and a program that finds one of them reads
    no other, so both get the same list.
    """
    spellings = {name for name in values if name.upper().decode("latin-1") in _PROXIES}
    if not any(values[name] for name in spellings) or not policy.no_proxy:
        return
    listed: dict[bytes, None] = {}
    for name in (b"NO_PROXY", b"no_proxy"):
        for item in values.get(name, b"").split(b","):
            if item.strip():
                listed[item.strip()] = None
    if b"*" in listed:
        return
    length = 0
    for text in policy.no_proxy:
        item = text.encode("utf-8", "surrogateescape")
        length += len(item) + 1
        if length > _NO_PROXY_BYTES:
            break
        listed[item] = None
    for name in (b"NO_PROXY", b"no_proxy"):
        was = origins.get(name)
        values[name] = b",".join(listed)
        origins[name] = Source(
            origin=was.origin if was else Origin.LAPTOP,
            reason=Reason.ADDED,
            over=was.over if was else (),
        )
