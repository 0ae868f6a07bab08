"""A real one-node Kubernetes in namespaces of its own, for demo and tests.

Real: the API server, controllers, scheduler, kubelet and kube-proxy of
Kubernetes 1.34, etcd, containerd and CoreDNS. Not there: NetworkPolicies are
accepted and not enforced, LoadBalancer Services stay pending, and pods reach
nothing outside of the cluster. As with a remote cluster, the machine reaches
the API server only, not pods or Services (`exec` runs a command in the node).
"""

from __future__ import annotations

import argparse
import json
import os
import signal
import sys
from collections.abc import Callable
from dataclasses import asdict
from pathlib import Path

import lifecycle
import machine
import places
from places import Sandbox
from problem import Problem
from progress import Progress

_Arguments = argparse.Namespace


def main(arguments: list[str]) -> int:
    if arguments[:1] == ["_node"]:
        import node

        return node.main(arguments[1])
    parsed = _parse(arguments)
    command: Callable[[_Arguments], int] = parsed.run
    # An `up` that is told to end takes what it has started with it, as for Ctrl-C.
    signal.signal(signal.SIGTERM, signal.default_int_handler)
    try:
        return command(parsed)
    except Problem as problem:
        print(f"sandbox: {problem}", file=sys.stderr)
        return problem.exit_code
    except KeyboardInterrupt:
        print("sandbox: interrupted", file=sys.stderr)
        return 130


def _parse(arguments: list[str]) -> _Arguments:
    parser = argparse.ArgumentParser(
        prog="sandbox", description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    commands = parser.add_subparsers(required=True, metavar="COMMAND")

    def add(name: str, run: Callable[[_Arguments], int], text: str) -> argparse.ArgumentParser:
        command = commands.add_parser(name, help=text, description=text)
        command.set_defaults(run=run)
        command.add_argument("--name", default=places.DEFAULT_NAME, help="default: %(default)s")
        return command

    def output(command: argparse.ArgumentParser) -> None:
        command.add_argument("-o", "--output", choices=["text", "json"], default="text")

    output(add("up", _up, "start it, and print the path of its kubeconfig"))
    add("down", _down, "end it, and remove all of it")
    output(add("status", _status, "tell whether it runs, and where"))
    add("kubeconfig", _kubeconfig, "print the path of its kubeconfig")
    load = add("load", _load, "put the images of a docker or OCI archive on the node")
    load.add_argument("archive", type=Path, metavar="ARCHIVE.tar", nargs="+")
    image = add("image", _image, "build the images that FOLDER/images.json describes")
    image.add_argument("folder", type=Path, metavar="FOLDER")
    image.add_argument(
        "--tag",
        action="append",
        default=[],
        metavar="IMAGE=NAME",
        help="a further name for an image, for example shop-api=python:3.12-slim",
    )
    image.add_argument("--load", action="store_true", help="and put them on the node")
    run = add("exec", _exec, "run a command in the node's namespaces: exec [--name N] -- CMD …")
    run.add_argument("command", nargs=argparse.REMAINDER)
    kubectl = add("kubectl", _kubectl, "run kubectl on it: kubectl [--name N] -- ARGS …")
    kubectl.add_argument("command", nargs=argparse.REMAINDER)
    add("setup", _setup, "install the Debian packages it needs (as root)")
    output(add("build", _build, "build its programs, and tell where they are"))
    return parser.parse_args(arguments)


def _up(arguments: _Arguments) -> int:
    progress = Progress()
    now = lifecycle.up(Sandbox.named(arguments.name), progress)
    if now.state != "running":
        raise Problem(f"sandbox '{now.name}' came up and is now {now.state}; logs: {now.log}")
    progress.say(f"sandbox '{now.name}' is up: Kubernetes {now.kubernetes} at {now.server}")
    if arguments.output == "json":
        print(json.dumps(asdict(now)))
    else:
        print(now.kubeconfig)
    return 0


def _down(arguments: _Arguments) -> int:
    progress = Progress()
    existed = lifecycle.down(Sandbox.named(arguments.name), progress)
    progress.say(f"sandbox '{arguments.name}' {'is gone' if existed else 'was not there'}")
    return 0


def _status(arguments: _Arguments) -> int:
    now = lifecycle.status(Sandbox.named(arguments.name))
    if arguments.output == "json":
        print(json.dumps(asdict(now)))
    else:
        for name, value in asdict(now).items():
            if value is not None:
                print(f"{name.replace('_', ' '):14} {value}")
    return 0 if now.state == "running" else 1


def _kubeconfig(arguments: _Arguments) -> int:
    print(lifecycle.running(Sandbox.named(arguments.name)).kubeconfig)
    return 0


def _load(arguments: _Arguments) -> int:
    import images

    progress = Progress()
    for path in arguments.archive:
        names = images.load(path, Sandbox.named(arguments.name))
        progress.say(f"on the node: {' '.join(names)}")
    return 0


def _image(arguments: _Arguments) -> int:
    import images

    progress = Progress()
    built = images.build(arguments.folder, tags=arguments.tag, progress=progress)
    print(built)
    if arguments.load:
        names = images.load(built, Sandbox.named(arguments.name))
        progress.say(f"on the node: {' '.join(names)}")
    return 0


def _exec(arguments: _Arguments) -> int:
    command = _after_dashes(arguments.command)
    line = lifecycle.inside(Sandbox.named(arguments.name), command)
    environment = {
        **os.environ,
        "CONTAINERD_ADDRESS": str(places.CONTAINERD_SOCKET),
        "CONTAINERD_NAMESPACE": "k8s.io",
        "KUBECONFIG": str(places.NODE_STATE / "admin.kubeconfig"),
    }
    os.execvpe(line[0], line, environment)


def _kubectl(arguments: _Arguments) -> int:
    now = lifecycle.running(Sandbox.named(arguments.name))
    environment = {**os.environ, "KUBECONFIG": str(now.kubeconfig)}
    os.execve(str(now.kubectl), ["kubectl", *_after_dashes(arguments.command)], environment)


def _after_dashes(command: list[str]) -> list[str]:
    command = command[1:] if command[:1] == ["--"] else command
    if not command:
        raise Problem("there is no command after --", exit_code=2)
    return command


def _setup(_: _Arguments) -> int:
    machine.install_packages(Progress())
    return 0


def _build(arguments: _Arguments) -> int:
    import builds

    paths = {name: str(path) for name, path in asdict(builds.programs(Progress())).items()}
    if arguments.output == "json":
        print(json.dumps(paths))
    else:
        print("\n".join(paths.values()))
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
