"""What is written is read back by the programs that it is for."""

from __future__ import annotations

import io
import json
import os
import shutil
import subprocess
import sys
import threading
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import ClassVar

import pytest
from dotenv import dotenv_values
from hypothesis import HealthCheck, example, given, settings
from hypothesis import strategies as st

from towline.environ.dotenv import read_dotenv
from towline.environ.formats import Format, rendered
from towline.manifest.places import Findings

_PIECES = st.sampled_from(
    ["'", '"', "`", "\\", "\\\\", "\\n", "\n", "\r", "\r\n", "$", "${A}", "$A", "$$", "$(A)", "#",
     " # ", "=", " ", "\t", "é", "‘", "\u2029", "😀", "x", "export ", ";", "!", "%A%", "@(", "\x01"]
)  # fmt: skip
_TEXTS = st.one_of(
    st.lists(_PIECES, max_size=6).map("".join),
    st.text(st.characters(exclude_categories=["Cs"], exclude_characters="\0"), max_size=12),
).map(str.encode)
_BYTES = st.one_of(
    _TEXTS, st.binary(max_size=12).map(lambda b: b.replace(b"\0", b"\xff"))
)  # fmt: skip
_NAMES = st.one_of(
    st.sampled_from([b"A", b"b_1", b"a.b-c", b"1N", b"sp ace", b"caf\xe9", b"#x", b"UID", b"x'y"]),
    st.from_regex(rb"[A-Z]{1,3}", fullmatch=True).map(lambda n: b"V_" + n),
)
ENVIRONMENTS = st.dictionaries(_NAMES, _BYTES, max_size=8)
HARD = {
    b"QUOTES": b'it\'s "quoted"',
    b"TWO_LINES": b"one\ntwo\n",
    b"DOLLARS": b"$HOME ${HOME} $(id) `id`",
    b"EQUALS": b"a=b=c",
    b"RAW": b"\xff\xfe",
    b"KEY": b"-----BEGIN KEY-----\nMII+/=\n-----END KEY-----\n",
    b"JSON": b'{"a": ["b", null], "c": "\\n"}',
    b"EMPTY": b"",
    b"HASH": b"pass # word",
    b"PATHS": b"C:\\dir\\new",
    b"SPACES": b"  x  ",
}
_SLOW = [HealthCheck.too_slow, HealthCheck.function_scoped_fixture]


@pytest.mark.parametrize("shell", ["dash", "bash", "zsh", "busybox"])
def test_a_shell_reads_it(shell: str, tmp_path: Path) -> None:
    if shutil.which(shell) is None:
        pytest.skip(f"there is no {shell} here")
    words = [shell, "sh"] if shell == "busybox" else [shell]
    script = tmp_path / "env.sh"

    @settings(max_examples=30)
    @example(HARD)
    @given(ENVIRONMENTS)
    def read_back(values: dict[bytes, bytes]) -> None:
        made = rendered(values, Format.SH)
        script.write_bytes(made.content)
        then = ["-c", '. "$0" && exec env -0', str(script)]
        done = subprocess.run(
            [*words, *then], env={"PATH": os.environ["PATH"]}, capture_output=True, check=True
        )
        got = dict(e.split(b"=", 1) for e in done.stdout.split(b"\0") if e)
        expected = {n: v for n, v in values.items() if n not in made.left_out}
        assert {n: got.get(n) for n in expected} == expected

    read_back()


def test_what_a_shell_cannot_have_is_named() -> None:
    values = {b"a.b": b"1", b"1N": b"1", b"UID": b"1", b"OK": b"1"}
    made = rendered(values, Format.SH)
    assert made.left_out == {
        b"1N": "a shell has no such names",
        b"a.b": "a shell has no such names",
        b"UID": "shells have it as a constant of their own",
    }
    assert made.content == b"export OK='1'\n"


@settings(max_examples=300)
@example(HARD)
@given(ENVIRONMENTS)
def test_python_dotenv_reads_it(values: dict[bytes, bytes]) -> None:
    made = rendered(values, Format.DOTENV)
    got = dotenv_values(stream=io.StringIO(made.content.decode(), newline=""), interpolate=False)
    expected = {n.decode(): v.decode() for n, v in values.items() if n not in made.left_out}
    assert got == expected
    plain = {n: v for n, v in expected.items() if n.encode() not in made.notes}
    stream = io.StringIO(made.content.decode(), newline="")
    expanded = dotenv_values(stream=stream, interpolate=True)
    assert {n: expanded[n] for n in plain} == plain, "no note, no surprise"


@settings(max_examples=300)
@example(HARD)
@given(ENVIRONMENTS)
def test_env_files_read_it(values: dict[bytes, bytes]) -> None:
    made = rendered(values, Format.DOTENV)
    findings = Findings()
    read = read_dotenv(
        made.content.decode(), file="f", variables={"A": "1", "id": "1"}, findings=findings
    )
    expected = {
        n.decode(): v.decode()
        for n, v in values.items()
        if n not in made.left_out and "python-dotenv:" not in made.notes.get(n, "")
    }
    got = {a.name: a.value for a in read}
    assert {n: got.get(n) for n in expected} == expected
    assert not findings.errors


def _node_reads_env_files() -> bool:
    node = shutil.which("node")
    if node is None:
        return False
    said = subprocess.run([node, "--version"], capture_output=True, text=True, check=True).stdout
    return int(said[1:].split(".")[0]) >= 20


@pytest.mark.skipif(not _node_reads_env_files(), reason="no Node.js 20 here")
def test_node_reads_it(tmp_path: Path) -> None:
    file = tmp_path / ".env"
    script = (
        "const u=require('util');const fs=require('fs');"
        "process.stdout.write(JSON.stringify(u.parseEnv(fs.readFileSync(process.argv[1],'utf8'))))"
    )

    @settings(max_examples=25, suppress_health_check=_SLOW)
    @example(HARD)
    @example({b"V0": b'"\r\n', b"V1": b""})  # V1 was read as a part of V0
    @example({b"V0": b'"\r\n', b"V1": b"${A}"})  # and so was this one
    @given(
        st.lists(_BYTES, max_size=25).map(lambda each: {b"V%d" % n: v for n, v in enumerate(each)})
    )
    def read_back(values: dict[bytes, bytes]) -> None:
        made = rendered(values, Format.DOTENV)
        file.write_bytes(made.content)
        words = ["node", "-e", script, str(file)]
        got = json.loads(subprocess.run(words, capture_output=True, check=True).stdout)
        expected = {
            n.decode(): v.decode()
            for n, v in values.items()
            if n not in made.left_out and "python-dotenv:" not in made.notes.get(n, "")
        }
        assert {n: got.get(n) for n in expected} == expected

    read_back()


def read_docker(content: bytes) -> dict[str, str]:
    """The rules of docker's CLI (pkg/kvfile): lines, no quotes, UTF-8."""
    found: dict[str, str] = {}
    for number, line in enumerate(content.split(b"\n")):
        assert len(line) < 64 * 1024, "bufio.Scanner: token too long"
        text = line.removesuffix(b"\r").decode()
        text = text.removeprefix("\ufeff") if number == 0 else text
        text = text.lstrip()
        if not text or text.startswith("#"):
            continue
        name, equals, value = text.partition("=")
        assert name, "no variable name on line"
        assert not any(c.isspace() for c in name), "contains whitespaces"
        if equals:
            found[name] = value
    return found


@settings(max_examples=300)
@example(HARD)
@example({b"LONG": b"x" * 70_000})
@given(ENVIRONMENTS)
def test_docker_reads_it(values: dict[bytes, bytes]) -> None:
    made = rendered(values, Format.DOCKER)
    expected = {n.decode(): v.decode() for n, v in values.items() if n not in made.left_out}
    assert read_docker(made.content) == expected
    assert all(
        b"\n" in values[n] or values[n].endswith(b"\r") or len(values[n]) > 60_000
        or not _is_text(n, values[n]) or n in (b"sp ace", b"#x")
        for n in made.left_out
    ), "nothing more than must be"  # fmt: skip


def _is_text(*of: bytes) -> bool:
    try:
        b" ".join(of).decode()
    except UnicodeDecodeError:
        return False
    return True


class _Daemon(BaseHTTPRequestHandler):
    """As much of docker's daemon as `docker create` asks for; keeps what it was told."""

    environments: ClassVar[list[list[str]]] = []

    def do_GET(self) -> None:
        self._answer({})

    do_HEAD = do_GET

    def do_POST(self) -> None:
        body = json.loads(self.rfile.read(int(self.headers["Content-Length"])))
        self.environments.append(body["Env"] or [])
        self._answer({"Id": "c" * 64, "Warnings": []}, status=201)

    def _answer(self, answer: object, *, status: int = 200) -> None:
        body = json.dumps(answer).encode()
        self.send_response(status)
        self.send_header("API-Version", "1.44")
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        if self.command != "HEAD":
            self.wfile.write(body)

    def log_message(self, *_: object) -> None:
        pass


@pytest.mark.skipif(shutil.which("docker") is None, reason="no docker command here")
def test_the_docker_command_reads_it(tmp_path: Path) -> None:
    file = tmp_path / "env"
    server = ThreadingHTTPServer(("127.0.0.1", 0), _Daemon)
    thread = threading.Thread(target=server.serve_forever)
    thread.start()
    environ = {"PATH": os.environ["PATH"], "HOME": str(tmp_path)}
    host = f"tcp://127.0.0.1:{server.server_address[1]}"

    @settings(max_examples=15, suppress_health_check=_SLOW)
    @example(HARD)
    @example({b"EDGE": b"x" * (64 * 1024 - 6)})
    @given(ENVIRONMENTS)
    def read_back(values: dict[bytes, bytes]) -> None:
        made = rendered(values, Format.DOCKER)
        file.write_bytes(made.content)
        words = ["docker", "-H", host, "create", "--pull=never", "--env-file", str(file), "image"]
        subprocess.run(words, env=environ, capture_output=True, check=True)
        got = dict(entry.split("=", 1) for entry in _Daemon.environments[-1])
        assert got == {n.decode(): v.decode() for n, v in values.items() if n not in made.left_out}

    try:
        read_back()
    finally:
        server.shutdown()
        thread.join()
        server.server_close()


@given(ENVIRONMENTS)
def test_python_reads_its_json_with_every_byte(values: dict[bytes, bytes]) -> None:
    made = rendered(values, Format.JSON)
    got = json.loads(made.content)
    assert {os.fsencode(n): os.fsencode(v) for n, v in got.items()} == values
    assert not made.left_out


@pytest.mark.skipif(shutil.which("pwsh") is None, reason="no PowerShell here")
def test_powershell_reads_it(tmp_path: Path) -> None:
    script = tmp_path / "env.ps1"
    show = f". {script}; & '{sys.executable}' -c 'import os; print(ascii(dict(os.environb)))'"

    @settings(max_examples=10, suppress_health_check=_SLOW)
    @example(HARD)
    @given(ENVIRONMENTS)
    def read_back(values: dict[bytes, bytes]) -> None:
        made = rendered(values, Format.PS1)
        script.write_bytes(made.content)
        done = subprocess.run(
            ["pwsh", "-NoProfile", "-Command", show], capture_output=True, check=True
        )
        got = eval(done.stdout)
        expected = {n: v for n, v in values.items() if n not in made.left_out | made.notes.keys()}
        assert {n: got.get(n) for n in expected} == expected

    read_back()


def test_powershell_is_written_in_ascii() -> None:
    values = {
        b"A": "it’s 'x'\n".encode(),
        b"E": b"",
        b"R": b"\xff",
        b"P": b"$x `n",
        b"U": "😀".encode(),
    }
    made = rendered(values, Format.PS1)
    set_ = "[Environment]::SetEnvironmentVariable"
    assert made.content.decode("ascii").splitlines() == [
        f"{set_}('A', ('it' + [string]::new([char[]](8217)) + 's ' + "
        "[string]::new([char[]](39)) + 'x' + [string]::new([char[]](39,10))), 'Process')",
        f"{set_}('E', '', 'Process')",
        f"{set_}('P', '$x `n', 'Process')",
        f"{set_}('U', [string]::new([char[]](55357,56832)), 'Process')",
    ]
    assert made.left_out == {b"R": "it is not UTF-8"}
    assert made.notes == {b"E": "PowerShell before 7.5 takes an empty value for none"}
