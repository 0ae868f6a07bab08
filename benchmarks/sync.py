"""Measures sync mode beside rsync, Syncthing and Mutagen; writes SYNC.md beside this.

    make bench-sync                 all of it, in a sandbox of its own
    TOWLINE_BENCH_SANDBOX=NAME …    in a sandbox that is up already
    TOWLINE_BENCH_ONLY=towline,rsync

All go the same way: through the API server's port-forward or exec, into the same dev
container, from the same kind of folder. What is visible there is looked at from outside of
it (/proc/PID/root), so that looking costs nothing on the way.
"""

from __future__ import annotations

import json
import os
import random
import re
import shutil
import signal
import subprocess
import sys
import tempfile
import time
import urllib.request
from abc import ABC, abstractmethod
from pathlib import Path

from run import NAMESPACE, ROOT, SANDBOX, TOWLINE, Cluster, Table, cpu_s, ms, results, wait_for

IMAGE = "towline.local/bench-peers:1"
# Found by it in /proc: what the dev container runs.
MARK, PEERS_MARK = "86321", "86320"
SMALL, LARGE, HUGE = 2_000, 20_000, 50_000
LARGE_BYTES = 300_000_000
SAVES = 40
SWITCHED = 3_000
BIG_BYTES = 200_000_000

MANIFEST = """\
dev:
  dev:
    mode: sync
    sync:
    - {folder}:{remote}
    workdir: /tmp
    command: ["sleep", "{mark}"]
"""
CLAIM = """\
    persistentVolume:
      size: 2Gi
"""


def deployment() -> dict[str, object]:
    container = {
        "name": "dev",
        "image": IMAGE,
        "command": ["sleep", PEERS_MARK],
        "volumeMounts": [{"name": "data", "mountPath": mount} for mount in ("/work", "/peer")],
    }
    for mount in container["volumeMounts"]:
        mount["subPath"] = mount["mountPath"].strip("/")
    return {
        "apiVersion": "apps/v1",
        "kind": "Deployment",
        "metadata": {"name": "dev", "namespace": NAMESPACE},
        "spec": {
            "selector": {"matchLabels": {"app": "dev"}},
            "template": {
                "metadata": {"labels": {"app": "dev"}},
                "spec": {
                    "terminationGracePeriodSeconds": 1,
                    # Root, as the sandbox's claims know no fsGroup.
                    "securityContext": {"runAsUser": 0},
                    "containers": [container],
                    "volumes": [{"name": "data", "emptyDir": {}}],
                },
            },
        },
    }


def make_tree(root: Path, *, count: int, size: int) -> None:
    """Source text of a kind: words, of which many come again."""
    chance = random.Random(count)
    words = [b"%x" % chance.getrandbits(48) for _ in range(4_000)]
    each = size // count
    for number in range(count):
        folder = root / f"d{number % 97}/s{number % 7}"
        folder.mkdir(parents=True, exist_ok=True)
        text = b" ".join(chance.choices(words, k=each // 12))
        (folder / f"f{number}.py").write_bytes(text[:each])


class Tool(ABC):
    """One way to bring a folder into the container and keep it in step."""

    name: str
    # What a person who edits must do for a save to go over.
    follows = True

    def __init__(self, bench: Bench, local: Path) -> None:
        self.bench = bench
        self.local = local

    @abstractmethod
    def begin(self) -> None:
        """Start the first sync of what is there now."""

    @abstractmethod
    def there(self, path: Path) -> Path:
        """Where a path of the laptop is in the container, seen from here."""

    def sync(self) -> None:  # noqa: B027
        """Bring over what has changed, where that does not come by itself."""

    def sent(self) -> int | None:
        """Bytes sent so far, where they can be known."""
        return None

    def processes(self) -> tuple[list[int], list[int]]:
        """On the laptop, and in the container."""
        return [], []

    @abstractmethod
    def end(self) -> None:
        """Stop it."""


class Bench:
    """The cluster, and one dev container that all tools sync to."""

    def __init__(self, cluster: Cluster, folder: Path) -> None:
        self.cluster = cluster
        self.folder = folder
        kept = {k: v for k, v in os.environ.items() if not k.startswith("TOWLINE_")}
        self.environ = {
            **kept,
            "KUBECONFIG": cluster.kubeconfig,
            "XDG_STATE_HOME": str(folder / "state"),
        }
        self.kubectl = [*cluster.kubectl_binary(), "-n", NAMESPACE]

    def root_of(self, word: str) -> Path:
        """The file system of the container in which a process with this argument runs."""

        def found() -> Path | None:
            for each in Path("/proc").iterdir():
                try:
                    line = (each / "cmdline").read_bytes().split(b"\0")
                except (OSError, ValueError):
                    continue
                if line[:2] == [b"sleep", word.encode()]:
                    return each / "root"
            return None

        wait_for(found, f"a process with {word}")
        root = found()
        assert root is not None
        return root

    def pod(self) -> str:
        words = ["get", "pod", "-l", "app=dev", "-o", "jsonpath={.items[0].metadata.name}"]
        return subprocess.check_output([*self.kubectl, *words], text=True).strip()


def digest(path: Path) -> bytes | None:
    try:
        return path.read_bytes()
    except OSError:
        return None


def all_alike(tool: Tool) -> bool:
    for path in tool.local.rglob("*.py"):
        there = tool.there(path)
        try:
            if there.stat().st_size != path.stat().st_size:
                return False
        except OSError:
            return False
    return True


class Towline(Tool):
    name = "Towline"
    has_claim = False

    def begin(self) -> None:
        # The Deployment's own volume is at /work.
        remote = "/kept" if self.has_claim else "/work"
        text = MANIFEST.format(folder=self.local, remote=remote, mark=MARK)
        text += CLAIM if self.has_claim else ""
        (self.bench.folder / "towline.yml").write_text(text)
        self.process = subprocess.Popen(
            [TOWLINE, "up", "dev", "--mode", "sync", "-n", NAMESPACE, "--yes", "-o", "json"],
            cwd=self.bench.folder,
            env=self.bench.environ,
            stdin=subprocess.DEVNULL,
            stdout=subprocess.DEVNULL,
            stderr=subprocess.PIPE,
            text=True,
        )
        assert self.process.stderr is not None
        self.seconds = 0.0
        for line in self.process.stderr:
            if not line.startswith("{"):
                raise SystemExit(f"towline up: {line}{self.process.stderr.read()}")
            event = json.loads(line)
            if event.get("stage") == "sync":
                self.seconds = event["seconds"]
                break
        else:
            raise SystemExit("towline up did not get in step")
        self._root = self.bench.root_of(MARK)

    def there(self, path: Path) -> Path:
        return self._root / "work" / path.relative_to(self.local)

    def sent(self) -> int | None:
        words = [TOWLINE, "status", "-o", "json", "-n", NAMESPACE]
        figures = [-1]
        while len(figures) < 3 or figures[-1] - figures[-2] > 10_000:
            time.sleep(2.5)  # the session notes its figures every 2 s
            rows = json.loads(subprocess.check_output(words, env=self.bench.environ))["sessions"]
            figures.append(int(rows[0]["line"]["bytes_out"]))
        return figures[-1]

    def processes(self) -> tuple[list[int], list[int]]:
        agents = []
        for each in Path("/proc").iterdir():
            try:
                if b"/towline/" in (each / "cmdline").read_bytes().split(b"\0")[0] and (
                    (each / "root").stat().st_ino == self._root.stat().st_ino
                ):
                    agents.append(int(each.name))
            except (OSError, ValueError, IndexError):
                continue
        return [self.process.pid], agents

    def end(self) -> None:
        self.process.send_signal(signal.SIGINT)
        self.process.wait(60)


class Rsync(Tool):
    """Over `kubectl exec`; a save is an rsync of its own, as from an editor's hook."""

    name = "rsync"
    follows = False

    def begin(self) -> None:
        self._root = self.bench.root_of(PEERS_MARK)
        self._last = 0
        shell = self.bench.folder / "rsh"
        kubectl = " ".join(self.bench.kubectl)
        shell.write_text(f'#!/bin/sh\nshift\nexec {kubectl} exec -i {self.bench.pod()} -- "$@"\n')
        shell.chmod(0o755)
        began = time.perf_counter()
        self.sync()
        self.seconds = time.perf_counter() - began

    def sync(self) -> None:
        words = ["rsync", "-rlptz", "--delete", "--stats", "-e", str(self.bench.folder / "rsh")]
        done = subprocess.run(
            [*words, f"{self.local}/", f"pod:/peer/{self.local.name}/"],
            capture_output=True,
            text=True,
            check=True,
        )
        found = re.search(r"Total bytes sent: ([\d,]+)", done.stdout)
        self._last += int(found[1].replace(",", "")) if found else 0

    def there(self, path: Path) -> Path:
        return self._root / f"peer/{self.local.name}" / path.relative_to(self.local)

    def sent(self) -> int | None:
        return self._last

    def end(self) -> None:
        pass


CONFIG = """<configuration version="36">
  <folder id="f" path="{path}" type="sendreceive" rescanIntervalS="3600"
    fsWatcherEnabled="true" fsWatcherDelayS="1" ignorePerms="true">
    <filesystemType>basic</filesystemType>
    <device id="{ours}"></device><device id="{theirs}"></device>
  </folder>
  <device id="{ours}" compression="metadata"><address>dynamic</address></device>
  <device id="{theirs}" compression="metadata"><address>{address}</address></device>
  <gui enabled="true"><address>127.0.0.1:{gui}</address><apikey>bench</apikey></gui>
  <options>
    <listenAddress>tcp://127.0.0.1:{listen}</listenAddress>
    <globalAnnounceEnabled>false</globalAnnounceEnabled>
    <localAnnounceEnabled>false</localAnnounceEnabled>
    <relaysEnabled>false</relaysEnabled><natEnabled>false</natEnabled>
    <reconnectionIntervalS>1</reconnectionIntervalS>
    <urAccepted>-1</urAccepted><crashReportingEnabled>false</crashReportingEnabled>
    <autoUpgradeIntervalH>0</autoUpgradeIntervalH>
  </options>
</configuration>
"""


class Syncthing(Tool):
    """Debian's, through kubectl port-forward, with its smallest watch delay (1 s)."""

    name = "Syncthing"

    def begin(self) -> None:
        bench = self.bench
        self._root = bench.root_of(PEERS_MARK)
        home, theirs = bench.folder / "st-here", bench.folder / "st-there"
        ids = []
        for each in (home, theirs):
            shutil.rmtree(each, ignore_errors=True)
            subprocess.run(
                ["syncthing", "generate", f"--home={each}"], check=True, capture_output=True
            )
            words = ["syncthing", f"--home={each}", "--device-id"]
            ids.append(subprocess.check_output(words, text=True).strip())
        (home / "config.xml").write_text(
            CONFIG.format(
                path=self.local, ours=ids[0], theirs=ids[1], gui=18384, listen=22901,
                address="tcp://127.0.0.1:22902",
            )
        )  # fmt: skip
        (theirs / "config.xml").write_text(
            CONFIG.format(
                path=f"/peer/{self.local.name}", ours=ids[1], theirs=ids[0], gui=8384, listen=22902,
                address="dynamic",
            )
        )  # fmt: skip
        pod = bench.pod()
        (self.local / ".stfolder").mkdir(exist_ok=True)
        inside = self._root / f"peer/{self.local.name}/.stfolder"
        inside.mkdir(parents=True, exist_ok=True)
        for each in (self._root / f"peer/{self.local.name}", inside):
            os.chown(each, 10001, 10001)
        target = self._root / "tmp/st"
        shutil.rmtree(target, ignore_errors=True)
        shutil.copytree(theirs, target)
        subprocess.run(["chown", "-R", "10001:10001", target], check=True)
        began = time.perf_counter()
        words = ["syncthing", "serve", "--no-browser", "--no-restart"]
        log = (bench.folder / "syncthing.log").open("w")
        quiet = {"stdout": log, "stderr": log}
        inner = [*words, "--home=/tmp/st"]
        self._all = [subprocess.Popen([*bench.kubectl, "exec", pod, "--", *inner], **quiet)]
        # A forward whose first connection is refused ends.
        log_path = bench.folder / "syncthing.log"
        wait_for(lambda: ":22902) starting" in log_path.read_text(), "Syncthing in the container")
        forward = [*bench.kubectl, "port-forward", pod, "22902:22902"]
        self._all.append(subprocess.Popen(forward, **quiet))
        wait_for(lambda: is_listening(22902), "the port-forward")
        self._all.append(subprocess.Popen([*words, f"--home={home}"], **quiet))
        wait_for(lambda: all_alike(self), "Syncthing's first sync", within_s=300)
        self.seconds = time.perf_counter() - began

    def there(self, path: Path) -> Path:
        return self._root / f"peer/{self.local.name}" / path.relative_to(self.local)

    def sent(self) -> int | None:
        asked = urllib.request.Request(
            "http://127.0.0.1:18384/rest/system/connections", headers={"X-API-Key": "bench"}
        )
        with urllib.request.urlopen(asked) as answer:
            return int(json.load(answer)["total"]["outBytesTotal"])

    def processes(self) -> tuple[list[int], list[int]]:
        return [self._all[2].pid], []

    def end(self) -> None:
        for each in reversed(self._all):
            each.terminate()
            each.wait(20)
        kill = ["exec", self.bench.pod(), "--", "python3", "-c", KILL_SYNCTHING]
        subprocess.run([*self.bench.kubectl, *kill], check=False, capture_output=True)


def is_listening(port: int) -> bool:
    found = Path("/proc/net/tcp").read_text()
    return f"0100007F:{port:04X} 00000000:0000 0A" in found


KILL_SYNCTHING = """
import os, pathlib
for each in pathlib.Path("/proc").glob("[0-9]*"):
    try:
        if (each / "cmdline").read_bytes().startswith(b"syncthing"):
            os.kill(int(each.name), 9)
    except OSError:
        pass
"""

MUTAGEN = "github.com/mutagen-io/mutagen@v0.18.1"
# Mutagen reaches a container by `docker` or by these two; they go over `kubectl exec` here.
SSH = """#!/bin/sh
while :; do case "$1" in -*) shift;; *) break;; esac; done
shift
exec {kubectl} exec -i {pod} -- sh -c "cd /tmp; $*"
"""
SCP = """#!/bin/sh
while :; do case "$1" in -*) shift;; *) break;; esac; done
exec {kubectl} exec -i {pod} -- sh -c "cd /tmp; cat > ${{2#*:}}; chmod 755 ${{2#*:}}" < "$1"
"""


def built_mutagen() -> Path:
    """The program and its agent, built from the module once."""
    cache = Path(os.environ.get("XDG_CACHE_HOME", Path.home() / ".cache")) / "towline/bench-mutagen"
    if (cache / "mutagen-agents.tar.gz").exists():
        return cache
    cache.mkdir(parents=True, exist_ok=True)
    fetched = subprocess.check_output(["go", "mod", "download", "-json", MUTAGEN], cwd="/")
    source = json.loads(fetched)["Dir"]
    environ = {**os.environ, "CGO_ENABLED": "0", "GOFLAGS": "-buildvcs=false"}
    for name, tag, target in (
        ("mutagen", "mutagencli", "mutagen"),
        ("mutagen-agent", "mutagenagent", "linux_amd64"),
    ):
        words = ["go", "build", "-tags", tag, "-o", str(cache / target), f"./cmd/{name}"]
        subprocess.run(words, cwd=source, env=environ, check=True)
    words = ["tar", "czf", "mutagen-agents.tar.gz", "linux_amd64"]
    subprocess.run(words, cwd=cache, check=True)
    return cache


class Mutagen(Tool):
    """Over `kubectl exec`, with its defaults (two-way-safe)."""

    name = "Mutagen"

    def begin(self) -> None:
        bench = self.bench
        self._root = bench.root_of(PEERS_MARK)
        program = built_mutagen() / "mutagen"
        fakes = bench.folder / "mutagen-ssh"
        fakes.mkdir(exist_ok=True)
        for name, text in (("ssh", SSH), ("scp", SCP)):
            script = text.format(kubectl=" ".join(bench.kubectl), pod=bench.pod())
            (fakes / name).write_text(script)
            (fakes / name).chmod(0o755)
        environ = {
            **os.environ,
            "MUTAGEN_DATA_DIRECTORY": str(bench.folder / "mutagen"),
            "MUTAGEN_SSH_PATH": str(fakes),
        }

        def run(*words: str) -> None:
            subprocess.run([program, *words], env=environ, check=True, capture_output=True)

        self._run = run
        run("daemon", "start")
        began = time.perf_counter()
        run("sync", "create", "--name=bench", str(self.local), f"pod:/peer/{self.local.name}")
        wait_for(lambda: all_alike(self), "Mutagen's first sync", within_s=300)
        self.seconds = time.perf_counter() - began

    def there(self, path: Path) -> Path:
        return self._root / "peer" / self.local.name / path.relative_to(self.local)

    def processes(self) -> tuple[list[int], list[int]]:
        found = subprocess.check_output(["pgrep", "-f", "mutagen daemon run"], text=True).split()
        inside = ["pgrep", "-f", "mutagen-agent synchronizer"]
        agents = subprocess.check_output(inside, text=True).split()
        in_container = [p for p in agents if (Path("/proc") / p / "comm").read_text() != "sh\n"]
        return [int(found[0])], [int(p) for p in in_container if is_inside(int(p), self._root)]

    def end(self) -> None:
        self._run("sync", "terminate", "bench")
        self._run("daemon", "stop")


def is_inside(pid: int, root: Path) -> bool:
    """Whether a process has this root: kubectl's own has the name in its words, too."""
    try:
        return (Path("/proc") / str(pid) / "root").stat().st_ino == root.stat().st_ino
    except OSError:
        return False


TOOLS: dict[str, type[Tool]] = {
    "towline": Towline,
    "rsync": Rsync,
    "syncthing": Syncthing,
    "mutagen": Mutagen,
}


def measure(tool: Tool, found: dict[str, dict[str, str]]) -> None:
    """All rows for one tool that has just begun with the large tree."""

    def note(row: str, figure: str) -> None:
        print(f"  {tool.name}: {row}: {figure}", flush=True)
        found.setdefault(row, {})[tool.name] = figure

    wait_for(lambda: all_alike(tool), "the first sync", within_s=300)
    note(f"first sync, {LARGE:,} files, {LARGE_BYTES // 1_000_000} MB", f"{tool.seconds:.1f} s")
    chance = random.Random(5)
    files = sorted(tool.local.rglob("*.py"))
    times = []
    for _ in range(SAVES if tool.follows else SAVES // 6):
        path = chance.choice(files)
        content = os.urandom(3_000)
        time.sleep(0.05)
        began = time.perf_counter()
        path.write_bytes(content)
        tool.sync()
        wait_for(lambda path=path, content=content: digest(tool.there(path)) == content, "a save")
        times.append(time.perf_counter() - began)
    note("save → visible, p50 / p95", f"{ms(times):.0f} / {ms(times, 0.95):.0f} ms")
    began = time.perf_counter()
    for number, path in enumerate(files[:SWITCHED]):
        path.write_bytes(b"another branch's %d\n" % number * 150)
    written = time.perf_counter() - began
    tool.sync()
    wait_for(lambda: all_alike(tool), "the switch", within_s=300)
    whole = time.perf_counter() - began
    note(f"a switch of {SWITCHED:,} files", f"{whole:.1f} s (of it writing them: {written:.1f})")
    if (text := idle(tool)) is not None:
        note(f"memory and CPU of a core, idle, {LARGE:,} files: laptop / container", text)
    big = tool.local / "big.bin"
    block = os.urandom(1_000_000)
    big.write_bytes(b"".join(block[n:] + block[:n] for n in range(BIG_BYTES // len(block))))
    tool.sync()
    wait_for(lambda: size(tool.there(big)) == BIG_BYTES, "the large file", within_s=300)
    sent = tool.sent()
    with big.open("r+b") as file:
        file.seek(BIG_BYTES // 2)
        file.write(b"!")
    began = time.perf_counter()
    tool.sync()

    def is_there() -> bool:
        try:
            with tool.there(big).open("rb") as file:
                file.seek(BIG_BYTES // 2)
                return file.read(1) == b"!"
        except OSError:
            return False  # it is being replaced

    wait_for(is_there, "the changed byte", within_s=120)
    seconds = time.perf_counter() - began
    now = tool.sent()
    if sent is not None and now is not None:
        note("one byte changed in 200 MB", f"{(now - sent) / 1e6:.2f} MB sent, {seconds:.1f} s")


def idle(tool: Tool) -> str | None:
    """Memory and CPU with nothing to do: on the laptop, then in the container."""
    here, there = tool.processes()
    if not here:
        return None
    time.sleep(3)
    before, began = [cpu_s(pid) for pid in here + there], time.monotonic()
    time.sleep(20)
    over_s = time.monotonic() - began
    used = [after - was for after, was in zip(map(cpu_s, here + there), before, strict=True)]
    return " / ".join(
        f"{resident_mb(pid)} MB, {share / over_s * 100:.2f} %"
        for pid, share in zip(here + there, used, strict=True)
    )


def measure_memory(tool: Tool, found: dict[str, dict[str, str]]) -> None:
    wait_for(lambda: all_alike(tool), "the first sync", within_s=300)
    row = f"the same with {HUGE:,} files"
    text = idle(tool) or "–"
    print(f"  {tool.name}: {row}: {text}", flush=True)
    found.setdefault(row, {})[tool.name] = text


def measure_again(bench: Bench, local: Path, found: dict[str, dict[str, str]]) -> None:
    """A real `down` and `up` with a claim, and nothing changed in between."""
    tool = Towline(bench, local)
    tool.has_claim = True
    tool.begin()
    tool.end()
    time.sleep(2)
    tool.begin()
    text = f"{tool.seconds:.1f} s (of `up`'s sync stage)"
    tool.end()
    words = [TOWLINE, "down", "dev", "-n", NAMESPACE, "--volumes"]
    subprocess.run(words, env=bench.environ, cwd=bench.folder, check=False, capture_output=True)
    print(f"  {tool.name}: {AGAIN}: {text}", flush=True)
    found.setdefault(AGAIN, {})[tool.name] = text


def size(path: Path) -> int:
    try:
        return path.stat().st_size
    except OSError:
        return -1


def resident_mb(pid: int) -> int:
    found = re.search(r"VmRSS:\s+(\d+)", Path(f"/proc/{pid}/status").read_text())
    return int(found[1]) // 1024 if found else 0


AGAIN = f"started again, nothing changed, {LARGE:,} files, a claim"
WANTED = {
    f"first sync, {SMALL:,} files, 8 MB": "≤ 1.5 s",
    f"first sync, {LARGE:,} files, {LARGE_BYTES // 1_000_000} MB": "≤ 12 s",
    "save → visible, p50 / p95": "≤ 25 / ≤ 100 ms",
    f"a switch of {SWITCHED:,} files": "≤ 2.5 s",
    AGAIN: "≤ 1.5 s",
    "one byte changed in 200 MB": "≤ 2 MB",
    f"memory and CPU of a core, idle, {LARGE:,} files: laptop / container": "0.5 % each",
    f"the same with {HUGE:,} files": "≤ 150 MB / ≤ 40 MB, 0.5 % each",
}


# Where a peer is ahead, and why.
NOTES = (
    "- rsync has one changed byte there sooner, with three times the bytes: it reads both files "
    "once, while Towline also hashes the file whole before and after (SHA-256).",
    "- An idle Syncthing takes less on the laptop: it is the daemon alone, while Towline's figure "
    "is the whole session, with a sign of life each second and the look at what the container "
    "listens on.",
)


def written(
    found: dict[str, dict[str, str]], cluster: Cluster, names: list[str], failed: dict[str, str]
) -> str:
    head = (
        results(Table(), cluster)
        .partition("| what |")[0]
        .replace("make bench`", "make bench-sync`")
    )
    head = re.sub("median of .* said", "each row once, but for the saves", head)
    lines = [
        head.rstrip(),
        "",
        f"| what | {' | '.join(names)} | wanted |",
        "|---" * (len(names) + 2) + "|",
    ]
    for row, wanted in WANTED.items():
        cells = [found.get(row, {}).get(name, "–") for name in names]
        lines.append(f"| {row} | {' | '.join(cells)} | {wanted} |")
    lines += ["", *NOTES]
    lines += [f"\n{name} did not come to its end: {why}" for name, why in failed.items()]
    return "\n".join(lines) + "\n"


def measure_tool(each: str, bench: Bench, found: dict[str, dict[str, str]]) -> None:
    """All rows of one tool, each tree made anew."""
    sizes = [(SMALL, 8_000_000), (LARGE, LARGE_BYTES)]
    if each == "towline":
        sizes.append((HUGE, HUGE * 400))
    for count, size_bytes in sizes:
        local = bench.folder / f"{each}-{count}"
        make_tree(local, count=count, size=size_bytes)
        time.sleep(2.5)
        tool = TOOLS[each](bench, local)
        try:
            tool.begin()
            if count == LARGE:
                measure(tool, found)
            elif count == HUGE:
                measure_memory(tool, found)
            else:
                row = f"first sync, {SMALL:,} files, 8 MB"
                wait_for(lambda tool=tool: all_alike(tool), "the first sync", within_s=300)
                found.setdefault(row, {})[tool.name] = f"{tool.seconds:.1f} s"
                print(f"  {tool.name}: {row}: {tool.seconds:.1f} s", flush=True)
        finally:
            tool.end()
        if count == LARGE and each == "towline":
            measure_again(bench, local, found)
        shutil.rmtree(local)


def main() -> int:
    given = os.environ.get("TOWLINE_BENCH_SANDBOX")
    name = given or "bench-sync"
    only = os.environ.get("TOWLINE_BENCH_ONLY", ",".join(TOOLS)).split(",")
    folder = Path(tempfile.mkdtemp(prefix="towline-bench-sync-"))
    found: dict[str, dict[str, str]] = {}
    failed: dict[str, str] = {}
    try:
        if not given:
            subprocess.run([*SANDBOX, "up", "--name", name], check=True)
        load = [*SANDBOX, "image", str(ROOT / "benchmarks/peers"), "--load", "--name", name]
        subprocess.run(load, check=True, stdout=subprocess.DEVNULL)
        cluster = Cluster(name)
        namespace = {"apiVersion": "v1", "kind": "Namespace", "metadata": {"name": NAMESPACE}}
        for each in (namespace, deployment()):
            cluster.kubectl("apply", "-f", "-", text=json.dumps(each))
        wait = ["wait", "--for=condition=Available", "deploy/dev", "--timeout=120s"]
        cluster.kubectl("-n", NAMESPACE, *wait)
        for each in only:
            try:
                measure_tool(each, Bench(cluster, folder), found)
            except (Exception, SystemExit) as error:
                # A peer that is missing or hangs must not cost the others their rows.
                failed[TOOLS[each].name] = str(error).strip().splitlines()[0]
                print(f"  {TOOLS[each].name}: {error}", flush=True)
            text = written(found, cluster, [TOOLS[each].name for each in only], failed)
            (ROOT / "benchmarks/SYNC.md").write_text(text)
        cluster.kubectl("delete", "namespace", NAMESPACE, "--wait=false")
    finally:
        if not given:
            subprocess.run([*SANDBOX, "down", "--name", name], check=False)
        shutil.rmtree(folder, ignore_errors=True)
    return int("Towline" in failed)


if __name__ == "__main__":
    sys.exit(main())
