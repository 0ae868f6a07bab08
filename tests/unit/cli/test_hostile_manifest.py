"""Commands that only look run nothing of what a manifest says, in a folder of a stranger."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

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
    ],
    ids=lambda value: value[0] if isinstance(value, list) else "",
)
def test_nothing_of_it_is_run(folder: Path, words: list[str], codes: set[int]) -> None:
    before = sorted(folder.rglob("*"))
    done = towline(*words, cwd=folder)
    assert done.returncode in codes, done.stdout + done.stderr
    kept = [path for path in sorted(folder.rglob("*")) if ".local" not in path.parts]
    assert [path for path in kept if ".cache" not in path.parts] == before
