"""The agent as an image, for clusters that forbid to execute what a ConfigMap brought.

Written without a container engine, as an archive that docker, podman, skopeo and crane read.
"""

from __future__ import annotations

import gzip
import hashlib
import io
import json
import tarfile
from pathlib import Path

from towline.payload.pieces import AGENT_IN_IMAGE, Built

# Pods that must not run as root may name no user of their own; any number is one.
_USER = "65532:65532"


def write_image(target: Path, *, built: Built, arch: str, name: str) -> None:
    """Write the image of one architecture's agent; equal agents give equal archives.

    Args:
        name: what the image is called by whoever loads it, with a tag.

    Raises:
        TowlineError: no such architecture, or the package was not built whole.
        OSError: the archive cannot be written.
    """
    parts = [piece for piece in built.pieces(arch) if piece.key.startswith("agent.")]
    agent = gzip.decompress(b"".join(piece.content for piece in parts))
    layer = io.BytesIO()
    with tarfile.open(fileobj=layer, mode="w") as files:
        _add(files, AGENT_IN_IMAGE.lstrip("/"), agent, mode=0o755)
    digest = hashlib.sha256(layer.getvalue()).hexdigest()
    config = json.dumps(
        {
            "architecture": arch,
            "os": "linux",
            "config": {"Entrypoint": [AGENT_IN_IMAGE], "User": _USER},
            "rootfs": {"type": "layers", "diff_ids": [f"sha256:{digest}"]},
            "history": [{"created_by": "towline agent-image"}],
        }
    ).encode()
    named = f"{hashlib.sha256(config).hexdigest()}.json"
    manifest = [{"Config": named, "RepoTags": [name], "Layers": [f"{digest}.tar"]}]
    with tarfile.open(target, "w") as archive:
        _add(archive, f"{digest}.tar", layer.getvalue())
        _add(archive, named, config)
        _add(archive, "manifest.json", json.dumps(manifest).encode())


def _add(archive: tarfile.TarFile, name: str, content: bytes, *, mode: int = 0o644) -> None:
    info = tarfile.TarInfo(name)
    info.size, info.mode = len(content), mode
    archive.addfile(info, io.BytesIO(content))
