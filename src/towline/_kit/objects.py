"""Kubernetes' own JSON, for the few modules that read and make it."""

from __future__ import annotations

from typing import Any

JsonObject = dict[str, Any]
