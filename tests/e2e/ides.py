"""What VS Code and IntelliJ do with the files of a project, as far as a button's commands go.

Read are the parts that the samples use: for VS Code `dependsOn`, `preLaunchTask`,
`postDebugTask` and shell tasks (which end before the next begins); for IntelliJ
`RunConfigurationTask` before a launch and Shell Script configurations.
"""

from __future__ import annotations

import json
import os
import re
import subprocess
import sys
import threading
import xml.etree.ElementTree as ElementTree
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import yaml

BUTTON_TIMEOUT_S = 150.0
# Makes the terminal that an IDE has opened the program's own, as the IDE's does.
_WITH_TERMINAL = (
    "import fcntl, os, sys, termios; fcntl.ioctl(0, termios.TIOCSCTTY, 0);"
    "os.execvp(sys.argv[1], sys.argv[1:])"
)


def with_own_ports(folder: Path, ports: Mapping[int, int]) -> None:
    """Other ports in the files of a project's copy: the sample's may be in use here."""
    pattern = re.compile(r"\b(" + "|".join(map(str, ports)) + r")\b")
    files = [folder / "towline.yml", *folder.glob(".vscode/*.json"), *folder.glob(".run/*.xml")]
    for path in files:
        text = path.read_text()
        path.write_text(pattern.sub(lambda found: str(ports[int(found[1])]), text))


def in_namespace(kubeconfig: str, namespace: str, folder: Path) -> str:
    """A kubeconfig as `kubectl config set-context --current --namespace` leaves it."""
    config = yaml.safe_load(Path(kubeconfig).read_text())
    for each in config["contexts"]:
        each["context"]["namespace"] = namespace
    path = folder / "kubeconfig"
    path.write_text(yaml.safe_dump(config))
    return str(path)


class Program:
    """A program in the IDE's terminal."""

    def __init__(self, process: subprocess.Popen[bytes], controller: int) -> None:
        self.process = process
        self._controller = controller
        self._said = bytearray()
        self._reading = threading.Thread(target=self._read, daemon=True)
        self._reading.start()

    @property
    def said(self) -> str:
        return self._said.decode(errors="replace")

    def stop(self, *, within_s: float = 60.0) -> int:
        """The stop button, where it asks politely; returns the exit code."""
        self.process.terminate()
        return self.process.wait(timeout=within_s)

    def close(self) -> None:
        if self.process.poll() is None:
            self.stop()
        self._reading.join(timeout=5)
        os.close(self._controller)

    def _read(self) -> None:
        try:
            while piece := os.read(self._controller, 65536):
                self._said += piece
        except OSError:  # EIO: the last one that had the terminal open is gone
            return


class Ide:
    """An IDE with one project open.

    Args:
        folder: the project's.
        environ: what the IDE was started with.
    """

    def __init__(self, folder: Path, environ: Mapping[str, str]) -> None:
        self.folder = folder
        # The sample's Python is that of the project: it has the sample's debugger.
        programs = f"{Path(sys.executable).parent}{os.pathsep}{environ['PATH']}"
        self.environ = {**environ, "PATH": programs}

    def shell(self, command: str, *, interpreter: str = "/bin/sh") -> str:
        """Run a command line as a shell task does; returns what it said."""
        done = subprocess.run(
            [interpreter, "-c", command],
            cwd=self.folder,
            env=self.environ,
            stdin=subprocess.DEVNULL,
            capture_output=True,
            text=True,
            timeout=BUTTON_TIMEOUT_S,
            check=False,
        )
        assert done.returncode == 0, (command, done.stdout, done.stderr)
        return done.stdout + done.stderr

    @contextmanager
    def program(
        self, *words: str, environ: Mapping[str, str] | None = None, cwd: Path | None = None
    ) -> Iterator[Program]:
        """Run a program in a terminal of the IDE while the block runs."""
        controller, side = os.openpty()
        process = subprocess.Popen(
            [sys.executable, "-c", _WITH_TERMINAL, *words],
            cwd=cwd or self.folder,
            env={**self.environ, "TERM": "xterm", **(environ or {})},
            stdin=side,
            stdout=side,
            stderr=side,
            start_new_session=True,
        )
        os.close(side)
        running = Program(process, controller)
        try:
            yield running
        finally:
            running.close()


class VsCode(Ide):
    def launch(self, name: str) -> dict[str, Any]:
        """The launch configuration of that name, its variables replaced."""
        return _named(self._read("launch.json")["configurations"], "name", name)

    def task(self, label: str) -> str:
        """Run a task, and before it those that it depends on."""
        self.before_task(label)
        return self.shell(self.command(label))

    def before_task(self, label: str) -> None:
        before = self._task(label).get("dependsOn", [])
        for each in [before] if isinstance(before, str) else before:
            self.task(each)

    def command(self, label: str) -> str:
        task = self._task(label)
        assert task["type"] == "shell" and "args" not in task, task
        return str(task["command"])

    def _task(self, label: str) -> dict[str, Any]:
        return _named(self._read("tasks.json")["tasks"], "label", label)

    def _read(self, name: str) -> dict[str, Any]:
        text = (self.folder / ".vscode" / name).read_text()
        found: dict[str, Any] = json.loads(text.replace("${workspaceFolder}", str(self.folder)))
        return found


def _named(items: list[dict[str, Any]], key: str, name: str) -> dict[str, Any]:
    [found] = [item for item in items if item[key] == name]
    return found


class IntelliJ(Ide):
    def before_launch(self, name: str) -> None:
        """What the button does before the configuration itself starts."""
        for option in self.configuration(name).iterfind("./method/option"):
            assert option.get("name") == "RunConfigurationTask", option.attrib
            before = str(option.get("run_configuration_name"))
            kind = self.configuration(before).get("type")
            assert kind == option.get("run_configuration_type") == "ShConfigurationType"
            self.script(before)

    def script(self, name: str) -> str:
        """Run a Shell Script configuration to its end."""
        self.before_launch(name)
        return self.shell(self.command(name), interpreter=self.option(name, "INTERPRETER_PATH"))

    def command(self, name: str) -> str:
        assert self.option(name, "EXECUTE_SCRIPT_FILE") == "false"
        assert Path(self.option(name, "SCRIPT_WORKING_DIRECTORY")) == self.folder
        return self.option(name, "SCRIPT_TEXT")

    def option(self, name: str, option: str) -> str:
        [found] = self.configuration(name).iterfind(f"./option[@name='{option}']")
        return str(found.get("value")).replace("$PROJECT_DIR$", str(self.folder))

    def configuration(self, name: str) -> ElementTree.Element:
        tree = ElementTree.parse(self.folder / ".run" / f"{name}.run.xml")
        [found] = tree.getroot().iterfind(f"./configuration[@name='{name}']")
        return found
