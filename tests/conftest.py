"""For all tests: `--hypothesis-profile=fuzz` (`make fuzz`) looks further than a check may."""

from __future__ import annotations

from hypothesis import HealthCheck, settings

settings.register_profile(
    "fuzz", max_examples=1_000, deadline=None, suppress_health_check=[HealthCheck.too_slow]
)
