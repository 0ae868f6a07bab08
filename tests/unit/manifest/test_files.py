"""Finding and reading files, `extends`, the `.env` beside, what must be there."""

from __future__ import annotations

from pathlib import Path

import pytest

from towline.errors import ManifestError
from towline.manifest import Manifest, Original, check_files, find, load

GOOD = "dev: {api: {mode: hybrid}}\n"


def write(folder: Path, **texts: str) -> None:
    for name, text in texts.items():
        path = folder / name.replace("__", "/").replace("_", ".")
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text)


def lines(path: Path, **environ: str) -> list[str]:
    with pytest.raises(ManifestError) as caught:
        load(path, environ=environ)
    return caught.value.message.replace(f"{path.parent}/", "").splitlines()


def notices(manifest: Manifest) -> list[str]:
    return [n.replace(f"{manifest.path.parent}/", "") for n in manifest.notices]


def test_towlines_own_comes_first(tmp_path: Path) -> None:
    for name in (".okteto__okteto_yaml", ".okteto__okteto_yml", "okteto_yaml", "okteto_yml",
                 "towline_yaml", "towline_yml"):  # fmt: skip
        path = tmp_path / name.replace("__", "/").replace("_", ".")
        path.parent.mkdir(exist_ok=True)
        path.write_text(GOOD)
        assert find(tmp_path) == path


def test_it_is_looked_for_up_to_the_repositorys_root(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(Path, "home", lambda: tmp_path)
    inner = tmp_path / "repo" / "a" / "b"
    inner.mkdir(parents=True)
    write(tmp_path, towline_yml=GOOD)
    assert find(inner) == tmp_path / "towline.yml"
    (tmp_path / "repo" / ".git").mkdir()
    assert find(inner) is None
    write(tmp_path / "repo", okteto_yml=GOOD)
    assert find(inner) == tmp_path / "repo" / "okteto.yml"


def test_it_is_not_looked_for_above_home(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    home = tmp_path / "home"
    (home / "a").mkdir(parents=True)
    monkeypatch.setattr(Path, "home", lambda: home)
    write(tmp_path, towline_yml=GOOD)
    assert find(home / "a") is None


def test_a_manifest_in_the_okteto_folder_belongs_to_the_folder_above(tmp_path: Path) -> None:
    (tmp_path / ".okteto").mkdir()
    path = tmp_path / ".okteto" / "okteto.yml"
    path.write_text("dev: {api: {mode: hybrid, workdir: src}}")
    manifest = load(path, environ={})
    assert manifest.folder == tmp_path
    assert manifest.entries["api"].workdir == tmp_path / "src"


def test_messages_name_the_file_as_it_is_seen_from_here(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    write(tmp_path, sub__okteto_yml="dev: {api: {mode: x}}")
    monkeypatch.chdir(tmp_path)
    with pytest.raises(ManifestError, match=r"^sub/okteto\.yml:1:19: "):
        load(tmp_path / "sub" / "okteto.yml", environ={})


def test_extends_holds_only_the_differences(tmp_path: Path) -> None:
    write(
        tmp_path,
        okteto_yml="build: {}\nforward: 1:db:1\ndev:\n  api:\n    mode: hybrid\n"
        "    environment: {A: 1, B: 1}\n    reverse: [3000:8080]\n  web: {image: x}\n",
        towline_yml="extends: okteto.yml\noriginal: keep\ndev:\n  api:\n"
        "    environment: {B: 2, C: 2}\n    reverse: [3000:9090]\n  new: {}\n",
    )
    manifest = load(tmp_path / "towline.yml", environ={})
    assert list(manifest.entries) == ["api", "web", "new"]
    api = manifest.entries["api"]
    assert {v.name: v.value for v in api.environment} == {"A": "1", "B": "2", "C": "2"}
    assert [str(r) for r in api.reverse] == ["3000:9090"]
    assert api.settings.original is Original.KEEP and len(manifest.forwards) == 1
    assert notices(manifest) == ["okteto.yml:1:1: 'build' is not used"]


def test_each_file_is_judged_by_its_own_rules_and_named(tmp_path: Path) -> None:
    write(
        tmp_path,
        okteto_yml="dev: {api: {sparkle: 1, keepFor: 1m}}\n",
        towline_yml="extends: ./okteto.yml\ndev: {api: {glitter: 1}}\n",
    )
    assert [line.split(";")[0] for line in lines(tmp_path / "towline.yml")] == [
        "towline.yml:2:13: unknown field 'glitter' in dev.api"
    ]
    write(tmp_path, towline_yml="extends: okteto.yml\n")
    assert [n.split(";")[0] for n in notices(load(tmp_path / "towline.yml", environ={}))] == [
        "okteto.yml:1:13: unknown field 'sparkle' in dev.api",
        "okteto.yml:1:25: dev.api: 'keepFor' is Towline's own, so it is not used here",
    ]


@pytest.mark.parametrize(
    ("extends", "message"),
    [
        ("gone.yml", "towline.yml:1:10: extends: there is no file {folder}/gone.yml"),
        ("towline.yml", "towline.yml:1:10: extends: 'towline.yml' extends this file in turn"),
        ("other.towline.yml", "other.towline.yml:1:10: extends: 'towline.yml' extends this file in "
                              "turn"),
        ("[a]", "towline.yml:1:10: extends: a list is not possible here; write a text"),
        ("'${X:?}'", "towline.yml:1:10: extends: 'X' is needed: it is not set"),
    ],
)  # fmt: skip
def test_what_cannot_be_extended(extends: str, message: str, tmp_path: Path) -> None:
    (tmp_path / "other.towline.yml").write_text("extends: towline.yml\n")
    (tmp_path / "towline.yml").write_text(f"extends: {extends}\n{GOOD}")
    found = [line.replace(f"{tmp_path}/", "") for line in lines(tmp_path / "towline.yml")]
    assert message.format(folder=tmp_path).replace(f"{tmp_path}/", "") in found


def test_the_env_file_beside_never_overrides_the_environment(tmp_path: Path) -> None:
    write(
        tmp_path,
        _env="TAG=file\nPORT=1\nURL=http://h:$PORT\n",
        okteto_yml="dev: {api: {image: '${TAG}-${PORT}-${URL}'}}",
    )
    manifest = load(tmp_path / "okteto.yml", environ={"PORT": "2"})
    assert manifest.entries["api"].image == "file-2-http://h:2"


def test_what_is_wrong_in_the_env_file_is_told_and_stops_nobody(tmp_path: Path) -> None:
    write(tmp_path, _env="A=1\nwhat is this\n", okteto_yml=GOOD)
    manifest = load(tmp_path / "okteto.yml", environ={})
    assert notices(manifest) == [".env:2:1: after 'what' a '=' is missing"]


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (b"dev:\n  \xff: x", "okteto.yml:2:3: this is not UTF-8 text"),
        (b"#" * (1 << 21), "okteto.yml:1:1: this is more than 1 MiB; a manifest is a small YAML "
                           "file"),
        (b"\x7fELF\x00\x01", "okteto.yml:1:1: this is not YAML: the character U+007F may not stand "
                             "here"),
    ],
)  # fmt: skip
def test_a_file_that_is_no_manifest(content: bytes, message: str, tmp_path: Path) -> None:
    (tmp_path / "okteto.yml").write_bytes(content)
    assert lines(tmp_path / "okteto.yml") == [message]


def test_a_mark_at_the_start_is_no_content(tmp_path: Path) -> None:
    (tmp_path / "okteto.yml").write_bytes(b"\xef\xbb\xbf" + GOOD.encode())
    assert load(tmp_path / "okteto.yml", environ={}).entries


def test_a_file_that_cannot_be_read(tmp_path: Path) -> None:
    assert lines(tmp_path / "gone.yml") == [
        "gone.yml:1:1: cannot be read: No such file or directory"
    ]
    assert lines(tmp_path) == [f"{tmp_path.name}:1:1: cannot be read: Is a directory"]


def test_what_must_be_there(tmp_path: Path) -> None:
    path = tmp_path / "okteto.yml"
    path.write_text("dev:\n  api:\n    mode: hybrid\n    workdir: gone\n    envFiles: [a, b]\n")
    entry = load(path, environ={}).entries["api"]
    with pytest.raises(ManifestError) as caught:
        check_files(entry)
    assert caught.value.message.replace(f"{tmp_path}/", "").splitlines() == [
        "okteto.yml:4:14: dev.api.workdir: there is no folder gone",
        "okteto.yml:5:15: dev.api.envFiles: there is no file a",
        "okteto.yml:5:15: dev.api.envFiles: there is no file b",
    ]
    (tmp_path / "gone").mkdir()
    write(tmp_path, a="", b="")
    check_files(entry)
