"""Credentials that come to their end while a session runs."""

from __future__ import annotations

import base64
import json
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from fakes.netfault import FaultyNetwork

from .conftest import HERE, Node, Session, Towline, wait_until
from .test_guard import guard_runs
from .ways import ACCOUNT, Network, kubeconfig, through

pytestmark = pytest.mark.usefixtures("unchanged")
# Renewed ten seconds before its end, so every few seconds.
LASTS_S = 14
PLUGIN = """
import datetime, json, pathlib, sys
folder, lasts_s = pathlib.Path(sys.argv[1]), int(sys.argv[2])
(folder / "asked").open("a").write(".")
if (folder / "refuse").exists():
    sys.exit("the login is over")
end = datetime.datetime.now(datetime.UTC) + datetime.timedelta(seconds=lasts_s)
status = json.loads((folder / "pair").read_text())
status["expirationTimestamp"] = end.strftime("%Y-%m-%dT%H:%M:%SZ")
version = "client.authentication.k8s.io/v1"
print(json.dumps({"kind": "ExecCredential", "apiVersion": version, "status": status}))
"""


def by_plugin(config: dict[str, Any], folder: Path) -> None:
    """The same certificate, from a program that a kubeconfig names."""
    user = config["users"][0]["user"]
    pair = {
        "clientCertificateData": base64.b64decode(user["client-certificate-data"]).decode(),
        "clientKeyData": base64.b64decode(user["client-key-data"]).decode(),
    }
    (folder / "pair").write_text(json.dumps(pair))
    (folder / "plugin.py").write_text(PLUGIN)
    config["users"][0]["user"] = {
        "exec": {
            "apiVersion": "client.authentication.k8s.io/v1",
            "command": sys.executable,
            "args": [str(folder / "plugin.py"), str(folder), str(LASTS_S)],
            "interactiveMode": "Never",
        }
    }


def test_they_are_renewed_unnoticed_and_waited_for_where_they_cannot_be(
    node: Node, namespace: str, towline: Towline, network: Network, tmp_path: Path
) -> None:
    """A login that was over when the network came back ended the session."""
    config = network.kubeconfig
    by_plugin(config, tmp_path)
    asked, refuse = tmp_path / "asked", tmp_path / "refuse"
    person = through(towline, config)
    person.manifest("giveBackAfter: 16s\n" + (towline.folder / "towline.yml").read_text())
    session = person.up("frontend").serving()
    guard_runs(node, namespace, session.id)
    at_first = len(asked.read_text())
    wait_until("renewed twice", lambda: len(asked.read_text()) >= at_first + 2, within_s=60)
    assert "the credentials" not in str(session.events)

    refuse.touch()
    network.do(FaultyNetwork.reset)
    session.event("warned", text=TOLD, within_s=60)
    session.event("network-lost")
    refuse.unlink()
    goes_on(node, namespace, session)


def test_what_a_login_writes_into_the_kubeconfig_is_taken_up(
    node: Node, namespace: str, towline: Towline, network: Network, token: str, short_token: str
) -> None:
    """A token in the kubeconfig, as `oc login` leaves one, took the session along at its end."""
    config = network.kubeconfig
    config["users"][0]["user"] = {"token": short_token}
    person = through(towline, config)
    session = person.up("frontend").serving()
    guard_runs(node, namespace, session.id)
    revoke(node, namespace)
    session.event("warned", text=TOLD_OF_A_TOKEN.format(config["current-context"]))
    network.do(FaultyNetwork.reset)
    session.event("network-lost")
    config["users"][0]["user"] = {"token": token}
    through(towline, config)
    goes_on(node, namespace, session)


def test_who_ends_the_session_after_their_login_has_ended_is_told_who_gives_back(
    node: Node, namespace: str, towline: Towline, short_token: str
) -> None:
    config = kubeconfig(towline)
    config["users"][0]["user"] = {"token": short_token}
    person = through(towline, config)
    person.manifest("giveBackAfter: 6s\n" + (towline.folder / "towline.yml").read_text())
    session = person.up("frontend").serving()
    guard_runs(node, namespace, session.id)
    revoke(node, namespace)
    session.event("warned", text=TOLD_OF_A_TOKEN.format(config["current-context"]))
    assert session.end() == 1
    message, hint = session.errors
    assert message.startswith("towline: the cluster could not be given back: context 'sandbox-")
    down = f"towline down frontend -n {namespace}"
    assert hint == f"  → after a new login {down} does it, or the guard in 6 s\n"
    wait_until("the original", lambda: "host: frontend-" in node.ask(namespace, "frontend"))
    done = towline.run("down", "frontend", "-n", namespace)
    assert done.returncode == 0, done.stderr


LOGIN = "login"


@pytest.fixture
def short_token(node: Node, namespace: str, token: str) -> Iterator[str]:
    """A token of the same account as `token`, until `revoke`."""
    node.kubectl("-n", namespace, "create", "secret", "generic", LOGIN)
    bound = ["--bound-object-kind=Secret", f"--bound-object-name={LOGIN}"]
    yield node.kubectl("-n", namespace, "create", "token", ACCOUNT, *bound).strip()
    revoke(node, namespace)


def revoke(node: Node, namespace: str) -> None:
    """In force after up to 10 s, for which the API server trusts a token that it has seen."""
    node.kubectl("-n", namespace, "delete", "secret", LOGIN, "--ignore-not-found")


def goes_on(node: Node, namespace: str, session: Session) -> None:
    """The session is told of as back, serves, keeps its lease, and ends as always."""
    session.event("network-back")
    told = [each["text"] for each in session.events if each["event"] == "warned"]
    assert len([text for text in told if text.startswith("the credentials")]) == 1, told
    wait_until("the laptop", lambda: f"host: {HERE}" in node.ask(namespace, "frontend"))
    # The lease is renewed anew: the guard leaves the service here.
    lease = ["-n", namespace, "lease", "-l", f"towline.dev/guard={session.id}"]

    def renewed() -> str:
        return str(node.get(*lease)["items"][0]["spec"]["renewTime"])

    before = renewed()
    wait_until("the lease", lambda: renewed() != before)
    assert [e["event"] for e in session.events].count("command-started") == 1
    assert session.end() == 130


TOLD = (
    "the credentials have ended and cannot be renewed, tried on: credential plugin "
    f"{sys.executable!r} ended with 1 and said: the login is over → log in again with your "
    "provider's own tool"
)
TOLD_OF_A_TOKEN = (
    "the credentials have ended and cannot be renewed, tried on: context {!r} is not accepted by "
    "its API server: Unauthorized → log in again: the kubeconfig is read anew"
)
