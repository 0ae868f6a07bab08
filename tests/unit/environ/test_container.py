"""Specs and truth together: the truth wins, the specs explain it."""

from __future__ import annotations

from typing import Any

from hypothesis import given
from hypothesis import strategies as st

from towline.environ.container import (
    Settings,
    Specs,
    before_session,
    changes,
    in_session,
    laid_over,
)
from towline.environ.definitions import Resolution
from towline.environ.passing import packed, unpacked
from towline.manifest.model import EnvironmentOrder

from .pods import (
    Json,
    config_map,
    from_map,
    from_secret,
    pod,
    resolved,
    secret,
    service,
    value_from,
)

VALUES = st.dictionaries(
    st.sampled_from([b"A", b"B", b"HOSTNAME", b"caf\xe9"]), st.binary(max_size=4), max_size=4
)


def specs(
    running: Json | None = None, *, planned: Json | None = None, original: Json | None = None,
    **objects: Any,
) -> Specs:  # fmt: skip
    running = running or pod()
    planned = planned or running
    return Specs(
        original=resolved(original or planned, **objects),
        planned=resolved(planned, **objects),
        running=resolved(running, **objects),
    )


def told(of: dict[bytes, Any]) -> dict[bytes, str]:
    return {name: str(variable.definition) for name, variable in of.items()}


def test_what_no_spec_has_is_the_images_and_the_runtimes() -> None:
    made = in_session({b"NODE_ENV": b"production", b"HOSTNAME": b"web-1"}, specs())
    assert told(dict(made.variables)) == {b"NODE_ENV": "image", b"HOSTNAME": "container runtime"}


def test_what_the_pod_has_and_the_plan_has_not_was_injected() -> None:
    planned = pod(env=[{"name": "A", "value": "1"}, {"name": "B", "value": "1"}])
    running = pod(
        env=[
            {"name": "A", "value": "1"},
            {"name": "B", "value": "other"},
            value_from("TOKEN", "secretKeyRef", name="s", key="t"),
        ]
    )
    secrets = {"s": secret(t=b"x")}
    truth = {b"A": b"1", b"B": b"other", b"TOKEN": b"x"}
    made = in_session(truth, specs(running, planned=planned, secrets=secrets))
    assert told(dict(made.variables)) == {
        b"A": "container env",
        b"B": "injected by admission",
        b"TOKEN": "injected by admission",
    }
    token = made.variables[b"TOKEN"].definition
    assert (token.note, token.is_secret) == ("as Secret s/t", True)


def test_a_pods_own_fields_are_not_injected() -> None:
    template = pod(env=[value_from("NAME", "fieldRef", fieldPath="metadata.name")])
    del template["metadata"]["name"]
    running = pod(env=[value_from("NAME", "fieldRef", fieldPath="metadata.name")])
    made = in_session({b"NAME": b"web-1"}, specs(running, planned=template))
    assert told(dict(made.variables)) == {b"NAME": "field metadata.name"}


def test_where_specs_and_truth_differ_the_truth_wins_and_says_so() -> None:
    of = specs(pod(env_from=[from_map("m")]), config_maps={"m": config_map(A="now")})
    made = in_session({b"A": b"then"}, of)
    definition = made.variables[b"A"].definition
    assert definition.value == b"then"
    assert definition.note == (
        "the container's value: ConfigMap m/A has another one now, or it was set by admission"
    )


def test_what_the_dev_entry_sets_stands_before_the_originals_own() -> None:
    original = pod(env=[{"name": "PORT", "value": "3000"}])
    planned = pod(env=[{"name": "PORT", "value": "8080"}, {"name": "MINE", "value": "x"}])
    made = in_session(
        {b"PORT": b"8080", b"MINE": b"x"},
        specs(planned, original=original),
        Settings(manifest=frozenset({b"PORT", b"MINE"})),
    )
    assert made.values == {b"PORT": b"3000"}, "not the dev container's copy of them"


def test_links_to_the_sessions_own_services_stay_out() -> None:

    own = service("web-towline", {"port": 80})
    truth = {b"WEB_TOWLINE_SERVICE_HOST": b"10.96.0.9", b"A": b"1"}
    settings = Settings(own_links=frozenset({b"WEB_TOWLINE_SERVICE_HOST", b"A"}))
    made = in_session(truth, specs(services=(own,)), settings)
    assert made.values == {b"A": b"1"}


CORNER = pod(env_from=[from_map("m"), from_secret("s")])


def test_the_corner_takes_the_config_maps_and_says_so() -> None:
    of = specs(CORNER, config_maps={"m": config_map(A="m")}, secrets={"s": secret(A=b"s")})
    made = in_session({b"A": b"s"}, of)
    assert made.values == {b"A": b"m"}
    assert made.notices == (
        "A: a ConfigMap and a later Secret have it; here the ConfigMap's is taken, in the "
        "container the Secret's (`environmentOrder: kubernetes` for the same here)",
    )
    as_there = in_session({b"A": b"s"}, of, Settings(order=EnvironmentOrder.KUBERNETES))
    assert (as_there.values, as_there.notices) == ({b"A": b"s"}, ())


def test_the_corner_is_seen_without_the_right_to_read_the_secret() -> None:
    made = in_session({b"A": b"s"}, specs(CORNER, config_maps={"m": config_map(A="m")}))
    assert made.values == {b"A": b"m"}
    shadow = made.variables[b"A"].shadows[0]
    assert (str(shadow), shadow.value, shadow.is_secret) == ("Secret s", b"s", True)


def test_what_may_be_a_secrets_is_not_for_a_screen() -> None:
    made = in_session({b"X": b"1"}, specs(pod(env_from=[from_secret("s")])))
    definition = made.variables[b"X"].definition
    assert definition.is_secret
    assert definition.note == "or of Secret s, which may not be read"


def test_before_a_session_the_image_is_read_from_the_original() -> None:
    template = pod(
        env=[
            {"name": "A", "value": "1"},
            value_from("NAME", "fieldRef", fieldPath="metadata.name"),
            value_from("P", "secretKeyRef", name="s", key="p"),
        ]
    )
    del template["metadata"]["name"]
    running = pod(env=template["spec"]["containers"][0]["env"])
    truth = {
        b"A": b"1", b"NAME": b"web-0", b"P": b"x", b"NODE_ENV": b"i", b"HOSTNAME": b"web-0",
    }  # fmt: skip
    made = before_session(truth, specs(running, planned=template))
    known = {b"A": b"1", b"P": b"x", b"NODE_ENV": b"i"}
    assert {n: v for n, v in made.values.items() if not n.startswith(b"KUBERNETES")} == known
    unknown = {n: v.definition.unknown for n, v in made.variables.items() if n not in made.values}
    assert unknown == {
        b"NAME": "metadata.name is the dev pod's own",
        b"HOSTNAME": "it is the dev pod's own",
    }
    assert made.notices == ("Secret s may not be read: what comes from it may differ",)


def test_before_a_session_without_any_truth() -> None:
    of = specs(
        pod(env=[value_from("A", "configMapKeyRef", name="m", key="none")]),
        config_maps={"m": config_map()},
    )
    made = before_session(None, of)
    assert made.notices == (
        "the pod would not start: A: there is no key 'none' in ConfigMap shop/m",
    )


def resolution(**values: str) -> Resolution:
    return resolved(pod(env_from=[from_map("m")]), config_maps={"m": config_map(**values)})


def test_changes_are_by_name_and_lie_over_the_truth() -> None:
    changed = changes(resolution(A="1", B="1", C="1"), resolution(A="2", B="1", D="1"))
    assert changed.names == (b"A", b"C", b"D")
    truth = {b"A": b"1", b"B": b"1", b"C": b"1", b"IMAGE": b"x"}
    assert laid_over(truth, changed) == {b"A": b"2", b"B": b"1", b"D": b"1", b"IMAGE": b"x"}


def test_what_would_start_no_container_changes_nothing() -> None:
    of = pod(env=[value_from("A", "configMapKeyRef", name="m", key="A")])
    before = resolved(of, config_maps={"m": config_map(A="1")})
    assert changes(before, resolved(of, config_maps={"m": None})).values == {}


@given(VALUES)
def test_the_truth_is_never_bent(truth: dict[bytes, bytes]) -> None:
    of = specs(pod(env=[{"name": "A", "value": "spec"}]))
    assert in_session(truth, of).values == truth


@given(VALUES)
def test_it_is_passed_on_as_it_is(truth: dict[bytes, bytes]) -> None:
    of = specs(CORNER, config_maps={"m": config_map(A="m")}, secrets={"s": secret(A=b"s")})
    made = in_session(truth, of)
    passed = unpacked(packed(made))
    assert passed.values == made.values
    assert passed.notices == made.notices
    for name, variable in made.variables.items():
        assert [str(d) for d in passed.variables[name].all] == [str(d) for d in variable.all]
        assert [d.is_secret for d in passed.variables[name].all] == [
            d.is_secret for d in variable.all
        ]
