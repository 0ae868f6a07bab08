"""Events as JSON, one object a line: `{"event": "stage-done", …}`; field names as in `events`."""

from __future__ import annotations

import json
import re
import sys
from dataclasses import asdict
from typing import TextIO

from towline.session.events import Event


class JsonLines:
    """Shows events to a program. Call it with an event."""

    def __init__(self, stream: TextIO | None = None) -> None:
        self._stream = stream or sys.stderr

    def __call__(self, event: Event) -> None:
        name = re.sub(r"(?<!^)(?=[A-Z])", "-", type(event).__name__).lower()
        self._stream.write(json.dumps({"event": name, **asdict(event)}) + "\n")
        self._stream.flush()
