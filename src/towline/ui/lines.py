"""Events as JSON, one object a line: `{"event": "stage-done", …}`; field names as in `events`."""

from __future__ import annotations

import json
import re
import sys
from dataclasses import asdict, fields
from typing import Any, TextIO, get_args

from towline.session.events import Event


def _name(kind: type) -> str:
    return re.sub(r"(?<!^)(?=[A-Z])", "-", kind.__name__).lower()


_KINDS: dict[str, Any] = {_name(kind): kind for kind in get_args(Event)}


class JsonLines:
    """Shows events to a program. Call it with an event.

    Args:
        service: whose events they are, where there are several.
    """

    def __init__(self, stream: TextIO | None = None, *, service: str | None = None) -> None:
        self._stream = stream or sys.stderr
        self._of: dict[str, str] = {} if service is None else {"service": service}

    def __call__(self, event: Event) -> None:
        values = {"event": _name(type(event)), **self._of, **asdict(event)}
        self._stream.write(json.dumps(values) + "\n")
        self._stream.flush()


def event_of(values: dict[str, Any]) -> Event | None:
    """The event in such an object; None for one that this version does not know."""
    kind = _KINDS.get(str(values.get("event")))
    if kind is None:
        return None
    known = {field.name for field in fields(kind)}
    try:
        # JSON has lists only; events are frozen, and have tuples.
        event: Event = kind(
            **{
                name: tuple(value) if isinstance(value, list) else value
                for name, value in values.items()
                if name in known
            }
        )
    except TypeError:
        return None
    return event
