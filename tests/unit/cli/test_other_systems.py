"""Every module is imported where the modules of one operating system alone are absent."""

from __future__ import annotations

import subprocess
import sys

_PROGRAM = """
import importlib, pkgutil, sys

# asyncssh asks sys.platform what it may import, which cannot be another one here.
import asyncssh

class Absent:
    names = {"fcntl", "termios", "tty", "pty", "resource", "pwd", "grp", "uvloop"}
    def find_spec(self, name, path=None, target=None):
        if name in self.names:
            raise ModuleNotFoundError(f"No module named {name!r}", name=name)

for name in Absent.names:
    sys.modules.pop(name, None)
sys.meta_path.insert(0, Absent())
import towline
failed = []
for found in pkgutil.walk_packages(towline.__path__, "towline."):
    if found.name.startswith("towline._sandbox"):
        continue
    try:
        importlib.import_module(found.name)
    except ImportError as error:
        failed.append(f"{found.name}: {error}")
print("\\n".join(failed))
sys.exit(bool(failed))
"""


def test_no_module_needs_what_other_systems_do_not_have() -> None:
    done = subprocess.run(
        [sys.executable, "-c", _PROGRAM], capture_output=True, text=True, timeout=30, check=False
    )
    assert done.returncode == 0, done.stdout + done.stderr
