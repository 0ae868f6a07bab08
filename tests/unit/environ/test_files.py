"""Which files are mirrored, and a mirror that nothing leads out of."""

from __future__ import annotations

import stat
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from towline.environ.files import (
    LeadsOut,
    inside,
    link_inside,
    mirrored_paths,
    needed_below,
)
from towline.environ.mirror import Mirror, Version
from towline.manifest.model import Files

POD: dict[str, Any] = {
    "spec": {
        "volumes": [
            {"name": "config", "configMap": {"name": "c"}},
            {"name": "secret", "secret": {"secretName": "s"}},
            {"name": "token", "projected": {"sources": []}},
            {"name": "labels", "downwardAPI": {"items": []}},
            {"name": "scratch", "emptyDir": {}},
            {"name": "claim", "persistentVolumeClaim": {"claimName": "p"}},
            {"name": "session", "secret": {"secretName": "towline"}},
        ],
        "containers": [
            {"name": "other", "volumeMounts": [{"name": "secret", "mountPath": "/other"}]},
            {
                "name": "app",
                "volumeMounts": [
                    {"name": "config", "mountPath": "/etc/app/"},
                    {"name": "secret", "mountPath": "/etc/app/secret"},
                    {"name": "token", "mountPath": "/var/run/secrets/k/sa"},
                    {"name": "labels", "mountPath": "/labels"},
                    {"name": "scratch", "mountPath": "/scratch"},
                    {"name": "claim", "mountPath": "/data"},
                    {"name": "session", "mountPath": "/towline/session"},
                ],
            },
        ],
    }
}
ALL = ["/etc/app", "/etc/app/secret", "/labels", "/var/run/secrets/k/sa"]


@pytest.mark.parametrize(
    ("files", "wanted"),
    [
        (Files(), ALL),
        (Files(include=("/etc/*",)), ALL[:2]),
        (Files(exclude=("/etc/app/*", "/labels/")), ["/etc/app", "/var/run/secrets/k/sa"]),
        (Files(exclude=("*",), add=("/data", "/etc/app", "/")), ["/data", "/etc/app"]),
    ],
)
def test_what_the_kubelet_writes_is_mirrored_and_never_the_agents(
    files: Files, wanted: list[str]
) -> None:
    found = mirrored_paths(POD, "app", files)
    assert [each.path for each in found] == wanted
    assert {each.path for each in found if not each.is_watched} <= set(files.add)


@pytest.mark.parametrize(
    ("path", "hidden"),
    [("/usr/local", "/usr/local/bin"), ("/usr/local/bin", "/usr/local/bin"),
     ("/usr/local/bin/app", None), ("/usr/loc", None), ("/home/a", "/home/a/shop")],
)  # fmt: skip
def test_what_the_laptop_needs_is_not_hidden(path: str, hidden: str | None) -> None:
    assert needed_below(path, ["/usr/local/bin", "/home/a/shop"]) == hidden


@pytest.mark.parametrize("name", ["", "/a", "a/", "../a", "a/../b", ".", "a//b", "a\0", "a\\b"])
def test_names_that_are_none(name: str) -> None:
    with pytest.raises(LeadsOut):
        inside(name)


@pytest.mark.parametrize(
    ("name", "target", "is_inside"),
    [
        ("a", "..data/a", True),
        ("..data", "..2026_1", True),
        ("a/b", "../c", True),
        ("a", "../c", False),
        ("a/b", "../../c", False),
        ("a", "/etc/passwd", False),
        ("a", "b/../../c", False),
    ],
)
def test_links(name: str, target: str, is_inside: bool) -> None:
    if is_inside:
        assert link_inside(name, target) == target
    else:
        with pytest.raises(LeadsOut):
            link_inside(name, target)


def kubelets(mirror: Mirror, version: str, **files: bytes) -> Version:
    made = mirror.begin("/etc/app", is_file=False)
    for name, data in files.items():
        made.file(f"{version}/{name}", 0o644, data)
    made.link("..data", version)
    for name in files:
        made.link(name, f"..data/{name}")
    return made


def test_a_version_is_in_force_only_when_it_is_whole(tmp_path: Path) -> None:
    mirror = Mirror(tmp_path / "root")
    place = mirror.place("/etc/app")
    (tmp_path / "root").mkdir()
    kubelets(mirror, "..1", a=b"1", b=b"1").end()
    half = mirror.begin("/etc/app", is_file=False)
    half.file("..2/a", 0o755, b"2")
    assert [(place / name).read_bytes() for name in "ab"] == [b"1", b"1"]
    kubelets(mirror, "..3", a=b"3", c=b"3").end()
    assert sorted(each.name for each in place.iterdir()) == ["..3", "..data", "a", "c"]
    assert (place / "a").read_bytes() == b"3"


def test_a_root_within_another_stays(tmp_path: Path) -> None:
    mirror = Mirror(tmp_path)
    kubelets(mirror, "..1", a=b"1").end()
    inner = mirror.begin("/etc/app/secret", is_file=False)
    inner.file("key", 0o600, b"k")
    inner.end()
    kubelets(mirror, "..2", a=b"2").end()
    assert mirror.place("/etc/app/secret/key").read_bytes() == b"k"


def test_all_of_it_is_for_the_user_alone(tmp_path: Path) -> None:
    mirror = Mirror(tmp_path)
    made = mirror.begin("/a/b/c", is_file=False)
    made.file("d/e", 0o777, b"#!/bin/sh")
    made.file("f", 0o644, b"")
    made.end()
    single = mirror.begin("/a/single", is_file=True)
    single.file("single", 0o444, b"long enough")
    single.file("single", 0o444, b"short")
    single.end()
    assert mirror.place("/a/single").read_bytes() == b"short"
    modes = {str(p.relative_to(tmp_path)): stat.S_IMODE(p.stat().st_mode)
             for p in tmp_path.rglob("*")}  # fmt: skip
    assert modes == {
        "a": 0o700, "a/b": 0o700, "a/b/c": 0o700, "a/b/c/d": 0o700,
        "a/b/c/d/e": 0o700, "a/b/c/f": 0o600, "a/single": 0o600,
    }  # fmt: skip


def test_nothing_is_written_through_a_link(tmp_path: Path) -> None:
    """A link that stays inside by its name, and leads out once another link is on its way."""
    outside, folder = tmp_path / "outside", tmp_path / "root"
    outside.mkdir()
    folder.mkdir()
    mirror = Mirror(folder)
    made = mirror.begin("/app", is_file=False)
    made.link("p", ".")
    made.end()
    made = mirror.begin("/app", is_file=False)
    made.link("p/p/l", "../../../outside")
    made.link("p/l", "../..")
    made.file("p/x", 0o600, b"x")
    made.end()
    assert sorted(made.refused) == ["p/l", "p/p/l", "p/x"]
    assert list(outside.iterdir()) == []


NAMES = st.text(alphabet="a./\\\0-", max_size=8)


@given(st.lists(st.tuples(NAMES, st.one_of(st.none(), NAMES)), max_size=12))
def test_whatever_the_pod_tells_stays_in_the_folder(
    tmp_path_factory: pytest.TempPathFactory, told: list[tuple[str, str | None]]
) -> None:
    top = tmp_path_factory.mktemp("top")
    (top / "root").mkdir()
    (top / "a").write_bytes(b"not yours")
    for _ in range(2):
        made = Mirror(top / "root").begin("/app", is_file=False)
        for name, target in told:
            if target is None:
                made.file(name, 0o644, b"told")
            else:
                made.link(name, target)
        made.end()
    assert sorted(each.name for each in top.iterdir()) == ["a", "root"]
    assert (top / "a").read_bytes() == b"not yours"
    assert [each.name for each in (top / "root").iterdir()] == ["app"]
    inside_of = (top / "root").resolve()
    for path in (top / "root").rglob("*"):
        assert path.is_symlink() or path.resolve().is_relative_to(inside_of)
