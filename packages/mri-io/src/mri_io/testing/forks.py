"""Processes that a test kills, stops or lets race: forked at request from one that has imported what they need."""

import os
import signal
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from types import TracebackType
from typing import Any, NoReturn

from mri_io.testing.waiting import wait_until

__all__ = ["ForkServer", "serve"]

Prepare = Callable[..., Callable[[], int]]


class ForkServer:
    """The process that forks others; it ends with the with-block.

    Parameters
    ----------
    module
        Name of one that calls `serve` when it is run.
    errors
        File for what they all write on standard error.
    """

    def __init__(self, module: str, errors: Path) -> None:
        self._errors = errors
        self._started: list[int] = []
        with errors.open("wb") as file:
            self._process = subprocess.Popen(
                [sys.executable, "-m", module], stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=file, text=True
            )

    def __enter__(self) -> "ForkServer":
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        with self._process:  # closes its pipes
            pass
        assert self._process.returncode == 0 or error is not None, self.errors()

    def start(self, operation: str, *arguments: object) -> int:
        """Let an operation begin, several at once for ``a+b``; return the number of the first process."""
        print(operation, *arguments, sep="\t", file=self._process.stdin, flush=True)
        self._started = self._answer()
        return self._started[0]

    def wait(self) -> list[int]:
        """Return the exit statuses of what was started, when all have ended."""
        return self._answer()

    def run(self, operation: str, *arguments: object) -> list[int]:
        """Return the exit statuses of an operation."""
        self.start(operation, *arguments)
        return self.wait()

    def stopped(self, operation: str, *arguments: object) -> int:
        """Start an operation that stops itself, or several that do; return the first process when all have done so."""
        import psutil

        process = self.start(operation, *arguments)
        wait_until(lambda: all(psutil.Process(one).status() == psutil.STATUS_STOPPED for one in self._started))
        return process

    def woken_together(self, operation: str, *arguments: object) -> list[int]:
        """Let operations that stop themselves go on when the last has stopped; return their exit statuses."""
        self.stopped(operation, *arguments)
        for process in self._started:
            os.kill(process, signal.SIGCONT)
        return self.wait()

    def errors(self) -> str:
        """Return what has been written on standard error so far."""
        return self._errors.read_text()

    def _answer(self) -> list[int]:
        assert self._process.stdout is not None
        return [int(word) for word in self._process.stdout.readline().split()]


def serve(prepare: Prepare) -> None:
    """Fork a process for each operation of every line of input, until it ends.

    ``prepare(number, operation, *arguments)`` is called in each, with its number among those of the line; what it
    returns is called when all are there, and returns the exit status.
    """
    for line in sys.stdin:
        operations, *arguments = line.rstrip("\n").split("\t")
        gate, start = os.pipe()
        children = []
        for number, operation in enumerate(operations.split("+")):
            process = os.fork()
            if process == 0:
                _child(prepare, (number, operation, *arguments), gate)
            children.append(process)
        sys.stdout.write(" ".join(map(str, children)) + "\n")
        sys.stdout.flush()
        os.write(start, b"x" * len(children))
        codes = [os.waitstatus_to_exitcode(os.waitpid(process, 0)[1]) for process in children]
        sys.stdout.write(" ".join(map(str, codes)) + "\n")
        sys.stdout.flush()
        os.close(gate)
        os.close(start)


def _child(prepare: Prepare, request: tuple[Any, ...], gate: int) -> NoReturn:
    code = 1
    try:
        work = prepare(*request)
        os.read(gate, 1)
        code = work()
    except BaseException as error:
        sys.stderr.write(f"{error!r}\n")
    finally:
        sys.stderr.flush()
        os._exit(code)
