"""The thin part that touches files: finding, reading, `extends`, what must exist."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

from towline.errors import ManifestError
from towline.manifest.check import check
from towline.manifest.dotenv import read_dotenv
from towline.manifest.expand import ExpansionError, expand
from towline.manifest.model import Entry, Manifest, Mode
from towline.manifest.parse import MapNode, Node, ScalarNode, parse
from towline.manifest.places import Dialect, Findings, Place, Source

NAMES = (
    "towline.yml", "towline.yaml", "okteto.yml", "okteto.yaml",
    ".okteto/okteto.yml", ".okteto/okteto.yaml",
)  # fmt: skip
# Manifests are some kilobytes. More is a wrong file (`-f image.tar`).
_MAX_BYTES = 1 << 20


def find(start: Path) -> Path | None:
    """The manifest for a folder: in it, or above it up to the repository's root or home."""
    home = Path.home()
    for folder in (start, *start.absolute().parents):
        for name in NAMES:
            if (folder / name).is_file():
                return folder / name
        if (folder / ".git").exists() or folder == home:
            return None
    return None


def load(path: Path, *, environ: Mapping[str, str], mode: Mode | None = None) -> Manifest:
    """Read a manifest, with what it extends and the `.env` beside it.

    Args:
        path: the file.
        environ: the laptop's environment; it beats the `.env`.
        mode: read every entry as if it said this (`up --mode`), for much of an
            entry means another thing in the other mode.

    Raises:
        ManifestError: one line for each problem, `FILE:LINE:COLUMN: message`.
    """
    findings = Findings()
    path = path.absolute()
    source = _source(path)
    variables = {**_dotenv(source.folder, environ, findings), **environ}
    root = _read(path, findings=findings, variables=variables, above=())
    if root is None:
        findings.fail()
    return check(
        root,
        path=path,
        folder=source.folder,
        findings=findings,
        variables=variables,
        mode=mode,
    )


def check_files(entry: Entry) -> None:
    """Raise ManifestError for what an entry names on the laptop and is not there.

    Separate from `load`, because what is missing in one entry does not matter
    while another one is developed.
    """
    findings = Findings()
    at = f"dev.{entry.name}"
    if entry.workdir is not None and not entry.workdir.is_dir():
        place = entry.places.get("workdir", entry.place)
        findings.error(place, f"{at}.workdir: there is no folder {entry.workdir}")
    for path in entry.env_files:
        if not path.is_file():
            place = entry.places["envFiles"]
            findings.error(place, f"{at}.envFiles: there is no file {path}")
    if entry.mode is Mode.SYNC:
        for secret in entry.secrets:
            if not secret.local.is_file():
                findings.error(secret.place, f"{at}.secrets: there is no file {secret.local}")
        for folder in entry.sync.folders:
            if not folder.local.exists():
                findings.error(folder.place, f"{at}.sync: there is no folder {folder.local}")
    findings.raise_errors()


def _source(path: Path) -> Source:
    folder = path.parent.parent if path.parent.name == ".okteto" else path.parent
    is_okteto = "okteto" in path.name or path.parent.name == ".okteto"
    here = Path.cwd()
    name = str(path.relative_to(here)) if path.is_relative_to(here) else str(path)
    return Source(
        name=name, folder=folder, dialect=Dialect.OKTETO if is_okteto else Dialect.TOWLINE
    )


def _read(
    path: Path, *, findings: Findings, variables: Mapping[str, str], above: tuple[Path, ...]
) -> Node | None:
    """The node tree of a file, with the file that it extends underneath."""
    source = _source(path)
    text = _text(path, source, findings)
    root = None if text is None else parse(text, source=source, findings=findings)
    extends = root.get("extends") if isinstance(root, MapNode) else None
    if root is None or not isinstance(extends, ScalarNode) or source.dialect is Dialect.OKTETO:
        return root
    target = _target(extends, variables, findings)
    if target is None:
        return root
    if target in (*above, path):
        findings.error(extends.place, f"extends: '{extends.text}' extends this file in turn")
        return root
    if not target.is_file():
        findings.error(extends.place, f"extends: there is no file {target}")
        return root
    base = _read(target, findings=findings, variables=variables, above=(*above, path))
    return root if base is None else laid_over(base, root)


def _target(extends: ScalarNode, variables: Mapping[str, str], findings: Findings) -> Path | None:
    try:
        text = expand(extends.text, variables).text
    except ExpansionError:
        return None  # said by the check of the field itself
    if not text or "\0" in text:
        findings.error(extends.place, "extends: name a file, such as 'okteto.yml'")
        return None
    return (extends.source.folder / text).resolve()


def laid_over(base: Node, top: Node) -> Node:
    """What `top` says, and what `base` says beside it: maps by key, all else whole."""
    if not (isinstance(base, MapNode) and isinstance(top, MapNode)):
        return top
    own = {key.text: (key, value) for key, value in top.entries}
    entries = []
    for key, value in base.entries:
        if key.text not in own:
            entries.append((key, value))
        else:
            own_key, own_value = own.pop(key.text)
            entries.append((own_key, laid_over(value, own_value)))
    entries.extend(own.values())
    size = 1 + sum(1 + value.size for _, value in entries)
    return MapNode(place=top.place, source=top.source, entries=tuple(entries), size=size)


def _text(path: Path, source: Source, findings: Findings) -> str | None:
    start = Place(source.name, 1, 1)
    try:
        with path.open("rb") as file:
            content = file.read(_MAX_BYTES + 1)
    except OSError as error:
        raise ManifestError(
            f"{start}: cannot be read: {error.strerror or error}",
            hint="name the manifest with -f FILE",
        ) from error
    if len(content) > _MAX_BYTES:
        findings.error(start, "this is more than 1 MiB; a manifest is a small YAML file")
        return None
    try:
        return content.decode("utf-8-sig")
    except UnicodeDecodeError as error:
        before = content[: error.start].decode("utf-8", "ignore")
        place = Place(source.name, before.count("\n") + 1, len(before) - before.rfind("\n"))
        findings.error(place, "this is not UTF-8 text")
        return None


def _dotenv(folder: Path, environ: Mapping[str, str], findings: Findings) -> dict[str, str]:
    path = folder / ".env"
    if not path.is_file():
        return {}
    source = _source(path)
    text = _text(path, source, findings)
    if text is None:
        return {}
    # What is wrong in a `.env` is no reason to stop: it is many tools' file, and
    # each reads it a little differently. It is told.
    own = Findings()
    read = read_dotenv(text, file=source.name, variables=environ, findings=own)
    findings.notices |= own.errors
    return {a.name: a.value for a in read if a.value is not None}
