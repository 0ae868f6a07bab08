"""Scan → reconcile → stage → apply → save the ancestor, for as long as a session lasts."""

from __future__ import annotations

import asyncio
import math
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import AbstractAsyncContextManager, suppress
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path

from towline._kit.tasks import Tasks
from towline.errors import TowlineError
from towline.sync import hashes
from towline.sync.deletions import Deletion
from towline.sync.events import (
    Counted,
    Differed,
    InStep,
    Noted,
    NotSynced,
    Stopped,
    Told,
    Went,
    shown,
)
from towline.sync.ignore import Ignore, is_rules
from towline.sync.model import Change, Entry, is_folder, is_other, parent
from towline.sync.packing import Packing
from towline.sync.place import Place
from towline.sync.reconcile import (
    Aside,
    Halt,
    Merge,
    Reason,
    files_gone,
    reconcile,
    reconcile_paths,
)
from towline.sync.remote import Remote, SyncHalted, remote_folder
from towline.sync.replica import Replica, Status
from towline.sync.scan import LaptopTree, read_ignore
from towline.sync.store import Ancestor, Store, update
from towline.sync.transfer import batches, keep, stage_here, stage_there
from towline.sync.watch import watches_allowed, watches_text, watching
from towline.transport.subsystem import Stream

# More changed paths than this, or than a part of all, are found by one walk.
_LOOKS_AT_MOST = 200
_LOOKS_SHARE = 4
# A file that changed while it was read is read again then.
_UNSTABLE_AGAIN_S = 0.3
# So many files that are gone may be the first of more: `rm -r` takes its time, and halts
# must see all of it. Waited for while their number grows.
_DELETIONS_WAITED = 5
_DELETIONS_JUST_NOW_S = 1.0
_DELETIONS_MORE_S = 0.1
_DELETIONS_ROUNDS = 20
# What could not be done is tried again: rights and room come back without a word. Of many
# paths later: 20,000 take 0.3 s each time.
_FAILED_AGAIN_S = 10.0
_FAILED_AGAIN_EACH_S = 0.005
_FAILED_AGAIN_AT_MOST_S = 120.0
# Before everything is looked at, nothing has changed for so long.
_QUIET_S = 1.0
_LONG_S = 3600.0
# The journal is written anew when it is so long, and longer than what it says.
_JOURNAL_BYTES_AT_MOST = 8 << 20
_UNMADE = "the folder that it is in cannot be made"
# More paths that stay away are told by their number: 10,000 lines help nobody.
_COMPLAINTS_AT_MOST = 10

OpenStream = Callable[[], AbstractAsyncContextManager[Stream]]


@dataclass(frozen=True, slots=True, kw_only=True)
class SyncedFolder:
    """A pair of folders.

    Attributes:
        remote: an absolute path in the container.
        state: what is kept of the pair on the laptop, for this session alone.
        is_claim: the container's outlives the container.
        compression: whether contents are packed; None: where the connection is slow.
        rescan_s: how often both sides are looked at as a whole, in case a watch told nothing
            (of a write by mmap, none does); 0: never.
        tells_each: whether each path that goes over is told.
    """

    local: Path
    remote: str
    state: Path
    is_claim: bool = False
    compression: bool | None = None
    rescan_s: float = 300.0
    tells_each: bool = False


class Resume:
    """How a sync that stopped is told to go on."""

    def __init__(self) -> None:
        self._news = asyncio.Event()
        self.accepts_deletions = False

    def resume(self, *, accept_deletions: bool = False) -> None:
        """Go on; with what would stop it again, if that is accepted."""
        self.accepts_deletions = accept_deletions
        self._news.set()

    async def wait(self) -> None:
        """Wait until somebody says so."""
        self._news.clear()
        await self._news.wait()


class _RulesChanged(Exception):
    """.stignore or .towlineignore is another one: both sides must begin anew."""


async def keep_in_step(
    folder: SyncedFolder,
    *,
    open_stream: OpenStream,
    told: Told,
    resume: Resume,
    was_in_step: bool = False,
) -> None:
    """Keep a folder in step until cancelled.

    Args:
        open_stream: opens a `towline-sync` channel of the session's connection.
        resume: asked after `Stopped` was told.
        was_in_step: in this session already: a folder that is gone now stops the sync.

    Raises:
        ConnectionLost: the channel ended. Begin again on the next connection: what was
            under way is found out by the merge.
        TowlineError: one of the folders cannot be used, or an ignore file is wrong.
    """
    while True:
        try:
            ignore = await asyncio.to_thread(read_ignore, folder.local)
            place = await asyncio.to_thread(_opened, folder.local, was_in_step)
            was_in_step = True
            try:
                await _with_rules(
                    folder, ignore, place, open_stream=open_stream, told=told, resume=resume
                )
            finally:
                place.close()
        except _RulesChanged:
            told(Noted(text="the ignore rules changed: both folders are looked at anew"))
        except SyncHalted as halted:
            told(Stopped(halts=(halted.halt,)))
            await resume.wait()


def _opened(path: Path, was_in_step: bool) -> Place:
    try:
        return Place(path)
    except TowlineError as error:
        if not was_in_step:
            raise
        reason = Reason.ROOT_NO_FOLDER if path.exists() else Reason.ROOT_GONE
        raise SyncHalted(Halt(reason, "laptop", error.message)) from error


async def _with_rules(
    folder: SyncedFolder,
    ignore: Ignore,
    place: Place,
    *,
    open_stream: OpenStream,
    told: Told,
    resume: Resume,
) -> None:
    news = asyncio.Event()
    tree = LaptopTree(place, ignore)
    store = await asyncio.to_thread(Store, folder.state)
    tree.cached = await asyncio.to_thread(hashes.load, store.hashes)
    dirty: set[bytes] = set()

    def note(text: str) -> None:
        told(Noted(text=text))

    def changed(paths: set[bytes]) -> None:
        dirty.update(paths)
        news.set()

    async with (
        open_stream() as stream,
        Tasks() as tasks,
        watching(tree, dirty=changed, told=note),
    ):
        scanning = tasks.start(asyncio.to_thread(tree.scan), name="sync: scan")
        async with remote_folder(
            stream,
            root=folder.remote,
            ignore=ignore,
            told=note,
            news=news,
            is_claim=folder.is_claim,
            packing=Packing(folder.compression),
        ) as remote:
            await scanning
            if tree.hashed:
                await asyncio.to_thread(_keep_hashes, tree, store)
            hashed = tree.hashed
            folders = 1 + sum(is_folder(entry) for entry in tree.entries.values())
            if (text := watches_text(folders, watches_allowed())) is not None:
                note(text)
            try:
                loop = _Loop(
                    folder,
                    tree=tree,
                    remote=remote,
                    store=store,
                    told=told,
                    resume=resume,
                    dirty=dirty,
                    news=news,
                )
                await loop.run()
            finally:
                store.close()
                if tree.hashed > hashed:
                    _keep_hashes(tree, store)


def _keep_hashes(tree: LaptopTree, store: Store) -> None:
    # Without them the next start takes longer, and nothing else.
    with suppress(TowlineError):
        hashes.save(store.hashes, tree.hashes())


def _is_below(path: bytes, folders: set[bytes]) -> bool:
    while folders and (path := parent(path)):
        if path in folders:
            return True
    return False


@dataclass(slots=True)
class _Outcome:
    """What became of a pass."""

    settled: dict[bytes, Entry | None] = field(default_factory=dict)
    in_container: int = 0
    on_laptop: int = 0
    became_foreign: set[bytes] = field(default_factory=set)
    # Folders that could not be made.
    unmade: set[bytes] = field(default_factory=set)
    again_soon: bool = False
    again_later: bool = False


class _Loop:
    """One pair of folders, as long as its channel and its rules last.

    Args:
        dirty: what the watches said has changed; emptied by each pass.
        news: set whenever there is more in it.
    """

    def __init__(
        self,
        folder: SyncedFolder,
        *,
        tree: LaptopTree,
        remote: Remote,
        store: Store,
        told: Told,
        resume: Resume,
        dirty: set[bytes],
        news: asyncio.Event,
    ) -> None:
        self._rescan_s, self._tells_each = folder.rescan_s, folder.tells_each
        self._tree, self._remote, self._store = tree, remote, store
        self._told, self._resume = told, resume
        self._place = tree.place
        self._replica = Replica(tree)
        self._incarnation = f"{remote.incarnation} {tree.place.incarnation}"
        self._ancestor = Ancestor(self._incarnation)
        self._is_first = True
        self._needs_all = True
        # That both are in step, since the start or a halt.
        self._is_told = False
        # What is there and not synced, by side and path, and what could not be done.
        self._others: dict[tuple[str, bytes], str] = {}
        self._failed: dict[tuple[str, bytes], str] = {}
        self._failed_before: dict[tuple[str, bytes], str] = {}
        self._complaints = 0
        self._counted: Counted | None = None
        self._deleted_at = 0.0
        # By the side that deletes.
        self._deletions = {"laptop": Deletion(), "container": Deletion()}
        self._began_at = 0.0
        self._dirty, self._news = dirty, news

    async def run(self) -> None:
        found, why = await asyncio.to_thread(self._store.load, self._incarnation)
        if why is not None:
            self._told(Noted(text=why))
        if found is not None:
            self._ancestor, self._is_first = found, False
        rescan_at = self._next_rescan()
        while True:
            started = time.monotonic()
            self._news.clear()
            outcome = await self._pass()
            self._count_all()
            has_changed = outcome.in_container or outcome.on_laptop
            if not outcome.again_soon and (has_changed or not self._is_told):
                self._is_told = True
                self._tell(outcome, time.monotonic() - started)
            # Not right behind a change: its writer may not be through.
            timeout_s = min(max(rescan_at - time.monotonic(), _QUIET_S), _LONG_S)
            if outcome.again_later:
                again_s = max(len(self._failed) * _FAILED_AGAIN_EACH_S, _FAILED_AGAIN_S)
                timeout_s = min(again_s, _FAILED_AGAIN_AT_MOST_S, timeout_s)
            if outcome.again_soon or self._tree.unstable:
                timeout_s = _UNSTABLE_AGAIN_S
            try:
                async with asyncio.timeout(timeout_s):
                    await self._news.wait()
            except TimeoutError:
                self._needs_all = True
                self._dirty |= self._tree.unstable
                self._tree.unstable.clear()
                if time.monotonic() >= rescan_at:
                    self._dirty.add(b"")
                    await self._remote.rescan()
                    rescan_at = self._next_rescan()

    def _next_rescan(self) -> float:
        return time.monotonic() + self._rescan_s if self._rescan_s > 0 else math.inf

    def _tell(self, outcome: _Outcome, seconds: float) -> None:
        self._told(
            InStep(
                in_container=outcome.in_container,
                on_laptop=outcome.on_laptop,
                seconds=seconds,
                not_synced=len(self._others) + len(self._failed),
            )
        )

    def _count_all(self) -> None:
        """Tell how things stand, if that is not as it was told."""
        away = {**self._others, **self._failed}
        counted = Counted(
            paths=len(self._ancestor.entries),
            foreign=len(self._ancestor.foreign),
            not_synced=tuple(
                NotSynced(path=shown(path), side=side, reason=reason)
                for (side, path), reason in away.items()
            ),
        )
        if counted != self._counted:
            self._counted = counted
            self._told(counted)

    async def _pass(self) -> _Outcome:
        await self._look()
        # Also for what is looked at again in this pass: it is not later by a halt's length.
        self._began_at = time.monotonic()
        merge = await self._merged()
        merge = await self._all_deletions(merge)
        accepts = False
        while merge.halts:
            self._told(Stopped(halts=merge.halts))
            self._is_told = False
            await self._resume.wait()
            self._dirty.add(b"")
            await self._look()
            self._needs_all = True
            accepts = self._resume.accepts_deletions
            merge = await self._merged(accepts=accepts)
        outcome = _Outcome(settled=dict(merge.agreed))
        if merge.is_quiet and not merge.agreed and not self._is_first:
            return outcome
        unkept = await self._keep(merge)
        await self._do_there(merge, unkept, outcome)
        await self._do_here(merge, outcome)
        if accepts:
            for deletion in self._deletions.values():
                deletion.forget()
        self._end_complaints()
        await self._save(merge, outcome)
        return outcome

    async def _all_deletions(self, merge: Merge) -> Merge:
        """The merge once no more files go."""
        gone = 0
        for _ in range(_DELETIONS_ROUNDS):
            now = files_gone(merge.container) + files_gone(merge.laptop)
            if merge.halts or self._is_first or now == gone:
                break
            # A few right behind others are more of them.
            before, self._deleted_at = self._deleted_at, time.monotonic()
            if now < _DELETIONS_WAITED and self._deleted_at - before > _DELETIONS_JUST_NOW_S:
                break
            gone = now
            await asyncio.sleep(_DELETIONS_MORE_S)
            await self._look()
            self._needs_all = True
            merge = await self._merged()
        return merge

    async def _look(self) -> None:
        """Look at what may have changed on the laptop."""
        paths, watched = set(self._dirty), self._dirty
        watched.clear()
        if any(is_rules(path) for path in paths):
            raise _RulesChanged
        became = await asyncio.to_thread(self._look_at, paths)
        if became is not None:
            text = f"{self._place.path} is not the folder any more that it was"
            raise SyncHalted(Halt(Reason(became), "laptop", text))

    def _look_at(self, paths: set[bytes]) -> str | None:
        became = self._place.what_became()
        if became is not None:
            return became
        try:
            at_most = max(_LOOKS_AT_MOST, len(self._tree.entries) // _LOOKS_SHARE)
            if b"" in paths or len(paths) > at_most:
                self._tree.scan()
            else:
                for path in paths:
                    self._tree.look(path)
        except FileNotFoundError:
            return self._place.what_became() or Reason.ROOT_GONE.value
        self._tree.read_gitignores()
        # It may have gone while it was walked: then nothing of that counts.
        return self._place.what_became()

    async def _merged(self, *, accepts: bool = False) -> Merge:
        paths = self._tree.changed | self._remote.changed
        self._note_others("laptop", self._tree.changed, self._tree.entries)
        self._note_others("container", self._remote.changed, self._remote.entries)
        self._tree.changed.clear()
        self._remote.changed.clear()
        sides = self._ancestor.entries, self._tree.entries, self._remote.entries
        merge = None
        if not self._needs_all and not self._is_first:
            merge = reconcile_paths(
                paths,
                *sides,
                foreign=self._ancestor.foreign,
                stays_away=self._tree.stays_away,
                folding=self._place.folding,
            )
        if merge is None:
            # In a thread, of copies: 50,000 entries would hold up the line's answers.
            merge = await asyncio.to_thread(
                partial(
                    reconcile,
                    *(dict(side) for side in sides),
                    is_first=self._is_first,
                    foreign=self._ancestor.foreign,
                    stays_away=self._tree.stays_away,
                    accept_deletions=accepts,
                    folding=self._place.folding,
                    laptop_before=self._deletions["laptop"].at(self._began_at),
                    container_before=self._deletions["container"].at(self._began_at),
                )
            )
            # Each failure needs all: those that are not met again are over.
            self._failed_before, self._failed = self._failed, {}
            self._note_clashes(merge)
        self._needs_all = False
        return merge

    def _note_clashes(self, merge: Merge) -> None:
        for path, there in merge.clashes.items():
            reason = f"this disk takes it for {shown(there)}"
            self._failed[("laptop", path)] = reason
            if self._failed_before.get(("laptop", path)) != reason:
                self._complain(path, "laptop", reason)

    def _note_others(self, side: str, paths: set[bytes], entries: Mapping[bytes, Entry]) -> None:
        """Tell what there is that is not synced, each thing once."""
        for path in paths:
            entry = entries.get(path)
            is_ours = path in self._tree.entries or path in self._ancestor.entries
            if not is_other(entry) or not is_ours:
                # What only the image has of these concerns nobody.
                self._others.pop((side, path), None)
                continue
            assert entry is not None
            reason = entry.target.decode(errors="replace")
            if self._others.get((side, path)) != reason:
                self._others[(side, path)] = reason
                self._complain(path, side, reason)
        self._end_complaints()

    async def _keep(self, merge: Merge) -> set[bytes]:
        """Fetch what a first sync replaces; returns what did not come."""
        if not merge.kept:
            return set()
        folder = self._store.folder / "kept" / time.strftime("%Y%m%dT%H%M%S")
        kept, unkept = await keep(merge.kept, folder=folder, remote=self._remote)
        for path, where in kept.items():
            self._told(Differed(path=shown(path), kept=str(where)))
        return unkept

    async def _do_there(self, merge: Merge, unkept: set[bytes], outcome: _Outcome) -> None:
        outcome.again_soon |= bool(unkept)
        changes = [change for change in merge.container if change.path not in unkept]
        asides: Sequence[Aside] = merge.asides
        for whole in list(self._batches(changes)) or [()] * bool(asides):
            batch = self._that_can_be(whole, "container", outcome)
            too_large = await stage_there(batch, place=self._place, remote=self._remote)
            for path in too_large:
                self._not_done(path, "container", Status.FAILED, "no room left there", outcome)
            batch = tuple(change for change in batch if change.path not in too_large)
            results = await self._remote.commit(asides, batch)
            for aside, (status, text) in zip(asides, results, strict=False):
                if status == Status.DONE:
                    beside = shown(aside.beside)
                    self._told(Differed(path=shown(aside.path), kept=f"{beside} (container)"))
                    self._needs_all = True
                else:
                    self._not_done(aside.path, "container", status, text, outcome)
            done = self._count(batch, results[len(asides) :], "container", outcome)
            self._remote.made(done)
            outcome.in_container += len(done)
            asides = ()

    def _batches(self, changes: Sequence[Change]) -> Iterator[tuple[Change, ...]]:
        folders: list[Change] = []
        # Files are staged in the folder above them that is there: of an empty root all of
        # them in one, where ext4 looks long for room for each. And what cannot be made is
        # to be known before what is below it is sent, every few seconds again.
        if self._is_first or self._failed_before:
            folders = [each for each in changes if each.old is None and is_folder(each.new)]
            made = {each.path for each in folders}
            changes = [each for each in changes if each.path not in made]
        yield from batches(folders)
        yield from batches(changes)

    def _that_can_be(
        self, batch: Sequence[Change], side: str, outcome: _Outcome
    ) -> tuple[Change, ...]:
        """What of a batch is not below a folder that could not be made, as is told of that."""
        if not outcome.unmade:
            return tuple(batch)
        can_be = []
        for change in batch:
            if _is_below(change.path, outcome.unmade):
                self._failed[(side, change.path)] = _UNMADE
            else:
                can_be.append(change)
        return tuple(can_be)

    async def _do_here(self, merge: Merge, outcome: _Outcome) -> None:
        for whole in self._batches(merge.laptop):
            batch = self._that_can_be(whole, "laptop", outcome)
            missing = await stage_here(
                batch, replica=self._replica, remote=self._remote, place=self._place
            )
            results = await asyncio.to_thread(self._change, batch, missing)
            done = self._count(batch, results, "laptop", outcome)
            outcome.on_laptop += len(done)

    def _change(self, batch: Sequence[Change], missing: dict[bytes, str]) -> list[tuple[int, str]]:
        results: list[tuple[int, str]] = []
        for change in batch:
            if change.path in missing:
                reason = missing[change.path]
                is_other = reason == "changed meanwhile"
                results.append((Status.OTHER if is_other else Status.FAILED, reason))
            else:
                results.append(self._replica.change(change))
        self._replica.discard()
        # What we made ourselves is no news.
        self._tree.changed -= {change.path for change in batch}
        return results

    def _count(
        self,
        batch: Sequence[Change],
        results: Sequence[tuple[int, str]],
        side: str,
        outcome: _Outcome,
    ) -> list[Change]:
        done = []
        for change, (status, text) in zip(batch, results, strict=True):
            if status == Status.DONE:
                done.append(change)
                outcome.settled[change.path] = change.new
                if self._tells_each:
                    gone = change.new is None
                    self._told(Went(path=shown(change.path), side=side, is_gone=gone))
            elif status == Status.HOLDS:
                # What stays in the folder is in nobody's way: the folder is the side's own
                # now, or goes beside if something else is to be there.
                outcome.settled[change.path] = None
                if side == "container" and change.new is None:
                    outcome.became_foreign.add(change.path)
                outcome.again_soon |= change.new is not None
                self._needs_all = True
            elif _is_below(change.path, outcome.unmade):
                self._failed[(side, change.path)] = _UNMADE
            else:
                if status == Status.FAILED and is_folder(change.new):
                    outcome.unmade.add(change.path)
                self._not_done(change.path, side, status, text, outcome)
        now, other = time.monotonic(), "laptop" if side == "container" else "container"
        self._deletions[other].deleted(done, now=now)
        self._deletions[side].made(done, now=now)
        return done

    def _not_done(self, path: bytes, side: str, status: int, text: str, outcome: _Outcome) -> None:
        self._needs_all = True
        self._dirty.add(path)
        if status == Status.FAILED and "while it was sent" not in text:
            self._failed[(side, path)] = text
            if self._failed_before.get((side, path)) != text:
                self._complain(path, side, text)
            outcome.again_later = True
        else:
            outcome.again_soon = True

    def _complain(self, path: bytes, side: str, text: str) -> None:
        self._complaints += 1
        if self._complaints <= _COMPLAINTS_AT_MOST:
            self._told(NotSynced(path=shown(path), side=side, reason=text))

    def _end_complaints(self) -> None:
        more, self._complaints = self._complaints - _COMPLAINTS_AT_MOST, 0
        if more > 0:
            self._told(Noted(text=f"{more} more are not synced: `towline sync` lists them"))

    async def _save(self, merge: Merge, outcome: _Outcome) -> None:
        foreign = merge.foreign | outcome.became_foreign
        is_same = foreign == self._ancestor.foreign
        update(self._ancestor.entries, outcome.settled.items())
        self._ancestor.foreign = foreign
        was_first, self._is_first = self._is_first, False
        if self._store.is_open and not was_first:
            size = await asyncio.to_thread(
                self._store.append, outcome.settled, None if is_same else foreign
            )
            if size < _JOURNAL_BYTES_AT_MOST:
                return
        await asyncio.to_thread(self._store.begin, self._ancestor)
