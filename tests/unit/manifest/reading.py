"""Read a manifest from text, without any file."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

from towline.errors import ManifestError
from towline.manifest import Entry, Manifest, Mode
from towline.manifest.check import check
from towline.manifest.parse import parse
from towline.manifest.places import Dialect, Findings, Source

FOLDER = Path("/app")


def read(
    text: str,
    *,
    name: str = "okteto.yml",
    variables: Mapping[str, str] | None = None,
    mode: Mode | None = None,
) -> Manifest:
    dialect = Dialect.OKTETO if "okteto" in name else Dialect.TOWLINE
    source = Source(name=name, folder=FOLDER, dialect=dialect)
    findings = Findings()
    root = parse(text, source=source, findings=findings)
    if root is None:
        findings.fail()
    return check(
        root,
        path=FOLDER / name,
        folder=FOLDER,
        findings=findings,
        variables=variables or {},
        mode=mode,
    )


def entry(fields: str, **more: object) -> Entry:
    """The entry `api` with these fields, given as the lines of a block mapping."""
    lines = "\n".join("    " + line for line in fields.splitlines())
    manifest = read("dev:\n  api:\n" + lines + "\n", **more)  # type: ignore[arg-type]
    return manifest.entries["api"]


def problems(text: str, **more: object) -> list[str]:
    try:
        read(text, **more)  # type: ignore[arg-type]
    except ManifestError as error:
        return error.message.splitlines()
    return []
