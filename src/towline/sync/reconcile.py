"""The three-way merge: ancestor, laptop, container → what changes on each side [pure].

Per path: what one side changed goes to the other. Where both changed, the laptop's stays
and the container's is put beside it; at a first sync, where there is no ancestor, it is
kept on the laptop instead. What only the container has then is *foreign*: it stays there.
A deletion goes over only for what was in step, and never takes what the other side changed.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass, field, replace
from enum import Enum, StrEnum, auto
from functools import partial

from towline.sync.deletions import NOTHING_BEFORE, Before
from towline.sync.folding import NOTHING_FOLDED, Folding
from towline.sync.model import (
    FOLDER,
    NAME_BYTES_AT_MOST,
    Change,
    Entry,
    Kind,
    Tree,
    is_folder,
    is_other,
    parent,
    same,
    tree_order,
)

# Fewer deletions than these at once are never asked about.
_DELETIONS_UNASKED = 20
# Larger files of the container are put beside the laptop's instead of kept on the laptop.
KEPT_BYTES_AT_MOST = 32 << 20


class Reason(StrEnum):
    """Why a sync stops and asks."""

    ROOT_GONE = "root-gone"
    ROOT_NO_FOLDER = "root-is-no-folder"
    ROOT_OTHER_DISK = "root-on-another-disk"
    ROOT_EMPTIED = "root-emptied"
    MANY_DELETIONS = "many-deletions"


@dataclass(frozen=True, slots=True)
class Halt:
    """A sync that stopped: on whose side what was found."""

    reason: Reason
    side: str
    text: str


@dataclass(frozen=True, slots=True)
class Aside:
    """The container's version of a conflict, and the path it gets there.

    Attributes:
        stays: by a second name, so that the file is never away; it is replaced afterwards.
    """

    path: bytes
    entry: Entry
    beside: bytes
    stays: bool


@dataclass(frozen=True, slots=True, kw_only=True)
class Merge:
    """What a pass does.

    Attributes:
        laptop, container: in the order to do them: deletions from the inside out, then
            the rest from the outside in.
        asides: in the container, before anything else there.
        kept: of a first sync: what the container had, fetched before it is replaced.
        agreed: the ancestor's new entries that need no change on either side.
        foreign: the topmost paths that are the container's alone.
        halts: when there are any, nothing is to be done.
        clashes: paths of the container that the laptop's disk takes for another one.
    """

    laptop: tuple[Change, ...] = ()
    container: tuple[Change, ...] = ()
    asides: tuple[Aside, ...] = ()
    kept: tuple[tuple[bytes, Entry], ...] = ()
    agreed: Mapping[bytes, Entry | None]
    foreign: frozenset[bytes]
    halts: tuple[Halt, ...] = ()
    clashes: Mapping[bytes, bytes] = field(default_factory=dict)

    @property
    def is_quiet(self) -> bool:
        """Whether both sides are in step already."""
        return not (self.laptop or self.container or self.asides or self.halts)


class _Fate(Enum):
    BOTH = auto()  # both sides have `target` afterwards (None: neither)
    FOREIGN = auto()  # stays in the container alone
    HELD = auto()  # differs, and stays so


class _Old(Enum):
    """What becomes of a container's version that is replaced though nobody saw it."""

    NOTHING = auto()
    ASIDE = auto()
    KEPT = auto()


@dataclass(frozen=True, slots=True)
class _Decided:
    fate: _Fate
    target: Entry | None = None
    old: _Old = _Old.NOTHING


_NEITHER = _Decided(_Fate.BOTH)
_FOREIGN = _Decided(_Fate.FOREIGN)
_HELD = _Decided(_Fate.HELD)


def nothing_stays_away(_: bytes) -> bool:
    """For folders without a .gitignore."""
    return False


def reconcile(
    ancestor: Tree,
    laptop: Tree,
    container: Tree,
    *,
    is_first: bool,
    foreign: frozenset[bytes] = frozenset(),
    stays_away: Callable[[bytes], bool] = nothing_stays_away,
    accept_deletions: bool = False,
    folding: Folding = NOTHING_FOLDED,
    laptop_before: Before = NOTHING_BEFORE,
    container_before: Before = NOTHING_BEFORE,
) -> Merge:
    """Merge whole trees.

    Args:
        is_first: there is no ancestor of these two roots.
        foreign: as the pass before left it.
        stays_away: whether the container's version of a path does not come to the laptop.
        accept_deletions: do what would halt otherwise.
        folding: what the laptop's disk does not tell apart.
        laptop_before, container_before: what that side deleted just before, and belongs to
            what it has deleted now.
    """
    paths = sorted({*ancestor, *laptop, *container}, key=tree_order)
    first_paths = _all_below(paths, foreign) if not is_first else frozenset()
    decided = {
        path: _decide(
            ancestor.get(path),
            laptop.get(path),
            container.get(path),
            is_first=is_first or path in first_paths,
            stays_away=partial(stays_away, path),
        )
        for path in paths
    }
    wanted = (p for p, it in decided.items() if it.fate is _Fate.BOTH and it.target is not None)
    clashes = folding.clashes(_with_folders(wanted), laptop) if folding else {}
    for path in clashes:
        decided[path] = _HELD
    _hold_below_others(paths, decided, laptop, container, clashes)
    _keep_what_is_below(paths, decided, laptop, container)
    merge = _changes(paths, decided, ancestor, laptop, container, foreign)
    merge = replace(merge, clashes=clashes)
    halts: tuple[Halt, ...] = ()
    if not (accept_deletions or is_first):
        halts = _halts(
            ancestor,
            ("laptop", laptop, laptop_before, merge.container),
            ("container", container, container_before, merge.laptop),
        )
    if halts:
        return Merge(agreed={}, foreign=foreign, halts=halts)
    return merge


def reconcile_paths(
    paths: Iterable[bytes],
    ancestor: Tree,
    laptop: Tree,
    container: Tree,
    *,
    foreign: frozenset[bytes],
    stays_away: Callable[[bytes], bool] = nothing_stays_away,
    folding: Folding = NOTHING_FOLDED,
) -> Merge | None:
    """Merge a few files whose folders are in step, or None where that is not all there is.

    A save must not cost a walk over 20,000 entries.
    """
    paths = sorted(set(paths), key=tree_order)
    trees = (ancestor, laptop, container)
    decided = {}
    for path in paths:
        above = parent(path)
        if above and not all(is_folder(tree.get(above)) for tree in trees):
            return None
        if path in foreign or any(is_folder(tree.get(path)) for tree in trees):
            return None
        decided[path] = _decide(
            *(tree.get(path) for tree in trees),
            is_first=False,
            stays_away=partial(stays_away, path),
        )
        if decided[path].fate is not _Fate.BOTH:
            return None
    merge = _changes(paths, decided, ancestor, laptop, container, foreign)
    if any(change.new is None for change in (*merge.laptop, *merge.container)):
        # An emptied root, and many deletions, are seen by the whole.
        return None
    if folding and any(change.old is None for change in merge.laptop):
        # So is another name that the disk takes for the new one.
        return None
    return merge


def _decide(
    anc: Entry | None,
    lap: Entry | None,
    con: Entry | None,
    *,
    is_first: bool,
    stays_away: Callable[[], bool],
) -> _Decided:
    if is_other(lap) or is_other(con):
        return _HELD
    if same(lap, con):
        return _Decided(_Fate.BOTH, lap)
    if is_first:
        return _decide_first(lap, con)
    if same(con, anc):
        return _Decided(_Fate.BOTH, lap)
    if lap is None or same(lap, anc):
        if stays_away():
            return _HELD if lap is not None else _FOREIGN if con is not None else _NEITHER
        return _Decided(_Fate.BOTH, con)
    if con is None:
        return _Decided(_Fate.BOTH, lap)
    return _Decided(_Fate.BOTH, lap, _Old.ASIDE)


def _decide_first(lap: Entry | None, con: Entry | None) -> _Decided:
    if lap is None:
        return _FOREIGN
    if con is None:
        return _Decided(_Fate.BOTH, lap)
    if is_folder(con):
        # What is in it is decided by itself: it may have to be put aside for that.
        return _Decided(_Fate.BOTH, lap)
    if con.size > KEPT_BYTES_AT_MOST:
        return _Decided(_Fate.BOTH, lap, _Old.ASIDE)
    return _Decided(_Fate.BOTH, lap, _Old.KEPT)


def _all_below(paths: list[bytes], tops: frozenset[bytes]) -> frozenset[bytes]:
    """Those of the paths that are foreign, or in a folder that is."""
    if not tops:
        return tops
    below: set[bytes] = set()
    for path in paths:
        if path in tops or parent(path) in below:
            below.add(path)
    return frozenset(below)


def _with_folders(paths: Iterable[bytes]) -> set[bytes]:
    """The paths and the folders above them, which stay for them where they would go."""
    found: set[bytes] = set()
    for path in paths:
        while path and path not in found:
            found.add(path)
            path = parent(path)
    return found


def _hold_below_others(
    paths: list[bytes],
    decided: dict[bytes, _Decided],
    laptop: Tree,
    container: Tree,
    clashes: Mapping[bytes, bytes],
) -> None:
    """A folder that cannot be read says nothing of what is in it."""
    held: set[bytes] = set()
    for path in paths:
        is_held = is_other(laptop.get(path)) or is_other(container.get(path)) or path in clashes
        if is_held or parent(path) in held:
            held.add(path)
            decided[path] = _HELD


def _keep_what_is_below(
    paths: list[bytes], decided: dict[bytes, _Decided], laptop: Tree, container: Tree
) -> None:
    """See that no folder goes in which something stays; corrects `decided` in place."""
    shared: set[bytes] = set()
    foreign: set[bytes] = set()
    for path in reversed(paths):
        it = decided[path]
        if path in shared or path in foreign:
            it = _with_something_below(
                it, laptop.get(path), container.get(path), is_shared=path in shared
            )
            decided[path] = it
        if it.fate is _Fate.FOREIGN or (it.fate is _Fate.HELD and path not in laptop):
            foreign.add(parent(path))
        elif it.fate is _Fate.HELD or it.target is not None:
            shared.add(parent(path))


def _with_something_below(
    it: _Decided,
    lap: Entry | None,
    con: Entry | None,
    *,
    is_shared: bool,
) -> _Decided:
    if is_folder(it.target):
        return it
    if it.fate is _Fate.HELD:
        return it
    if it.target is None:
        if is_shared:
            return _Decided(
                _Fate.BOTH, lap if is_folder(lap) else con if is_folder(con) else FOLDER
            )
        return _FOREIGN
    if is_folder(con):
        # The laptop has no folder there, so all of it is the container's.
        return _Decided(_Fate.BOTH, it.target, _Old.ASIDE)
    return _Decided(_Fate.BOTH, lap, _Old.ASIDE)


def _changes(
    paths: list[bytes],
    decided: dict[bytes, _Decided],
    ancestor: Tree,
    laptop: Tree,
    container: Tree,
    foreign_before: frozenset[bytes],
) -> Merge:
    here: list[Change] = []
    there: list[Change] = []
    asides: list[Aside] = []
    kept: list[tuple[bytes, Entry]] = []
    agreed: dict[bytes, Entry | None] = {}
    foreign = {p for p in foreign_before if p not in laptop and p not in container}
    alone: set[bytes] = set()
    for path in _without_moved(paths, decided, container, agreed, ancestor):
        it, anc, lap, con = decided[path], ancestor.get(path), laptop.get(path), container.get(path)
        if it.fate is _Fate.HELD:
            continue
        if it.fate is _Fate.FOREIGN:
            alone.add(path)
            if parent(path) not in alone:
                foreign.add(path)
            if anc is not None:
                agreed[path] = None
            continue
        stays = True
        if it.old is _Old.ASIDE and con is not None:
            stays = con.kind is Kind.FILE and not is_folder(it.target)
            beside = _beside(path, con, laptop, container)
            asides.append(Aside(path, con, beside, stays))
        elif it.old is _Old.KEPT and con is not None:
            kept.append((path, con))
        if same(lap, con):
            if not same(anc, it.target):
                agreed[path] = it.target
            continue
        if not same(lap, it.target):
            here.append(Change(path, lap, it.target))
        if not same(con, it.target):
            there.append(Change(path, con if stays else None, it.target))
    return Merge(
        laptop=_in_order(here),
        container=_in_order(there),
        asides=tuple(asides),
        kept=tuple(kept),
        agreed=agreed,
        foreign=frozenset(foreign),
    )


def _without_moved(
    paths: list[bytes],
    decided: dict[bytes, _Decided],
    container: Tree,
    agreed: dict[bytes, Entry | None],
    ancestor: Tree,
) -> Iterator[bytes]:
    """The paths, but not those that go aside with their folder."""
    moved: set[bytes] = set()
    for path in paths:
        if parent(path) in moved:
            moved.add(path)
            if path in ancestor:
                agreed[path] = None
            continue
        if decided[path].old is _Old.ASIDE and is_folder(container.get(path)):
            moved.add(path)
        yield path


def _in_order(changes: list[Change]) -> tuple[Change, ...]:
    gone = [change for change in changes if change.new is None]
    return (*reversed(gone), *(change for change in changes if change.new is not None))


def _beside(path: bytes, entry: Entry, laptop: Tree, container: Tree) -> bytes:
    """A name that says what it is, and is not taken on either side."""
    folder, slash, name = path.rpartition(b"/")
    stem, dot, ending = name.rpartition(b".")
    if not stem or entry.kind is Kind.FOLDER:
        stem, dot, ending = name, b"", b""
    number = 0
    while True:
        number += 1
        words = b".from-container" + (b"-%d" % number if number > 1 else b"")
        tail = words + dot + ending[-64:]
        beside = folder + slash + stem[: NAME_BYTES_AT_MOST - len(tail)] + tail
        if beside not in laptop and beside not in container:
            return beside


def _halts(
    ancestor: Tree, *sides: tuple[str, Tree, Before, tuple[Change, ...]]
) -> tuple[Halt, ...]:
    """What each side deleted, which has changes for the other one, and is too much."""
    files = NOTHING_BEFORE.files_at_first(ancestor)
    trees = [tree for _, tree, _, _ in sides]
    halts = []
    for side, tree, before, changes in sides:
        if files > 1 and not tree and any(trees):
            text = f"the {side}'s folder is empty, and had {files} files"
            halts.append(Halt(Reason.ROOT_EMPTIED, side, text))
            continue
        now, gone = files_gone(changes), before.with_(changes).missing
        if not now or gone <= _DELETIONS_UNASKED:
            continue
        of = before.files_at_first(ancestor)
        if gone * 2 > of:
            text = f"{gone} of {of} files were deleted on the {side}"
            if gone > now:
                text += f", {gone - now} of them so slowly that they are gone on both by now"
            halts.append(Halt(Reason.MANY_DELETIONS, side, text))
    return tuple(halts)


def files_gone(changes: tuple[Change, ...]) -> int:
    """Files that the changes delete; a file that was only moved is none."""
    return NOTHING_BEFORE.with_(changes).missing
