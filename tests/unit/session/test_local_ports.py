"""A session's forwards listen on loopback, unless the manifest says otherwise: that is told."""

from __future__ import annotations

import json
from contextlib import closing
from dataclasses import replace
from pathlib import Path

import pytest
from tests.unit.manifest.reading import entry as read

from towline._kit.tasks import Tasks
from towline.manifest.model import Entry, Port
from towline.session.local_ports import LocalPorts
from towline.session.ports import ports_text
from towline.tunnels.spares import Spares

from .test_local import session


@pytest.fixture(autouse=True)
def home(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("XDG_STATE_HOME", str(tmp_path))
    return tmp_path


def entry(**fields: object) -> Entry:
    """With a forward of any free local port."""
    text = "\n".join(
        f"{name}: {json.dumps(value)}"
        for name, value in {"forward": ["5432:db:5432"], "reverse": ["80:8080"], **fields}.items()
    )
    made = read(text, name="towline.yml")
    return replace(made, forward=tuple(replace(each, local=Port(0)) for each in made.forward))


async def listening(entry: Entry) -> tuple[set[str], str, str]:
    """The addresses that it listens on, what is shown of the ports, and the warning."""
    ports = LocalPorts(entry, session(), server="https://cluster")
    async with Tasks() as tasks:
        with closing(ports):
            opened = await ports.listen(spares=Spares(hold_for_s=0, tasks=tasks), tasks=tasks)
            at = {each.getsockname()[0] for forward in opened for each in forward.sockets}
            return at, ports_text(entry, opened), ports.exposed()


async def test_on_loopback_alone_where_nothing_is_said() -> None:
    at, shown, warning = await listening(entry())
    assert "127.0.0.1" in at and at <= {"127.0.0.1", "::1"}
    assert shown == "cluster 80 → localhost:8080 · localhost:0 → db:5432"
    assert warning == ""


async def test_whom_another_interface_lets_in_is_told() -> None:
    at, shown, warning = await listening(entry(interface="0.0.0.0"))
    assert at == {"0.0.0.0"}
    assert shown == "cluster 80 → 0.0.0.0:8080 · 0.0.0.0:0 → db:5432"
    assert warning == (
        "interface 0.0.0.0: whoever reaches this laptop there reaches the cluster by it: "
        "0 → db:5432; without `interface` only this laptop does"
    )


@pytest.mark.parametrize(
    ("fields", "is_told"),
    [
        ({"interface": "127.0.0.1"}, False),
        ({"interface": "localhost"}, False),
        ({"interface": "0.0.0.0", "forward": []}, False),
        ({"interface": "0.0.0.0", "forward": [], "remote": 2222}, True),
        ({"forward": [], "remote": 2222}, False),
    ],
    ids=str,
)
async def test_only_what_lets_somebody_in_is_told(fields: dict[str, object], is_told: bool) -> None:
    _, _, warning = await listening(entry(**fields))
    assert bool(warning) == is_told
