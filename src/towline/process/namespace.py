"""What one process sees of the disk: files of its own at the paths where it looks for them.

Loaded by helper.py, which is why it imports nothing that takes time, and run by itself
for the probe (`python -I -S namespace.py`). Linux only. As root a mount namespace is
enough; else a user namespace is made with it, in which the user keeps the own uid: the
rights to mount are the helper's until its end, and a command loses them by its exec.

Nothing on the laptop's disk is made or changed. A place that is not there is made in a
layer above the deepest folder that is: below /etc and /usr an overlay, where nothing is
mounted there; else a tmpfs into which each of the old entries is bound, since through an
overlay no socket is found, and what is written (in a home, in a project) would be lost.
"""

from __future__ import annotations

import ctypes
import os
import sys

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Iterable

_CLONE_NEWNS, _CLONE_NEWUSER = 0x20000, 0x10000000
_MS_RDONLY, _MS_REMOUNT, _MS_BIND, _MS_MOVE, _MS_REC, _MS_SLAVE = 1, 32, 4096, 8192, 16384, 1 << 19
_MNT_DETACH = 2
_PIVOT_ROOT = {"x86_64": 155, "aarch64": 41, "riscv64": 41}
# What a mount inherited from outside may not lose (mount_namespaces(7)): ST_* and MS_*
# are the same numbers for these.
_KEPT_FLAGS = 2 | 4 | 8 | 1024 | 2048 | 4096
_ST_RELATIME = 4096
_MS_RELATIME = 1 << 21

Bind = tuple[str, str, str]
"""Source, target, and `ro` (read only), `rw`, or `covered`: only where its folder is covered."""


class View:
    """The namespaces of this process, and what is mounted in them."""

    def __init__(self, binds: Iterable[Bind], *, scratch: str) -> None:
        self._binds = list(binds)
        self._scratch = scratch
        self._layers = 0
        # Folders whose content is ours to add to: overlays with all below them, others alone.
        self._overlays: list[str] = []
        self._own: set[str] = set()
        self._done: list[tuple[str, str]] = []

    def enter(self) -> None:
        """Make the namespaces. Raises OSError where that is not allowed."""
        uid, gid = os.geteuid(), os.getegid()
        if uid != 0 or not _unshared(_CLONE_NEWNS):
            _call("unshare", _CLONE_NEWUSER | _CLONE_NEWNS)
            for name, text in (
                ("setgroups", "deny"),
                ("uid_map", f"{uid} {uid} 1"),
                ("gid_map", f"{gid} {gid} 1"),
            ):
                with open(f"/proc/self/{name}", "w") as file:
                    file.write(text)
        # What the laptop mounts later comes in; what is mounted here does not get out.
        _mount("none", "/", flags=_MS_REC | _MS_SLAVE)

    def show(self) -> list[tuple[str, str]]:
        """Mount everything; the targets that could not be, each with the reason."""
        failed = []
        # Folders before what lies in them; files last, over folders that are covered.
        for source, target, how in sorted(self._binds, key=_order):
            try:
                if how == "covered" and not self._is_covered(os.path.dirname(target)):
                    continue
                self._show(source, target, is_read_only=how == "ro")
            except OSError as error:
                failed.append((target, error.strerror or str(error)))
        return failed

    def _show(self, source: str, target: str, *, is_read_only: bool) -> None:
        place = self._place(target, is_folder=os.path.isdir(source))
        _mount(source, place, flags=_MS_BIND)
        self._done.append((source, place))
        if is_read_only:
            _make_read_only(place)

    def renew(self) -> None:
        """Mount again what was lost: a file replaced by rename takes its mount with it."""
        for source, place in self._done:
            try:
                if not os.path.samestat(os.stat(source), os.stat(place)):
                    _mount(source, place, flags=_MS_BIND)
            except OSError:
                pass  # being replaced at this moment: the next look finds it

    # Places that are not there

    def _is_covered(self, folder: str) -> bool:
        folder = os.path.realpath(folder)
        return folder in self._own or any(_is_below(folder, each) for each in self._overlays)

    def _place(self, target: str, *, is_folder: bool) -> str:
        """The target's real path, made where it is missing."""
        found, missing = _deepest(target)
        if not missing and os.path.isdir(found) == is_folder:
            return found
        if not missing:
            found, missing = os.path.dirname(found), [os.path.basename(found)]
        if not self._is_covered(found):
            self._cover(found)
        for number, name in enumerate(missing, 1):
            found = found.rstrip("/") + "/" + name
            self._make(found, is_folder=is_folder or number < len(missing))
        return found

    def _make(self, path: str, *, is_folder: bool) -> None:
        # In a layer of ours: what is in the way here is in nobody else's.
        is_there = os.path.lexists(path)
        if is_there and (os.path.islink(path) or os.path.isdir(path) != is_folder):
            try:
                _call("umount2", os.fsencode(path), _MNT_DETACH)
            except OSError:
                pass  # an overlay's entry is no mount of its own
            if os.path.isdir(path) and not os.path.islink(path):
                os.rmdir(path)
            else:
                os.unlink(path)
            is_there = False
        if is_folder:
            self._own.add(path)
        if not is_there and is_folder:
            os.mkdir(path, 0o755)
        elif not is_there:
            os.close(os.open(path, os.O_CREAT | os.O_WRONLY, 0o644))

    def _cover(self, folder: str) -> None:
        if folder == "/":
            self._new_root()
        elif _is_read(folder) and not _has_mounts_below(folder) and self._overlay(folder):
            self._overlays.append(folder)
        else:
            _mount(self._with_entries_of(folder), folder, flags=_MS_MOVE)
            self._own.add(folder)

    def _layer(self) -> str:
        """A tmpfs of its own, that nobody else sees."""
        if not self._layers:
            _mount("towline", self._scratch, kind="tmpfs", data="mode=0700")
        self._layers += 1
        layer = f"{self._scratch}/{self._layers}"
        os.mkdir(layer)
        return layer

    def _overlay(self, folder: str) -> bool:
        layer = self._layer()
        upper, work = layer + "/upper", layer + "/work"
        os.mkdir(upper)
        os.mkdir(work)
        os.chmod(upper, os.stat(folder).st_mode & 0o7777)
        if any(each in folder + layer for each in ",:\\"):
            return False
        # userxattr: trusted ones are not for user namespaces; older kernels want neither.
        for more in (",userxattr", ""):
            try:
                data = f"lowerdir={folder},upperdir={upper},workdir={work}{more}"
                _mount("towline", folder, kind="overlay", data=data)
            except OSError:
                continue
            return True
        return False

    def _with_entries_of(self, folder: str) -> str:
        """A tmpfs in which each entry of the folder is bound."""
        made = self._layer()
        _mount("towline", made, kind="tmpfs", data="mode=0755")
        os.chmod(made, os.stat(folder).st_mode & 0o7777)
        for entry in os.scandir(folder):
            place = made + "/" + entry.name
            try:
                if entry.is_symlink():
                    os.symlink(os.readlink(entry.path), place)
                    continue
                if entry.is_dir():
                    os.mkdir(place)
                else:
                    os.close(os.open(place, os.O_CREAT | os.O_WRONLY, 0o600))
                _mount(entry.path, place, flags=_MS_BIND | _MS_REC)
            except OSError:
                continue  # gone meanwhile, or not for this user to see
        return made

    def _new_root(self) -> None:
        """A root to which folders can be added: pivot_root, or chroot where that is refused."""
        made = self._with_entries_of("/")
        folder = os.getcwd()
        os.chdir(made)
        try:
            _pivot_here()
        except OSError:
            os.chroot(".")
        self._own.add("/")
        os.chdir("/")
        try:
            os.chdir(folder)
        except OSError:
            pass  # each command has its own folder


def _pivot_here() -> None:
    number = _PIVOT_ROOT.get(os.uname().machine)
    if number is None:
        raise OSError(38, "pivot_root's number is not known here")
    # The old root ends up on top of the new one, and is taken off (pivot_root(2)).
    _call("syscall", number, b".", b".")
    _call("umount2", b".", _MNT_DETACH)


def _is_read(folder: str) -> bool:
    """Whether programs read there, and neither write nor meet each other's sockets."""
    return _is_below(folder, "/etc") or _is_below(folder, "/usr")


def _order(bind: Bind) -> tuple[bool, int, str]:
    source, target, _ = bind
    return not os.path.isdir(source), target.count("/"), target


def _deepest(path: str) -> tuple[str, list[str]]:
    """The deepest part of a path that is there, resolved, and the names that are missing."""
    missing: list[str] = []
    while not os.path.exists(path):
        path, name = os.path.split(path.rstrip("/"))
        missing.insert(0, name)
    found = os.path.realpath(path)
    if missing and not os.path.isdir(found):
        # A file is where a folder should be.
        missing.insert(0, os.path.basename(found))
        found = os.path.dirname(found)
    return found, missing


def _is_below(path: str, folder: str) -> bool:
    return path == folder or path.startswith(folder.rstrip("/") + "/")


def _has_mounts_below(folder: str) -> bool:
    with open("/proc/self/mountinfo", "rb") as file:
        points = [os.fsdecode(line.split()[4]) for line in file]
    # \040 and the like stand for blanks: none of ours has any, and a prefix is enough.
    return any(_is_below(point, folder) and point != folder for point in points)


def _make_read_only(place: str) -> None:
    """As the container's mounts are; without it where the kernel refuses."""
    has = os.statvfs(place).f_flag
    kept = has & _KEPT_FLAGS & ~_ST_RELATIME | (_MS_RELATIME if has & _ST_RELATIME else 0)
    try:
        _mount("none", place, flags=_MS_REMOUNT | _MS_BIND | _MS_RDONLY | kept)
    except OSError:
        pass


def _mount(source: str, target: str, *, kind: str = "", flags: int = 0, data: str = "") -> None:
    _call(
        "mount",
        os.fsencode(source),
        os.fsencode(target),
        kind.encode() or None,
        ctypes.c_ulong(flags),
        os.fsencode(data) or None,
    )


def _unshared(flags: int) -> bool:
    try:
        _call("unshare", flags)
    except OSError:
        return False
    return True


def _call(name: str, *arguments: object) -> None:
    libc = ctypes.CDLL(None, use_errno=True)
    if getattr(libc, name)(*arguments) < 0:
        number = ctypes.get_errno()
        raise OSError(number, f"{name}: {os.strerror(number)}")


def probe(scratch: str, binds: list[Bind]) -> str:
    """Try it all on a hosts file with a name that nobody else has; what stood in the way.

    Args:
        binds: what else is to be in place for the name to be found.
    """
    import _socket as socket

    hosts = scratch + "/hosts"
    with open(hosts, "w") as file:
        file.write("127.64.0.1 towline-probe.invalid\n")
    view = View([(hosts, "/etc/hosts", "rw"), *binds], scratch=scratch)
    try:
        view.enter()
        for _, reason in view.show():
            return reason
    except OSError as error:
        return error.strerror or str(error)
    try:
        found = socket.getaddrinfo("towline-probe.invalid", 1)
    except OSError:
        return "names are not looked up in /etc/hosts first"
    finally:
        os.unlink(hosts)
    return "" if found[0][4][0] == "127.64.0.1" else "names are not looked up in /etc/hosts first"


if __name__ == "__main__":
    more = sys.argv[2:]
    print(probe(sys.argv[1], list(zip(more[::3], more[1::3], more[2::3], strict=True))))
