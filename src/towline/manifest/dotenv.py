"""Files of variables (`.env`), read as the common readers of such files read them.

Below `environ`, which re-exports it, because the manifest needs the `.env`
beside it to expand itself, and imports go one way.

The rules, for there is no standard:
- `NAME=value`, `export NAME=value`; spaces around the name and the `=` do not count.
  `NAME` alone is a name without a value: the caller says what that means.
- Unquoted: up to the end of the line, without spaces at its ends; ` #` starts a comment.
- `'single'`: literal, may go over lines. `"double"`: may go over lines; `\\n`, `\\r`,
  `\\t`, `\\"`, `\\\\` and `\\$` are escapes, any other backslash is itself.
- `${NAME}` and its forms are expanded (`expand.py`) in unquoted and double-quoted
  values, from the variables given first and then from the lines above, never in
  single-quoted ones. `$$` is a dollar, and so is a `$` that starts no form.
- A later line of the same name beats an earlier one.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass

from towline.manifest.expand import ExpansionError, expand
from towline.manifest.places import Findings, Place

_LINE = re.compile(r"[ \t]*(?:export[ \t]+)?([^\s=#'\"][^\s=]*)[ \t]*(=?)[ \t]*")
_BLANK = re.compile(r"[ \t]*(?:#[^\n]*)?(?:\n|\Z)")
_ESCAPES = {"n": "\n", "r": "\r", "t": "\t", '"': '"', "\\": "\\"}
_END_OF_LINE = re.compile(r"[ \t]*(?:#[^\n]*)?(?:\n|\Z)")
# Stands for an escaped dollar until the expansion is done; cannot be in a variable.
_DOLLAR = "\0"


@dataclass(frozen=True, slots=True)
class Assignment:
    """One line of the file; `value` is None where the name stands alone."""

    name: str
    value: str | None
    place: Place


def read_dotenv(
    text: str, *, file: str, variables: Mapping[str, str], findings: Findings
) -> tuple[Assignment, ...]:
    """Every assignment in the order of the file; problems go to `findings`.

    Args:
        text: what is in the file.
        file: its name in messages.
        variables: what `${NAME}` is looked up in before the lines above.
        findings: a line that cannot be read is an error; the ones after it are read.
    """
    return _Reader(
        text.replace("\r\n", "\n").removeprefix("\ufeff"), file, variables, findings
    ).read()


class _Reader:
    def __init__(
        self, text: str, file: str, variables: Mapping[str, str], findings: Findings
    ) -> None:
        self._text = text
        self._file = file
        self._findings = findings
        self._variables = variables
        self._above: dict[str, str] = {}
        self._at = 0
        self._line = 1
        self._line_at = 0

    def read(self) -> tuple[Assignment, ...]:
        read: list[Assignment] = []
        while self._at < len(self._text):
            if blank := _BLANK.match(self._text, self._at):
                self._at = blank.end()
                continue
            place = self._place()
            assignment = self._assignment(place)
            if assignment is None:
                continue
            read.append(assignment)
            if assignment.value is not None:
                self._above[assignment.name] = assignment.value
        return tuple(read)

    def _assignment(self, place: Place) -> Assignment | None:
        """The line here, with all that its quotes hold; None after an error."""
        start = _LINE.match(self._text, self._at)
        if start is None:
            self._skip_line(place, "this is no variable; write 'NAME=value'")
            return None
        name, equals = start.groups()
        self._at = start.end()
        if not equals:
            end = _END_OF_LINE.match(self._text, self._at)
            if end is None:
                self._skip_line(place, f"after '{name}' a '=' is missing")
                return None
            self._at = end.end()
            return Assignment(name, None, place)
        quote = self._text[self._at : self._at + 1]
        raw = self._quoted(quote, place) if quote in ("'", '"') else self._unquoted()
        value = raw if raw is None or quote == "'" else self._expanded(raw, place)
        if value is None:
            return None
        if "\0" in value:
            self._findings.error(place, f"the value of '{name}' has a NUL in it")
            return None
        return Assignment(name, value, place)

    def _unquoted(self) -> str:
        end = self._text.find("\n", self._at)
        line = self._text[self._at : end if end >= 0 else len(self._text)]
        self._at += len(line) + (1 if end >= 0 else 0)
        if line.startswith("#"):
            return ""
        return re.split(r"[ \t]#", line, maxsplit=1)[0].strip()

    def _quoted(self, quote: str, place: Place) -> str | None:
        """The text between quotes, escapes undone; None after an error."""
        parts: list[str] = []
        at = self._at + 1
        while at < len(self._text):
            char = self._text[at]
            if char == quote:
                self._at = at + 1
                end = _END_OF_LINE.match(self._text, self._at)
                if end is None:
                    self._skip_line(place, f"something follows the closing {quote}")
                    return None
                self._at = end.end()
                return "".join(parts)
            if char == "\\" and quote == '"' and at + 1 < len(self._text):
                escaped = self._text[at + 1]
                known = _DOLLAR if escaped == "$" else _ESCAPES.get(escaped)
                parts.append("\\" + escaped if known is None else known)
                at += 2
                continue
            parts.append(char)
            at += 1
        # Only the line is given up, for what follows is most likely not meant to be in it.
        self._skip_line(place, f"the {quote} is never closed")
        return None

    def _expanded(self, raw: str, place: Place) -> str | None:
        try:
            result = expand(raw, {**self._above, **self._variables})
        except ExpansionError as error:
            self._findings.error(place, str(error))
            return None
        for name in result.unset:
            self._findings.notice(place, f"'{name}' is not set, so it is empty")
        return result.text.replace(_DOLLAR, "$")

    def _skip_line(self, place: Place, message: str) -> None:
        self._findings.error(place, message)
        end = self._text.find("\n", self._at)
        self._at = end + 1 if end >= 0 else len(self._text)

    def _place(self) -> Place:
        self._line += self._text.count("\n", self._line_at, self._at)
        self._line_at = self._at
        column = self._at - self._text.rfind("\n", 0, self._at)
        return Place(self._file, self._line, column)
