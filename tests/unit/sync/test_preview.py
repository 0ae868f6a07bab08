from __future__ import annotations

import os
from pathlib import Path

import pytest
from click.testing import CliRunner

from towline.cli.up import up
from towline.sync.preview import look_ahead


@pytest.fixture
def root(tmp_path: Path) -> Path:
    root = tmp_path / "api"
    for name in ("src", "node_modules/x", ".git"):
        (root / name).mkdir(parents=True)
    (root / "src/app.py").write_text("print()")
    (root / "node_modules/x/index.js").write_text("x")
    (root / ".git/HEAD").write_text("ref")
    (root / ".stignore").write_text("node_modules\n")
    (root / "large").write_bytes(bytes(3 << 20))
    (root / "link").symlink_to("src/app.py")
    (root / "out").symlink_to("/etc/passwd")
    os.mkfifo(root / "pipe")
    (root / ".towline-tmp-of-another-session").write_text("stays")
    return root


def test_what_goes_over_is_counted_and_nothing_is_touched(root: Path) -> None:
    os.utime(root / ".towline-tmp-of-another-session", (1, 1))
    found = look_ahead(root).to_json()
    assert (found["files"], found["folders"], found["links"]) == (2, 1, 1)
    assert found["bytes"] == (3 << 20) + 7
    assert found["largest"][0] == {"path": "large", "bytes": 3 << 20}
    assert found["first_ignored"] == [".git/", ".stignore", "node_modules/"]
    away = {each["path"]: each["reason"] for each in found["first_not_synced"]}
    assert away == {"out": "a link that leads out of the folder", "pipe": "a FIFO"}
    assert found["watches"] == 2
    assert (root / ".towline-tmp-of-another-session").exists()


def test_dry_run_prints_it_without_a_cluster(root: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (root.parent / "towline.yml").write_text("dev:\n  api:\n    sync: ./api:/app\n")
    monkeypatch.chdir(root.parent)
    monkeypatch.setenv("KUBECONFIG", "/nowhere")
    done = CliRunner().invoke(up, ["api", "--dry-run"], standalone_mode=False)
    assert done.exception is None, done.exception
    assert "goes over   2 files and 1 links, 3 MiB, in 1 folders" in done.output
    assert "ignored     .git/, .stignore, node_modules/" in done.output
