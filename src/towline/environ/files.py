"""Which of the container's files are mirrored on the laptop, and under which names. [pure]"""

from __future__ import annotations

import posixpath
from collections.abc import Iterable
from dataclasses import dataclass
from fnmatch import fnmatchcase

from towline._kit.objects import JsonObject
from towline.manifest.model import Files

# What the kubelet writes from objects of the cluster; claims and scratch folders are
# mirrored only where they are asked for.
_KINDS = ("configMap", "secret", "projected", "downwardAPI")
_AGENTS = "/towline"


@dataclass(frozen=True, slots=True, kw_only=True)
class Mirrored:
    """A path of the container that is mirrored.

    Attributes:
        is_watched: it follows the pod; what the manifest adds is read once.
    """

    path: str
    is_watched: bool = True


def mirrored_paths(pod: JsonObject, container: str, files: Files) -> tuple[Mirrored, ...]:
    """The mounts of a pod's container that are mirrored, as the manifest wants them."""
    kinds = {
        str(volume["name"]): kind
        for volume in pod["spec"].get("volumes") or []
        for kind in _KINDS
        if kind in volume
    }
    [found] = [c for c in pod["spec"]["containers"] if c["name"] == container]
    mounts = [
        _normal(str(mount["mountPath"]))
        for mount in found.get("volumeMounts") or []
        if str(mount["name"]) in kinds
    ]
    paths = {path: True for path in mounts if _is_wanted(path, files)}
    for path in files.add:
        paths.setdefault(_normal(path), False)
    paths.pop("/", None)
    return tuple(Mirrored(path=p, is_watched=w) for p, w in sorted(paths.items()))


def _is_wanted(path: str, files: Files) -> bool:
    if path == _AGENTS or path.startswith(_AGENTS + "/"):
        return False
    if any(_matches(path, glob) for glob in files.exclude):
        return False
    return not files.include or any(_matches(path, glob) for glob in files.include)


def _matches(path: str, glob: str) -> bool:
    return fnmatchcase(path, glob) or fnmatchcase(path, glob.rstrip("/"))


def _normal(path: str) -> str:
    # POSIX leaves a leading "//" to the system, and normpath keeps it.
    return "/" + posixpath.normpath(path).lstrip("/")


def needed_below(path: str, needed: Iterable[str]) -> str | None:
    """The first of the laptop's own places that would be hidden by what is shown at a path."""
    for each in needed:
        if each == path or each.startswith(path + "/"):
            return each
    return None


class LeadsOut(ValueError):
    """A name or a link from the pod that would lead out of its root."""


def inside(name: str) -> tuple[str, ...]:
    """A relative name's parts.

    Raises:
        LeadsOut: it does not stay below the root, or cannot be a file's name here.
    """
    parts = tuple(name.split("/"))
    if any(part in ("", ".", "..") or "\0" in part or "\\" in part for part in parts):
        raise LeadsOut(name)
    return parts


def link_inside(name: str, target: str) -> str:
    """A link's target, if it stays below the root.

    Raises:
        LeadsOut: it does not.
    """
    whole = posixpath.normpath(posixpath.join(posixpath.dirname(name), target))
    if (
        not target
        or posixpath.isabs(target)
        or whole == ".."
        or whole.startswith("../")
        or "\0" in target
    ):
        raise LeadsOut(f"{name} -> {target}")
    return target


def stale(present: Iterable[str], told: Iterable[str]) -> tuple[str, ...]:
    """The names at a root's top that are no longer told, deepest part first."""
    kept = {name.partition("/")[0] for name in told}
    return tuple(sorted(name for name in present if name not in kept))
