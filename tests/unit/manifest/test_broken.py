"""A manifest broken in many ways, each with the exact lines that are told."""

from __future__ import annotations

import pytest

from .reading import problems

# What stands under `dev: {api: …}` on line 3 and after, and what is told of it.
ENTRY: list[tuple[str, list[str]]] = [
    ("revers: 3000:80",
     ["3:5: unknown field 'revers' in dev.api; did you mean 'reverse'?"]),
    ("mode: hybird",
     ["3:11: dev.api.mode: 'hybird' is none of sync, hybrid; did you mean 'hybrid'?"]),
    ("mode: remote",
     ["3:11: dev.api.mode: 'remote' is none of sync, hybrid"]),
    ("mode: [hybrid]",
     ["3:11: dev.api.mode: a list is not possible here; write one of sync, hybrid"]),
    ("reverse: 3000",
     ["3:14: dev.api.reverse: '3000' is not a port pair; write 'remote:local', such as "
      "'3000:8080'"]),
    ("reverse:\n- 3000:70000",
     ["4:7: dev.api.reverse[0]: '3000:70000' has a local port '70000' that is no port; ports go "
      "from 1 to 65535"]),
    ("reverse: web:80",
     ["3:14: dev.api.reverse: 'web:80' has a remote port 'web' that is not a port; write a number "
      "from 1 to 65535"]),
    ("reverse: {remote: 1}",
     ["3:14: dev.api.reverse: a map is not possible here; write 'remote:local'"]),
    ("reverse: [3000:1, 3000:2]",
     ["3:23: dev.api.reverse: '3000:2' needs port 3000 in the dev pod, which '3000:1' in reverse "
      "has (line 3)"]),
    ("forward: 80",
     ["3:14: dev.api.forward: '80' is not a forward; write 'local:remote' or "
      "'local:service:remote'"]),
    ("forward: 80:my db:80",
     ["3:14: dev.api.forward: '80:my db:80' has no host name in 'my db'; write "
      "'local:service:remote'"]),
    ("forward: [80:a:1, 80:b:2]",
     ["3:23: dev.api.forward: '80:b:2' needs port 80 on the laptop, which '80:a:1' in forward has "
      "(line 3)"]),
    ("forward: 8080:80\nreverse: 3000:8080",
     ["4:14: dev.api.reverse: '3000:8080' needs port 8080 on the laptop, which '8080:80' in "
      "forward has (line 3)"]),
    ("remote: 2222\nforward: 2222:22",
     ["4:14: dev.api.forward: '2222:22' needs port 2222 on the laptop, which '2222' in remote has "
      "(line 3)"]),
    ("sshServerPort: 3000\nreverse: 3000:1",
     ["4:14: dev.api.reverse: '3000:1' needs port 3000 in the dev pod, which '3000' in "
      "sshServerPort has (line 3)"]),
    ("forward: {localPort: 1}",
     ["3:14: dev.api.forward: the field 'remotePort' is missing"]),
    ("forward: {localPort: 1, remotePort: 2, name: a, labels: {b: c}}",
     ["3:14: dev.api.forward: 'name' and 'labels' are both here; one of them finds the Service"]),
    ("forward: {localPort: x, remotePort: 2}",
     ["3:26: dev.api.forward.localPort: 'x' is not a port; write a number from 1 to 65535"]),
    ("environment: A=1",
     ["3:18: dev.api.environment: 'A=1' is not possible here; write a list of 'NAME=value', or a "
      "map"]),
    ("environment: [=1]",
     ["3:19: dev.api.environment[0]: '' is no name of a variable; write 'NAME=value' or 'NAME'"]),
    ("environment: {A: [1]}",
     ["3:22: dev.api.environment.A: a list is not possible here; write a text"]),
    ("environment: {A: '${X:?set it}'}",
     ["3:22: dev.api.environment.A: 'X' is needed: set it"]),
    ("image: app:${TAG",
     ["3:12: dev.api.image: '${' is never closed; write '${NAME}', or '$$' for a dollar"]),
    ("command: {run: x}",
     ["3:14: dev.api.command: a map is not possible here; write a text or a list"]),
    ("command: [a, [b]]",
     ["3:18: dev.api.command[1]: a list is not possible here; write a text"]),
    ("mode: hybrid\nargs: [x]",
     ["4:11: dev.api.args: there is no 'command' that these could follow"]),
    ("workdir: src",
     ["3:14: dev.api.workdir: 'src' is not an absolute path in the container; it must start with "
      "'/'"]),
    ("imagePullPolicy: always",
     ["3:22: dev.api.imagePullPolicy: 'always' is none of Always, IfNotPresent, Never; did you "
      "mean 'Always'?"]),
    ("sync: .",
     ["3:11: dev.api.sync: '.' is not a pair of paths; write 'local:remote', such as '.:/app'"]),
    ("sync: [.:app]",
     ["3:12: dev.api.sync: '.:app' is not an absolute path in the container; it must start with "
      "'/'"]),
    ("sync: {compression: true}",
     ["3:11: dev.api.sync: the field 'folders' is missing"]),
    ("secrets: [key.pem]",
     ["3:15: dev.api.secrets: 'key.pem' is not a pair of paths; write 'local:remote', such as "
      "'.:/app'"]),
    ("secrets: k:/k:999",
     ["3:14: dev.api.secrets: 'k:/k:999' has a mode '999' that is not a file mode; write three "
      "octal digits, such as 0644"]),
    ("volumes: cache",
     ["3:14: dev.api.volumes: 'cache' is not an absolute path in the container; it must start with "
      "'/'"]),
    ("volumes: /a\npersistentVolume: {enabled: false}",
     ["3:14: dev.api.volumes: cannot be kept while 'persistentVolume' is not enabled"]),
    ("persistentVolume: {size: big, accessMode: RWO}",
     ["3:30: dev.api.persistentVolume.size: 'big' is not a quantity; write one such as '500m', '2' "
      "or '1Gi'",
      "3:47: dev.api.persistentVolume.accessMode: 'RWO' is none of ReadWriteOnce, ReadOnlyMany, "
      "ReadWriteMany, ReadWriteOncePod"]),
    ("externalVolumes: data",
     ["3:22: dev.api.externalVolumes: 'data' is not a volume; write 'claim:/path' or "
      "'claim:subpath:/path'"]),
    ("resources: {limits: {cpu: lots}}",
     ["3:31: dev.api.resources.limits.cpu: 'lots' is not a quantity; write one such as '500m', '2' "
      "or '1Gi'"]),
    ("resources: {limit: {}}",
     ["3:17: unknown field 'limit' in dev.api.resources; did you mean 'limits'?"]),
    ("securityContext: {runAsUser: me}",
     ["3:34: dev.api.securityContext.runAsUser: 'me' is not a whole number"]),
    ("securityContext: {runAsNonroot: true}",
     ["3:23: unknown field 'runAsNonroot' in dev.api.securityContext; did you mean "
      "'runAsNonRoot'?"]),
    ("tolerations: {key: a}",
     ["3:18: dev.api.tolerations: a map is not possible here; write a list"]),
    ("nodeSelector: {'a b': c}",
     ["3:20: dev.api.nodeSelector: 'a b' is no label; write one such as 'app' or "
      "'example.com/app'"]),
    ("selector: {app: 'a b'}",
     ["3:21: dev.api.selector.app: 'a b' is no label value; those have up to 63 letters, digits, "
      "'-', '_' and '.'"]),
    ("selector: {}",
     ["3:15: dev.api.selector: an empty map selects every workload; write a label"]),
    ("selector: {a: b}\nlabels: {a: b}",
     ["4:13: dev.api.labels: 'selector' and 'labels' are both here, and mean the same"]),
    ("container: My_App",
     ["3:16: dev.api.container: 'My_App' is no name in Kubernetes; those have lower case letters, "
      "digits, '-' and '.'"]),
    ("probes: maybe",
     ["3:13: dev.api.probes: 'maybe' is neither true nor false"]),
    ("probes: {livenes: true}",
     ["3:14: unknown field 'livenes' in dev.api.probes; did you mean 'liveness'?"]),
    ("lifecycle: {preStop: {enabled: 2}}",
     ["3:36: dev.api.lifecycle.preStop.enabled: '2' is neither true nor false"]),
    ("autocreate: true",
     ["3:17: dev.api.autocreate: needs an 'image'; there is no container to take it from"]),
    ("services: [{image: x}]",
     ["3:16: dev.api.services[0]: which workload? write its 'name', or a 'selector'"]),
    ("services: [{name: a, replicas: many}]",
     ["3:36: dev.api.services[0].replicas: 'many' is not a whole number"]),
    ("services: {name: a}",
     ["3:15: dev.api.services: a map is not possible here; write a list"]),
    ("timeout: 5 minutes",
     ["3:14: dev.api.timeout: '5 minutes' is not a time; write seconds, or a form such as '5m' or "
      "'1h30m'"]),
    ("remote: ssh",
     ["3:13: dev.api.remote: 'ssh' is not a port; write a number from 1 to 65535"]),
    ("interface: my host",
     ["3:16: dev.api.interface: 'my host' is no address; write one such as 'localhost' or "
      "'0.0.0.0'"]),
    ("mode: sync\nmode: hybrid",
     ["4:5: the key 'mode' is here twice"]),
]  # fmt: skip

WHOLE: list[tuple[str, list[str]]] = [
    ("", ["1:1: nothing to develop; write an entry under 'dev', such as "
          "'dev: {frontend: {mode: hybrid}}'"]),
    ("dev: {}", ["1:1: nothing to develop; write an entry under 'dev', such as "
                 "'dev: {frontend: {mode: hybrid}}'"]),
    ("build: {}", ["1:1: nothing to develop; write an entry under 'dev', such as "
                   "'dev: {frontend: {mode: hybrid}}'"]),
    ("- a", ["1:1: a list is not possible here; write a map of fields"]),
    ("hello", ["1:1: 'hello' is not possible here; write a map of fields"]),
    ("dev: frontend", ["1:6: dev: 'frontend' is not possible here; write a list or a map"]),
    ("dev: {My Api: {}}", ["1:7: dev: 'My Api' is no name in Kubernetes; those have lower case "
                           "letters, digits, '-' and '.'"]),
    ("dev: {api: hybrid}", ["1:12: dev.api: 'hybrid' is not possible here; write a map of fields"]),
    ("dev: [{mode: hybrid}]", ["1:7: dev: in a list each entry needs a 'name'"]),
    ("dev: [api, {name: api}]", ["1:12: dev: 'api' is here twice"]),
    ("devs: {api: {}}\ndeev: {}", ["2:1: unknown field 'deev'; did you mean 'dev'?"]),
    ("forwards: 1:2\ndev: {api: {}}", ["1:1: unknown field 'forwards'; did you mean 'forward'?"]),
    ("forward: [1:2, 1:3]\ndev: {api: {}}",
     ["1:16: dev.api.forward: '1:3' needs port 1 on the laptop, which '1:2' in forward has "
      "(line 1)"]),
    ("dev: {api: *base}", ["1:12: '*base' names no anchor; write '&base' above"]),
    ("dev: {api: {mode: hybrid}", ["1:26: this is not YAML: did not find expected ',' or '}' "
                                   "(while parsing a flow mapping)"]),
    ("dev:\n\tapi:", ["2:1: this is not YAML: found character that cannot start any token "
                      "(while scanning for the next token)"]),
]  # fmt: skip

OWN: list[tuple[str, list[str]]] = [
    ("original: both\ndev: {a: {}}", ["1:11: original: 'both' is none of replace, keep"]),
    ("handovr: seamless\ndev: {a: {}}",
     ["1:1: unknown field 'handovr'; did you mean 'handover'?"]),
    ("keepFor: 1m\ndev: {a: {}}",
     ["1:10: keepFor: keepFor (60 s) is shorter than giveBackAfter (120 s); the session would be "
      "gone before it gives back"]),
    ("files: {mode: half}\ndev: {a: {}}",
     ["1:15: files.mode: 'half' is none of on, true, env, off, false"]),
    ("agent: image\ndev: {a: {}}",
     ["1:8: agent: 'image' is not possible here; write a map of fields"]),
    ("dev: {a: {sparkle: 1}}",
     ["1:11: unknown field 'sparkle' in dev.a; there are mode, name, selector, labels, "
      "annotations, container, image, imagePullPolicy, command, args, workdir, environment, …"]),
]  # fmt: skip


@pytest.mark.parametrize(("fields", "lines"), ENTRY, ids=lambda v: v if isinstance(v, str) else "")
def test_an_entry(fields: str, lines: list[str]) -> None:
    text = "dev:\n  api:\n" + "\n".join("    " + line for line in fields.splitlines())
    assert problems(text) == [f"okteto.yml:{line}" for line in lines]


@pytest.mark.parametrize(("text", "lines"), WHOLE, ids=lambda v: v if isinstance(v, str) else "")
def test_a_whole_file(text: str, lines: list[str]) -> None:
    assert problems(text) == [f"okteto.yml:{line}" for line in lines]


@pytest.mark.parametrize(("text", "lines"), OWN, ids=lambda v: v if isinstance(v, str) else "")
def test_towlines_own(text: str, lines: list[str]) -> None:
    assert problems(text, name="towline.yml") == [f"towline.yml:{line}" for line in lines]


def test_all_of_them_are_told_at_once_in_the_order_of_the_file() -> None:
    broken = [
        (fields, lines)
        for fields, lines in ENTRY
        if len(lines) == 1 and "\n" not in fields and "both here" not in lines[0]
    ]
    text = "dev:\n" + "".join(f"  e{i}: {{{fields}}}\n" for i, (fields, _) in enumerate(broken)
                              if "${TAG" not in fields)  # fmt: skip
    lines = problems(text)
    assert len(lines) >= len(broken) - 1
    places = [int(line.split(":")[1]) for line in lines]
    assert places == sorted(places)
    assert len(set(places)) == len(broken) - 1
