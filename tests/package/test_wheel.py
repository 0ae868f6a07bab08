"""What is in the wheel, and that it is the same wherever it is built."""

from __future__ import annotations

import gzip
import hashlib
import json
import re
import sys
import tomllib
from pathlib import Path, PurePosixPath

from tests.package.conftest import CHECKOUT, load_script, run

BUILT = "towline/payload/built"
# Of git: what is committed, and what is new and not ignored.
KNOWN = ("--cached", "--others", "--exclude-standard")
PROGRAMS = {"agent-amd64.gz", "agent-arm64.gz", "starter-amd64", "starter-arm64"}


def test_the_wheel_is_for_any_python_and_any_machine(wheel: Path) -> None:
    assert wheel.name.endswith("-py3-none-any.whl")


def test_the_wheel_has_the_payload_and_says_what_it_is(contents: dict[str, bytes]) -> None:
    names = {PurePosixPath(name).name for name in contents if name.startswith(f"{BUILT}/")}
    assert names == {*PROGRAMS, "versions.json"}
    for arch, machine in (("amd64", 62), ("arm64", 183)):  # e_machine: EM_X86_64, EM_AARCH64
        agent = gzip.decompress(contents[f"{BUILT}/agent-{arch}.gz"])
        for program in (agent, contents[f"{BUILT}/starter-{arch}"]):
            assert program[:4] == b"\x7fELF"
            assert int.from_bytes(program[18:20], "little") == machine


def test_the_wheel_has_no_tests_caches_or_build_scripts(contents: dict[str, bytes]) -> None:
    tops = {PurePosixPath(name).parts[0] for name in contents}
    assert {re.sub(r"-.*\.", ".", top) for top in tops} == {"towline", "towline.dist-info"}
    for name in contents:
        parts = PurePosixPath(name).parts
        assert not {"tests", "__pycache__", "node_modules"} & set(parts), name
        assert not parts[-1].endswith(("_test.go", ".pyc", ".partial")), name
        assert not parts[-1].startswith(("test_", "conftest")), name
    assert "towline/payload/build.py" not in contents


def test_the_wheel_has_the_whole_sandbox(contents: dict[str, bytes]) -> None:
    tracked = run("git", "ls-files", *KNOWN, "sandbox").split()
    wanted = {f"towline/_{name}" for name in tracked if not name.endswith("_test.go")}
    assert {name for name in contents if name.startswith("towline/_sandbox/")} == wanted


def test_every_module_of_the_checkout_is_in_the_wheel(contents: dict[str, bytes]) -> None:
    tracked = run("git", "ls-files", *KNOWN, "src/towline").split()
    wanted = {name.removeprefix("src/") for name in tracked} - {"towline/payload/build.py"}
    assert wanted <= set(contents)


def test_the_checkout_and_the_sdist_build_the_same_programs(contents: dict[str, bytes]) -> None:
    # Two folders of two depths. That an empty cache of Go's makes no difference either is
    # in tests/agent/test_payload.py; it costs 16 s and more for each architecture.
    builder = load_script(CHECKOUT / "src/towline/payload/build.py")
    built = CHECKOUT / "src" / BUILT
    builder.build(built)
    for name in PROGRAMS:
        assert (built / name).read_bytes() == contents[f"{BUILT}/{name}"], name


def test_no_program_of_the_wheel_names_the_folder_it_was_built_in(
    sdist: Path, contents: dict[str, bytes]
) -> None:
    for name, content in contents.items():
        for text in (content, gzip.decompress(content) if name.endswith(".gz") else b""):
            for folder in (sdist, CHECKOUT, Path.home(), Path(sys.prefix)):
                assert str(folder).encode() + b"/" not in text, f"{name} names {folder}"


def test_one_version_of_each_tool_everywhere() -> None:
    """Pins that stand in several files: a new one must reach all of them."""
    project = tomllib.loads((CHECKOUT / "pyproject.toml").read_text())
    builder = load_script(CHECKOUT / "src/towline/payload/build.py")
    go = builder.go_version(CHECKOUT)
    development = project["dependency-groups"]["dev"]
    assert f"ziglang=={builder.ZIG_VERSION}" in development
    assert project["build-system"]["requires"][0] in development
    makefile = (CHECKOUT / "Makefile").read_text()
    assert f"GO_VERSION := {go}\n" in makefile


def test_the_metadata_carries_the_licences(contents: dict[str, bytes]) -> None:
    (info,) = {name.split("/")[0] for name in contents if ".dist-info/" in name}
    assert f"{info}/licenses/LICENSE" in contents
    assert contents[f"{info}/licenses/THIRD_PARTY_NOTICES"]
    metadata = contents[f"{info}/METADATA"].decode()
    assert "License-Expression: Apache-2.0" in metadata


def test_versions_json_is_of_these_files(contents: dict[str, bytes]) -> None:
    versions = json.loads(contents[f"{BUILT}/versions.json"])
    for name, digest in versions["sha256"].items():
        assert hashlib.sha256(contents[f"{BUILT}/{name}"]).hexdigest() == digest
