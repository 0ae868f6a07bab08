"""The cluster's names from the local process: every Service by its own name and port."""

from __future__ import annotations

import importlib.util
import socket
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from .conftest import Node, Session, Towline, free_port, wait_until
from .laptop import ordinary_user

pytestmark = pytest.mark.usefixtures("unchanged")

PORT = free_port()
MANIFEST = f"""
dev:
  frontend:
    mode: hybrid
    reverse: 3000:{PORT}
    workdir: ./frontend
    command: ["sleep", "600"]
"""
PROGRAMS = Path(__file__).parent / "programs"
NODE = "require('http').get(process.argv[1], r => r.on('data', d => console.log(String(d).trim())))"
PYTHON = "import sys, urllib.request as u; print(u.urlopen(sys.argv[1]).read().decode().strip())"


# Prints what has changed: the name by itself, and what answers there.
LOOK = """
import socket, time
was = None
while True:
    try:
        socket.gethostbyname("late")
        if was in (None, "gaierror"): print("found", flush=True)
        with socket.create_connection(("late", 8000), timeout=5) as s:
            s.sendall(b"GET /readyz HTTP/1.0\\r\\n\\r\\n")
            now = s.recv(12).decode()
    except OSError as e:
        now = type(e).__name__
    if now != was: print(now, flush=True)
    was = now
    time.sleep(0.1)
"""


@pytest.fixture(params=["root", "ordinary user"])
def laptop(request: pytest.FixtureRequest, towline: Towline) -> Iterator[Towline]:
    towline.manifest(MANIFEST)
    if request.param == "root":
        yield towline
    else:
        with ordinary_user(towline) as program:
            yield program


def test_each_program_finds_every_spelling(
    laptop: Towline, namespace: str, tmp_path_factory: pytest.TempPathFactory
) -> None:
    """Node (libuv), Python (glibc), Go (no C library at all): one hosts file for all."""
    before = Path("/etc/hosts").read_bytes()
    laptop.up("frontend").event("command-started")
    go = tmp_path_factory.mktemp("go") / "names"
    words = ["go", "build", "-o", str(go), str(PROGRAMS / "names.go")]
    subprocess.run(words, check=True, env={**laptop.environ(), "CGO_ENABLED": "0"}, timeout=200)
    static = laptop.folder / "names"
    static.write_bytes(go.read_bytes())
    static.chmod(0o755)
    full = f"api.{namespace}.svc.cluster.local"
    for name in ("api", f"api.{namespace}", f"api.{namespace}.svc", full, full + "."):
        done = laptop.run("run", "--", str(static), name, "8000")
        assert (done.returncode, done.stdout[:4]) == (0, "127."), done
        assert done.stdout.rstrip().endswith("HTTP/1.1"), done
    for words in (("node", "-e", NODE), ("python3", "-c", PYTHON)):
        for name in ("api", full + "."):
            done = laptop.run("run", "--", *words, f"http://{name}:8000/readyz")
            assert done.stdout == "PONG\n", done
    assert Path("/etc/hosts").read_bytes() == before
    outside = subprocess.run(["getent", "hosts", full], check=False, capture_output=True)
    assert outside.returncode != 0, "only the process finds it"


def test_the_user_keeps_its_own_id_and_what_the_laptop_resolves(laptop: Towline) -> None:
    laptop.up("frontend").event("command-started")
    done = laptop.run("run", "--", "sh", "-c", "id -u; getent hosts localhost; cat /etc/hosts")
    uid, local, *hosts = done.stdout.splitlines()
    assert uid == ("12345" if laptop.prefix else "0")
    assert local.split()[1] == "localhost"
    assert set(Path("/etc/hosts").read_text().splitlines()) <= set(hosts)


def test_services_come_and_go(node: Node, namespace: str, towline: Towline) -> None:
    towline.manifest(MANIFEST.replace('["sleep", "600"]', '["python3", "-u", "look.py"]'))
    (towline.folder / "frontend/look.py").write_text(LOOK)
    session = towline.up("frontend")
    wait_until("unknown at first", lambda: session.output == ["gaierror\n"])
    service = {
        "apiVersion": "v1",
        "kind": "Service",
        "metadata": {"name": "late", "namespace": namespace},
        "spec": {"selector": {"app": "api"}, "ports": [{"port": 8000}]},
    }
    try:
        node.apply(service)
        wait_until("its name", lambda: "found\n" in session.output, within_s=15)
        # The cluster's own nodes take longer before anything answers there.
        wait_until("it answers", lambda: "HTTP/1.1 200\n" in session.output)
    finally:
        node.kubectl("-n", namespace, "delete", "service", "late")
    wait_until("it went", lambda: session.output[-1] == "gaierror\n", within_s=15)


def warnings(session: Session) -> list[str]:
    return [event["text"] for event in session.events if event["event"] == "warned"]


def test_a_host_of_the_laptops_own_is_the_clusters_in_the_process_only(
    towline: Towline, tmp_path: Path
) -> None:
    hosts = tmp_path / "hosts"
    hosts.write_text("127.0.0.1 localhost\n10.1.2.3 db.lan db\n")
    # A laptop whose resolver is asked first and never looks into a hosts file.
    (tmp_path / "nsswitch.conf").write_text("passwd: files\nhosts: dns\n")
    script = f"mount --bind {hosts} /etc/hosts; mount --bind {tmp_path}/nsswitch.conf "
    script += '/etc/nsswitch.conf; exec "$@"'
    towline.prefix = ("unshare", "-m", "sh", "-e", "-c", script, "sh")
    towline.manifest(MANIFEST)
    session = towline.up("frontend")
    session.event("command-started")
    assert "for the process db is the cluster's, not the laptop's own host" in warnings(session)
    ask = ("run", "--", "getent", "hosts")
    assert towline.run(*ask, "db").stdout.startswith("127.")
    assert towline.run(*ask, "db.lan").stdout.split()[:1] == ["10.1.2.3"]
    with hosts.open("a") as file:
        file.write("10.9.9.9 later.lan\n")
    later = lambda: towline.run(*ask, "later.lan").stdout  # noqa: E731
    wait_until("what the laptop adds comes in", lambda: "10.9.9.9" in later(), within_s=5)
    assert hosts.read_text().endswith("10.9.9.9 later.lan\n"), "and nothing of ours gets out"


@pytest.mark.alone
def test_ports_that_the_laptop_needs_are_left_to_it(towline: Towline) -> None:
    """The process's own, and one that another program has on all addresses."""
    manifest = MANIFEST.replace(f"3000:{PORT}", "3000:8000")
    towline.manifest(manifest + "    names: {free: [80]}\n")
    with socket.create_server(("0.0.0.0", 6379)):
        session = towline.up("frontend")
        session.event("command-started")
        assert any(
            t.startswith("api 8000: the port is the process's own") for t in warnings(session)
        )
        assert any(t.startswith("db 6379: the port is in use on all") for t in warnings(session))
        assert any(t.startswith("frontend 80: the port is the process's own (names.free)")
                   for t in warnings(session))  # fmt: skip
        script = (
            "getent hosts api db; exec 3<> /dev/tcp/${DB_ADDR%:*}/${DB_ADDR#*:};"
            'printf "AUTH $REDIS_PASSWORD\\r\\nPING\\r\\n" >&3; head -n 2 <&3 | tr -d "\\r";'
            "curl -sS -m 10 $API_URL/readyz"
        )
        done = towline.run("run", "--", "bash", "-c", script)
        assert done.stdout == "+OK\n+PONG\nPONG\n", done
        # What the notice is about: the process itself may have the port on all addresses.
        script = "import socket; socket.create_server(('', 8000)); print('listens')"
        assert towline.run("run", "--", "python3", "-c", script).stdout == "listens\n"


@pytest.mark.alone
def test_two_sessions_on_one_laptop_leave_each_other_their_ports(
    towline: Towline, namespace: str
) -> None:
    """A name of the first has the very port that the second's process listens on everywhere."""
    towline.manifest(
        MANIFEST + "  api:\n    mode: hybrid\n    reverse: 8000:8000\n    workdir: ./frontend\n"
        '    command: ["python3", "-m", "http.server", "8000", "--bind", "0.0.0.0"]\n'
    )
    (towline.folder / "frontend/who").write_text("the laptop's")
    towline.up("frontend").event("command-started")
    curl = ("run", "frontend", "--", "curl", "-sS", "-m", "10")
    assert towline.run(*curl, "http://api:8000/readyz").stdout == "PONG\n"
    towline.up("api").serving()
    answer = lambda: towline.run(*curl, "http://api:8000/who").stdout  # noqa: E731
    wait_until("the second's process", lambda: answer() == "the laptop's", within_s=15)


def test_a_proxy_resolves_in_the_cluster_where_it_is_asked_for(towline: Towline) -> None:
    """Without a hosts file: what a proxy does not resolve is not found at all."""
    towline.manifest(MANIFEST + "    names: {mode: env, proxy: true}\n")
    towline.up("frontend").event("command-started")
    socks = "curl -sS -m 10 -x $ALL_PROXY http://api:8000/readyz"
    script = (
        f"{socks}; curl -sSp -m 10 http://api:8000/readyz; curl -sS -m 10 http://api:8000/readyz"
    )
    done = towline.run("run", "--", "sh", "-c", script)
    assert done.stdout == "PONG\n" * 3, done
    outside = "curl -sS -m 10 http://api:8000/readyz --noproxy api"
    assert towline.run("run", "--", "sh", "-c", outside).returncode == 6


def test_further_names_of_the_manifest(node: Node, namespace: str, towline: Towline) -> None:
    towline.manifest(
        MANIFEST + "    names:\n      add:\n      - kube-dns.kube-system\n"
        "      - kubernetes.default.svc:443\n      - nowhere.kube-system\n"
        f"      - frontend.{namespace}.svc.cluster.local.:80\n"
    )
    session = towline.up("frontend")
    session.event("command-started")
    script = "getent hosts kube-dns.kube-system kube-dns.kube-system.svc.cluster.local"
    done = towline.run("run", "--", "sh", "-c", script)
    assert [line[:4] for line in done.stdout.splitlines()] == ["127."] * 2, done
    assert any("'nowhere.kube-system' are not known" in text for text in warnings(session))
    link = "import socket; socket.create_connection(('kube-dns.kube-system', 53), 5); print('yes')"
    assert towline.run("run", "--", "python3", "-c", link).stdout == "yes\n"


@pytest.mark.timeout(480)  # the compiler builds its C library first
@pytest.mark.skipif(importlib.util.find_spec("ziglang") is None, reason="needs ziglang")
def test_a_musl_program_finds_them(laptop: Towline, namespace: str) -> None:
    """musl reads the hosts file itself, in pieces of 512 bytes."""
    source = laptop.folder / "names.c"
    source.write_text(
        "#include <netdb.h>\n#include <stdio.h>\n#include <arpa/inet.h>\n"
        "int main(int n, char **a) { struct addrinfo *r, h = {.ai_socktype = SOCK_STREAM};\n"
        '  for (int i = 1; i < n; i++) { int e = getaddrinfo(a[i], "80", &h, &r);\n'
        "    puts(e ? gai_strerror(e) : inet_ntoa(((struct sockaddr_in *)r->ai_addr)->sin_addr));\n"
        "  } return 0; }\n"
    )
    zig = [sys.executable, "-m", "ziglang", "cc", "-target", "x86_64-linux-musl", "-static"]
    words = [*zig, "-o", str(laptop.folder / "names"), str(source)]
    subprocess.run(words, check=True, timeout=200, capture_output=True)
    laptop.up("frontend").event("command-started")
    full = f"api.{namespace}.svc.cluster.local"
    done = laptop.run("run", "--", str(laptop.folder / "names"), "api", full, "localhost")
    first, second, local = done.stdout.splitlines()
    assert first == second and first.startswith("127.") and first != local == "127.0.0.1"
