"""What a command sees of the disk, in real namespaces of its own."""

from __future__ import annotations

import asyncio
import os
from pathlib import Path

import pytest

from towline.manifest.model import Command
from towline.process import supervised
from towline.process.view import Bind, View, probe


@pytest.fixture
async def scratch(tmp_path: Path) -> Path:
    """A folder for the kernel's layers; skips where no namespaces are to be had."""
    folder = tmp_path / "scratch"
    folder.mkdir(mode=0o700)
    refused = await probe(folder)
    if refused:
        pytest.skip(f"no namespaces here: {refused}")
    assert list(folder.iterdir()) == []
    return folder


async def shown(script: str, view: View, cwd: Path) -> tuple[list[str], list[str]]:
    """What a shell script prints in a view, and what could not be shown."""
    output, unseen = cwd / "output", []
    async with supervised(
        command=Command(shell=f"exec 2>&1; {script}"),
        env={b"PATH": os.environb[b"PATH"]},
        cwd=cwd,
        terminal=False,
        output=output,
        view=view,
        on_unseen=unseen.append,
    ) as process:
        await process.ended()
    return output.read_text().splitlines(), unseen


def file(path: Path, text: str) -> str:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(text)
    return str(path)


def state(path: str) -> tuple[bytes | None, list[Path]]:
    """What is at a path, and what is at the top of the disk."""
    there = Path(path)
    return there.read_bytes() if there.exists() else None, sorted(Path("/").iterdir())


@pytest.mark.parametrize(
    "target",
    [
        "/etc/hosts",
        "/etc/towline-test/config.yml",
        "/towline-test/deep/below/config.yml",
        "/var/run/towline-test/token",
        "/usr/share/towline-test/data",
        "/opt/towline-test",
    ],
)
async def test_a_file_is_at_any_path_and_the_disk_is_as_it_was(
    scratch: Path, tmp_path: Path, target: str
) -> None:
    source = file(tmp_path / "ours", "shown\n")
    before = state(target)
    view = View(binds=(Bind(source=source, target=target),), scratch=str(scratch))
    said, unseen = await shown(f"cat {target}; echo more > {target}; pwd; id -u", view, tmp_path)
    assert (unseen, said[0]) == ([], "shown")
    assert "Read-only file system" in said[1]
    assert said[2:] == [str(tmp_path), str(os.getuid())]
    assert state(target) == before
    assert state(source)[0] == b"shown\n"


async def test_a_folder_and_one_within_it(scratch: Path, tmp_path: Path) -> None:
    file(tmp_path / "root/app/a", "a\n")
    file(tmp_path / "root/app/secret/b", "b\n")
    binds = tuple(
        Bind(source=str(tmp_path / "root" / name), target=f"/towline-test/{name}")
        for name in ("app/secret", "app")
    )
    view = View(binds=binds, scratch=str(scratch))
    said, unseen = await shown("cd /towline-test/app; cat a secret/b", view, tmp_path)
    assert (unseen, said) == ([], ["a", "b"])


async def test_what_is_in_the_way_is_shown_as_it_is_elsewhere(
    scratch: Path, tmp_path: Path
) -> None:
    """A file where a folder is wanted; the rest of that folder stays usable, and writable."""
    laptop = tmp_path / "laptop"
    file(laptop / "config", "a file\n")
    file(laptop / "other/kept", "kept\n")
    file(tmp_path / "ours/x", "x\n")
    target = str(laptop / "config/below")
    view = View(binds=(Bind(source=str(tmp_path / "ours"), target=target),), scratch=str(scratch))
    script = f"cat {target}/x {laptop}/other/kept; echo new > {laptop}/other/new"
    said, unseen = await shown(script, view, tmp_path)
    assert (unseen, said) == ([], ["x", "kept"])
    assert (laptop / "config").read_text() == "a file\n"
    assert (laptop / "other/new").read_text() == "new\n", "its own files are really written"


async def test_the_laptops_own_file_is_replaced_by_rename(scratch: Path, tmp_path: Path) -> None:
    """A rename takes what is mounted on the old file with it: a VPN that writes /etc/hosts."""
    laptop, ours = tmp_path / "laptop/hosts", tmp_path / "ours"
    file(laptop, "the laptop's\n")
    file(ours, "ours\n")
    view = View(binds=(Bind(source=str(ours), target=str(laptop), how="rw"),), scratch=str(scratch))
    output = tmp_path / "output"
    async with supervised(
        command=Command(shell=f"while sleep 0.05; do cat {laptop}; done"),
        env={b"PATH": os.environb[b"PATH"]},
        cwd=tmp_path,
        terminal=False,
        output=output,
        view=view,
    ):
        await seen(output, "ours")
        (tmp_path / "laptop/new").write_text("the VPN's\n")
        (tmp_path / "laptop/new").replace(laptop)
        await seen(output, "the VPN's")
        await seen(output, "ours")
        ours.write_text("ours, changed in place\n")
        await seen(output, "ours, changed in place")
    assert laptop.read_text() == "the VPN's\n"


async def seen(output: Path, line: str) -> None:
    """Wait until the command's last line is this one."""
    async with asyncio.timeout(10):
        while last_line(output) != line:  # noqa: ASYNC110 - a file tells nobody
            await asyncio.sleep(0.02)


def last_line(output: Path) -> str:
    lines = output.read_text().splitlines() if output.exists() else []
    return lines[-1] if lines else ""


async def test_what_cannot_be_shown_is_told_and_the_command_runs(
    scratch: Path, tmp_path: Path
) -> None:
    binds = (
        Bind(source=str(tmp_path / "missing"), target="/etc/hostname"),
        Bind(source=file(tmp_path / "ours", "shown\n"), target="/etc/towline-test"),
    )
    view = View(binds=binds, scratch=str(scratch))
    said, unseen = await shown("cat /etc/towline-test", view, tmp_path)
    assert said == ["shown"]
    assert len(unseen) == 1 and unseen[0].startswith("/etc/hostname: ")
