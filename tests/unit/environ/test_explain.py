"""What `towline env --explain` says."""

from __future__ import annotations

import json

from towline.environ.container import ContainerEnvironment
from towline.environ.definitions import Definition, Kind, Variable
from towline.environ.explain import MASK, Explanation, as_json, as_lines, explained
from towline.environ.policy import Policy, local_environment


def variable(
    name: str, value: bytes | None, kind: Kind, *shadows: Definition, **more: object
) -> Variable:
    definition = Definition(name=name, value=value, kind=kind, **more)  # type: ignore[arg-type]
    return Variable(definition=definition, shadows=shadows)


OLD_PORT = Definition(name="PORT", value=b"3000", kind=Kind.LITERAL)
FILE_PORT = Definition(name="PORT", value=b"1", kind=Kind.ENV_FILE, object=".env", key="3")
CONTAINER = ContainerEnvironment(
    variables={
        b"PORT": Variable(definition=OLD_PORT),
        b"PASSWORD": variable(
            "PASSWORD", b"hunter2", Kind.SECRET, object="db", key="password", is_secret=True
        ),
        b"PATH": variable("PATH", b"/bin", Kind.IMAGE),
        b"JAVA_HOME": variable("JAVA_HOME", b"/opt", Kind.IMAGE),
        b"NAME": variable(
            "NAME", None, Kind.FIELD, key="metadata.name", unknown="the dev pod's own"
        ),
        b"TEXT": variable("TEXT", b"one\ntwo\x1b[31m\xff", Kind.LITERAL),
    },
    notices=("a notice",),
)
MANIFEST = {
    b"PORT": variable("PORT", b"8080", Kind.ENVIRONMENT, FILE_PORT, object="towline.yml", key="9")
}
LAPTOP = {b"PATH": b"/usr/bin", b"PORT": b"9", b"LESS": b"-R", b"http_proxy": b"p"}


def explanation() -> Explanation:
    made = local_environment(
        container=CONTAINER.values,
        manifest={b"PORT": b"8080"},
        laptop=LAPTOP,
        policy=Policy(drop=("LESS",), no_proxy=(".svc",)),
    )
    return explained(made, container=CONTAINER, manifest=MANIFEST, laptop=LAPTOP)


def test_the_words() -> None:
    assert as_lines(explanation(), show_secrets=False) == [
        "NO_PROXY=.svc",
        "    laptop (the cluster's names are added, for there is a proxy)",
        f"PASSWORD={MASK}",
        "    Secret db/password",
        "PATH=/usr/bin",
        "    laptop (it means the laptop's own disk or user, or keepEnvironment names it)",
        "    over image: /bin",
        "PORT=8080",
        "    environment towline.yml:9",
        "    over envFile .env:3: 1",
        "    over container env: 3000",
        "    over laptop: 9",
        "TEXT=one\\ntwo\\x1b[31m\\xff",
        "    container env",
        "http_proxy=p",
        "    laptop",
        "no_proxy=.svc",
        "    laptop (the cluster's names are added, for there is a proxy)",
        "",
        "Kept out:",
        "JAVA_HOME (image): it means the laptop's own disk or user, and is unset here",
        "LESS: dropEnvironment names it",
        "NAME (field metadata.name): the dev pod's own",
    ]


def test_secrets_only_when_asked_for() -> None:
    hidden = json.dumps(as_json(explanation(), show_secrets=False))
    assert "hunter2" not in hidden
    shown = as_json(explanation(), show_secrets=True)
    [password] = [v for v in shown["variables"] if v["name"] == "PASSWORD"]
    assert password == {
        "name": "PASSWORD",
        "value": "hunter2",
        "masked": False,
        "source": {
            "kind": "Secret",
            "object": "db",
            "key": "password",
            "text": "Secret db/password",
        },
        "note": None,
        "shadows": [],
    }
    assert shown["notices"] == ["a notice"]


def test_its_json_names_what_is_kept_out() -> None:
    kept_out = as_json(explanation(), show_secrets=False)["keptOut"]
    assert [each["name"] for each in kept_out] == ["JAVA_HOME", "LESS", "NAME"]
    assert kept_out[0]["sources"][0]["kind"] == "image"
