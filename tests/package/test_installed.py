"""The wheel installed with `uv tool`, run where there is no Go, no compiler and no module proxy."""

from __future__ import annotations

import json
from pathlib import Path

from tests.package.conftest import CHECKOUT, Installed, run

# Runs `towline --help` as the program does, and prints what it has imported.
_IMPORTED = """
import sys
sys.argv = ["towline", "--help"]
from towline.cli.main import main
try:
    main()
except SystemExit as end:
    assert not end.code
print("MODULES", *sorted(sys.modules))
"""


def test_help_names_every_command(installed: Installed) -> None:
    said = installed.run("--help")
    for command in ("up", "down", "status", "exec", "plan", "sandbox", "version"):
        assert f"\n  {command} " in said


def test_help_imports_no_client_and_no_yaml(installed: Installed) -> None:
    said = run(installed.python, "-c", _IMPORTED, env=installed.environ)
    imported = set(said.rpartition("MODULES ")[2].split())
    heavy = {"asyncssh", "yaml", "uvloop", "cryptography", "h11", "wsproto", "asyncio", "ssl"}
    assert not imported & heavy


def test_version_tells_what_the_agent_was_built_with(installed: Installed) -> None:
    told = json.loads(installed.run("version", "-o", "json"))
    assert set(told["agent"]["sha256"]) == {
        name for arch in ("amd64", "arm64") for name in (f"agent-{arch}.gz", f"starter-{arch}")
    }
    assert "towline " + told["towline"] in installed.run("version")


def test_schema_and_validate(installed: Installed, tmp_path: Path) -> None:
    assert json.loads(installed.run("schema"))["$schema"]
    assert "frontend (hybrid)" in installed.run("validate", cwd=CHECKOUT / "samples/shop")


def test_plan_offline_cuts_the_agent_in_pieces(installed: Installed, tmp_path: Path) -> None:
    shop = CHECKOUT / "samples/shop"
    objects = run(installed.python, shop / "deploy.py", "render", "--namespace", "shop")
    (tmp_path / "shop.yaml").write_text(objects)
    planned = installed.run("plan", "frontend", "--objects", str(tmp_path), cwd=shop)
    assert "share the agent: " in planned


def test_the_sandbox_came_along(installed: Installed) -> None:
    assert "kubeconfig" in installed.run("sandbox", "--help")


def test_every_module_can_be_imported(installed: Installed) -> None:
    program = (
        "import importlib, pkgutil, towline\n"
        "for found in pkgutil.walk_packages(towline.__path__, 'towline.'):\n"
        "    if '._sandbox' not in found.name: importlib.import_module(found.name)\n"
    )
    run(installed.python, "-W", "error", "-c", program, env=installed.environ)
