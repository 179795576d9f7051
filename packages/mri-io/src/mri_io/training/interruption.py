"""Ctrl-C during training: the step is finished and last.ckpt written, so that nothing is lost."""

import signal
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

from mri_io.errors import MriError

__all__ = ["Interruption", "TrainingInterruptedError", "interruptible"]


class TrainingInterruptedError(MriError):
    """Training was interrupted between two steps, after last.ckpt was written."""

    exit_code = 130


class Interruption:
    """Whether the user has asked training to stop."""

    def __init__(self) -> None:
        self.asked = False


@contextmanager
def interruptible() -> Iterator[Interruption]:
    """Turn the first Ctrl-C into a request to stop after the step; the second one interrupts at once.

    Outside the main thread, which alone receives signals, and where Ctrl-C is ignored, nothing changes.
    """
    request = Interruption()
    before = signal.getsignal(signal.SIGINT)
    if threading.current_thread() is not threading.main_thread() or before is not signal.default_int_handler:
        yield request
        return

    def handle(number: int, frame: Any) -> None:
        request.asked = True
        signal.signal(signal.SIGINT, before)

    signal.signal(signal.SIGINT, handle)
    try:
        yield request
    finally:
        signal.signal(signal.SIGINT, before)
