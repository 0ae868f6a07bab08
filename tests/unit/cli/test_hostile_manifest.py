"""Commands that only look run nothing of what a manifest says, in a folder of a stranger."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path

import pytest
from tests.unit.session.test_local import session

from towline.session.local import kept
from towline.transport.keys import make_keys

from .test_exit_codes import towline

TOUCH = "touch pwned"
OBJECTS = [
    {
        "apiVersion": "apps/v1",
        "kind": "Deployment",
        "metadata": {"name": "web", "namespace": "default"},
        "spec": {
            "replicas": 1,
            "selector": {"matchLabels": {"app": "web"}},
            "template": {
                "metadata": {"labels": {"app": "web"}},
                "spec": {"containers": [{"name": "web", "image": "registry.invalid/web:1"}]},
            },
        },
    }
]


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    quoted = (f"$({TOUCH})", f"`{TOUCH}`", f"; {TOUCH};", f"| {TOUCH}", f"${{X:-$({TOUCH})}}")
    entry = {
        "mode": "hybrid",
        "command": TOUCH,
        "reverse": ["3000:8080"],
        "workdir": f"./$({TOUCH})",
        "environment": {f"A{number}": text for number, text in enumerate(quoted)},
        "envFiles": ["values.env"],
    }
    (tmp_path / "values.env").write_text("".join(f"B{n}={t}\n" for n, t in enumerate(quoted)))
    (tmp_path / f"$({TOUCH})").mkdir()
    (tmp_path / "towline.yml").write_text(json.dumps({"dev": {"web": entry}}))
    (tmp_path / "objects").mkdir()
    (tmp_path / "objects" / "web.json").write_text(json.dumps(OBJECTS[0]))
    return tmp_path


def left(folder: Path) -> list[Path]:
    """What is in the folder, but for what Towline keeps of its own in the home folder."""
    return [p for p in sorted(folder.rglob("*")) if not {".local", ".cache"} & set(p.parts)]


@pytest.mark.parametrize(
    ("words", "codes"),
    [
        (["validate"], {0}),
        (["config"], {0}),
        (["plan", "web", "--objects", "objects"], {0}),
        # Without a cluster: what they read before they ask for one is what is looked at.
        (["doctor"], {1, 4}),
        (["up", "web"], {4}),
        (["down", "web"], {4}),
        (["completion", "bash"], {0}),
        (["ssh-config", "web"], {2}),
    ],
    ids=lambda value: value[0] if isinstance(value, list) else "",
)
def test_nothing_of_it_is_run(folder: Path, words: list[str], codes: set[int]) -> None:
    before = left(folder)
    done = towline(*words, cwd=folder)
    assert done.returncode in codes, done.stdout + done.stderr
    assert left(folder) == before


def test_nor_by_ssh_config_of_a_session(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("XDG_STATE_HOME", str(folder / ".local/state"))
    of_it = replace(session(), manifest=str(folder / "towline.yml"))
    before = left(folder)
    with kept(of_it, make_keys()[0]):
        done = towline("ssh-config", "web", cwd=folder)
    assert done.returncode == 0, done.stderr
    assert done.stdout.startswith("Host web.n.towline\n") and TOUCH not in done.stdout
    assert left(folder) == before


@pytest.mark.parametrize(
    ("name", "offered"), [("web", ["plain,web"]), (f"$({TOUCH})", []), ("we\x1b]0;b\x07b", [])]
)
def test_nor_by_completing_its_names(folder: Path, name: str, offered: list[str]) -> None:
    manifest = folder / "towline.yml"
    manifest.write_text(manifest.read_text().replace('"web"', json.dumps(name)))
    before = left(folder)
    asked = {"_TOWLINE_COMPLETE": "bash_complete", "COMP_WORDS": "towline up ", "COMP_CWORD": "2"}
    done = towline(cwd=folder, **asked)
    assert done.stdout.split() == offered, done.stderr
    assert left(folder) == before
