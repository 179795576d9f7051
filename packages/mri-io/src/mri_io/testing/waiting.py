"""Waiting for what must happen, however busy the machine is."""

import time
from collections.abc import Callable
from subprocess import Popen
from typing import Any

__all__ = ["PATIENCE_S", "wait_until"]

PATIENCE_S = 120.0
"""How long a test waits before it fails: long beside what any machine needs, below the limit of the whole test."""


def wait_until(condition: Callable[[], object], process: "Popen[Any] | None" = None) -> None:
    """Return as soon as a condition holds.

    Raises
    ------
    AssertionError
        When it does not for `PATIENCE_S`, or the process that is to bring it about ends before.
    """
    end = time.monotonic() + PATIENCE_S
    while not condition():
        assert process is None or process.poll() is None, process.communicate()
        assert time.monotonic() < end, f"nothing happened within {PATIENCE_S:.0f} s"
        time.sleep(0.01)
