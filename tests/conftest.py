"""For all tests: what hypothesis takes for a failure, and how far `make fuzz` looks."""

from __future__ import annotations

from hypothesis import HealthCheck, settings

# A machine that is busy with something else stops a test for longer than the 200 ms that
# hypothesis gives an example, and the seconds that it gives to making ten of them. What a
# test promises is behaviour; its time limit is pytest's.
settings.register_profile("check", deadline=None, suppress_health_check=[HealthCheck.too_slow])
settings.load_profile("check")
# `--hypothesis-profile=fuzz` looks further than a check may.
settings.register_profile("fuzz", settings.get_profile("check"), max_examples=1_000)
