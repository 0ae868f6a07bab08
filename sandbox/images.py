"""Images from Debian's packages and a folder's files, with no container engine; and on the node.

FOLDER/images.json:

    {"base": {"packages": ["dash", "coreutils"]},
     "layers": {"node": {"packages": ["nodejs"], "without": ["perl*"]}},
     "images": {"frontend": {"names": ["towline.local/shop-frontend:1"],
                             "layers": ["node"],
                             "files": {"frontend": "/app"},
                             "config": {"Cmd": ["node", "/app/server.js"]}}}}

Every image has the base below its layers. A layer holds its packages and all
that they depend on, less what the base holds already and less `without` (what
only maintainer scripts need); images that name the same layer share it. An
image without names is built when `--tag` gives it one. The packages are
unpacked, not installed (no maintainer script runs), so what such a script would
make is either in `_skeleton` or not there. Documentation is left out. `config`
is the OCI image configuration (Cmd, Env, User, WorkingDir). An image with
`"scratch": true` holds its files and nothing else, and `base` may be left out
where all are so.
"""

from __future__ import annotations

import fnmatch
import hashlib
import io
import json
import platform
import posixpath
import subprocess
import tarfile
import tempfile
import time
from collections.abc import Iterator, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import IO, Any

import archive
import lifecycle
import machine
import places
from places import Sandbox
from problem import Problem
from progress import Progress

_FORMAT = "5"  # of what is built from the same input: a new number builds everything anew
_LOAD_TIMEOUT_S = 300.0
_APT_TIMEOUT_S = 900.0

_LEFT_OUT = (
    "usr/share/doc/",
    "usr/share/info/",
    "usr/share/lintian/",
    "usr/share/locale/",
    "usr/share/man/",
    "usr/share/bug/",
    "usr/lib/udev/",
    "lib/systemd/",
)
# Debian's merged /usr: packages of its release 12 still ship the names on the left.
_MERGED = ("bin", "sbin", "lib", "lib32", "lib64", "libx32")
_USER = 10001


def load(path: Path, sandbox: Sandbox) -> list[str]:
    """Put the images of a docker or OCI archive on the node; returns their names."""
    ctr = ["ctr", "-a", str(places.CONTAINERD_SOCKET), "-n", "k8s.io", "images", "import", "-"]
    command = lifecycle.inside(sandbox, ctr)
    try:
        with path.open("rb") as file:
            done = subprocess.run(
                command,
                stdin=file,
                capture_output=True,
                text=True,
                timeout=_LOAD_TIMEOUT_S,
                check=False,
            )
    except (FileNotFoundError, IsADirectoryError) as error:
        raise Problem(f"no archive at {path}: {error.strerror}") from error
    if done.returncode != 0:
        raise Problem(f"{path} was not loaded: {done.stderr.strip()}")
    # One line for each: "unpacking NAME (DIGEST)...done".
    lines = [line.split() for line in done.stdout.splitlines()]
    return [words[1] for words in lines if words[:1] == ["unpacking"]]


@dataclass(frozen=True, slots=True)
class _Layer:
    name: str
    packages: tuple[str, ...]
    without: tuple[str, ...]  # patterns of package names

    @classmethod
    def read(cls, name: str, described: dict[str, list[str]]) -> _Layer:
        return cls(name, tuple(described["packages"]), tuple(described.get("without", ())))


@dataclass(frozen=True, slots=True)
class _Recipe:
    """An images.json, read."""

    folder: Path
    base: _Layer
    layers: dict[str, _Layer]
    images: dict[str, dict[str, Any]]

    @classmethod
    def read(cls, folder: Path) -> _Recipe:
        path = folder / "images.json"
        try:
            text = json.loads(path.read_text())
            return cls(
                folder=folder,
                base=_Layer.read("base", text.get("base", {"packages": []})),
                layers={
                    name: _Layer.read(name, item) for name, item in text.get("layers", {}).items()
                },
                images=dict(text["images"]),
            )
        except FileNotFoundError:
            raise Problem(f"there is no {path}") from None
        except (ValueError, KeyError, TypeError, AttributeError) as error:
            raise Problem(f"{path} is not as expected: {error!r}") from error


def build(folder: Path, *, tags: Sequence[str], progress: Progress) -> Path:
    """Build the images of a folder; returns the archive, which is cached by its inputs.

    Args:
        tags: further names, each `IMAGE=NAME` with IMAGE a key of images.json.
    """
    recipe = _Recipe.read(folder.resolve())
    names = _names(recipe, tags)
    target = places.cache() / "images" / f"{_digest(recipe, names)}.tar"
    if target.exists():
        return target
    target.parent.mkdir(parents=True, exist_ok=True)
    base = _package_layer(recipe.base, None, progress) if recipe.base.packages else None
    layers = {
        name: _package_layer(layer, recipe.base, progress) for name, layer in recipe.layers.items()
    }
    with tempfile.TemporaryDirectory(dir=target.parent) as own:
        made = []
        for key, described in recipe.images.items():
            if not names[key]:
                continue
            files = Path(own) / f"{key}.tar"
            _write_files_layer(files, recipe.folder, described.get("files", {}))
            stack = [files]
            if base is not None and not described.get("scratch"):
                stack = [base, *(layers[layer] for layer in described.get("layers", ())), files]
            made.append(archive.Image(names[key], stack, described.get("config", {})))
        archive.write(target, made, architecture=_architecture())
    progress.say(f"built {', '.join(n for every in names.values() for n in every)}")
    return target


def _architecture() -> str:
    return archive.GO_ARCHITECTURES.get(platform.machine(), platform.machine())


def _names(recipe: _Recipe, tags: Sequence[str]) -> dict[str, list[str]]:
    names = {key: list(described["names"]) for key, described in recipe.images.items()}
    for tag in tags:
        key, separator, name = tag.partition("=")
        if not separator or key not in names:
            raise Problem(f"--tag {tag}: use IMAGE=NAME, IMAGE one of {', '.join(names)}")
        names[key].append(name)
    return names


def _digest(recipe: _Recipe, names: dict[str, list[str]]) -> str:
    digest = hashlib.sha256(json.dumps([_FORMAT, names]).encode())
    digest.update((recipe.folder / "images.json").read_bytes())
    for described in recipe.images.values():
        for source in described.get("files", {}):
            for path in _files_below(recipe.folder / source):
                digest.update(f"\0{path}\0{path.stat().st_mode}\0".encode() + path.read_bytes())
    return digest.hexdigest()[:20]


def _files_below(path: Path) -> list[Path]:
    if path.is_file():
        return [path]
    found = sorted(p for p in path.rglob("*") if p.is_file())
    return [p for p in found if not {"node_modules", "__pycache__"} & set(p.parts)]


def _write_files_layer(target: Path, folder: Path, files: dict[str, str]) -> None:
    with tarfile.open(target, "w") as layer:
        for source, inside in files.items():
            for path in _files_below(folder / source):
                relative = path.relative_to(folder / source)
                name = posixpath.join(inside, relative.as_posix()).removesuffix("/.")
                mode = 0o755 if path.stat().st_mode & 0o100 else 0o644
                archive.add_file(layer, name.lstrip("/"), path.read_bytes(), mode=mode)


# Layers of packages. They change with images.json only, so they have a cache of their own.


def _package_layer(layer: _Layer, base: _Layer | None, progress: Progress) -> Path:
    """The layer's tar file: what its packages need, less what the base holds."""
    inputs = json.dumps([_FORMAT, _architecture(), *(asdict(x) for x in (base, layer) if x)])
    digest = hashlib.sha256(inputs.encode()).hexdigest()[:20]
    target = places.cache() / "layers" / f"{digest}.tar"
    if target.exists():
        return target
    machine.require_root_on_linux()
    target.parent.mkdir(parents=True, exist_ok=True)
    started = time.monotonic()
    progress.say(f"layer {layer.name}: fetching {' '.join(layer.packages)} from Debian")
    with tempfile.TemporaryDirectory(dir=target.parent) as own:
        before = _closure(base.packages if base else (), Path(own))
        wanted = _closure([*before, *layer.packages], Path(own))
        names = {
            name
            for package in wanted - before
            if not _matches(name := package.partition("=")[0].partition(":")[0], layer.without)
        }
        debs = _download(wanted, names, Path(own))
        unfinished = Path(own) / "layer.tar"
        _write_package_layer(unfinished, debs, skeleton=base is None)
        unfinished.replace(target)
    size = target.stat().st_size / 1e6
    progress.say(f"layer {layer.name}: {size:.0f} MB in {time.monotonic() - started:.0f} s")
    return target


def _apt(own: Path, *arguments: str, folder: Path | None = None) -> str:
    """Run apt-get as on a machine where nothing is installed."""
    status = own / "status"
    status.touch()
    options = {
        "Dir::State::status": status,
        "Debug::NoLocking": "true",
        "APT::Install-Recommends": "false",
        "APT::Sandbox::User": "root",
    }
    flags = [f"-o{name}={value}" for name, value in options.items()]
    command = ["apt-get", "-q", "--yes", *flags, *arguments]
    done = _run_apt(command, folder)
    if done.returncode != 0:
        # Old lists name versions that are no longer there, new machines have none.
        _run_apt(["apt-get", "-q", "update"], None)
        done = _run_apt(command, folder)
    if done.returncode != 0:
        raise Problem(f"apt-get {' '.join(arguments)}: {done.stderr.strip()}")
    return done.stdout


def _run_apt(command: list[str], folder: Path | None) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        command,
        cwd=folder,
        stdin=subprocess.DEVNULL,
        capture_output=True,
        text=True,
        timeout=_APT_TIMEOUT_S,
        check=False,
    )


def _closure(packages: Sequence[str], own: Path) -> set[str]:
    """The packages and all that they depend on, as `name=version`."""
    if not packages:
        return set()
    simulated = _apt(own, "--simulate", "install", *packages)
    found = set()
    for line in simulated.splitlines():
        if line.startswith("Inst "):
            name, version = line.split()[1], line.split("(")[1].split()[0]
            found.add(f"{name}={version}")
    return found


def _matches(name: str, patterns: Sequence[str]) -> bool:
    return any(fnmatch.fnmatchcase(name, pattern) for pattern in patterns)


def _download(packages: set[str], names: set[str], own: Path) -> list[Path]:
    """Fetch the packages of these names, in the versions that fit together."""
    (own / "archives").mkdir(exist_ok=True)
    chosen = sorted(p for p in packages if p.partition("=")[0].partition(":")[0] in names)
    _apt(own, "download", *chosen, folder=own / "archives")
    return sorted((own / "archives").glob("*.deb"))


def _write_package_layer(target: Path, debs: Sequence[Path], *, skeleton: bool) -> None:
    seen: set[str] = set()
    with tarfile.open(target, "w") as layer:
        if skeleton:
            for info, content in _skeleton():
                seen.add(info.name)
                layer.addfile(info, content)
        for deb in debs:
            _add_package(layer, deb, seen)


def _add_package(layer: tarfile.TarFile, deb: Path, seen: set[str]) -> None:
    unpack = subprocess.Popen(["dpkg-deb", "--fsys-tarfile", deb], stdout=subprocess.PIPE)
    assert unpack.stdout is not None
    with unpack, tarfile.open(fileobj=unpack.stdout, mode="r|") as package:
        for member in package:
            member.name = _merged(member.name.removeprefix("./"))
            if member.name in {"", "."} or member.name in seen:
                continue
            if f"{member.name}/".startswith(_LEFT_OUT) or member.name in _MERGED:
                continue
            if member.islnk():
                member.linkname = _merged(member.linkname.removeprefix("./"))
            seen.add(member.name)
            member.mtime = 0
            layer.addfile(member, package.extractfile(member) if member.isreg() else None)
    if unpack.returncode != 0:
        raise Problem(f"dpkg-deb could not read {deb.name}")


def _merged(name: str) -> str:
    return f"usr/{name}" if name.partition("/")[0] in _MERGED and "/" in name else name


def _skeleton() -> Iterator[tuple[tarfile.TarInfo, IO[bytes] | None]]:
    """What the base packages' scripts would have made."""

    def entry(name: str, *, kind: bytes, mode: int, link: str = "") -> tarfile.TarInfo:
        info = tarfile.TarInfo(name)
        info.type, info.mode, info.linkname = kind, mode, link
        return info

    for folder in ("usr", "usr/bin", "usr/sbin", "usr/lib", "usr/lib64", "etc", "app", "run"):
        yield entry(folder, kind=tarfile.DIRTYPE, mode=0o755), None
    yield entry("tmp", kind=tarfile.DIRTYPE, mode=0o1777), None
    for name in ("bin", "sbin", "lib", "lib64"):
        yield entry(name, kind=tarfile.SYMTYPE, mode=0o777, link=f"usr/{name}"), None
    yield entry("usr/bin/sh", kind=tarfile.SYMTYPE, mode=0o777, link="dash"), None
    users = f"root:x:0:0:root:/:/bin/sh\napp:x:{_USER}:{_USER}:app:/app:/bin/sh\n"
    for name, text in {
        "etc/passwd": users,
        "etc/group": f"root:x:0:\napp:x:{_USER}:\n",
        "etc/nsswitch.conf": "passwd: files\ngroup: files\nhosts: files dns\n",
    }.items():
        info = entry(name, kind=tarfile.REGTYPE, mode=0o644)
        info.size = len(text)
        yield info, io.BytesIO(text.encode())
