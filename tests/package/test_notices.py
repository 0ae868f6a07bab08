"""THIRD_PARTY_NOTICES and the bill of materials name all that is in the wheel or beside it."""

from __future__ import annotations

import hashlib
import importlib.metadata
import json
import re
from pathlib import Path
from typing import Any

import pytest
import ziglang
from tests.package.conftest import CHECKOUT, Installed, load_script, run

BUILT = "towline/payload/built"
# What licences were called before SPDX expressions came into package metadata.
_OLD_NAMES = {"MIT License": "MIT OR Apache-2.0"}  # uvloop: its classifiers name both
# Prints what is installed with towline, as the interpreter there sees it.
_LIST = """
import importlib.metadata as m, json
print(json.dumps([[d.metadata["Name"], d.version, d.metadata.get("License-Expression")
                   or d.metadata.get("License")] for d in m.distributions()]))
"""


# watchfiles, and what it brings.
_NOT_ON_LINUX = ("anyio", "idna", "watchfiles")


def _flat(text: str) -> str:
    return " ".join(text.split())


@pytest.fixture(scope="session")
def sbom(contents: dict[str, bytes]) -> dict[str, Any]:
    (name,) = (name for name in contents if name.endswith(".dist-info/sboms/towline.cdx.json"))
    found: dict[str, Any] = json.loads(contents[name])
    return found


def test_every_python_package_that_comes_along_is_named_with_its_licence(
    installed: Installed,
) -> None:
    hook = load_script(CHECKOUT / "hatch_build.py")
    named = {n: licence for (k, n), licence in hook.notices(CHECKOUT).items() if k == "python"}
    come_along = json.loads(run(installed.python, "-c", _LIST, env=installed.environ))
    found = {re.sub(r"[-_.]+", "-", name).lower(): licence for name, _, licence in come_along}
    del found["towline"]
    # Asked of the development environment, which has them on every system.
    for name in _NOT_ON_LINUX:
        about = importlib.metadata.metadata(name)
        found[name] = about.get("License-Expression") or about["License"]
    assert {name: _OLD_NAMES.get(licence, licence) for name, licence in found.items()} == named


def test_every_go_module_is_named_and_its_licence_is_whole(contents: dict[str, bytes]) -> None:
    hook = load_script(CHECKOUT / "hatch_build.py")
    named = {name for kind, name in hook.notices(CHECKOUT) if kind == "go"}
    linked = {m["path"] for m in json.loads(contents[f"{BUILT}/versions.json"])["modules"]}
    assert named == linked | {"std"}
    text = _flat((CHECKOUT / "THIRD_PARTY_NOTICES").read_text())
    for module in linked:
        where = run("go", "list", "-m", "-f", "{{.Dir}}", module, cwd=CHECKOUT / "agent")
        assert _flat((Path(where.strip()) / "LICENSE").read_text()) in text, module


def test_the_licence_of_what_the_starter_holds_is_whole() -> None:
    licence = Path(ziglang.__file__).with_name("LICENSE").read_text()
    assert _flat(licence) in _flat((CHECKOUT / "THIRD_PARTY_NOTICES").read_text())


def test_the_bill_of_materials_has_the_programs_and_what_is_in_them(
    sbom: dict[str, Any], contents: dict[str, bytes]
) -> None:
    assert (sbom["bomFormat"], sbom["specVersion"]) == ("CycloneDX", "1.6")
    versions = json.loads(contents[f"{BUILT}/versions.json"])
    by_ref = {component["bom-ref"]: component for component in sbom["components"]}
    for name in versions["sha256"]:
        digest = hashlib.sha256(contents[f"{BUILT}/{name}"]).hexdigest()
        assert by_ref[f"file:{name}"]["hashes"] == [{"alg": "SHA-256", "content": digest}]
    for module in versions["modules"]:
        assert f"pkg:golang/{module['path']}@{module['version']}" in by_ref
    assert f"pkg:golang/stdlib@{versions['go']}" in by_ref
    assert f"pkg:generic/zig@{versions['zig']}" in by_ref


def test_the_bill_of_materials_has_what_the_metadata_requires(
    sbom: dict[str, Any], contents: dict[str, bytes]
) -> None:
    (metadata,) = (text for name, text in contents.items() if name.endswith(".dist-info/METADATA"))
    required = set(re.findall(r"^Requires-Dist: ([\w.-]+)", metadata.decode(), re.MULTILINE))
    python = {
        component["name"]
        for component in sbom["components"]
        if component["bom-ref"].startswith("pkg:pypi/")
    }
    assert {name.lower() for name in required} <= python
    refs = {c["bom-ref"] for c in sbom["components"]} | {sbom["metadata"]["component"]["bom-ref"]}
    for row in sbom["dependencies"]:
        assert {row["ref"], *row["dependsOn"]} <= refs


def test_something_used_and_not_named_stops_the_build(tmp_path: Path) -> None:
    hook = load_script(CHECKOUT / "hatch_build.py")
    for name in ("THIRD_PARTY_NOTICES", "src/towline/payload/built/versions.json"):
        target = tmp_path / name
        target.parent.mkdir(parents=True, exist_ok=True)
        target.write_bytes((CHECKOUT / name).read_bytes())
    with pytest.raises(ValueError, match=r"THIRD_PARTY_NOTICES does not name leftpad \(python\)"):
        hook.bill_of_materials(tmp_path, version="1", requirements=["leftpad>=1; os_name"])
