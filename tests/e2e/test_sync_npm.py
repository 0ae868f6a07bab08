"""`npm install` in the dev container of a sync session: npm itself, with what it really does."""

from __future__ import annotations

import hashlib
import json
import os
import subprocess
from pathlib import Path
from typing import Any

import pytest

from .conftest import CHECKOUT, SANDBOX, SHOP, Node, Towline, wait_until
from .shapes import pod_spec, service, workload
from .test_shapes import start

NPM = CHECKOUT / ".setup/node-tools/node_modules/npm"
NPM_IMAGE = "towline.local/npm:1"
PACKAGES, FILES_EACH = 6, 340

# All that is below a folder, as `tree` has it here.
TREE = """
const fs = require('fs'), crypto = require('crypto'), found = {}
function walk(folder, name) {
  for (const each of fs.readdirSync(folder, {withFileTypes: true})) {
    const path = folder + '/' + each.name, inside = name + each.name
    if (each.isSymbolicLink()) found[inside] = 'link ' + fs.readlinkSync(path)
    else if (each.isDirectory()) { found[inside] = 'folder'; walk(path, inside + '/') }
    else {
      const digest = crypto.createHash('sha256').update(fs.readFileSync(path)).digest('hex')
      found[inside] = (fs.statSync(path).mode & 0o100 ? 'program ' : 'file ') + digest
    }
  }
}
walk(process.argv[1], '')
console.log(JSON.stringify(found))
"""


def tree(root: Path) -> dict[str, str]:
    found = {}
    for path in root.rglob("*"):
        if path.name.startswith(".towline-"):
            continue
        what = "folder"
        if path.is_symlink():
            what = f"link {path.readlink()}"
        elif path.is_file():
            kind = "program" if path.stat().st_mode & 0o100 else "file"
            what = f"{kind} {hashlib.sha256(path.read_bytes()).hexdigest()}"
        found[str(path.relative_to(root))] = what
    return found


def npm(*words: str, cwd: Path) -> None:
    environ = {**os.environ, "npm_config_cache": str(cwd / "cache")}
    line = ["node", str(NPM / "bin/npm-cli.js"), *words]
    subprocess.run(line, cwd=cwd, env=environ, check=True, capture_output=True, timeout=120)


@pytest.fixture(scope="module")
def packed(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Packages with many files and a program each, as `npm pack` makes them; one a second time."""
    made = tmp_path_factory.mktemp("packages")
    folders = []
    for name, version in [*((f"p{n}", "1.0.0") for n in range(PACKAGES)), ("p0", "2.0.0")]:
        folder = made / f"{name}-{version}"
        for number in range(FILES_EACH):
            file = folder / "lib" / f"part{number % 12}" / f"{number}.js"
            file.parent.mkdir(parents=True, exist_ok=True)
            file.write_text(f"module.exports = '{name} {version} {number}'\n" * (number % 40 + 1))
        program = folder / "bin/run.js"
        program.parent.mkdir()
        program.write_text(f"#!/usr/bin/env node\nconsole.log('{name} {version}')\n")
        package = {"name": name, "version": version, "bin": {f"run-{name}": "bin/run.js"}}
        (folder / "package.json").write_text(json.dumps(package))
        folders.append(str(folder))
    npm("pack", *folders, cwd=made)
    return made


@pytest.fixture(scope="module")
def npm_image(node: Node, tmp_path_factory: pytest.TempPathFactory) -> None:
    """The sample's node layer, and npm, which has all that it needs in its own folder."""
    if not NPM.exists():
        pytest.fail("no npm to put in an image: `make .setup/node`")
    folder = tmp_path_factory.mktemp("npm-image")
    # An image's files are taken without the node_modules in them, as an app's mostly are to be:
    # each is named by itself.
    files = {}
    for number, part in enumerate([NPM, *NPM.rglob("node_modules")]):
        (folder / f"part{number}").symlink_to(part)
        files[f"part{number}"] = f"/opt/npm/{part.relative_to(NPM)}".removesuffix("/.")
    recipe = json.loads((SHOP / "images.json").read_text())
    recipe["layers"] = {"node": recipe["layers"]["node"]}
    path = "/usr/sbin:/usr/bin:/sbin:/bin"
    recipe["images"] = {
        "npm": {
            "names": [NPM_IMAGE],
            "layers": ["node"],
            "files": files,
            "config": {"Cmd": ["node"], "User": "10001:10001", "Env": [f"PATH={path}"]},
        }
    }
    (folder / "images.json").write_text(json.dumps(recipe))
    load = [*SANDBOX, "image", str(folder), "--load", "--name", node.name]
    subprocess.run(load, check=True, timeout=200, stdout=subprocess.DEVNULL)


class App:
    """An app with dependencies, in development."""

    def __init__(self, node: Node, towline: Towline, packed: Path, ignored: str | None) -> None:
        self.towline = towline
        spec = pod_spec(
            NPM_IMAGE,
            command=["node", "-e", "require('http').createServer((q, s) => s.end()).listen(8080)"],
            env=[
                {"name": "npm_config_cache", "value": "/tmp/npm"},
                {"name": "npm_config_update_notifier", "value": "false"},
            ],
        )
        # npm writes to its cache; `/tmp` of the image, which is everybody's.
        spec["containers"][0]["securityContext"]["readOnlyRootFilesystem"] = False
        start(node, towline, workload("Deployment", "app", spec), service("app"))
        self.folder = towline.folder / "app"
        (self.folder / "vendor").mkdir(parents=True)
        for each in packed.glob("*.tgz"):
            (self.folder / "vendor" / each.name).write_bytes(each.read_bytes())
        self.depend({f"p{n}": "1.0.0" for n in range(PACKAGES)})
        if ignored is not None:
            (self.folder / ignored).write_text("node_modules\n")
        entry: dict[str, Any] = {"sync": ["./app:/app"], "workdir": "/app", "command": "sleep 900"}
        towline.manifest(json.dumps({"dev": {"app": entry}}))

    def depend(self, versions: dict[str, str]) -> None:
        files = {name: f"file:vendor/{name}-{version}.tgz" for name, version in versions.items()}
        package = {"name": "app", "version": "1.0.0", "dependencies": files}
        (self.folder / "package.json").write_text(json.dumps(package, indent=2))

    def run(self, *words: str) -> str:
        done = self.towline.run("exec", "app", "--", *words)
        assert done.returncode == 0, done.stdout + done.stderr
        return done.stdout

    def install(self) -> None:
        words = ["install", "--offline", "--no-audit", "--no-fund", "--loglevel=error"]
        self.run("node", "/opt/npm/bin/npm-cli.js", *words)

    def there(self) -> dict[str, str]:
        found: dict[str, str] = json.loads(self.run("node", "-e", TREE, "/app"))
        return {path: what for path, what in found.items() if ".towline-" not in path}

    def lock(self) -> dict[str, Any]:
        """The versions that package-lock.json has, here."""
        try:
            found = json.loads((self.folder / "package-lock.json").read_text())
        except FileNotFoundError:
            return {}
        return {k.rpartition("/")[2]: v["version"] for k, v in found["packages"].items() if k}

    def until_alike(self) -> dict[str, str]:
        """Wait until both sides have the same; returns it."""
        return wait_until(
            "both sides alike",
            lambda: (it := self.there()) == tree(self.folder) and it,
            within_s=60,
        )


def is_installed(path: str) -> bool:
    return path.split("/")[0] == "node_modules"


@pytest.mark.parametrize("ignored", [".gitignore", ".stignore", None])
@pytest.mark.usefixtures("npm_image")
def test_npm_installs_in_the_container(
    node: Node, elsewhere: Towline, packed: Path, ignored: str | None
) -> None:
    app = App(node, elsewhere, packed, ignored)
    session = elsewhere.up("app", "--mode", "sync")
    session.event("stage-done", stage="sync")
    app.install()
    first = {f"p{n}": "1.0.0" for n in range(PACKAGES)}
    wait_until("package-lock.json", lambda: app.lock() == first)
    # Again, as a package is updated: npm renames the old one away and removes it.
    app.depend({**first, "p0": "2.0.0"})
    saved = (app.folder / "package.json").read_text()
    wait_until("package.json", lambda: app.run("node", "-e", PRINT, "/app/package.json") == saved)
    app.install()
    wait_until("the next package-lock.json", lambda: app.lock() == {**first, "p0": "2.0.0"})
    there = app.there()
    installed = {path: what for path, what in there.items() if is_installed(path)}
    assert sum(what != "folder" for what in installed.values()) > PACKAGES * FILES_EACH
    assert installed["node_modules/.bin/run-p1"] == "link ../p1/bin/run.js"
    assert app.run("node_modules/.bin/run-p0") == "p0 2.0.0\n"
    if ignored is None:
        assert app.until_alike() == there
    else:
        rest = {p: w for p, w in there.items() if not is_installed(p)}
        here = {p: w for p, w in tree(app.folder).items() if p != ".stignore"}
        assert here == rest, "and node_modules stays in the container"
    stood = json.loads(elsewhere.run("sync", "-o", "json").stdout)
    assert stood["folders"][0]["halts"] == []
    told = [event["text"] for event in session.events if event["event"] == "warned"]
    assert not [text for text in told if "stopped" in text or "not synced" in text], told
    assert session.end() == 130


PRINT = "process.stdout.write(require('fs').readFileSync(process.argv[1]))"
