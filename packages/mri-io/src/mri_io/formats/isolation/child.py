"""The side that asks: a child process for each process that needs one, started at need, replaced when it has died."""

import atexit
import json
import mmap
import os
import select
import signal
import subprocess
import sys
import tempfile
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

import numpy as np

from mri_io.errors import FormatError, StoreError
from mri_io.formats.isolation.messages import PREFIX, SLOTS, Raised, read, shared_folders, write

__all__ = ["PATIENCE_S", "Child", "patience_for", "present_child"]

PATIENCE_S = float(os.environ.get("MRI_IO_PATIENCE_S", "120"))
"""How long the child may work on one request, to look at a file or to read one block, beside the time that reading the
whole file takes at `SLOWEST_BYTES_PER_S`."""
SLOWEST_BYTES_PER_S = 10e6
STARTED_WITHIN_S = 120.0
_MARGIN_S = 5.0
_MOST_WORDS = 4000
_GONE = (EOFError, ConnectionError, TimeoutError)


def patience_for(files: Sequence[Path]) -> float:
    """Return how long a request about files may take: some readers read all of them for an answer."""
    size = sum(path.stat().st_size for path in set(files) if path.is_file())
    return PATIENCE_S + size / SLOWEST_BYTES_PER_S


processes: dict[int, "Child"] = {}


def present_child() -> "Child":
    """Return this process's child, a new one when there is none that lives; a fork of this process has its own."""
    found = processes.get(os.getpid())
    if found is None or not found.answers():
        found = processes[os.getpid()] = Child()
    return found


class Child:
    """The other side of the pipes."""

    def __init__(self) -> None:
        # The module search path of this process may have been changed; plug-ins must be found there, too.
        code = (
            "import json, sys; sys.path[:] = json.loads(sys.argv[1]); "
            "from mri_io.formats.isolation.service import serve; serve()"
        )
        self._said = tempfile.TemporaryFile()  # noqa: SIM115  (closed with the child)
        self._last_words = ""
        self._process = subprocess.Popen(
            [sys.executable, "-c", code, json.dumps(sys.path)],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=self._said,
            start_new_session=True,  # the terminal's interrupt is for this process, which ends the child
        )
        self._slots: list[mmap.mmap | None] = [None] * SLOTS
        self._waiting = False
        atexit.register(self.end)
        try:
            self._receive(STARTED_WITHIN_S)
        except _GONE as error:
            self.end()
            raise StoreError(
                "The process in which files are read did not start. It is this Python with mri_io; it said: "
                f"{self._last_words.strip() or 'nothing'}"
            ) from error

    @property
    def number(self) -> int:
        """Its process number."""
        return self._process.pid

    def answers(self) -> bool:
        """Whether it can be asked: one that was killed while it had nothing to do is no fault of the next file."""
        if self._waiting or self._process.poll() is not None:
            return False
        try:
            self._send((PATIENCE_S, ("", "ready", None)))
            return bool(self._receive(PATIENCE_S + _MARGIN_S))
        except _GONE:
            self.end()
            return False

    def end(self) -> None:
        """Kill it, and remove what it made and nobody took."""
        atexit.unregister(self.end)
        self._process.kill()
        self._process.wait()
        if not self._said.closed:
            self._said.seek(0)
            self._last_words = self._said.read().decode(errors="replace")[-_MOST_WORDS:]
        for stream in (self._process.stdin, self._process.stdout, self._said):
            with suppress(OSError, AttributeError):
                stream.close()  # type: ignore[union-attr]
        for folder in shared_folders():
            for left in Path(folder).glob(f"{PREFIX}{self._process.pid}-*"):
                left.unlink(missing_ok=True)

    def ask(self, path: Path, patience_s: float, request: Any) -> Any:
        """Return the answer to a request; raise what it raised there.

        Raises
        ------
        FormatError
            When the child dies or does not answer; `path` is what it was working on.
        """
        self._request(path, patience_s, request)
        return self._answer(path, patience_s)

    def blocks(self, path: Path, patience_s: float, key: int, number: int) -> Iterator[np.ndarray]:
        """Yield the blocks of an element of the volume that was read last; each is there until the next but one."""
        request = ("", "block", (key, number))
        self._request(path, patience_s, request)
        while (answer := self._answer(path, patience_s)) is not None:
            slot, shape, dtype, file = answer
            if file is not None:
                with Path(file).open("r+b") as opened:
                    self._slots[slot] = mmap.mmap(opened.fileno(), 0)
                Path(file).unlink()
            self._request(path, patience_s, request)  # its answer is there when it is wanted
            try:
                yield np.frombuffer(self._slots[slot] or b"", dtype, int(np.prod(shape))).reshape(shape)
            except BaseException:
                with suppress(Exception):
                    self._answer(path, patience_s)  # belongs to nobody
                raise

    def _request(self, path: Path, patience_s: float, request: Any) -> None:
        with self._failing(path, patience_s):
            self._send((patience_s, request))

    def _answer(self, path: Path, patience_s: float) -> Any:
        with self._failing(path, patience_s):
            answer = self._receive(patience_s + _MARGIN_S)
        if isinstance(answer, Raised):
            answer.again()
        return answer

    @contextmanager
    def _failing(self, path: Path, patience_s: float) -> Iterator[None]:
        """Say of what file it was asked when it dies or does not answer."""
        try:
            yield
        except _GONE as error:
            self.end()
            failure = FormatError(f"{path}: {_what_ended(self._process.returncode, error, patience_s)}")
            failure.add_note(self._last_words)
            raise failure from None
        except BaseException:
            self.end()  # what it would answer belongs to nobody
            raise

    def _send(self, message: Any) -> None:
        assert self._process.stdin is not None
        self._waiting = True
        write(self._process.stdin, message)

    def _receive(self, within_s: float) -> Any:
        stream = self._process.stdout
        assert stream is not None
        if not select.select([stream], [], [], within_s)[0]:
            raise TimeoutError
        answer = read(stream)
        self._waiting = False
        return answer


def _what_ended(code: int, error: Exception, patience_s: float) -> str:
    """Return why there was no answer, and what to do."""
    if isinstance(error, TimeoutError) or code == 1:  # the watchdog of the child itself
        return (
            f"the library that reads it did not answer for {patience_s:.0f} s: the file is damaged, or the disk very "
            "slow. Copy it again from its source, leave it out, or set MRI_IO_PATIENCE_S to more seconds."
        )
    ended = f"signal {-code}" if code < 0 else f"exit status {code}"
    if code in (-signal.SIGKILL, -signal.SIGBUS):
        return (
            f"the process that reads it was killed ({ended}), most likely for want of memory. Use fewer workers "
            "(--scheduler local:1) or a machine with more memory."
        )
    return (
        f"the library that reads it crashed ({ended}): the file is damaged. Copy it again from its source, or leave "
        "it out."
    )
