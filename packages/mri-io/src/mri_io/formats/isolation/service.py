"""The side that answers: what the child process does."""

import faulthandler
import mmap
import os
import sys
from collections.abc import Iterator
from contextlib import suppress
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np

from mri_io.errors import FormatError
from mri_io.formats.base import RawVolume
from mri_io.formats.isolation.messages import SLOTS, Raised, files_of, read, shared_file, write

__all__ = ["Service", "serve"]

SPARE_BYTES = 2**30
"""What a request may take beside three times its files, or twice what a reader says that it needs."""


def serve() -> None:
    """Answer requests until the input ends; the body of the child."""
    from mri_io.formats.table import format_names

    source, answers = sys.stdin.buffer, os.fdopen(os.dup(1), "wb")
    os.dup2(2, 1)  # what libraries print does not get between the answers
    Service.running = True
    service = Service()
    write(answers, format_names())  # which imports the readers
    while True:
        try:
            patience_s, (name, method, argument) = read(source)
        except EOFError:
            return
        # A C thread ends this process when it hangs, even while a library keeps Python waiting and the parent is gone.
        faulthandler.dump_traceback_later(patience_s, exit=True)
        answer: Any
        try:
            answer = service.answer(name, method, argument)
        except Exception as error:
            answer = Raised(error)
        faulthandler.cancel_dump_traceback_later()
        write(answers, answer)
        with suppress(Exception):  # met again, and reported, when the block is asked for
            service.prepare(patience_s)


class Service:
    """What the child does."""

    running = False
    """Whether this process is a child: readers then work in it."""

    def __init__(self) -> None:
        self._key = 0
        self._raw: RawVolume | None = None
        self._iterators: dict[int, Iterator[np.ndarray]] = {}
        self._next: tuple[int, Any] | None = None
        self._slots: list[mmap.mmap | None] = [None] * SLOTS
        self._slot = 0
        self._file, self._most = Path(), 0

    def answer(self, name: str, method: str, argument: Any) -> Any:
        """Do what a request says."""
        if method == "ready":
            return True
        try:
            return self._block(*argument) if method == "block" else self._answer(name, method, argument)
        except MemoryError as error:
            raise FormatError(
                f"{self._file}: expected to need less than {self._most / 1e9:.1f} GB, got a header that claims more: "
                "the file is damaged. Copy it again from its source, or leave it out."
            ) from error

    def _answer(self, name: str, method: str, argument: Any) -> Any:
        from mri_io.formats.table import get_format

        reader, files = get_format(name), files_of(argument)
        self._file = files[0]
        self._allow(SPARE_BYTES + 3 * sum(file.stat().st_size for file in files if file.is_file()))
        if method == "read":
            self._allow(max(self._most, SPARE_BYTES + 2 * reader.memory(argument)))
        answer = getattr(reader, method)(argument)
        if method != "read":
            return answer
        self._key, self._raw, self._iterators, self._next = self._key + 1, answer, {}, None
        bare = [replace(element, blocks=_nothing) for element in answer.elements]
        return self._key, replace(answer, elements=tuple(bare))

    def _allow(self, most: int) -> None:
        """Let the request take so many bytes; a damaged header may claim any number."""
        self._most = most
        _limit_memory(most)

    def _block(self, key: int, number: int) -> Any:
        """Return the slot in which the next block of an element is, its shape, dtype and, if new, the slot's file."""
        if key != self._key or self._raw is None:
            raise RuntimeError("another volume has been read meanwhile")
        if self._next is not None and self._next[0] == number:
            (_, found), self._next = self._next, None
            if isinstance(found, BaseException):
                raise found
            return found
        if number not in self._iterators:
            self._iterators = {number: iter(self._raw.elements[number].blocks())}
        return self._put(number)

    def _put(self, number: int) -> Any:
        """Read the next block of an element into the slot whose block has been longest there; None at the end."""
        block = next(self._iterators[number], None)
        if block is None:
            del self._iterators[number]
            return None
        block = np.ascontiguousarray(block)
        slot = self._slot = (self._slot + 1) % SLOTS
        file, mapped = None, self._slots[slot]
        if mapped is None or len(mapped) < max(block.nbytes, 1):
            file, mapped = shared_file(max(block.nbytes, 1))
            self._slots[slot] = mapped
        np.frombuffer(mapped, np.uint8, block.nbytes)[:] = block.reshape(-1).view(np.uint8)
        return slot, block.shape, block.dtype, file

    def prepare(self, patience_s: float) -> None:
        """Read the block after the last one while the parent is busy with that."""
        if self._next is not None or not self._iterators:
            return
        number = next(iter(self._iterators))
        faulthandler.dump_traceback_later(patience_s, exit=True)
        try:
            self._next = number, self._put(number)
        except Exception as error:
            self._next = number, error
        finally:
            faulthandler.cancel_dump_traceback_later()


def _limit_memory(most: int) -> None:
    """Let this process take so many bytes more, beside shared memory and mapped files; not every system can."""
    try:
        import resource

        pages = int(Path("/proc/self/statm").read_text().split()[5])
    except (ImportError, OSError):
        return
    _, hard = resource.getrlimit(resource.RLIMIT_DATA)
    wanted = pages * resource.getpagesize() + most
    resource.setrlimit(resource.RLIMIT_DATA, (wanted if hard == resource.RLIM_INFINITY else min(wanted, hard), hard))


def _nothing() -> Iterator[np.ndarray]:
    """Stand for blocks that stay in the other process."""
    return iter(())
