"""Giving memory back that a start needed and a long quiet life does not."""

from __future__ import annotations

import gc
from contextlib import suppress


def settle() -> None:
    """Collect what the start left behind, and return free memory to the system.

    What is left is there for good (modules, mostly): it is kept out of later
    collections, which would walk all of it for nothing. Takes some 30 ms, in which the
    loop stands still.
    """
    tidy()
    gc.freeze()


def tidy() -> None:
    """Collect, and return free memory to the system; some milliseconds after `settle`."""
    gc.collect()
    # glibc keeps what is freed below anything that lives; elsewhere there is no such call.
    with suppress(ImportError, OSError, AttributeError):
        import ctypes

        ctypes.CDLL(None).malloc_trim(0)
