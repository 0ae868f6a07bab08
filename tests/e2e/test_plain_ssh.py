"""Plain `ssh`, `scp` and `sftp`: OpenSSH's own, into a dev container without any of them."""

from __future__ import annotations

import shutil
import subprocess
from pathlib import Path

import pytest

from .conftest import SANDBOX, Node, Towline, free_port

pytestmark = pytest.mark.usefixtures("unchanged")

MANIFEST = """
dev:
  api:
    sync: ./api:/app
    workdir: /app
    command: python3 -u server.py
    environment: {{GREETING: hello}}
    {more}
"""


def openssh(towline: Towline, *words: str, text: str | None = None) -> str:
    done = subprocess.run(
        [*towline.prefix, words[0], "-F", str(towline.folder / "ssh_config"), *words[1:]],
        cwd=towline.folder,
        env=towline.environ(),
        input=text,
        stdin=subprocess.DEVNULL if text is None else None,
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )
    assert done.returncode == 0, f"{words}: {done.stderr}"
    return done.stdout


@pytest.mark.skipif(shutil.which("ssh") is None, reason="OpenSSH's client is not installed")
@pytest.mark.parametrize("has_port", [False, True], ids=["ProxyCommand", "remote"])
def test_opensshs_own_programs_reach_the_dev_container(
    node: Node, namespace: str, towline: Towline, has_port: bool
) -> None:
    towline.manifest(MANIFEST.format(more=f"remote: {free_port()}" if has_port else ""))
    session = towline.up("api").serving()
    printed = towline.run("ssh-config", "api", "-n", namespace)
    assert printed.returncode == 0, printed.stderr
    (towline.folder / "ssh_config").write_text(printed.stdout)
    assert ("ProxyCommand" in printed.stdout) is not has_port
    (key,) = (towline.home / "state").rglob("ssh/*/key")
    assert key.stat().st_mode & 0o777 == 0o600
    host = f"api.{namespace}.towline"
    # Its environment, user and folder; an exit code, a pipe, a terminal.
    assert openssh(towline, "ssh", host, "echo $GREETING; pwd; id -u") == "hello\n/app\n10001\n"
    assert openssh(towline, "ssh", host, "tr a-z A-Z", text="shout") == "SHOUT"
    assert openssh(towline, "ssh", "-tt", host, "stty size").strip()
    (towline.folder / "sent").write_bytes(bytes(range(256)) * 4096)
    openssh(towline, "scp", "sent", f"{host}:/app/received")
    openssh(towline, "scp", f"{host}:/app/received", "back")
    assert (towline.folder / "back").read_bytes() == (towline.folder / "sent").read_bytes()
    listed = openssh(towline, "sftp", "-b", "-", host, text="ls /app\nrename received gone.bin\n")
    assert "/app/server.py" in listed
    assert openssh(towline, "ssh", host, "ls gone.bin") == "gone.bin\n"
    # A port of the dev pod's network, as an IDE's remote mode opens it.
    probe = ["-W", "127.0.0.1:8000", host]
    answer = openssh(towline, "ssh", *probe, text="GET /healthz HTTP/1.0\r\n\r\n")
    assert answer.endswith("\n\nok\n")
    assert session.end() == 130
    assert not key.exists(), "the key is gone with its session"


@pytest.mark.skipif(shutil.which("rsync") is None, reason="rsync is not installed")
def test_rsync_over_ssh_where_the_image_has_it(
    node: Node, namespace: str, towline: Towline
) -> None:
    load = [*SANDBOX, "image", str(Path(__file__).with_name("rsync")), "--load"]
    subprocess.run([*load, "--name", node.name], check=True, timeout=300, capture_output=True)
    manifest = MANIFEST.replace("python3 -u server.py", "sleep 1000")
    towline.manifest(manifest.format(more="image: towline.local/rsync:1"))
    session = towline.up("api")
    session.event("command-started")
    config = towline.run("ssh-config", "api", "-n", namespace).stdout
    (towline.folder / "ssh_config").write_text(config)
    tree = towline.folder / "tree/below"
    tree.mkdir(parents=True)
    (tree / "file").write_bytes(bytes(range(256)) * 1024)
    ssh = ["-a", "-e", f"ssh -F {towline.folder / 'ssh_config'}"]
    there = f"api.{namespace}.towline:/app/tree/"
    for words in (["tree/", there], [there, "back/"]):
        done = subprocess.run(
            [*towline.prefix, "rsync", *ssh, *words],
            cwd=towline.folder,
            env=towline.environ(),
            capture_output=True,
            text=True,
            timeout=60,
            check=False,
        )
        assert done.returncode == 0, done.stderr
    back = towline.folder / "back/below/file"
    assert back.read_bytes() == (tree / "file").read_bytes()
    assert session.end() == 130
