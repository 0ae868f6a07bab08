"""Moments as Kubernetes writes them: RFC 3339, in UTC."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta


def time_text(*, seconds_ago: float = 0.0) -> str:
    """The present, or a moment before it, in whole seconds (metav1.Time)."""
    moment = datetime.now(UTC) - timedelta(seconds=seconds_ago)
    return moment.strftime("%Y-%m-%dT%H:%M:%SZ")


def micro_time_text() -> str:
    """The present with microseconds (metav1.MicroTime): no two renewals of a lease are alike."""
    return datetime.now(UTC).strftime("%Y-%m-%dT%H:%M:%S.%fZ")
