"""Runs a Python program, and runs it anew whenever a file beside it changes."""

from __future__ import annotations

import subprocess
import sys
import time
from pathlib import Path

LOOK_EVERY_S = 0.05


def versions(folder: Path) -> dict[Path, int]:
    return {path: path.stat().st_mtime_ns for path in folder.glob("*.py")}


def main() -> None:
    program = Path(sys.argv[1])
    while True:
        seen = versions(program.parent)
        process = subprocess.Popen([sys.executable, program, *sys.argv[2:]])
        while versions(program.parent) == seen:
            time.sleep(LOOK_EVERY_S)
        process.terminate()
        process.wait()


if __name__ == "__main__":
    main()
