"""How much memory a process and those that it starts take together at most."""

import os
import subprocess
import sys
import tempfile
import threading
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass

import psutil

__all__ = ["TreePeak", "peak_bytes", "peak_growth", "tree_bytes", "watched"]

_EVERY_S = 0.01
_HANDSHAKE = """
import sys
def _meet():
    sys.__stdout__.write("here\\n")
    sys.__stdout__.flush()
    sys.stdin.readline()
"""


def tree_bytes(pid: int) -> int:
    """Return the memory of a process and all below it; pages that several of them share count once where that is known.

    That is the sum of their proportional set sizes under Linux, of their resident sizes elsewhere, which is more. Pages
    that others outside hold, too, as those of libraries, count in part.
    """
    total = 0
    with suppress(psutil.NoSuchProcess):
        top = psutil.Process(pid)
        for process in (top, *top.children(recursive=True)):
            with suppress(psutil.NoSuchProcess, psutil.AccessDenied, psutil.ZombieProcess):
                total += _bytes_of(process)
    return total


def _bytes_of(process: psutil.Process) -> int:
    if psutil.LINUX:
        return int(process.memory_full_info().pss)
    return int(process.memory_info().rss)


@dataclass
class TreePeak:
    """The most bytes seen so far."""

    bytes: int = 0


@contextmanager
def watched(pid: int) -> Iterator[TreePeak]:
    """Look at the memory of a process and those below it, a hundred times a second, until the with-block ends."""
    peak, done = TreePeak(), threading.Event()

    def look() -> None:
        while True:
            peak.bytes = max(peak.bytes, tree_bytes(pid))
            if done.wait(_EVERY_S):
                return

    thread = threading.Thread(target=look, name="peak memory")
    thread.start()
    try:
        yield peak
    finally:
        done.set()
        thread.join()
        peak.bytes = max(peak.bytes, tree_bytes(pid))


def peak_growth(before: str, measured: str, arguments: Sequence[object] = ()) -> int:
    """Run Python code in a process of its own; return by how many bytes it and the processes it starts grew at most.

    Parameters
    ----------
    before
        Code that is run first: imports and what else is not to be counted. Processes that it starts count from then on.
    measured
        Code that is.
    arguments
        What both find in ``sys.argv`` from 1 on.

    Raises
    ------
    RuntimeError
        When the code fails; with what it said.
    """
    start, peak = _measured(before, measured, arguments)
    return peak - start


def peak_bytes(code: str, arguments: Sequence[object] = ()) -> int:
    """Run Python code in a process of its own; return the bytes of it and the processes it starts at most, in all.

    Parameters and errors are those of `peak_growth`.
    """
    return _measured("", code, arguments)[1]


def _measured(before: str, measured: str, arguments: Sequence[object]) -> tuple[int, int]:
    """Return the bytes of a process and those below it between two pieces of code, and the most from there on."""
    code = f"{_HANDSHAKE}\n{before}\n_meet()\n{measured}\n_meet()\n"
    with tempfile.TemporaryFile("w+") as errors:
        process = subprocess.Popen(
            [sys.executable, "-c", code, *map(str, arguments)],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=errors,
            text=True,
            env=os.environ,
        )
        with process:
            start, peak = 0, TreePeak()
            if _is_there(process):
                start = tree_bytes(process.pid)
                with watched(process.pid) as peak:
                    _go_on(process)
                    arrived = _is_there(process)
                if arrived:
                    _go_on(process)
        if process.returncode:
            errors.seek(0)
            raise RuntimeError(errors.read())
    return start, peak.bytes


def _is_there(process: "subprocess.Popen[str]") -> bool:
    """Wait until the process has come to its next meeting; return whether it has, and not ended instead."""
    assert process.stdout is not None
    return any(line == "here\n" for line in process.stdout)


def _go_on(process: "subprocess.Popen[str]") -> None:
    assert process.stdin is not None
    with suppress(BrokenPipeError):
        process.stdin.write("\n")
        process.stdin.flush()
