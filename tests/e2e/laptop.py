"""Other laptops than the one the tests run on: an ordinary user's, one without namespaces."""

from __future__ import annotations

import os
import shlex
import shutil
import sys
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path

from .conftest import CHECKOUT, Towline

USER = 12345
# To root in a user namespace its own limits are open; nobody outside is concerned.
_NO_NAMESPACES = (
    "echo 0 > /proc/sys/user/max_user_namespaces; echo 0 > /proc/sys/user/max_mnt_namespaces; "
)


@contextmanager
def ordinary_user(towline: Towline, *, namespaces: bool = True) -> Iterator[Towline]:
    """`towline` as a user with no rights, with a home of its own."""
    home = Path(tempfile.mkdtemp(prefix="towline-user-"))
    try:
        shutil.copytree(towline.folder, home / "shop")
        shutil.copy(towline.kubeconfig, home / "kubeconfig")
        for each in (home, *home.rglob("*")):
            os.chown(each, USER, USER)
        user = f"setpriv --reuid {USER} --regid {USER} --clear-groups"
        forbidding = "" if namespaces else f"unshare -U -r sh -c '{_NO_NAMESPACES} exec \"$@\"' sh"
        script = f'{_passable(CHECKOUT, Path(sys.base_prefix))} exec {user} {forbidding} "$@"'
        yield replace(
            towline,
            home=home,
            folder=home / "shop",
            kubeconfig=str(home / "kubeconfig"),
            prefix=("unshare", "-m", "sh", "-e", "-c", script, "sh"),
            sessions=towline.sessions,
        )
    finally:
        shutil.rmtree(home, ignore_errors=True)


def _passable(*trees: Path) -> str:
    """Steps that let another user reach these folders, in a mount namespace of one's own."""
    steps = ""
    for place in dict.fromkeys(_closed(tree) for tree in trees):
        if place is None:
            continue
        inside = [tree for tree in trees if _closed(tree) == place]
        steps += "m=$(mktemp -d); mount -t tmpfs -o mode=755 towline $m; "
        for tree in inside:
            below = shlex.quote(str(tree.relative_to(place)))
            steps += f"mkdir -p $m/{below}; mount --bind {shlex.quote(str(tree))} $m/{below}; "
        steps += f"mount --move $m {shlex.quote(str(place))}; rmdir $m; "
    return steps


def _closed(tree: Path) -> Path | None:
    """The first folder on the way that others may not pass."""
    for each in reversed([tree, *tree.parents]):
        if not each.stat().st_mode & 0o001:
            return each
    return None
