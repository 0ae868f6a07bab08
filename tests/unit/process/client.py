"""What a CLI does around `supervised`, as a program for the tests to run in a terminal.

    client.py COMMAND [ARGUMENT…]

Speaks on stderr: `PID n`, `PAUSED`, `ENDED n`. After PAUSED it reads a line and resumes.
"""

from __future__ import annotations

import asyncio
import os
import sys
from pathlib import Path

from towline.manifest.model import Command
from towline.process import Rung, supervised

LADDER = (Rung(2, 0.5), Rung(15, 0.5), Rung(9, 5.0))


def say(*words: object) -> None:
    # In one piece: the command writes to the same terminal at the same time.
    os.write(2, (" ".join(map(str, words)) + "\n").encode())


async def main(argv: list[str]) -> int:
    paused = asyncio.Event()
    command = Command(shell=argv[1]) if argv[0] == "-c" else Command(argv=tuple(argv))
    async with supervised(
        command=command,
        env=dict(os.environb),
        cwd=Path.cwd(),
        terminal=True,
        ladder=LADDER,
        on_stopped=paused.set,
    ) as process:
        say("PID", process.pid)
        ended = asyncio.ensure_future(process.ended())
        while not ended.done():
            pause = asyncio.ensure_future(paused.wait())
            await asyncio.wait({pause, ended}, return_when=asyncio.FIRST_COMPLETED)
            pause.cancel()
            if paused.is_set():
                paused.clear()
                say("PAUSED")
                await asyncio.to_thread(sys.stdin.readline)
                process.resume()
        ending = ended.result()
    say("ENDED", ending.exit_code)
    return ending.exit_code


if __name__ == "__main__":
    sys.exit(asyncio.run(main(sys.argv[1:])))
