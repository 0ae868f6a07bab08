"""The built agent and starter, as immutable ConfigMaps named by their content.

Shared by all sessions of a namespace. They are owned by a set, a small ConfigMap, to
whose owners each session adds itself before it makes pods; with the last owner the
garbage collector takes set and pieces, so nobody checks and then deletes.
"""

from __future__ import annotations

import base64
import hashlib
import json
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path

from towline._kit.objects import JsonObject
from towline.errors import TowlineError

ARCHITECTURES = ("amd64", "arm64")
# A ConfigMap holds 1 MiB (1,048,576 bytes) in all, its keys included.
PIECE_BYTES = 1_000_000
LABEL_KIND = "towline.dev/kind"
# In the images that `towline agent-image` writes.
AGENT_IN_IMAGE = "/agent"


@dataclass(frozen=True, slots=True, kw_only=True)
class Piece:
    """A part of the payload: one ConfigMap with one key.

    Attributes:
        name: the ConfigMap's, with the content's hash in it.
        key: the file's name in `/towline/boot`.
    """

    name: str
    key: str
    content: bytes
    sha256: str


def split(content: bytes, *, limit_bytes: int) -> Iterator[bytes]:
    """Cut content into parts of at most `limit_bytes`; they join to what was cut."""
    for start in range(0, len(content), limit_bytes):
        yield content[start : start + limit_bytes]


def pieces(*, agent_gz: bytes, starter: bytes) -> tuple[Piece, ...]:
    """The pieces of one architecture's agent and its starter."""
    parts = list(split(agent_gz, limit_bytes=PIECE_BYTES))
    files = [(f"agent.{n}", part) for n, part in enumerate(parts)] + [("starter", starter)]
    return tuple(_piece(key, content) for key, content in files)


def _piece(key: str, content: bytes) -> Piece:
    digest = hashlib.sha256(content).hexdigest()
    kind = key.partition(".")[0]
    return Piece(name=f"towline-{kind}-{digest[:24]}", key=key, content=content, sha256=digest)


def config_map(piece: Piece, *, owner: JsonObject) -> JsonObject:
    """The ConfigMap of a piece, with its set as the owner."""
    return {
        "apiVersion": "v1",
        "kind": "ConfigMap",
        "metadata": {
            "name": piece.name,
            "labels": {LABEL_KIND: "piece", "app.kubernetes.io/managed-by": "towline"},
            "ownerReferences": [owner],
        },
        "immutable": True,
        "binaryData": {piece.key: base64.b64encode(piece.content).decode("ascii")},
    }


def set_object(parts: Iterable[Piece], *, owner: JsonObject) -> JsonObject:
    """The ConfigMap that owns these pieces, with a session's record as its first owner."""
    names = [piece.name for piece in parts]
    digest = hashlib.sha256("\n".join(names).encode()).hexdigest()
    return {
        "apiVersion": "v1",
        "kind": "ConfigMap",
        "metadata": {
            "name": f"towline-pieces-{digest[:24]}",
            "labels": {LABEL_KIND: "piece-set", "app.kubernetes.io/managed-by": "towline"},
            "ownerReferences": [owner],
        },
        "immutable": True,
        "data": {"pieces": "\n".join(names)},
    }


def verify(found: JsonObject, piece: Piece) -> None:
    """Check that a ConfigMap found under a piece's name holds that piece and nothing else.

    Raises:
        TowlineError: it holds something else; it must not be run.
    """
    held = found.get("binaryData") or {}
    content = base64.b64decode(held.get(piece.key, ""))
    whole = list(held) == [piece.key] and not found.get("data")
    if not whole or hashlib.sha256(content).hexdigest() != piece.sha256:
        raise TowlineError(
            f"ConfigMap {piece.name} does not hold what its name says",
            hint=f"find out who made it, then delete it: kubectl delete configmap {piece.name}",
        )
    if not found.get("immutable"):
        raise TowlineError(
            f"ConfigMap {piece.name} can be changed, so what it holds now proves nothing",
            hint=f"find out who made it, then delete it: kubectl delete configmap {piece.name}",
        )


def volume(parts: Iterable[Piece], *, name: str) -> JsonObject:
    """The projected volume that shows all pieces in one folder; without any, an empty one."""
    sources = [
        {"configMap": {"name": p.name, "items": [{"key": p.key, "path": p.key}]}} for p in parts
    ]
    if not sources:
        return {"name": name, "emptyDir": {}}
    return {"name": name, "projected": {"defaultMode": 0o555, "sources": sources}}


def image_container(image: str, *, like: JsonObject, folder: str, volume: str) -> JsonObject:
    """The init container that puts an image's agent where the starter would be.

    Args:
        like: the container that runs it, with whose rights and limits it is copied.
        folder: where the volume of `volume()` is mounted.
    """
    kept = {k: like[k] for k in ("securityContext", "resources") if like.get(k)}
    return {
        "name": "towline-agent",
        "image": image,
        "command": [AGENT_IN_IMAGE],
        "args": ["-install", f"{folder}/starter"],
        "terminationMessagePolicy": "FallbackToLogsOnError",
        "volumeMounts": [{"name": volume, "mountPath": folder}],
        **kept,
    }


@dataclass(frozen=True, slots=True)
class Built:
    """Where the built binaries are."""

    folder: Path

    def pieces(self, arch: str) -> tuple[Piece, ...]:
        """Read and cut the payload of an architecture (`amd64` or `arm64`).

        Raises:
            TowlineError: no such architecture, or the package was not built whole.
        """
        if arch not in ARCHITECTURES:
            raise TowlineError(
                f"the cluster's node is {arch}; the agent exists for {' and '.join(ARCHITECTURES)}",
                hint="choose another node with `nodeSelector:` in the manifest",
            )
        try:
            return pieces(
                agent_gz=(self.folder / f"agent-{arch}.gz").read_bytes(),
                starter=(self.folder / f"starter-{arch}").read_bytes(),
            )
        except OSError as error:
            raise TowlineError(
                f"the agent for {arch} is not in this installation: {error.filename}",
                hint="install again with `pip install`, or `make setup` in a checkout",
            ) from error

    def versions(self) -> JsonObject:
        """What they were built with."""
        parsed: JsonObject = json.loads((self.folder / "versions.json").read_text())
        return parsed


def installed() -> Built:
    """The binaries that came with this installation."""
    return Built(Path(__file__).parent / "built")
