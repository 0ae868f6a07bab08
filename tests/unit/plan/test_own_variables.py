"""The dev entry's `environment` in the dev container, as its kubelet resolves it."""

from __future__ import annotations

from typing import Any

from hypothesis import given
from hypothesis import strategies as st

from towline.environ.definitions import Objects
from towline.environ.resolve import resolve
from towline.manifest.model import Entry, Mode, Variable
from towline.manifest.places import Place
from towline.plan.patch import _with_own_variables

PLACE = Place(file="towline.yml", line=1, column=1)


def merged(env: list[dict[str, Any]], own: dict[str, str]) -> dict[str, bytes | None]:
    variables = tuple(Variable(name=n, value=v, place=PLACE) for n, v in own.items())
    entry = Entry(name="web", place=PLACE, workload=None, mode=Mode.HYBRID, environment=variables)
    made = _with_own_variables(env, entry)
    pod = {"spec": {"containers": [{"name": "main", "env": made}]}}
    found = resolve(pod, "main", Objects()).variables
    names = {each["name"] for each in made}
    return {name: found[name].definition.value for name in names}


def test_what_refers_to_a_variable_has_the_manifests() -> None:
    """Each was taken out and put at the end: the URL had a literal `$(DB_HOST)` in it."""
    env = [
        {"name": "DB_HOST", "value": "db"},
        {"name": "DB_URL", "value": "redis://$(DB_HOST):$(DB_PORT)"},
    ]
    got = merged(env, {"DB_HOST": "localhost", "DB_PORT": "16379"})
    assert got["DB_URL"] == b"redis://localhost:16379"


def test_one_that_is_there_twice_is_there_once() -> None:
    env = [{"name": "A", "value": "1"}, {"name": "B", "value": "$(A)"}, {"name": "A", "value": "2"}]
    assert merged(env, {"A": "mine"}) == {"A": b"mine", "B": b"mine"}


@given(
    st.dictionaries(st.sampled_from("ABC"), st.text(alphabet="$()ABC", max_size=8), max_size=3),
    st.lists(st.sampled_from("ABC"), max_size=4),
)
def test_the_manifests_values_are_final(own: dict[str, str], there: list[str]) -> None:
    """`$$(A)` became `$$$(A)`, which is a dollar and the value of A."""
    got = merged([{"name": name, "value": "x"} for name in there], own)
    assert {name: got[name] for name in own} == {n: v.encode() for n, v in own.items()}
