"""kubeconfig files: lists of them, relative paths, and what is said of broken ones."""

from __future__ import annotations

import base64
import contextlib
import copy
import os
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import yaml
from hypothesis import HealthCheck, given, settings
from hypothesis.strategies import (
    binary,
    booleans,
    dictionaries,
    integers,
    lists,
    none,
    recursive,
    sampled_from,
    text,
)

from towline.cluster.http import proxy_for
from towline.cluster.kubeconfig import read_target, read_user_again
from towline.errors import ClusterError, NotFound


def write(folder: Path, name: str, **sections: Any) -> Path:
    file = folder / name
    file.parent.mkdir(parents=True, exist_ok=True)
    file.write_text(yaml.safe_dump(sections))
    return file


def context(name: str, *, cluster: str = "c", user: str = "u", **more: str) -> dict[str, Any]:
    return {"name": name, "context": {"cluster": cluster, "user": user, **more}}


def cluster(name: str, server: str, **more: Any) -> dict[str, Any]:
    return {"name": name, "cluster": {"server": server, **more}}


def user(name: str, **fields: Any) -> dict[str, Any]:
    return {"name": name, "user": fields}


def test_of_several_files_the_first_that_sets_a_name_wins(tmp_path: Path) -> None:
    one = write(
        tmp_path,
        "1",
        contexts=[context("a", namespace="first")],
        clusters=[cluster("c", "https://1")],
    )
    two = write(
        tmp_path,
        "2",
        contexts=[context("a", namespace="second"), context("b", cluster="d")],
        clusters=[cluster("c", "https://2"), cluster("d", "https://3/k8s/")],
        users=[user("u", token="t")],
        **{"current-context": "a"},
    )
    environ = {"KUBECONFIG": os.pathsep.join(["", str(one), str(tmp_path / "none"), str(two)])}
    target = read_target(environ=environ)
    assert (target.context, target.namespace) == ("a", "first")
    assert (target.cluster.server, target.user.token) == ("https://1", "t")
    other = read_target(environ=environ, context="b", namespace="mine")
    assert (other.cluster.server, other.namespace) == ("https://3/k8s", "mine")


def test_a_user_is_read_again_by_the_context_that_was_chosen(tmp_path: Path) -> None:
    """The current context may be another one by then, and so may the context's user."""
    sections = {"contexts": [context("a"), context("b", user="other")], "current-context": "a",
                "clusters": [cluster("c", "https://1")]}  # fmt: skip
    file = write(tmp_path, "config", users=[user("u", token="old")], **sections)
    target = read_target(environ={}, kubeconfig=file)
    new = [user("u", token="new"), user("other", token="other")]
    write(tmp_path, "config", users=new, **{**sections, "current-context": "b"})
    assert read_user_again(target).token == "new"


def test_credentials_of_another_api_server_are_not_read(tmp_path: Path) -> None:
    """A local cluster that was made anew has its context's name again, and another address."""
    sections = {"contexts": [context("a")], "current-context": "a"}
    users, there = [user("u", token="theirs")], [cluster("c", "https://1")]
    file = write(tmp_path, "config", users=users, clusters=there, **sections)
    target = read_target(environ={}, kubeconfig=file)
    write(tmp_path, "config", users=users, clusters=[cluster("c", "https://2")], **sections)
    with pytest.raises(ClusterError, match="context 'a' leads to https://2 now"):
        read_user_again(target)
    file.unlink()
    os.mkfifo(file)
    with pytest.raises(NotFound):  # nobody writes into it: reading would wait for ever
        read_user_again(target)


def test_an_explicit_file_is_the_only_one(tmp_path: Path) -> None:
    whole = {
        "contexts": [context("a")],
        "clusters": [cluster("c", "https://1")],
        "users": [user("u")],
        "current-context": "a",
    }
    file = write(tmp_path, "1", **whole)
    environ = {"KUBECONFIG": "/no/such"}
    assert read_target(environ=environ, kubeconfig=file).context == "a"
    with pytest.raises(ClusterError, match="there is no kubeconfig: looked for /no/such"):
        read_target(environ=environ)


def test_paths_are_relative_to_the_file_that_holds_them(tmp_path: Path) -> None:
    (tmp_path / "sub").mkdir()
    (tmp_path / "sub/ca.pem").write_text("the ca")
    (tmp_path / "sub/key.pem").write_text("the key")
    certificate = base64.b64encode(b"the certificate").decode()
    users = [
        user(
            "u",
            tokenFile="token",
            **{"client-key": "key.pem", "client-certificate-data": certificate},
        )
    ]
    clusters = [cluster("c", "https://1", **{"certificate-authority": "ca.pem"})]
    file = write(
        tmp_path / "sub", "config", contexts=[context("a")], clusters=clusters, users=users
    )
    target = read_target(environ={}, kubeconfig=file, context="a")
    assert target.cluster.ca_pem == "the ca"
    assert (target.user.certificate_pem, target.user.key_pem) == (b"the certificate", b"the key")
    assert target.user.token_file == tmp_path / "sub/token"


@pytest.mark.parametrize(
    ("sections", "words"),
    [
        ({}, "no current context"),
        ({"current-context": "a"}, r"context 'a' is not in the kubeconfig \(there: none\)"),
        ({"current-context": "a", "contexts": [context("a")]}, "cluster 'c' is not"),
        (
            {"current-context": "a", "contexts": [context("a")], "clusters": [cluster("c", "x:1")]},
            "cluster 'c'.* no server address",
        ),
        (
            {
                "current-context": "a",
                "contexts": [context("a")],
                "clusters": [cluster("c", "https://1", **{"certificate-authority": "gone.pem"})],
            },
            "gone.pem: No such file",
        ),
    ],
)
def test_what_is_missing_is_named(tmp_path: Path, sections: dict[str, Any], words: str) -> None:
    file = write(tmp_path, "config", users=[user("u")], **sections)
    with pytest.raises((ClusterError, NotFound), match=words):
        read_target(environ={}, kubeconfig=file)


@given(text(max_size=60))
def test_any_text_is_read_or_a_cluster_error(content: str) -> None:
    import tempfile

    with tempfile.TemporaryDirectory() as folder:
        file = Path(folder) / "config"
        file.write_text(content, encoding="utf-8", errors="surrogatepass")
        with pytest.raises(ClusterError):
            read_target(environ={}, kubeconfig=file)


@pytest.mark.parametrize(
    "document",
    [
        "contexts: 3",
        "contexts: [1, a]",
        "contexts: {a: b}",
        "current-context: [1]\n",
        "clusters: x",
    ],
)
def test_any_shape_is_a_cluster_error(tmp_path: Path, document: str) -> None:
    file = tmp_path / "config"
    file.write_text(document)
    with pytest.raises(ClusterError):
        read_target(environ={}, kubeconfig=file)


def test_a_context_that_is_not_a_mapping(tmp_path: Path) -> None:
    file = write(tmp_path, "config", contexts=[{"name": "a", "context": "b"}])
    with pytest.raises(ClusterError):
        read_target(environ={}, kubeconfig=file, context="a")


@pytest.mark.parametrize(
    ("host", "environ", "proxy"),
    [
        ("api.example", {"HTTPS_PROXY": "http://p:1"}, "http://p:1"),
        ("api.example", {"https_proxy": "http://p:1"}, "http://p:1"),
        ("api.example", {"HTTP_PROXY": "http://p:1"}, None),
        ("api.example", {}, None),
        ("127.0.0.1", {"HTTPS_PROXY": "http://p:1"}, None),
        ("localhost", {"HTTPS_PROXY": "http://p:1"}, None),
        ("api.example", {"HTTPS_PROXY": "http://p:1", "NO_PROXY": "example"}, None),
        ("api.example", {"HTTPS_PROXY": "http://p:1", "NO_PROXY": ".example"}, None),
        ("api.example", {"HTTPS_PROXY": "http://p:1", "no_proxy": "a, api.example:6443"}, None),
        ("myexample", {"HTTPS_PROXY": "http://p:1", "NO_PROXY": "example"}, "http://p:1"),
        ("10.1.2.3", {"HTTPS_PROXY": "http://p:1", "NO_PROXY": "10.0.0.0/8"}, None),
        ("11.1.2.3", {"HTTPS_PROXY": "http://p:1", "NO_PROXY": "10.0.0.0/8"}, "http://p:1"),
        ("fd00::3", {"HTTPS_PROXY": "http://p:1", "NO_PROXY": "fd00::/8"}, None),
        ("api.example", {"HTTPS_PROXY": "http://p:1", "NO_PROXY": "*"}, None),
    ],
)
def test_the_proxy_that_the_environment_names(
    host: str, environ: dict[str, str], proxy: str | None
) -> None:
    assert proxy_for(host, scheme="https", environ=environ) == proxy


_ANYTHING = recursive(
    none() | booleans() | integers() | text(max_size=20) | binary(max_size=20),
    lambda inner: lists(inner, max_size=3) | dictionaries(text(max_size=10), inner, max_size=3),
    max_leaves=8,
)
_GOOD = {
    "current-context": "a",
    "contexts": [context("a", namespace="n")],
    "clusters": [
        cluster("c", "https://1", **{"certificate-authority-data": "AA==", "proxy-url": "http://p"})
    ],
    "users": [user("u", token="t", exec={"command": "c", "env": [{"name": "A", "value": "b"}]})],
}


def _places(value: Any, path: tuple[Any, ...] = ()) -> Iterator[tuple[Any, ...]]:
    yield path
    pairs = value.items() if isinstance(value, dict) else enumerate(value)
    for key, inner in pairs if isinstance(value, dict | list) else ():
        yield from _places(inner, (*path, key))


@settings(suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(sampled_from(list(_places(_GOOD))), _ANYTHING)
def test_anything_at_any_place_is_read_or_refused(
    tmp_path: Path, place: tuple[Any, ...], value: Any
) -> None:
    broken = copy.deepcopy({"": _GOOD})
    *way, last = ("", *place)
    inner: Any = broken
    for step in way:
        inner = inner[step]
    inner[last] = value
    file = tmp_path / "config"
    file.write_text(yaml.safe_dump(broken[""]))
    with contextlib.suppress(ClusterError):
        read_target(environ={}, kubeconfig=file)
