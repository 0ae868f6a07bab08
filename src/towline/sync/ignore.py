"""Which paths are not synced: Syncthing's .stignore and gitignore's rules [pure].

Both are translated here into regular expressions in the words that Python's `re` and Go's
`regexp` share; the agent gets the translated rules and only matches, so that there is one
translator. tests/vectors/sync-ignore.json is run by both sides.
"""

from __future__ import annotations

import json
import re
from collections.abc import Callable
from dataclasses import dataclass, field
from functools import cached_property

from towline.errors import ManifestError

ST_NAME = ".stignore"
OWN_NAME = ".towlineignore"
GIT_NAME = ".gitignore"

# Never synced, on either side, in any letters: `.GIT` is `.git` on a case-blind disk.
_VERSION_CONTROL = frozenset(
    {b".git", b".hg", b".svn", b".bzr", b".jj", b"_darcs", b"cvs", b".pijul"}
)
# Ours: temporary files, the marker of a claim.
OWN_PREFIX = b".towline-"


def is_rules(path: bytes) -> bool:
    """Whether a path says what is synced; one that came from a container could change that."""
    return path == ST_NAME.encode() or path[path.rfind(b"/") + 1 :] == OWN_NAME.encode()


_INCLUDES_AT_MOST = 32


@dataclass(frozen=True, slots=True)
class Rule:
    """One pattern, translated.

    Attributes:
        pattern: matches the whole of a path; `(?i)` in front where letters do not count.
        takes_back: what matches is synced after all (`!`).
        only_folders: matches nothing else (gitignore's trailing slash).
        may_go: may be deleted where it keeps a folder from going (Syncthing's `(?d)`).
    """

    pattern: str
    takes_back: bool = False
    only_folders: bool = False
    may_go: bool = False

    def matches(self, path: str, *, is_folder: bool) -> bool:
        """Whether this rule speaks of the path."""
        if self.only_folders and not is_folder:
            return False
        return _compiled(self.pattern).fullmatch(path) is not None


_cache: dict[str, re.Pattern[str]] = {}


def _compiled(pattern: str) -> re.Pattern[str]:
    found = _cache.get(pattern)
    if found is None:
        found = _cache[pattern] = re.compile(pattern, re.DOTALL)
    return found


@dataclass(frozen=True)
class Ignore:
    """What is not synced, decided the same way on both sides.

    Attributes:
        first: Syncthing's: of those that match a path the first decides.
        last: gitignore's: the last decides, and what is below an ignored folder is ignored.
    """

    first: tuple[Rule, ...] = ()
    last: tuple[Rule, ...] = ()

    # A path is asked for with the folders above it walked already, so only its own name and
    # its own path are looked at, except for those from the other side: see `hides`.

    @cached_property
    def looks_into_ignored(self) -> bool:
        """Whether an ignored folder may hold what is synced (some `!` of Syncthing's)."""
        return any(rule.takes_back for rule in self.first)

    def skips(self, path: bytes, *, is_folder: bool) -> bool:
        """Whether a path is ignored whose folders above are not."""
        return self.never(path) or self.by_rule(path, is_folder=is_folder)

    def by_rule(self, path: bytes, *, is_folder: bool) -> bool:
        """Whether the user's rules ignore a path, its parents aside."""
        text = path.decode("utf-8", "surrogateescape")
        for rule in self.first:
            if rule.matches(text, is_folder=is_folder):
                if not rule.takes_back:
                    return True
                break
        for rule in reversed(self.last):
            if rule.matches(text, is_folder=is_folder):
                return not rule.takes_back
        return False

    def never(self, path: bytes) -> bool:
        """Whether a path is version control's or ours, which no rule takes back."""
        name = path[path.rfind(b"/") + 1 :]
        return name.startswith(OWN_PREFIX) or is_rules(path) or name.lower() in _VERSION_CONTROL

    def hides(self, path: bytes, *, is_folder: bool) -> bool:
        """Whether a path, or a folder that it is in, is ignored: for paths not walked to."""
        at = path.find(b"/")
        while at >= 0:
            above = path[:at]
            if self.skips(above, is_folder=True) and not self.enters_ignored(above):
                return True
            at = path.find(b"/", at + 1)
        return self.skips(path, is_folder=is_folder)

    def enters_ignored(self, folder: bytes) -> bool:
        """Whether an ignored folder is walked all the same, for what is taken back in it."""
        return self.looks_into_ignored and not self.never(folder) and not self._last_ignores(folder)

    def may_go(self, path: bytes) -> bool:
        """Whether an ignored path may be deleted where it keeps a folder from going."""
        text = path.decode("utf-8", "surrogateescape")
        for rule in self.first:
            if rule.matches(text, is_folder=False):
                return rule.may_go and not rule.takes_back and not self.never(path)
        return False

    def _last_ignores(self, folder: bytes) -> bool:
        text = folder.decode("utf-8", "surrogateescape")
        for rule in reversed(self.last):
            if rule.matches(text, is_folder=True):
                return not rule.takes_back
        return False

    def to_wire(self) -> bytes:
        """As the agent reads it (docs/protocol.md)."""
        return json.dumps(
            {"first": [_row(rule) for rule in self.first], "last": [_row(r) for r in self.last]}
        ).encode()


def _row(rule: Rule) -> dict[str, object]:
    return {
        "pattern": rule.pattern,
        "takes_back": rule.takes_back,
        "only_folders": rule.only_folders,
        "may_go": rule.may_go,
    }


@dataclass
class _Lines:
    """A .stignore and what it includes, read line by line."""

    read: Callable[[str], str]
    rules: list[Rule] = field(default_factory=list)
    open_files: tuple[str, ...] = ()

    def take(self, name: str) -> None:
        if name in self.open_files or len(self.open_files) >= _INCLUDES_AT_MOST:
            raise ManifestError(f"{name}: includes itself: {' → '.join(self.open_files)}")
        self.open_files += (name,)
        for number, line in enumerate(self.read(name).splitlines(), 1):
            try:
                self._line(line.strip())
            except _BadPattern as error:
                raise ManifestError(f"{name}:{number}:1: {error}: {line.strip()!r}") from error
        self.open_files = self.open_files[:-1]

    def _line(self, line: str) -> None:
        if not line or line.startswith("//"):
            return
        if line.startswith("#"):
            word, _, included = line.partition(" ")
            if word != "#include" or not included.strip():
                raise _BadPattern("only #include begins with '#'; write \\# for a name")
            self.take(included.strip())
            return
        # As Syncthing reads it: `foo` is the thing and all below it, `foo/` only the latter.
        if line.endswith("/**"):
            self._pattern(line)
        elif line.endswith("/"):
            self._pattern(line + "**")
        else:
            self._pattern(line)
            self._pattern(line + "/**")

    def _pattern(self, line: str) -> None:
        takes_back = may_go = folds = False
        while True:
            if line.startswith("!") and not takes_back:
                takes_back, line = True, line[1:]
            elif line.startswith("(?d)"):
                may_go, line = True, line[4:]
            elif line.startswith("(?i)"):
                folds, line = True, line[4:]
            else:
                break
        if not line.strip("/"):
            raise _BadPattern("a pattern is missing")
        if line.startswith("/"):
            forms = [line[1:]]
        elif line.startswith("**/"):
            forms = [line, line[3:]]
        else:
            forms = [line, "**/" + line]
        for form in forms:
            pattern = ("(?i)" if folds else "") + _glob(form, braces=True)
            self.rules.append(Rule(pattern, takes_back=takes_back, may_go=may_go))


class _BadPattern(ValueError):
    """Said with its place by who knows it."""


def syncthing_rules(text: str, *, included: Callable[[str], str] | None = None) -> tuple[Rule, ...]:
    """Read a .stignore.

    Args:
        included: the text of a file that it includes, by the name it says.

    Raises:
        ManifestError: a line cannot be understood, or an included file is missing.
    """

    def read(name: str) -> str:
        if name == ST_NAME:
            return text
        if included is None:
            raise ManifestError(f"{ST_NAME}: {name} cannot be included")
        return included(name)

    lines = _Lines(read)
    lines.take(ST_NAME)
    return tuple(lines.rules)


def git_rules(text: str, *, base: bytes = b"") -> tuple[Rule, ...]:
    """Read a file in gitignore's format that lies in the folder `base`; nothing is an error."""
    rules = []
    front = _escaped(base.decode("utf-8", "surrogateescape") + "/") if base else ""
    for line in text.splitlines():
        rule = _git_rule(line, front)
        if rule is not None:
            rules.append(rule)
    return tuple(rules)


def _git_rule(line: str, front: str) -> Rule | None:
    line = re.sub(r"(?<!\\) +$", "", line.rstrip("\r"))
    if not line or line.startswith("#"):
        return None
    takes_back = line.startswith("!")
    line = line.removeprefix("!")
    only_folders = line.endswith("/")
    line = line.rstrip("/")
    is_anchored = "/" in line
    line = line.removeprefix("/")
    if not line:
        return None
    try:
        body = _git_glob(line)
    except _BadPattern:
        return None  # as git: a pattern that is none matches nothing
    anywhere = "" if is_anchored else "(?:.*/)?"
    return Rule(front + anywhere + body, takes_back=takes_back, only_folders=only_folders)


def _git_glob(line: str) -> str:
    """`**` counts only as a whole name; elsewhere it is `*`."""
    names = line.split("/")
    out = ""
    for index, name in enumerate(names):
        is_last = index == len(names) - 1
        if name == "**":
            out += ".+" if is_last else "(?:.*/)?"
        else:
            out += _glob(re.sub(r"\*{2,}", "*", name)) + ("" if is_last else "/")
    return out


def _glob(glob: str, *, braces: bool = False) -> str:
    out, at, depth = "", 0, 0
    while at < len(glob):
        char = glob[at]
        at += 1
        if char == "*":
            is_double = glob[at : at + 1] == "*"
            out += ".*" if is_double else "[^/]*"
            at += is_double
        elif char == "?":
            out += "[^/]"
        elif char == "[":
            group, at = _group(glob, at)
            out += group
        elif char == "\\":
            if at == len(glob):
                raise _BadPattern("ends in a backslash")
            out += _escaped(glob[at])
            at += 1
        elif braces and char in "{}":
            depth += 1 if char == "{" else -1
            if depth < 0:
                raise _BadPattern("'}' without '{'")
            out += "(?:" if char == "{" else ")"
        elif braces and char == "," and depth:
            out += "|"
        else:
            out += _escaped(char)
    if depth:
        raise _BadPattern("'{' without '}'")
    return out


def _group(glob: str, at: int) -> tuple[str, int]:
    """`[a-z]` from behind its bracket on: the expression, and where it goes on."""
    negated = glob[at : at + 1] in ("!", "^")
    at += negated
    end = glob.find("]", at + 1)
    if end < 0:
        raise _BadPattern("'[' without ']'")
    inner = re.sub(r"([\\\[\]^&~|]|^-)", r"\\\1", glob[at:end])
    # A group never matches a slash; a lookahead would say so, and RE2 has none.
    expression = f"[^/{inner}]" if negated else f"[{inner}]"
    try:
        re.compile(expression)
    except re.error as error:
        raise _BadPattern(str(error)) from error
    return expression, end + 1


_SPECIAL = frozenset(r"\.+*?()|[]{}^$")


def _escaped(text: str) -> str:
    return "".join("\\" + char if char in _SPECIAL else char for char in text)
