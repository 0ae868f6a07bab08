"""`${VAR}` and its forms in the strings of a manifest.

| form | VAR unset | VAR empty | VAR has a value |
|---|---|---|---|
| `${VAR}`, `$VAR` | empty, told | empty | its value |
| `${VAR:-default}` | default | default | its value |
| `${VAR-default}` | default | empty | its value |
| `${VAR:+alt}` | empty | empty | alt |
| `${VAR+alt}` | empty | alt | alt |
| `${VAR:?message}` | an error | an error | its value |
| `${VAR?message}` | an error | empty | its value |
| `$$` | `$` | `$` | `$` |

As POSIX sh has them (2.6.2, Parameter Expansion), without its operators on the
value (`%`, `#`, `^`, `/`). A `$` before anything else is itself. Defaults,
alternatives and messages are expanded in turn. The result is never expanded
again, so a value with a `$` in it stays as it is.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass

_NAME = re.compile(r"[A-Za-z_][A-Za-z0-9_]*")
_STOP, _CLOSING_STOP = re.compile(r"\$"), re.compile(r"[$}]")
_OPERATOR = re.compile(r":?[-+?]")
# Deeper nesting is a slip of the keyboard, and must not end in a RecursionError.
_MAX_DEPTH = 50


class ExpansionError(ValueError):
    """The text has a form that cannot be expanded; the message says which and why."""


@dataclass(frozen=True, slots=True)
class Expanded:
    """The text, and the names in it that had neither a value nor a default."""

    text: str
    unset: tuple[str, ...] = ()


def expand(text: str, variables: Mapping[str, str]) -> Expanded:
    """Expand every form in `text`.

    Raises:
        ExpansionError: a brace is not closed, a name or operator is not one,
            or a `${VAR:?message}` has nothing to take.
    """
    if "$" not in text:
        return Expanded(text)
    walk = _Walk(text, variables)
    result = walk.text_until_end(depth=0, closing=False, live=True)
    return Expanded(result, tuple(dict.fromkeys(walk.unset)))


class _Walk:
    def __init__(self, text: str, variables: Mapping[str, str]) -> None:
        self.unset: list[str] = []
        self._text = text
        self._variables = variables
        self._at = 0

    def text_until_end(self, *, depth: int, closing: bool, live: bool) -> str:
        """Expand up to the end, or up to the `}` that closes the form around it.

        `live` is false in a branch that is not taken: it must be walked to find
        its end, but nothing in it counts as missing.
        """
        parts: list[str] = []
        text, stops = self._text, _CLOSING_STOP if closing else _STOP
        while self._at < len(text):
            stop = stops.search(text, self._at)
            end = stop.start() if stop else len(text)
            parts.append(text[self._at : end])
            self._at = end
            if stop is None:
                break
            if stop.group() == "}":
                return "".join(parts)
            parts.append(self._dollar(depth=depth, live=live))
        if closing:
            raise ExpansionError("'${' is never closed; write '${NAME}', or '$$' for a dollar")
        return "".join(parts)

    def _dollar(self, *, depth: int, live: bool) -> str:
        if self._text.startswith("$$", self._at):
            self._at += 2
            return "$"
        if self._text.startswith("${", self._at):
            return self._form(depth=depth + 1, live=live)
        if name := _NAME.match(self._text, self._at + 1):
            self._at = name.end()
            return self._value(name.group(), live=live)
        self._at += 1
        return "$"

    def _form(self, *, depth: int, live: bool) -> str:
        if depth > _MAX_DEPTH:
            raise ExpansionError(f"'${{' is nested more than {_MAX_DEPTH} times")
        start = self._at
        name = _NAME.match(self._text, start + 2)
        if name is None:
            raise ExpansionError(f"'{self._snippet(start)}' has no name; write '${{NAME}}'")
        self._at = name.end()
        if self._text.startswith("}", self._at):
            self._at += 1
            return self._value(name.group(), live=live)
        operator = _OPERATOR.match(self._text, self._at)
        if operator is None:
            if self._at >= len(self._text):
                raise ExpansionError("'${' is never closed; write '${NAME}', or '$$' for a dollar")
            raise ExpansionError(
                f"'{self._snippet(start)}' is no known form; there are "
                "${NAME}, ${NAME:-default}, ${NAME:+alternative} and ${NAME:?message}"
            )
        self._at = operator.end()
        return self._branch(name.group(), operator.group(), depth=depth, live=live)

    def _branch(self, name: str, operator: str, *, depth: int, live: bool) -> str:
        value = self._variables.get(name)
        is_there = bool(value) if operator[0] == ":" else value is not None
        takes_word = is_there == (operator[-1] == "+")
        word = self.text_until_end(depth=depth, closing=True, live=live and takes_word)
        self._at += 1
        if not takes_word:
            return "" if operator[-1] == "+" else value or ""
        if operator[-1] == "?" and live:
            raise ExpansionError(f"'{name}' is needed: {word or 'it is not set'}")
        return word

    def _value(self, name: str, *, live: bool) -> str:
        value = self._variables.get(name)
        if value is None and live:
            self.unset.append(name)
        return value or ""

    def _snippet(self, start: int) -> str:
        end = self._text.find("}", start)
        return self._text[start : end + 1 if end >= 0 else start + 20]
