"""The container's files for the local process, and what else it needs to feel at home."""

from __future__ import annotations

import json
import os
import shutil
import signal
import stat
import sys
import time
from collections.abc import Iterator
from datetime import UTC, datetime
from pathlib import Path

import pytest

from .conftest import Node, Towline, free_port, wait_until
from .laptop import ordinary_user

OBJECTS = Path(__file__).with_name("app.json")
PORT = free_port()
MANIFEST = f"""
dev:
  app:
    mode: hybrid
    reverse: 3000:{PORT}
    files:
      exclude: /left-out
      add: [/usr, /etc/passwd]
    command: ["sleep", "600"]
"""
SERVICE_ACCOUNT = "/var/run/secrets/kubernetes.io/serviceaccount"
IN_CLUSTER = """
import os
from kubernetes import client, config
config.load_incluster_config()
folder = os.path.dirname(config.incluster_config.SERVICE_CERT_FILENAME)
found = client.CoreV1Api().list_namespaced_service(open(folder + "/namespace").read())
print(sorted(each.metadata.name for each in found.items))
"""
NAMES_IN_CERTIFICATE = f"""
import os, socket, ssl
context = ssl.create_default_context(cafile="{SERVICE_ACCOUNT}/ca.crt")
host, port = os.environ["KUBERNETES_SERVICE_HOST"], os.environ["KUBERNETES_SERVICE_PORT"]
with socket.create_connection((host, int(port)), 10) as plain:
    with context.wrap_socket(plain, server_hostname=host) as tls:
        print(tls.getpeercert()["subjectAltName"])
"""
ENVIRON = "import json, os; print(json.dumps(dict(os.environ)))"
LOOK = """
import os, time
was = None
while True:
    version = os.path.realpath("/etc/app/..data")
    try:
        now = [open(f"{version}/{name}").read().strip() for name in ("config.yml", "other.yml")]
    except FileNotFoundError:
        continue
    if now != was:
        print(time.time(), os.path.basename(version), *now, sep="|", flush=True)
    was = now
    time.sleep(0.02)
"""


@pytest.fixture(scope="module")
def files_namespace(node: Node) -> Iterator[str]:
    name = f"files-{os.getpid()}"
    try:
        node.kubectl("apply", "-f", "-", text=OBJECTS.read_text().replace("NAMESPACE", name))
        wait = ("-n", name, "rollout", "status", "--timeout=120s")
        node.kubectl(*wait, "deployment/app")
        node.kubectl(*wait, "statefulset/peers")
        yield name
    finally:
        node.kubectl("delete", "namespace", name, "--wait=false", "--ignore-not-found")


@pytest.fixture
def root(node: Node, files_namespace: str, tmp_path: Path) -> Iterator[Towline]:
    folder = tmp_path / "app"
    folder.mkdir()
    program = Towline(tmp_path, folder, node.kubeconfig, files_namespace)
    program.manifest(MANIFEST)
    try:
        yield program
    finally:
        for session in program.sessions:
            session.end(within_s=90)


@pytest.fixture(params=["root", "ordinary user"])
def laptop(request: pytest.FixtureRequest, root: Towline) -> Iterator[Towline]:
    if request.param == "root":
        yield root
    else:
        with ordinary_user(root) as program:
            yield program


def test_files_are_at_their_own_paths_and_nowhere_else(laptop: Towline) -> None:
    session = laptop.up("app")
    session.event("command-started")
    for path, wanted in (
        ("/etc/app/config.yml", "version: 1\n"),
        ("/etc/app/secret/password", "canary-4711"),
        ("/config/all/sub/labels", 'app="app"'),
        ("/opt/single.yml", "version: 1\n"),
        (f"{SERVICE_ACCOUNT}/namespace", laptop.namespace),
    ):
        done = laptop.run("run", "--", "cat", path)
        assert wanted in done.stdout, (path, done)
        assert not Path(path).exists(), "the laptop itself has no such file"
    script = (
        "stat -Lc %a $TOWLINE_ROOT/etc/app/secret/password $TOWLINE_ROOT/.. $TOWLINE_ROOT/etc;"
        "stat -f -c %T $TOWLINE_ROOT; id -u; ls -d /left-out; touch /etc/app/new;"
        "getent hosts localhost; cat /etc/resolv.conf; getent passwd 0"
    )
    done = laptop.run("run", "--", "sh", "-c", script)
    secret, folder, below, kind, uid, *rest = done.stdout.splitlines()
    assert (secret, folder, below, kind) == ("600", "700", "700", "tmpfs")
    assert uid == ("12345" if laptop.prefix else "0")
    assert "/left-out" in done.stderr and "Read-only file system" in done.stderr
    assert rest[-1].startswith("root:"), "the rest of /etc is the laptop's own"
    assert set(Path("/etc/resolv.conf").read_text().splitlines()) <= set(rest)
    said = [e["text"] for e in session.events if e["event"] == "warned"]
    assert any(t.startswith("/usr of the container is not here: ") for t in said), said
    assert any(t == "UDP is not carried: nobody 53/UDP" for t in said), said


def test_an_in_cluster_client_works_unchanged(laptop: Towline) -> None:
    """A real client library, its token and TLS; the certificate knows no loopback name."""
    laptop.up("app").event("command-started")
    done = laptop.run("run", "--", sys.executable, "-c", IN_CLUSTER)
    assert done.stdout == "['app', 'nobody', 'peers']\n", done.stderr
    names = laptop.run("run", "--", sys.executable, "-c", NAMES_IN_CERTIFICATE).stdout
    assert "kubernetes.default.svc" in names
    assert "127." not in names and "localhost" not in names


def test_pods_of_a_set_and_services_with_nobody_there(laptop: Towline) -> None:
    laptop.up("app").event("command-started")
    curl = ("run", "--", "curl", "-sS", "-m", "10")
    whole = f"peers-1.peers.{laptop.namespace}.svc.cluster.local"
    for host in ("peers-1.peers", whole):
        assert laptop.run(*curl, f"http://{host}:3000/").stdout == "peers-1"
    assert laptop.run(*curl, "http://peers:3000/").stdout in ("peers-0", "peers-1")
    refused = laptop.run(*curl, "http://nobody:7000/")
    assert refused.returncode == 7, "refused, as in the cluster"
    unknown = laptop.run(*curl, "http://peers-2.peers:3000/")
    assert unknown.returncode == 6, "no such host"
    low = laptop.run(*curl, "http://app:8080/" if laptop.prefix else "http://app/")
    assert low.returncode in (7, 52, 56) or low.stdout == "app", "the original or nobody yet"
    done = laptop.run("run", "--", sys.executable, "-c", ENVIRON)
    values = json.loads(done.stdout)
    assert values["APP_URL"] == ("http://app:8080/" if laptop.prefix else "http://app/")
    assert values["OIDC_ISSUER"] == "http://app/"


def test_without_namespaces_values_lead_there(root: Towline) -> None:
    with ordinary_user(root, namespaces=False) as laptop:
        ahead = laptop.run("env", "app", "-n", root.namespace, "--explain", "-o", "json").stdout
        marked = {each["name"] for each in json.loads(ahead)["variables"]
                  if "another in a session" in (each["note"] or "")}  # fmt: skip
        assert {"CONFIG", "PEER_URL", "APP_URL"} <= marked
        assert "OIDC_ISSUER" not in marked
        session = laptop.up("app")
        session.event("command-started")
        files = session.event("stage-done", stage="files")
        assert "below TOWLINE_ROOT" in files["text"]
        done = laptop.run("run", "--", "sh", "-c", "cat $CONFIG; curl -sS -m 10 $PEER_URL")
        assert done.stdout == "version: 1\npeers-0", done
        said = [e["text"] for e in session.events if e["event"] == "warned"]
        low = "sudo sysctl -w net.ipv4.ip_unprivileged_port_start=80"
        assert any(low in text and "app 80" in text for text in said), said
        assert any("kubernetes.default.svc" in text for text in said), said


def test_a_new_version_is_seen_whole(node: Node, root: Towline) -> None:
    (root.folder / "look.py").write_text(LOOK)
    root.manifest(MANIFEST.replace('["sleep", "600"]', '["python3", "look.py"]'))
    session = root.up("app")
    wait_until("the first version", lambda: session.output)
    patch = {"data": {"config.yml": "version: 2\n", "other.yml": "version: 2\n"}}
    node.kubectl("-n", root.namespace, "patch", "configmap", "app", "-p", json.dumps(patch))
    # The kubelet looks at a pod's volumes when the pod changes, else once a minute.
    pods = ("-n", root.namespace, "annotate", "pods", "-l", "app=app", "--overwrite")
    node.kubectl(*pods, f"poked={time.time()}")
    try:
        wait_until("the second", lambda: len(session.output) > 1, within_s=90)
    finally:
        back = {"data": {"config.yml": "version: 1\n", "other.yml": "version: 1\n"}}
        node.kubectl("-n", root.namespace, "patch", "configmap", "app", "-p", json.dumps(back))
    seen, version, first, second = session.output[1].strip().split("|")
    assert first == second == "version: 2"
    # The kubelet names a version by the second in which it was written. Two seconds are
    # promised; on a machine that does other things, too, nothing is.
    written = datetime.strptime(version[2:21], "%Y_%m_%d_%H_%M_%S").replace(tzinfo=UTC)
    took = float(seen) - written.timestamp()
    print(f"seen {took:.1f} s after the second in which the kubelet wrote it")
    assert took < 15.0


def test_nothing_is_left_behind_not_even_after_a_kill(root: Towline) -> None:
    session = root.up("app")
    session.event("command-started")
    place = Path(root.run("run", "--", "sh", "-c", "echo $TOWLINE_ROOT").stdout.strip()).parent
    assert place.is_dir()
    session.end(signal.SIGKILL)
    assert place.is_dir(), "nobody was there to remove it"
    second = root.up("app", "--end-other-session")
    second.event("command-started", within_s=90)
    assert not place.exists(), "swept by the next session"
    place = place.with_name(second.id)
    assert place.is_dir()
    second.end()
    assert not place.exists()


def test_env_and_off_keep_the_process_out_of_namespaces(root: Towline) -> None:
    root.manifest(MANIFEST.replace("    files:\n", "    names: off\n    files:\n      mode: env\n"))
    root.up("app").event("command-started")
    script = "ls /etc/app; cat $CONFIG; getent hosts peers; readlink /proc/self/ns/mnt"
    done = root.run("run", "--", "sh", "-c", script)
    assert done.stdout == f"version: 1\n{Path('/proc/self/ns/mnt').readlink()}\n"


def holding(canary: bytes, *places: Path, since: float) -> set[Path]:
    """Files below these places with the canary in them, which were changed since."""
    found = set()
    for each in (path for place in places for path in place.rglob("*")):
        try:
            state = each.lstat()
            is_new = stat.S_ISREG(state.st_mode) and state.st_mtime >= since
            if is_new and state.st_size < 1 << 24 and canary in each.read_bytes():
                found.add(each)
        except (FileNotFoundError, NotADirectoryError, PermissionError):
            continue  # others use these places, too
    return found


def test_secrets_stay_out_of_every_other_place(node: Node, root: Towline) -> None:
    """As a file and as a variable: only the private folder has it, and the process."""
    canary, began = b"canary-4711", time.time() - 2
    places = [root.home, Path("/dev/shm"), Path("/run"), Path("/tmp")]
    session = root.up("app")
    session.event("command-started")
    assert b"canary-4711" in root.run("env").stdout.encode(), "it is in the environment"
    told = [root.run(*words).stdout for words in (("status",), ("env", "--explain"), ("plan",))]
    told += [root.run(*words, "-o", "json").stdout for words in (("status",), ("plan",))]
    private = Path(root.run("run", "--", "sh", "-c", "echo $TOWLINE_ROOT").stdout.strip()).parent
    pod = session.event("stage-done", stage="dev pod")["text"].split()[0]
    log = node.kubectl("-n", root.namespace, "logs", pod, "--all-containers")
    for text in (str(session.events), str(session.errors), str(session.output), log, *told):
        assert "canary-4711" not in text
    for each in Path("/proc").glob("[0-9]*/cmdline"):
        try:
            assert canary not in each.read_bytes()
        except (FileNotFoundError, ProcessLookupError):
            continue
    found = holding(canary, *places, since=began)
    # The node of the tests is on this machine: the kubelet's own copies are the cluster's.
    ours = {path for path in found if "kubelet" not in path.parts}
    assert ours, "the mirror"
    for path in ours:
        assert path.is_relative_to(private), path
        assert path.stat().st_mode & 0o077 == 0, path
    assert private.stat().st_mode & 0o777 == 0o700
    # A crash is the worst moment: what is left is private, and the crash itself says nothing.
    session.end(signal.SIGABRT)
    assert "canary-4711" not in "".join(session.errors) + str(session.output)
    left = {p for p in holding(canary, *places, since=began) if "kubelet" not in p.parts}
    assert all(path.is_relative_to(private) for path in left), left
    second = root.up("app", "--end-other-session")
    second.event("command-started", within_s=90)
    second.end()
    left = {p for p in holding(canary, *places, since=began) if "kubelet" not in p.parts}
    assert left == set(), "and the next session's end leaves none of it"


def test_without_the_sessions_socket_the_agent_and_the_cluster_are_asked(root: Towline) -> None:
    session = root.up("app")
    session.event("command-started")
    asked = root.run("env", "-o", "json")
    [place] = root.home.rglob("control.sock")
    place.unlink()
    anew = root.run("env", "-o", "json")
    assert json.loads(anew.stdout) == json.loads(asked.stdout), anew.stderr
    done = root.run("run", "--", "sh", "-c", "cat /etc/app/config.yml; echo $APP_URL")
    assert done.stdout == "version: 1\nhttp://app/\n", done.stderr


@pytest.mark.skipif(shutil.which("java") is None, reason="needs a JVM")
def test_a_jvm_finds_names_and_files(laptop: Towline) -> None:
    (laptop.folder / "Look.java").write_text(
        "import java.nio.file.*; import java.net.*;\n"
        "public class Look { public static void main(String[] a) throws Exception {\n"
        '  System.out.print(Files.readString(Path.of("/etc/app/config.yml")));\n'
        '  var in = URI.create("http://peers-0.peers:3000/").toURL().openStream();\n'
        "  System.out.print(new String(in.readAllBytes())); } }\n"
    )
    laptop.up("app").event("command-started")
    done = laptop.run("run", "--", "java", "Look.java")
    assert done.stdout == "version: 1\npeers-0", done.stderr
