"""What `config` and `schema` print."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
import yaml
from click.testing import CliRunner

from towline.cli.manifest import config, schema, validate
from towline.errors import ManifestError, UsageError
from towline.manifest import load
from towline.manifest.fields import ENTRY_FIELDS
from towline.manifest.plain import as_manifest, as_plain
from towline.manifest.schema import json_schema

from .reading import read
from .test_check import EXAMPLE

RICH = """
original: keep
keepFor: 1h
contexts: [dev-*]
forward: [9000:mq:9000, {localPort: 1, remotePort: 2, labels: {a: b}}]
dev:
  api:
    mode: hybrid
    command: [python, -c, "print('$HOME')"]
    args: [x]
    environment: {PRICE: "5$$", EMPTY: "", A: "1"}
    reverse: [3000:8080]
    secrets: k:/k:0400
    sync: [.:/app]
    volumes: /v
    externalVolumes: [data:sub:/x]
    resources: {limits: {cpu: 1}}
    securityContext: {runAsUser: 10}
    tolerations: [{key: a, tolerationSeconds: 3}]
    lifecycle: {preStop: {command: "echo $X"}}
    services: [{name: w, replicas: 2, workdir: /w}]
    names: [x.example]
    inheritEnvironment: [LANG]
    agent: {image: "agent:1"}
  web: {selector: {app: web}, image: x, workdir: /srv, args: [-v]}
"""


def test_every_field_is_there() -> None:
    plain = as_plain(read(EXAMPLE))
    assert (plain["version"], plain["file"], plain["folder"]) == (1, "/app/okteto.yml", "/app")
    frontend = plain["dev"]["frontend"]
    unused = {name for name, field in ENTRY_FIELDS.items() if field.unused is not None}
    older = {"labels", "annotations", "healthchecks", "initContainer"}
    assert set(frontend) == set(ENTRY_FIELDS) - unused - older
    assert frontend["reverse"] == ["3000:8080"] and frontend["command"] == "yarn start"
    assert frontend["workdir"] == "/app/frontend" and frontend["handover"] is None
    json.dumps(plain)


def test_what_is_printed_is_a_manifest_that_says_the_same() -> None:
    manifest = read(RICH, name="towline.yml")
    text = yaml.safe_dump(as_manifest(as_plain(manifest)), sort_keys=False)
    again = read(text, name="towline.yml")
    assert not again.notices or all("not used in hybrid" in n for n in again.notices)
    first, second = as_plain(manifest), as_plain(again)
    for plain in (first, second):
        del plain["notices"], plain["forward"]
    assert first == second


def test_the_schema_has_every_field_with_a_sentence() -> None:
    printed = json_schema()
    entry: dict[str, Any] = printed["properties"]["dev"]["anyOf"][1]["additionalProperties"]
    assert set(entry["properties"]) == set(ENTRY_FIELDS)
    assert all(field["description"] for field in entry["properties"].values())
    assert printed["$schema"].endswith("2020-12/schema") and not printed["additionalProperties"]
    json.dumps(printed)


@pytest.fixture
def runner(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> CliRunner:
    monkeypatch.chdir(tmp_path)
    (tmp_path / ".git").mkdir()
    (tmp_path / "okteto.yml").write_text(EXAMPLE)
    (tmp_path / "bad.yml").write_text("dev: {api: {mode: x, moed: y}}")
    return CliRunner()


def test_validate(runner: CliRunner, tmp_path: Path) -> None:
    (tmp_path / "frontend").mkdir()
    result = runner.invoke(validate, catch_exceptions=False)
    assert result.stdout == "okteto.yml is good: frontend (hybrid)\n" and result.stderr == ""
    with pytest.raises(ManifestError, match=r"(?s)^bad\.yml:1:19: .*\nbad\.yml:1:22: "):
        runner.invoke(validate, ["-f", "bad.yml"], catch_exceptions=False, standalone_mode=False)


def test_validate_tells_what_is_not_on_this_laptop(runner: CliRunner, tmp_path: Path) -> None:
    result = runner.invoke(validate, catch_exceptions=False)
    assert result.exit_code == 0
    assert result.stderr == (
        f"okteto.yml:6:14: dev.frontend.workdir: there is no folder {tmp_path}/frontend\n"
    )


def test_validate_for_programs(runner: CliRunner, tmp_path: Path) -> None:
    result = runner.invoke(validate, ["-o", "json", "-f", "bad.yml"])
    printed = json.loads(result.stdout)
    assert result.exit_code == 3 and not printed["valid"] and len(printed["problems"]) == 2
    (tmp_path / "frontend").mkdir()
    result = runner.invoke(validate, ["-o", "json"])
    assert json.loads(result.stdout) == {"valid": True, "problems": [], "notices": []}


def test_config(runner: CliRunner, tmp_path: Path) -> None:
    result = runner.invoke(config, catch_exceptions=False)
    (tmp_path / "towline.yml").write_text(result.stdout)
    assert load(tmp_path / "towline.yml", environ={}).entries["frontend"].reverse[0].local == 8080
    result = runner.invoke(config, ["frontend", "-o", "json"], catch_exceptions=False)
    assert json.loads(result.stdout)["dev"]["frontend"]["mode"] == "hybrid"
    with pytest.raises(UsageError, match="has no entry 'nope'; there are frontend"):
        runner.invoke(config, ["nope"], catch_exceptions=False, standalone_mode=False)


def test_schema(runner: CliRunner) -> None:
    assert json.loads(runner.invoke(schema).stdout) == json_schema()


@pytest.mark.parametrize("command", [validate, config, schema], ids=lambda c: c.name)
def test_help_has_an_example(command: Any, runner: CliRunner) -> None:
    assert f"towline {command.name}" in runner.invoke(command, ["--help"]).stdout


def test_without_a_manifest_the_next_step_is_told(runner: CliRunner, tmp_path: Path) -> None:
    (tmp_path / "okteto.yml").unlink()
    with pytest.raises(UsageError, match="there is no manifest in"):
        runner.invoke(config, catch_exceptions=False, standalone_mode=False)
