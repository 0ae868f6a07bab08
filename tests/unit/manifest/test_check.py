"""Text → Manifest: the meaning of each field, its defaults, and what is told."""

from __future__ import annotations

from pathlib import Path, PurePosixPath

import pytest
from hypothesis import given
from hypothesis import strategies as st

from towline.errors import ManifestError
from towline.manifest import (
    Command,
    EnvironmentOrder,
    Handover,
    Hook,
    Mode,
    Original,
    Probes,
    Reach,
    Settings,
)

from .reading import FOLDER, entry, problems, read

EXAMPLE = """\
dev:
  frontend:
    mode: hybrid
    reverse:
    - 3000:8080
    workdir: ./frontend
    command: ["yarn start"]
"""


@pytest.mark.parametrize("name", ["okteto.yml", "towline.yml"])
def test_the_example_of_the_documents(name: str) -> None:
    manifest = read(EXAMPLE, name=name)
    assert list(manifest.entries) == ["frontend"] and manifest.notices == ()
    frontend = manifest.entries["frontend"]
    assert frontend.mode is Mode.HYBRID
    assert [(r.remote, r.local) for r in frontend.reverse] == [(3000, 8080)]
    assert str(frontend.reverse[0].place) == f"{name}:5:7"
    assert frontend.workdir == FOLDER / "frontend"
    assert frontend.command == Command(shell="yarn start")
    assert frontend.workload == "frontend"


def test_an_entry_with_nothing_in_it_is_one_in_sync_mode() -> None:
    api = read("dev:\n  api:\n").entries["api"]
    assert (api.mode, api.command, api.workdir) == (Mode.SYNC, Command(shell="sh"), None)
    assert (api.interface, api.timeout_s, api.settings) == ("localhost", 300.0, Settings())


def test_a_hybrid_entry_without_a_command_starts_nothing() -> None:
    api = entry("mode: hybrid")
    assert api.command is None and api.workdir == FOLDER


@pytest.mark.parametrize(
    ("fields", "command"),
    [
        ("command: yarn start", Command(shell="yarn start")),
        ("command: sh", Command(shell="sh")),
        ("command: [yarn start]", Command(shell="yarn start")),
        ("command: [yarn]", Command(argv=("yarn",))),
        ("command: [yarn, start it]", Command(argv=("yarn", "start it"))),
        ("command: [node, 1.10, yes, 010]", Command(argv=("node", "1.10", "yes", "010"))),
        ("command: echo $HOME ${X:-y} $$", Command(shell="echo $HOME ${X:-y} $$")),
        ("command: [echo, $HOME]", Command(argv=("echo", "$HOME"))),
        ("command: [yarn]\nargs: [start, -p, 80]", Command(argv=("yarn", "start", "-p", "80"))),
        ("command: yarn start\nargs: [a b, $X]", Command(shell="yarn start 'a b' '$X'")),
        ("command: [my app, x]\nargs: -v $X", Command(shell="'my app' x -v $X")),
        ("command:", None),
        ("command: []", None),
    ],
)
def test_commands(fields: str, command: Command | None) -> None:
    assert entry("mode: hybrid\n" + fields).command == command


def test_in_sync_mode_arguments_alone_are_the_images_command_with_others() -> None:
    api = entry("args: [-v]")
    assert (api.command, api.args) == (None, Command(argv=("-v",)))


def test_environment_as_a_list() -> None:
    api = entry(
        "environment: [A=1, 'B=${X}-$Y', HOME, GONE, '${NAME}', E=, 'U=a=b', N=null]",
        variables={"X": "x", "Y": "y", "HOME": "/home/ada", "NAME": "X"},
    )
    assert {v.name: v.value for v in api.environment} == {
        "A": "1", "B": "x-y", "HOME": "/home/ada", "X": "x", "E": "", "U": "a=b", "N": "null",
    }  # fmt: skip


def test_environment_as_a_map() -> None:
    api = entry(
        'environment: {A: 1.10, B: "${X}", HOME: , GONE: ~, E: "", T: yes, L: "null"}',
        variables={"X": "x", "HOME": "/home/ada"},
    )
    assert {v.name: v.value for v in api.environment} == {
        "A": "1.10", "B": "x", "HOME": "/home/ada", "E": "", "T": "yes", "L": "null",
    }  # fmt: skip


def test_a_variable_that_is_given_twice_is_told_and_the_last_counts() -> None:
    manifest = read("dev:\n  api:\n    environment: [A=1, A=2]\n")
    assert [v.value for v in manifest.entries["api"].environment] == ["2"]
    assert manifest.notices == (
        "okteto.yml:3:24: dev.api.environment: 'A' is given twice; the last one counts",
    )


def test_an_unset_variable_is_empty_and_told() -> None:
    manifest = read("dev:\n  api:\n    image: app:${TAG}\n")
    assert manifest.entries["api"].image == "app:"
    assert manifest.notices == (
        "okteto.yml:3:12: dev.api.image: 'TAG' is not set, so it is empty; '${TAG:-}' says so",
    )


def test_forwards_in_all_forms() -> None:
    api = entry(
        "forward:\n- 8080:80\n- 5432:db:5432\n- {localPort: 1, remotePort: 2}\n"
        "- {localPort: 3, remotePort: 4, name: cache}\n"
        "- {localPort: '${P}', remotePort: 6, labels: {app: mq}}\n- 7:[fd00::7]:8\n",
        variables={"P": "5"},
    )
    assert list(map(str, api.forward)) == ["8080:80", "5432:db:5432", "1:2", "3:cache:4",
                                           "5:[app=mq]:6", "7:[fd00::7]:8"]  # fmt: skip
    assert [str(entry("forward: 1:2").forward[0]), str(entry("reverse: 1:2").reverse[0])] == [
        "1:2"
    ] * 2


def test_top_level_forwards_are_every_entrys() -> None:
    manifest = read("forward: 1:db:2\ndev: {a: {forward: [3:4, 1:db:2]}, b: {}}\n")
    assert [list(map(str, e.forward)) for e in manifest.entries.values()] == [
        ["3:4", "1:db:2"],
        ["1:db:2"],
    ]


def test_several_remote_ports_may_share_a_local_one() -> None:
    assert len(entry("mode: hybrid\nreverse: [3000:8080, 3001:8080]").reverse) == 2


def test_paths_are_relative_to_the_manifests_folder() -> None:
    api = entry(
        "mode: hybrid\nworkdir: ../x\nenvFiles: [.env.dev, /abs, ~/home]\nsecrets: k.pem:/k:0400\n"
        "sync: [.:/app, /code:/code]",
        variables={"HOME": "/home/ada"},
    )
    assert api.workdir == FOLDER / "../x"
    assert api.env_files == (FOLDER / ".env.dev", Path("/abs"), Path("/home/ada/home"))
    assert (api.secrets[0].local, api.secrets[0].mode) == (FOLDER / "k.pem", 0o400)
    assert [(f.local, f.remote) for f in api.sync.folders] == [
        (FOLDER, PurePosixPath("/app")),
        (Path("/code"), PurePosixPath("/code")),
    ]


def test_sync_as_a_map() -> None:
    sync = entry("sync: {folders: .:/app, compression: false, rescanInterval: 60}").sync
    assert (len(sync.folders), sync.compression, sync.rescan_interval_s) == (1, False, 60.0)


def test_kubernetes_forms_have_numbers_where_the_api_wants_them() -> None:
    api = entry(
        "securityContext: {runAsUser: 1000, runAsNonRoot: true, capabilities: {drop: [ALL]}}\n"
        "tolerations: [{key: gpu, operator: Exists, tolerationSeconds: 30}]\n"
        "affinity: {nodeAffinity: {preferredDuringSchedulingIgnoredDuringExecution: "
        "[{weight: 1, preference: {matchExpressions: [{key: a, operator: In, values: [1]}]}}]}}\n"
        "resources: {limits: {cpu: 2, memory: 1Gi}}\nnodeSelector: {disk: ssd}"
    )
    assert api.security_context == {
        "runAsUser": 1000,
        "runAsNonRoot": True,
        "capabilities": {"drop": ("ALL",)},
    }
    assert api.tolerations == ({"key": "gpu", "operator": "Exists", "tolerationSeconds": 30},)
    term = api.affinity["nodeAffinity"]["preferredDuringSchedulingIgnoredDuringExecution"][0]  # type: ignore[index]
    assert term["weight"] == 1
    assert term["preference"]["matchExpressions"][0]["values"] == ("1",)
    assert api.resources.limits == {"cpu": "2", "memory": "1Gi"}


def test_volumes_and_claims() -> None:
    api = entry("volumes: /cache\nexternalVolumes: [data:/var/lib, data:sub:/x]")
    assert api.volumes == (PurePosixPath("/cache"),) and api.persistent_volume.enabled
    assert [(v.claim, v.sub_path) for v in api.external_volumes] == [
        ("data", None),
        ("data", "sub"),
    ]
    assert not entry("image: x").persistent_volume.enabled
    assert entry("persistentVolume: {size: 1Gi}").persistent_volume.enabled


@pytest.mark.parametrize(
    ("fields", "probes"),
    [
        ("image: x", Probes()),
        ("probes: true", Probes(liveness=True, readiness=True, startup=True)),
        ("probes: {liveness: on}", Probes(liveness=True)),
        ("healthchecks: true", Probes(liveness=True, readiness=True, startup=True)),
    ],
)
def test_probes(fields: str, probes: Probes) -> None:
    assert entry(fields).probes == probes


def test_lifecycle() -> None:
    both = entry("lifecycle: true").lifecycle
    assert both.post_start.enabled and both.pre_stop.enabled
    one = entry("lifecycle: {preStop: {command: rm -f $PID}}").lifecycle
    assert one.pre_stop == Hook(enabled=True, command=Command(shell="rm -f $PID"))
    assert not one.post_start.enabled
    assert not entry(
        "lifecycle: {postStart: {enabled: no, command: x}}"
    ).lifecycle.post_start.enabled


def test_services() -> None:
    api = entry("services:\n- name: worker\n  replicas: 2\n  command: [run]\n- labels: {app: x}")
    worker, other = api.services
    assert (worker.workload, worker.replicas, worker.command) == (
        "worker",
        2,
        Command(argv=("run",)),
    )
    assert (other.workload, other.selector, other.command) == (None, {"app": "x"}, None)


@pytest.mark.parametrize(
    ("text", "times"),
    [("5m", (300, 300)), ("90", (90, 90)), ("{default: 1m, resources: 10m}", (60, 600)),
     ("{resources: 10m}", (300, 600))],
)  # fmt: skip
def test_timeouts(text: str, times: tuple[float, float]) -> None:
    api = entry(f"timeout: {text}")
    assert (api.timeout_s, api.resources_timeout_s) == times


def test_the_list_form_of_dev() -> None:
    manifest = read("dev:\n- api\n- name: web\n  mode: hybrid\n")
    assert [(e.name, e.mode) for e in manifest.entries.values()] == [
        ("api", Mode.SYNC),
        ("web", Mode.HYBRID),
    ]


def test_a_selector_or_another_name_finds_the_workload() -> None:
    assert entry("selector: {app: x}").workload is None
    assert entry("name: api-v2").workload == "api-v2"


def test_settings_of_the_file_and_of_an_entry() -> None:
    text = """
original: keep
giveBackAfter: 1m
agent: {image: agent:1}
contexts: dev-*
names: [extra.example]
dev:
  api:
    original: replace
    handover: exclusive
    environmentOrder: kubernetes
    inheritEnvironment: [AWS_*, LANG]
    dropEnvironment: LESS
    files: off
    holdFor: 500ms
  web: {inheritEnvironment: minimal}
"""
    manifest = read(text, name="towline.yml")
    api, web = (manifest.entries[name].settings for name in ("api", "web"))
    assert (api.original, web.original) == (Original.REPLACE, Original.KEEP)
    assert (api.handover, web.handover) == (Handover.EXCLUSIVE, None)
    assert api.environment_order is EnvironmentOrder.KUBERNETES
    assert (api.inherit_environment, web.inherit_environment) == (("AWS_*", "LANG"), "minimal")
    assert (api.files.reach, web.files.reach) == (Reach.OFF, Reach.ON)
    assert (api.hold_for_s, web.hold_for_s, api.give_back_after_s) == (0.5, 10.0, 60.0)
    assert api.agent_image == web.agent_image == "agent:1"
    assert api.names.add == ("extra.example",) and manifest.settings.contexts == ("dev-*",)


def test_in_an_okteto_file_towlines_settings_are_told_and_not_used() -> None:
    manifest = read("original: keep\ndev: {api: {keepFor: 1m}}\n")
    assert manifest.entries["api"].settings == Settings()
    assert manifest.notices == (
        "okteto.yml:1:1: 'original' is Towline's own, so it is not used here; put it into a "
        "towline.yml that says 'extends: okteto.yml'",
        "okteto.yml:2:13: dev.api: 'keepFor' is Towline's own, so it is not used here; put it "
        "into a towline.yml that says 'extends: okteto.yml'",
    )


def test_other_sections_are_one_notice_neither_expanded_nor_checked() -> None:
    text = "name: shop\nbuild: {api: {args: ['${NOPE:?never}']}}\ndeploy: 7\ndev: {api: {}}\n"
    assert read(text).notices == ("okteto.yml:1:1: 'name', 'build', 'deploy' are not used",)


def test_what_a_later_okteto_adds_stops_nobody() -> None:
    text = "dev: {api: {sparkle: {a: 1}}}\nquantum: 3\n"
    assert read(text).notices == (
        "okteto.yml:1:13: unknown field 'sparkle' in dev.api; it is not used",
        "okteto.yml:2:1: unknown field 'quantum'; it is not used",
    )
    assert len(problems(text, name="towline.yml")) == 2


def test_what_hybrid_mode_does_not_use_is_told() -> None:
    text = "dev: {api: {mode: hybrid, image: x, secrets: 'a:/b', initContainer: {image: y}}}"
    assert [line.split(": ", 1)[1] for line in read(text).notices] == [
        "dev.api.image: is not used in hybrid mode; the dev container keeps its own",
        "dev.api.secrets: is not used in hybrid mode; the dev container keeps its own",
        "dev.api.initContainer: is not used; nothing is injected by an init container",
    ]


def test_keys_with_x_are_a_home_for_anchors() -> None:
    text = "x-base: &base {mode: hybrid, whatever: 1}\ndev: {api: {<<: *base, x-y: 1}}\n"
    assert read("x-base: &b {mode: hybrid}\ndev: {api: {<<: *b, x-y: 1}}\n").notices == ()
    assert read(text).entries["api"].mode is Mode.HYBRID


def test_another_mode_from_the_command_line_is_read_as_if_the_file_said_it() -> None:
    text = "dev: {api: {workdir: /usr/src, image: x}}"
    assert read(text).entries["api"].container_workdir == PurePosixPath("/usr/src")
    manifest = read(text, mode=Mode.HYBRID)
    api = manifest.entries["api"]
    assert (api.mode, api.workdir, api.container_workdir) == (Mode.HYBRID, FOLDER, None)
    assert api.command is None
    assert any("'/usr/src' is in the container; here it is /app" in n for n in manifest.notices)


@given(st.text())
def test_any_text_is_a_manifest_or_says_why_not(text: str) -> None:
    for name in ("okteto.yml", "towline.yml"):
        try:
            read(text, name=name)
        except ManifestError as error:
            lines = error.message.split("\n")
            assert all(line.startswith(f"{name}:") for line in lines)
            assert all(line.split(":")[1].isdigit() for line in lines)


FIELD = st.sampled_from(
    ["mode", "command", "reverse", "forward", "environment", "sync", "probes", "timeout", "workdir",
     "securityContext", "services", "secrets", "volumes", "files", "names", "agent", "selector",
     "persistentVolume", "lifecycle", "tolerations", "metadata", "keepFor", "extends"]
)  # fmt: skip
VALUE = st.recursive(
    st.sampled_from(["", "1:2", "/a", "${A}", "x y", "'$'", "true", "5m", "a=b", "~"]),
    lambda inner: st.one_of(
        st.lists(inner, max_size=3).map(lambda items: "[" + ", ".join(items) + "]"),
        st.dictionaries(
            st.sampled_from(["name", "a", "folders", "enabled"]), inner, max_size=3
        ).map(lambda d: "{" + ", ".join(f"{k}: {v}" for k, v in d.items()) + "}"),
    ),
    max_leaves=6,
)


@given(st.dictionaries(FIELD, VALUE, max_size=6))
def test_any_value_in_any_field_is_taken_or_refused(fields: dict[str, str]) -> None:
    body = ", ".join(f"{key}: {value}" for key, value in fields.items())
    for line in problems(f"dev: {{api: {{{body}}}}}", name="towline.yml"):
        assert line.startswith("towline.yml:1:")
