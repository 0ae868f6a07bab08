"""Commands in the container, the control subsystem, the gate and the agent's end."""

from __future__ import annotations

import asyncio
import contextlib
import json
import os
import shutil
import signal
import socket
import subprocess
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from towline.errors import ConnectionLost
from towline.transport.command import run_in_container
from towline.transport.control import SUBSYSTEM, Control
from towline.transport.ssh import SshSession

from .conftest import Agent, connected, running_agent, start


@pytest.mark.parametrize(
    ("command", "code", "stdout", "stderr"),
    [
        ("echo out; echo err >&2; exit 7", 7, "out\n", "err\n"),
        ("true", 0, "", ""),
        ("no-such-command", 127, "", "not found"),
        ("pwd", 0, f"{Path.cwd()}\n", ""),
        ("(sleep 30 & echo left) ; echo done", 0, "left\ndone\n", ""),
    ],
)
async def test_a_command_ends_as_it_would_in_the_container(
    agent: Agent, command: str, code: int, stdout: str, stderr: str
) -> None:
    async with connected(agent) as it, asyncio.timeout(5):
        done = await it.ssh.run(command)
        assert done.exit_status == code
        assert done.stdout == stdout
        assert stderr in str(done.stderr)


@pytest.mark.parametrize("through_shell", ["", "true; "])
async def test_ctrl_c_is_for_the_program_and_not_for_a_shell_around_it(
    agent: Agent, through_shell: str
) -> None:
    """dash as the parent of a REPL died of the Ctrl-C that the REPL had caught."""
    program = "import time\ntry:\n print('ready', flush=True); time.sleep(30)\n"
    program += "except KeyboardInterrupt:\n exit(6)"
    command = f'{through_shell}exec python3 -c "{program}"'.removeprefix("exec ")
    async with (
        connected(agent) as it,
        it.ssh.create_process(command, term_type="xterm", term_size=(80, 24)) as running,
    ):
        assert "ready" in await running.stdout.readline()
        running.stdin.write("\x03")
        async with asyncio.timeout(5):
            assert (await running.wait()).exit_status == 6


async def test_output_behind_the_end_of_a_slow_reader_is_not_lost(agent: Agent) -> None:
    async with connected(agent) as it:
        done = await it.ssh.run("head -c 5000000 /dev/zero; printf end", encoding=None)
        assert isinstance(done.stdout, bytes)
        assert len(done.stdout) == 5_000_003 and done.stdout.endswith(b"end")


async def test_stdin_and_its_end_reach_the_command(agent: Agent) -> None:
    async with connected(agent) as it:
        done = await it.ssh.run("wc -c", input="x" * 100_000)
        assert str(done.stdout).strip() == "100000"


async def test_a_signal_ends_the_whole_group_and_is_told(agent: Agent) -> None:
    async with (
        connected(agent) as it,
        it.ssh.create_process("sleep 60 & wait; sleep 60") as running,
    ):
        running.send_signal("TERM")
        async with asyncio.timeout(5):
            done = await running.wait()
        assert done.exit_signal is not None and done.exit_signal[0] == "TERM"


async def test_a_terminal_has_a_size_modes_and_control_keys(agent: Agent) -> None:
    async with (
        connected(agent) as it,
        it.ssh.create_process(
            "trap 'stty size; exit 4' INT; tty; stty size; echo $TERM; read x",
            term_type="xterm-test",
            term_size=(90, 30),
        ) as running,
    ):
        assert "/dev/pts/" in await running.stdout.readline()
        assert await running.stdout.readline() == "30 90\r\n"
        assert await running.stdout.readline() == "xterm-test\r\n"
        running.change_terminal_size(120, 40)
        running.stdin.write("\x03")
        async with asyncio.timeout(5):
            done = await running.wait()
        assert "40 120" in str(done.stdout) and done.exit_status == 4


async def test_a_client_that_is_gone_hangs_up_on_its_command(agent: Agent, tmp_path: Path) -> None:
    told = tmp_path / "told"
    os.mkfifo(told)
    reader = os.open(told, os.O_RDONLY | os.O_NONBLOCK)
    async with connected(agent) as it:
        process = await it.ssh.create_process(
            f"trap 'echo hung up > {told}' HUP; echo on; sleep 60 & wait"
        )
        await process.stdout.readline()
    deadline = time.monotonic() + 5
    text = b""
    while not text and time.monotonic() < deadline:
        await asyncio.sleep(0.02)
        with contextlib.suppress(BlockingIOError):
            text = os.read(reader, 100)
    os.close(reader)
    assert text == b"hung up\n"


@pytest.mark.parametrize("how", ["the agent ends", "the link gives it up"])
async def test_a_connections_end_is_not_the_commands(agent: Agent, how: str) -> None:
    """A link that saw its pod gone before the line did: it passed for the exit code 255."""
    started = asyncio.Event()
    nowhere = os.open(os.devnull, os.O_WRONLY)
    async with connected(agent) as it, asyncio.timeout(30):
        command = run_in_container(
            SshSession(it.ssh),
            "sleep 60",
            terminal=False,
            started=started.set,
            outputs=(nowhere, nowhere),
            has_input=False,
        )
        running = asyncio.create_task(command)
        await started.wait()
        if how == "the agent ends":
            agent.process.send_signal(signal.SIGTERM)
        else:
            it.ssh.abort()
        with pytest.raises(ConnectionLost):
            await running
    os.close(nowhere)


async def test_the_environment_is_the_containers_to_the_byte(
    agent_binary: Path, tmp_path: Path
) -> None:
    environ = {"ODD": "a=b\nc", "EMPTY": "", "HIGH": "\udcff\udcfe", "PATH": os.environ["PATH"]}
    with running_agent(agent_binary, tmp_path / "s") as agent:
        agent.process.kill()
        agent.process.wait()
        agent.process = start(agent_binary, agent.folder, environ)
        async with connected(agent) as it:
            _, control = await it.ssh.create_session(Control, subsystem=SUBSYSTEM, encoding=None)
            assert isinstance(control, Control)
            got = await control.environ()
            for name, value in environ.items():
                assert got[name.encode()] == os.fsencode(value)
            done = await it.ssh.run('printf %s "$ODD"; env | grep -c ^EMPTY=$')
            assert done.stdout == "a=b\nc1\n"


async def ask_gate(agent: Agent, host: str = "127.0.0.1") -> int:
    reader, writer = await asyncio.open_connection(host, agent.gate_port)
    writer.write(b"GET /towline/ready HTTP/1.1\r\nHost: probe\r\nConnection: close\r\n\r\n")
    answer = await reader.read()
    writer.close()
    await writer.wait_closed()
    return int(answer.split()[1])


async def test_the_gate_follows_the_control_and_shuts_with_its_line(agent: Agent) -> None:
    assert await ask_gate(agent) == 503
    async with connected(agent) as it:
        _, control = await it.ssh.create_session(Control, subsystem=SUBSYSTEM, encoding=None)
        assert isinstance(control, Control)
        waiting = asyncio.ensure_future(ask_gate(agent))
        await control.gate(is_open=True)
        assert await waiting == 200
        assert await ask_gate(agent) == 200
        assert (await control.status())["gate"] is True
        # Whoever has a control channel is told.
        async with it.ssh.create_process(subsystem=SUBSYSTEM, encoding=None) as other:
            # Once it is answered, it is told of what comes.
            other.stdin.write(b'{"id": 1, "method": "status"}\n')
            await other.stdout.readline()
            await control.gate(is_open=False)
            assert json.loads(await other.stdout.readline()) == {"event": "gate", "open": False}
        await control.gate(is_open=True)
    async with asyncio.timeout(5):
        while await ask_gate(agent) != 503:
            pass


async def test_ports_that_are_listened_on_are_told_as_they_come_and_go(agent: Agent) -> None:
    async with connected(agent) as it:
        _, control = await it.ssh.create_session(Control, subsystem=SUBSYSTEM, encoding=None)
        seen = await control.listening(unlike=frozenset(), within_s=0)
        with socket.create_server(("", 0)) as server:
            port = server.getsockname()[1]
            async with asyncio.timeout(20):
                while port not in seen:
                    seen = await control.listening(unlike=seen, within_s=20)
        async with asyncio.timeout(20):
            while port in seen:
                seen = await control.listening(unlike=seen, within_s=20)
        # Nothing has changed: that is said, too.
        assert await control.listening(unlike=frozenset({1}), within_s=20)


async def test_hello_tells_what_could_not_be_listened_on(
    agent_binary: Path, tmp_path: Path
) -> None:
    with socket.socket() as taken:
        taken.bind(("0.0.0.0", 0))
        taken.listen()
        port = taken.getsockname()[1]
        with running_agent(agent_binary, tmp_path / "s", reverse=[port]) as agent:
            async with connected(agent) as it:
                _, control = await it.ssh.create_session(
                    Control, subsystem=SUBSYSTEM, encoding=None
                )
                assert isinstance(control, Control)
                hello = await control.hello()
                assert hello.session == "4be1c07a" and len(hello.boot) == 32
                (reverse,) = hello.reverse
                assert reverse.port == port and "address already in use" in str(reverse.error)


async def test_sigterm_with_nothing_open_is_the_end_at_once(agent: Agent) -> None:
    async with connected(agent) as it:
        began = time.monotonic()
        agent.process.send_signal(signal.SIGTERM)
        await it.ssh.wait_closed()
        assert await asyncio.to_thread(agent.process.wait, 5) == 0
        assert time.monotonic() - began < 1.5


@pytest.mark.parametrize(
    ("name", "text", "told"),
    [
        ("config.json", "{", "read config.json"),
        ("config.json", '{"version": 2}', "version 2"),
        ("line_key", "short", "5 bytes, not 32"),
        ("host_key", "no key", "host key"),
        ("client_key", "no key", "client's key"),
    ],
)
def test_a_session_that_cannot_be_read_is_one_line(
    agent: Agent, name: str, text: str, told: str
) -> None:
    (agent.folder / name).write_text(text)
    done = subprocess.run(
        [agent.binary, "-session", agent.folder], capture_output=True, text=True, timeout=5
    )
    assert done.returncode == 1 and told in done.stderr and done.stderr.count("\n") == 1


@pytest.fixture
def bare_agent(agent_binary: Path, tmp_path: Path) -> Iterator[Agent]:
    """An agent that sees a folder with nothing but itself, as in a scratch image."""
    root = tmp_path / "root"
    with running_agent(agent_binary, root / "session") as agent:
        agent.process.kill()
        agent.process.wait()
        shutil.copy(agent_binary, root / "agent")
        words = ["chroot", root, "/agent", "-session", "/session"]
        agent.process = subprocess.Popen(words, stderr=subprocess.PIPE, env=BARE)
        assert agent.process.stderr is not None
        assert b"listening" in agent.process.stderr.readline()
        agent.process.stderr.close()
        yield agent


BARE = {"PATH": "/usr/sbin:/usr/bin:/"}


@pytest.mark.skipif(os.geteuid() != 0, reason="chroot needs root")
async def test_an_image_without_a_shell(bare_agent: Agent) -> None:
    async with connected(bare_agent) as it:
        for command, code, told in (
            (None, 127, "no shell"),
            ("ls | wc", 127, "more than a command"),
            ("gone --help", 127, "gone: not found"),
            ("agent -session '/no such'", 1, "/no such/config.json"),
        ):
            done = await it.ssh.run(command)
            assert done.exit_status == code and told in str(done.stderr)
