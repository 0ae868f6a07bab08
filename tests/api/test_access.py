"""The ways in: credentials, their renewal, proxies; and what is said when there is none."""

from __future__ import annotations

import asyncio
import json
import socket
import sys
import time
from base64 import b64encode
from contextlib import suppress
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest
from tests.api.cluster import Cluster
from tests.fakes.proxy import ConnectProxy

from towline.cluster.kubeconfig import read_target
from towline.cluster.watch import patiently, until
from towline.errors import (
    ClusterError,
    CredentialsEnded,
    Forbidden,
    NotFound,
    Unauthorized,
    Unreachable,
)


def plugin(folder: Path, *answers: dict[str, Any] | str, **fields: Any) -> dict[str, Any]:
    """An exec plugin that gives these answers in turn, the last one from then on."""
    program = folder / "plugin.py"
    (folder / "answers.json").write_text(json.dumps(answers))
    program.write_text(
        f"""
import json, os, pathlib, sys
folder = pathlib.Path({str(folder)!r})
asked = folder / "asked"
request = json.loads(os.environ["KUBERNETES_EXEC_INFO"])
count = len(asked.read_text().splitlines()) if asked.exists() else 0
asked.open("a").write(json.dumps(request) + "\\n")
answers = json.loads((folder / "answers.json").read_text())
answer = answers[min(count, len(answers) - 1)]
if isinstance(answer, str):
    sys.exit(answer)
print(json.dumps({{"kind": "ExecCredential", "apiVersion": request["apiVersion"],
                  "status": answer}}))
"""
    )
    exec_fields = {
        "apiVersion": "client.authentication.k8s.io/v1",
        "command": sys.executable,
        "args": [str(program)],
        "interactiveMode": "Never",
        **fields,
    }
    return {"exec": exec_fields}


def times_asked(folder: Path) -> int:
    return len((folder / "asked").read_text().splitlines())


def in_s(seconds: float) -> str:
    return (datetime.now(UTC) + timedelta(seconds=seconds)).strftime("%Y-%m-%dT%H:%M:%SZ")


async def works(cluster: Cluster, user: dict[str, Any], **settings: Any) -> None:
    await cluster.api_as(user, **settings).list_("configmaps")


async def test_certificate_and_token(cluster: Cluster) -> None:
    await works(cluster, cluster.plane.admin())
    await works(cluster, {"token": "token-of-admin"})


async def test_a_token_that_is_not_good_any_more(cluster: Cluster) -> None:
    with pytest.raises(Unauthorized, match="context 'test' is not accepted") as raised:
        await works(cluster, {"token": "of yesterday"})
    assert "log in again" in (raised.value.hint or "")
    assert raised.value.exit_code == 4


async def test_a_token_file_is_read_again_when_it_is_refused(
    cluster: Cluster, tmp_path: Path
) -> None:
    file = tmp_path / "token"
    file.write_text("of yesterday\n")
    api = cluster.api_as({"tokenFile": str(file)})
    with pytest.raises(Unauthorized):
        await api.list_("configmaps")
    file.write_text("token-of-admin\n")
    await api.list_("configmaps")
    file.unlink()
    with pytest.raises(ClusterError, match=r"tokenFile .*token: No such file"):
        await works(cluster, {"tokenFile": str(file)})


async def test_a_plugins_token_is_asked_for_once(cluster: Cluster, tmp_path: Path) -> None:
    user = plugin(tmp_path, {"token": "token-of-admin", "expirationTimestamp": in_s(3600)})
    api = cluster.api_as(user)
    await asyncio.gather(*[api.list_("configmaps") for _ in range(5)])
    assert times_asked(tmp_path) == 1


async def test_a_plugins_token_is_renewed_before_it_ends(cluster: Cluster, tmp_path: Path) -> None:
    user = plugin(
        tmp_path,
        {"token": "token-of-admin", "expirationTimestamp": in_s(5)},
        {"token": "token-of-admin", "expirationTimestamp": in_s(3600)},
    )
    api = cluster.api_as(user)
    for _ in range(4):
        await api.list_("configmaps")
    assert times_asked(tmp_path) == 2


async def test_a_plugin_is_asked_again_when_its_token_is_refused(
    cluster: Cluster, tmp_path: Path
) -> None:
    await works(cluster, plugin(tmp_path, {"token": "revoked"}, {"token": "token-of-admin"}))
    assert times_asked(tmp_path) == 2


def pair(cluster: Cluster, valid_s: float) -> tuple[str, str]:
    """A certificate of a cluster's admin that is good for so long, and its key."""
    made = cluster.plane.authority.client("anna", ["system:masters"], valid_s=valid_s)
    return made[0].decode(), made[1].decode()


async def surely_over(ends: float) -> None:
    """Certificates end at whole seconds: the first moment at which one is surely over."""
    await asyncio.sleep(max(ends + 1.0 - time.time(), 0))


async def test_a_plugins_certificate_is_renewed_also_on_connections_that_are_kept(
    cluster: Cluster, tmp_path: Path
) -> None:
    """Found in review: a kept connection went on with the certificate it was made with."""
    short_s = 2.0

    def status(valid_s: float) -> dict[str, str]:
        made = pair(cluster, valid_s)
        return {"clientCertificateData": made[0], "clientKeyData": made[1]}

    ends = time.time() + short_s
    api = cluster.api_as(plugin(tmp_path, status(short_s), status(3600)))
    await asyncio.gather(*[api.list_("configmaps") for _ in range(4)])
    await surely_over(ends)
    await api.list_("configmaps")
    assert times_asked(tmp_path) == 2


async def test_what_a_login_writes_into_the_kubeconfig_is_used_by_who_runs_already(
    cluster: Cluster, tmp_path: Path
) -> None:
    """A session whose token in the kubeconfig had ended ended, too: `oc login` came too late."""
    file = tmp_path / "config"

    def user(valid_s: float) -> dict[str, str]:
        made = [b64encode(part.encode()).decode() for part in pair(cluster, valid_s)]
        return {"client-certificate-data": made[0], "client-key-data": made[1]}

    ends = time.time() + 2.0
    cluster.write_kubeconfig(file, user(2.0))
    api = cluster.api_of(read_target(environ={}, kubeconfig=file))
    told: list[str] = []
    api.access.ended = lambda error: told.append(f"{error.message} → {error.hint}")
    await api.list_("configmaps")
    await surely_over(ends)
    for _ in range(2):
        with pytest.raises(CredentialsEnded, match="context 'test' is not accepted"):
            await api.list_("configmaps")
    [text] = told
    assert text.endswith("→ log in again: the kubeconfig is read anew")

    waiting = asyncio.ensure_future(patiently(lambda: api.list_("configmaps")))
    file.write_text("{half of")
    with pytest.raises(CredentialsEnded):
        await api.list_("configmaps")
    cluster.write_kubeconfig(file, {"token": "token-of-admin"})
    async with asyncio.timeout(30):
        await waiting
    assert len(told) == 1
    # What was read by then is good, also where the file is gone.
    file.unlink()
    await api.list_("configmaps")


async def test_a_plugin_that_fails_is_quoted(cluster: Cluster, tmp_path: Path) -> None:
    with pytest.raises(Unauthorized, match="ended with 1 and said: please log in"):
        await works(cluster, plugin(tmp_path, "please log in"))


# Fresh for two seconds: it is renewed ten before its end.
SHORT_S = 12


async def test_a_plugin_that_fails_for_a_while_ends_no_watch(
    cluster: Cluster, tmp_path: Path
) -> None:
    """A laptop wakes up with credentials of yesterday, and the plugin's network is not there."""
    good = {"token": "token-of-admin"}
    user = plugin(
        tmp_path,
        good | {"expirationTimestamp": in_s(SHORT_S)},
        *["no network yet"] * 2,
        good | {"expirationTimestamp": in_s(3600)},
    )
    api = cluster.api_as(user)
    told: list[str] = []
    api.access.ended = lambda error: told.append(error.message)
    async with asyncio.timeout(60):
        while not told:
            with suppress(CredentialsEnded):
                await api.list_("secrets")
            await asyncio.sleep(0.1)
        # Begun in the middle of it, as one whose connection has just broken.
        watching = asyncio.ensure_future(
            until(api, "configmaps", lambda event: event.object["metadata"]["name"] == "later")
        )
        with pytest.raises(CredentialsEnded, match="no network yet"):
            await api.list_("secrets")
        await patiently(lambda: api.list_("secrets"))
        await cluster.api.create("configmaps", {"metadata": {"name": "later"}})
        await watching
    [message] = told
    assert "no network yet" in message
    assert times_asked(tmp_path) == 4


async def test_a_plugin_that_is_not_installed(cluster: Cluster) -> None:
    wanted = {"apiVersion": "client.authentication.k8s.io/v1", "command": "no-such-login"}
    user = {"exec": {**wanted, "installHint": "get it from example.org"}}
    with pytest.raises(ClusterError, match="'no-such-login' cannot be run") as raised:
        await works(cluster, user)
    assert raised.value.hint == "get it from example.org"


async def test_a_plugin_that_prints_something_else(cluster: Cluster, tmp_path: Path) -> None:
    program = tmp_path / "p.py"
    program.write_text("print('hello')")
    user = {"exec": {"command": sys.executable, "args": [str(program)]}}
    with pytest.raises(ClusterError, match="printed no ExecCredential"):
        await works(cluster, user)


async def test_a_plugin_is_told_of_the_cluster_when_it_wants(
    cluster: Cluster, tmp_path: Path
) -> None:
    await works(cluster, plugin(tmp_path, {"token": "token-of-admin"}, provideClusterInfo=True))
    spec = json.loads((tmp_path / "asked").read_text())["spec"]
    assert spec["cluster"]["server"] == cluster.plane.server


async def test_through_a_proxy(cluster: Cluster) -> None:
    async with ConnectProxy().running() as proxy:
        url = f"http://127.0.0.1:{proxy.port}"
        async with cluster.api_as(cluster.plane.admin(), **{"proxy-url": url}) as api:
            await api.list_("configmaps")
    assert proxy.asked == [f"127.0.0.1:{cluster.plane.port}"]


async def test_through_a_proxy_with_a_password(cluster: Cluster) -> None:
    async with ConnectProxy(password="anna:s e:cret").running() as proxy:
        url = f"http://anna:s%20e%3Acret@127.0.0.1:{proxy.port}"
        async with cluster.api_as(cluster.plane.admin(), **{"proxy-url": url}) as api:
            await api.list_("configmaps")


async def test_a_proxy_that_refuses_is_named(cluster: Cluster) -> None:
    async with ConnectProxy(password="a:b").running() as proxy:
        url = f"http://x:y@127.0.0.1:{proxy.port}"
        with pytest.raises(Unreachable, match="refused: 407 Proxy Authentication") as raised:
            await works(cluster, cluster.plane.admin(), **{"proxy-url": url})
    assert "x:y" not in raised.value.message, "the password is nobody's business"


async def test_nobody_answers(cluster: Cluster) -> None:
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))  # bound and not listening: refused
        server = f"https://127.0.0.1:{taken.getsockname()[1]}"
        with pytest.raises(Unreachable, match="cannot be reached") as raised:
            await works(cluster, cluster.plane.admin(), server=server)
    assert server in raised.value.message


async def test_another_authoritys_certificate_is_not_accepted(cluster: Cluster) -> None:
    from tests.api.certificates import Authority

    other = {"certificate-authority-data": b64encode(Authority().certificate).decode()}
    with pytest.raises(Unreachable, match="certificate is not accepted"):
        await works(cluster, cluster.plane.admin(), **other)


async def test_the_name_in_the_certificate_may_be_another_one(cluster: Cluster) -> None:
    await works(cluster, cluster.plane.admin(), **{"tls-server-name": "localhost"})
    with pytest.raises(Unreachable, match="certificate is not accepted"):
        await works(cluster, cluster.plane.admin(), **{"tls-server-name": "elsewhere"})


async def test_a_context_that_is_not_there(cluster: Cluster, tmp_path: Path) -> None:
    file = tmp_path / "config"
    file.write_text(json.dumps(cluster.plane.config(cluster.plane.admin())))
    with pytest.raises(NotFound, match=r"context 'prod' is not in the kubeconfig \(there: test\)"):
        read_target(environ={}, kubeconfig=file, context="prod")


async def test_something_else_answers_at_the_address(cluster: Cluster) -> None:
    async def other(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await reader.readuntil(b"\r\n\r\n")
        writer.write(b"HTTP/1.1 200 OK\r\nContent-Length: 5\r\n\r\nhello")
        await writer.drain()
        writer.close()

    server = await asyncio.start_server(other, "127.0.0.1", 0)
    async with server:
        address = f"http://127.0.0.1:{server.sockets[0].getsockname()[1]}"
        with pytest.raises(ClusterError, match="is it a Kubernetes API server"):
            await works(cluster, {}, server=address)


async def test_acting_as_somebody_else(cluster: Cluster) -> None:
    """`as` and `as-groups` were passed over: everything was done with one's own rights."""
    admin = cluster.plane.admin()
    for user, who in (
        ({**admin, "as": "anna"}, 'User "anna" cannot list resource "pods"'),
        ({**admin, "as": "anna", "as-groups": ["nobodies"]}, "cannot list"),
    ):
        with pytest.raises(Forbidden, match=who):
            await cluster.api_as(user).list_("pods")
    masters = {**admin, "as": "anna", "as-groups": ["system:masters"]}
    await cluster.api_as(masters).list_("pods")
