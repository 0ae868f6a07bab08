"""`towline sandbox …`: hands the command line to the program in the folder `sandbox`.

A process of its own, not an import: the sandbox is no part of the client, and
its folder is not a package (an installed wheel has it as `towline/_sandbox`).
"""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import click

from towline.errors import TowlineError


class _Verbatim(click.Command):
    """Leaves every argument as it is, `--help` and `--` too: the program has its own parser."""

    def parse_args(self, ctx: click.Context, args: list[str]) -> list[str]:
        ctx.args = list(args)
        return []


@click.command(
    "sandbox",
    cls=_Verbatim,
    short_help="A real one-node Kubernetes on this machine (Linux, root).",
)
@click.pass_context
def sandbox(ctx: click.Context) -> None:
    """Run up, down, status, kubeconfig, load and more of the sandbox."""
    try:
        done = subprocess.run([sys.executable, str(_folder()), *ctx.args], check=False)
    except KeyboardInterrupt:  # the program had it too, and has said so
        ctx.exit(130)
    ctx.exit(done.returncode if done.returncode >= 0 else 128 - done.returncode)


def _folder() -> Path:
    package = Path(__file__).resolve().parents[1]
    # In the wheel beside the package's modules, in a checkout beside src.
    for folder in (package / "_sandbox", package.parents[1] / "sandbox"):
        if (folder / "__main__.py").is_file():
            return folder
    raise TowlineError(
        f"the sandbox's program is not part of this installation ({package})",
        hint="install towline from its wheel, or run `python3 sandbox` in a checkout",
    )
