"""The program from the outside: exit codes, and one message on stderr."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

MANIFEST = """\
dev:
  front:
    mode: hybrid
    command: [serve]
    reverse: [3000:8080]
"""


def towline(*words: str, cwd: Path, **environ: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, "-m", "towline.cli.main", *words],
        cwd=cwd,
        env={"PATH": os.environ["PATH"], "HOME": str(cwd), **environ},
        stdin=subprocess.DEVNULL,
        capture_output=True,
        text=True,
        timeout=20,
        check=False,
    )


@pytest.mark.parametrize(
    ("manifest", "words", "code", "said"),
    [
        (MANIFEST, ["nonsense"], 2, "No such command 'nonsense'"),
        (MANIFEST, ["upp"], 2, "Did you mean 'up'?"),
        (MANIFEST, ["up", "--no-such-option"], 2, "No such option"),
        (None, ["up"], 2, "there is no manifest"),
        (MANIFEST, ["up", "back"], 2, "no service 'back' (there: front)"),
        (MANIFEST, ["up", "-e", "=x"], 2, "K=V is expected"),
        (MANIFEST + "    no-such: 1\n", ["validate"], 3, "towline.yml:6:5: "),
        (MANIFEST.replace("hybrid", "sync"), ["up"], 4, "there is no kubeconfig"),
        (MANIFEST.replace("hybrid", "sync"), ["up", "--restart-on-change"], 2, "its start"),
        (MANIFEST, ["up"], 4, "there is no kubeconfig"),
        (MANIFEST, ["down"], 4, "there is no kubeconfig"),
        (MANIFEST, ["plan"], 4, "there is no kubeconfig"),
        (MANIFEST, ["exec", "--", "true"], 2, "there is no session"),
        (MANIFEST, ["exec", "front", "-n", "shop", "--", "true"], 2, "no such option: -n"),
        (MANIFEST, ["logs"], 2, "there is no session"),
    ],
)
def test_a_mistake_is_one_message_and_its_exit_code(
    tmp_path: Path, manifest: str | None, words: list[str], code: int, said: str
) -> None:
    if manifest is not None:
        (tmp_path / "towline.yml").write_text(manifest)
    done = towline(*words, cwd=tmp_path)
    assert said in done.stderr, done.stderr
    assert done.returncode == code
    assert done.stdout == ""
    assert "Traceback" not in done.stderr


def test_a_context_that_is_not_there(tmp_path: Path) -> None:
    (tmp_path / "towline.yml").write_text(MANIFEST)
    config = tmp_path / "config"
    config.write_text(json.dumps({"contexts": [{"name": "dev", "context": {}}]}))
    done = towline("up", "--context", "prod", cwd=tmp_path, KUBECONFIG=str(config))
    assert done.returncode == 4
    assert "context 'prod' is not in the kubeconfig (there: dev)" in done.stderr


def test_debug_shows_where(tmp_path: Path) -> None:
    (tmp_path / "towline.yml").write_text(MANIFEST)
    done = towline("--debug", "plan", cwd=tmp_path)
    assert "Traceback" in done.stderr
    assert done.returncode == 4


def test_help_imports_nothing_heavy(tmp_path: Path) -> None:
    done = subprocess.run(
        [sys.executable, "-X", "importtime", "-m", "towline.cli.main", "--help"],
        cwd=tmp_path,
        capture_output=True,
        text=True,
        timeout=20,
        check=True,
    )
    names = {line.rpartition("|")[2].strip() for line in done.stderr.splitlines()}
    assert not names & {"asyncssh", "yaml", "h11", "wsproto", "cryptography", "asyncio", "uvloop"}


def test_a_reader_that_goes_first_is_no_error(tmp_path: Path) -> None:
    done = subprocess.run(
        f"{sys.executable} -m towline.cli.main schema | head -c 1",
        shell=True,
        cwd=tmp_path,
        capture_output=True,
        text=True,
        timeout=20,
        check=False,
    )
    assert done.stderr == ""
