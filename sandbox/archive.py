"""Images with no container engine: layers as tar files, wrapped as a docker archive."""

from __future__ import annotations

import hashlib
import io
import json
import os
import tarfile
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

GO_ARCHITECTURES = {"x86_64": "amd64", "aarch64": "arm64"}


@dataclass(frozen=True, slots=True)
class Image:
    """One image of an archive: its names, its layers from the lowest up, its configuration."""

    names: Sequence[str]
    layers: Sequence[Path]
    config: Mapping[str, Any] = field(default_factory=dict)


def write(target: Path, images: Sequence[Image], *, architecture: str) -> None:
    """Write a docker archive; a layer that several images share is in it once."""
    digests = {layer: _sha256(layer) for image in images for layer in image.layers}
    unfinished = target.with_name(f".{target.name}.{os.getpid()}")
    with tarfile.open(unfinished, "w") as archive:
        for layer, digest in {v: k for k, v in digests.items()}.items():
            archive.add(digest, arcname=f"{layer}.tar")
        manifest = []
        for image in images:
            layers = [digests[layer] for layer in image.layers]
            config = _config(image, layers, architecture)
            name = f"{hashlib.sha256(config).hexdigest()}.json"
            add_file(archive, name, config)
            entry = {"Config": name, "RepoTags": [*image.names]}
            manifest.append({**entry, "Layers": [f"{digest}.tar" for digest in layers]})
        add_file(archive, "manifest.json", json.dumps(manifest).encode())
    unfinished.replace(target)


def write_single_file_layer(target: Path, name: str, content: Path) -> None:
    """A layer with one executable: all that a static program needs."""
    with tarfile.open(target, "w") as layer:
        add_file(layer, name, content.read_bytes(), mode=0o755)


def add_file(archive: tarfile.TarFile, name: str, content: bytes, *, mode: int = 0o644) -> None:
    info = tarfile.TarInfo(name)
    info.size = len(content)
    info.mode = mode
    archive.addfile(info, io.BytesIO(content))


def _config(image: Image, layers: Sequence[str], architecture: str) -> bytes:
    return json.dumps(
        {
            "architecture": architecture,
            "os": "linux",
            "config": dict(image.config),
            "rootfs": {"type": "layers", "diff_ids": [f"sha256:{digest}" for digest in layers]},
            "history": [{"created_by": "towline sandbox"} for _ in layers],
        },
        sort_keys=True,
    ).encode()


def _sha256(path: Path) -> str:
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()
