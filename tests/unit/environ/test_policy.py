"""What the local process gets: the order of precedence, name by name."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from towline.environ.laptop import LAPTOPS_OWN
from towline.environ.policy import (
    LocalEnvironment,
    Origin,
    Policy,
    Reason,
    Source,
    local_environment,
)

NAMES = st.sampled_from([b"PATH", b"HOME", b"A", b"B", b"XDG_X", b"caf\xe9", b"http_proxy"])
LAYER = st.dictionaries(NAMES, st.binary(max_size=4).filter(lambda v: b"\0" not in v))


def put_together(
    container: dict[bytes, bytes] | None = None,
    manifest: dict[bytes, bytes] | None = None,
    laptop: dict[bytes, bytes] | None = None,
    policy: Policy | None = None,
) -> LocalEnvironment:
    return local_environment(
        container=container or {},
        manifest=manifest or {},
        laptop=laptop or {},
        policy=policy or Policy(),
    )


def test_the_order() -> None:
    got = put_together(
        container={b"A": b"container", b"B": b"container"},
        manifest={b"A": b"manifest"},
        laptop={b"A": b"laptop", b"B": b"laptop", b"C": b"laptop"},
    )
    assert got.values == {b"A": b"manifest", b"B": b"container", b"C": b"laptop"}
    assert got.origins[b"A"] == Source(
        origin=Origin.MANIFEST, over=(Origin.CONTAINER, Origin.LAPTOP)
    )
    assert got.origins[b"C"] == Source(origin=Origin.LAPTOP)


@pytest.mark.parametrize("name", [b"PATH", b"HOME", b"JAVA_HOME", b"XDG_CONFIG_HOME", b"HOSTNAME"])
def test_what_means_the_laptop_stays_the_laptops(name: bytes) -> None:
    got = put_together(container={name: b"/container"}, laptop={name: b"/laptop"})
    assert got.values == {name: b"/laptop"}
    assert got.origins[name].reason is Reason.LAPTOPS_OWN
    assert got.origins[name].over == (Origin.CONTAINER,)


def test_unless_the_dev_entry_says_otherwise() -> None:
    got = put_together(
        container={b"PATH": b"/container"}, manifest={b"PATH": b"/mine"}, laptop={b"PATH": b"/l"}
    )
    assert got.values == {b"PATH": b"/mine"}


def test_unset_on_the_laptop_is_unset_for_the_process() -> None:
    got = put_together(container={b"JAVA_HOME": b"/opt/java", b"A": b"1"})
    assert got.values == {b"A": b"1"}
    assert got.left_out == {b"JAVA_HOME": Reason.LAPTOPS_OWN}


def test_keep_and_drop() -> None:
    policy = Policy(keep=("AWS_*",), drop=("SECRET*", "LESS"))
    got = put_together(
        container={b"AWS_PROFILE": b"cluster", b"SECRET_A": b"x", b"AWS_REGION": b"r"},
        laptop={b"AWS_PROFILE": b"mine", b"LESS": b"-R"},
        manifest={b"SECRET_B": b"asked for"},
        policy=policy,
    )
    assert got.values == {b"AWS_PROFILE": b"mine", b"SECRET_B": b"asked for"}
    assert got.left_out == {
        b"AWS_REGION": Reason.LAPTOPS_OWN,
        b"SECRET_A": Reason.DROPPED,
        b"LESS": Reason.DROPPED,
    }


@pytest.mark.parametrize(
    ("inherit", "names"),
    [
        ("all", {b"PATH", b"MY_TOOL", b"LANG", b"OTHER"}),
        ("minimal", {b"PATH", b"LANG"}),
        (("MY_*",), {b"PATH", b"LANG", b"MY_TOOL"}),
        ((), {b"PATH", b"LANG"}),
    ],
)
def test_what_is_inherited(inherit: str | tuple[str, ...], names: set[bytes]) -> None:
    laptop = dict.fromkeys((b"PATH", b"MY_TOOL", b"LANG", b"OTHER"), b"x")
    got = put_together(laptop=laptop, policy=Policy(inherit=inherit))
    assert set(got.values) == names
    assert got.left_out == dict.fromkeys(laptop.keys() - names, Reason.NOT_INHERITED)


def test_values_that_are_not_utf_8_come_through() -> None:
    got = put_together(container={b"caf\xe9": b"\xff\xfe\n=x"})
    assert got.values == {b"caf\xe9": b"\xff\xfe\n=x"}


def test_what_exec_cannot_pass_is_left_out() -> None:
    got = put_together(container={b"": b"x", b"A=B": b"y", b"C": b"z"})
    assert got.values == {b"C": b"z"}


def test_a_proxy_is_not_asked_for_the_cluster() -> None:
    policy = Policy(no_proxy=("db", ".svc", "127.0.0.1"))
    got = put_together(
        laptop={b"https_proxy": b"http://proxy:3128", b"no_proxy": b"corp.example, db"},
        policy=policy,
    )
    assert got.values[b"NO_PROXY"] == b"corp.example,db,.svc,127.0.0.1"
    assert got.values[b"no_proxy"] == got.values[b"NO_PROXY"]
    assert got.origins[b"NO_PROXY"].reason is Reason.ADDED


@pytest.mark.parametrize(
    "laptop", [{}, {b"HTTP_PROXY": b""}, {b"no_proxy": b"a"}], ids=["none", "empty", "no proxy"]
)
def test_without_a_proxy_nothing_is_added(laptop: dict[bytes, bytes]) -> None:
    assert put_together(laptop=laptop, policy=Policy(no_proxy=("db",))).values == laptop


def test_a_star_says_it_all() -> None:
    laptop = {b"http_proxy": b"p", b"NO_PROXY": b"*"}
    assert put_together(laptop=laptop, policy=Policy(no_proxy=("db",))).values == laptop


def test_thousands_of_names_leave_room_for_one_variable() -> None:
    names = tuple(f"a-service-of-many-{n}" for n in range(10_000))
    got = put_together(laptop={b"http_proxy": b"p"}, policy=Policy(no_proxy=(".svc", *names)))
    assert 60_000 < len(got.values[b"NO_PROXY"]) < 128 * 1024
    assert got.values[b"NO_PROXY"].startswith(b".svc,a-service-of-many-0,")


def test_windows_knows_its_own_in_any_case() -> None:
    got = put_together(
        container={b"Path": b"/c", b"SystemRoot": b"/c", b"ProgramFiles": b"/c"},
        laptop={b"Path": b"C:\\", b"SystemRoot": b"C:\\Windows"},
        policy=Policy(platform="win32"),
    )
    assert got.values == {b"Path": b"C:\\", b"SystemRoot": b"C:\\Windows"}


@given(LAYER, LAYER, LAYER)
def test_the_order_holds_for_every_name(
    container: dict[bytes, bytes], manifest: dict[bytes, bytes], laptop: dict[bytes, bytes]
) -> None:
    got = put_together(container, manifest, laptop)
    assert set(got.origins) == set(got.values)
    layers = {Origin.MANIFEST: manifest, Origin.CONTAINER: container, Origin.LAPTOP: laptop}
    for name, value in got.values.items():
        assert layers[got.origins[name].origin][name] == value
        if name in manifest:
            assert value == manifest[name]
        elif LAPTOPS_OWN["linux"].has(name.decode("latin-1")):
            assert value == laptop[name]
        elif name in container:
            assert value == container[name]
    missing = {*container, *manifest, *laptop} - set(got.values)
    assert missing == set(got.left_out)
    assert all(LAPTOPS_OWN["linux"].has(n.decode("latin-1")) for n in missing)
