"""Readers in a process of their own: a damaged file may make a native library hang or crash, and that must end there.

HDF5, ITK and image codecs parse files in C; some damaged files send them into endless loops or to a segmentation fault.
`isolated` wraps a reader so that whatever touches such a file happens in a child process, which is started when it is
first needed, kept for the next file, and replaced when it dies or does not answer. Blocks of arrays come through shared
memory, the next one being read while the last is written. Of what does not look like such a file nothing goes there.
"""

import atexit
import faulthandler
import json
import mmap
import os
import pickle
import select
import signal
import struct
import subprocess
import sys
import tempfile
import traceback
from collections.abc import Iterator, Mapping, Sequence
from contextlib import suppress
from dataclasses import replace
from pathlib import Path
from typing import IO, Any

import numpy as np

from mri_io.errors import FormatError, StoreError
from mri_io.formats.base import Format, Identity, RawVolume, SourceItem

__all__ = ["PATIENCE_S", "isolated"]

PATIENCE_S = float(os.environ.get("MRI_IO_PATIENCE_S", "120"))
"""How long the child may work on one request, to look at a file or to read one block, beside the time that reading the
whole file takes at `SLOWEST_BYTES_PER_S`."""
SLOWEST_BYTES_PER_S = 10e6
STARTED_WITHIN_S = 120.0
_PREFIX = "mri-io-"
_LENGTH = struct.Struct("<Q")
_MARGIN_S = 5.0
_SLOTS = 2
_MOST_WORDS = 4000


def isolated(reader: Format) -> Format:
    """Return a reader that does in a child process whatever its `Format.is_fragile` says so of."""
    return reader if isinstance(reader, _Isolated) or _Service.running else _Isolated(reader)


class _Isolated(Format):
    """Stands for a reader; see the module."""

    def __init__(self, reader: Format) -> None:
        self._reader = reader
        for attribute in ("name", "summary", "options", "options_when_named", "brings_labels"):
            setattr(self, attribute, getattr(reader, attribute))

    def _is_fragile(self, files: Sequence[Path]) -> bool:
        return any(map(self._reader.is_fragile, files))

    def _call(self, method: str, path: Path, files: Sequence[Path], argument: Any) -> Any:
        if not self._is_fragile(files):
            return getattr(self._reader, method)(argument)
        return _child().ask(path, _patience(files), (self.name, method, argument))

    def sniff(self, path: Path) -> bool:
        return bool(self._call("sniff", path, [path], path))

    def find(self, path: Path) -> list[SourceItem]:
        found: list[SourceItem] = self._call("find", path, [path], path)
        return found

    def gather(self, items: Sequence[SourceItem]) -> list[SourceItem]:
        return self._reader.gather(items)

    def identify(self, item: SourceItem) -> Identity:
        found: Identity = self._call("identify", item.path, _files(item), item)
        return found

    def memory(self, item: SourceItem) -> int:
        return int(self._call("memory", item.path, _files(item), item))

    def split_of(self, item: SourceItem) -> Mapping[str, str] | None:
        return self._reader.split_of(item)

    def is_fragile(self, path: Path) -> bool:
        return self._reader.is_fragile(path)

    def read(self, item: SourceItem) -> RawVolume:
        files = _files(item)
        if not self._is_fragile(files):
            return self._reader.read(item)
        child, patience_s = _child(), _patience(files)
        key, raw = child.ask(item.path, patience_s, (self.name, "read", item))
        elements = [
            replace(element, blocks=lambda number=number: child.blocks(item.path, patience_s, key, number))
            for number, element in enumerate(raw.elements)
        ]
        return replace(raw, elements=tuple(elements))

    def __getattr__(self, name: str) -> Any:
        # What a reader has beyond the interface, and what is added to the interface.
        return getattr(self._reader, name)


def _files(item: SourceItem) -> list[Path]:
    return [item.path, *item.files]


def _patience(files: Sequence[Path]) -> float:
    """Return how long a request about files may take: some readers read all of them for an answer."""
    size = sum(path.stat().st_size for path in set(files) if path.is_file())
    return PATIENCE_S + size / SLOWEST_BYTES_PER_S


_processes: dict[int, "_Child"] = {}


def _child() -> "_Child":
    """Return this process's child, a new one when there is none that lives; a fork of this process has its own."""
    found = _processes.get(os.getpid())
    if found is None or not found.lives:
        found = _processes[os.getpid()] = _Child()
    return found


class _Child:
    """The other side of the pipes."""

    def __init__(self) -> None:
        # The module search path of this process may have been changed; plug-ins must be found there, too.
        code = "import json, sys; sys.path[:] = json.loads(sys.argv[1]); from mri_io.formats import isolation; "
        self._said = tempfile.TemporaryFile()  # noqa: SIM115  (closed with the child)
        self._last_words = ""
        self._process = subprocess.Popen(
            [sys.executable, "-c", code + "isolation.serve()", json.dumps(sys.path)],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=self._said,
            start_new_session=True,  # the terminal's interrupt is for this process, which ends the child
        )
        self._slots: list[mmap.mmap | None] = [None] * _SLOTS
        self._waiting = False
        atexit.register(self.end)
        self._receive(STARTED_WITHIN_S)

    @property
    def lives(self) -> bool:
        """Whether it can be asked."""
        return self._process.poll() is None and not self._waiting

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
        for folder in _shared_folders():
            for left in Path(folder).glob(f"{_PREFIX}{self._process.pid}-*"):
                left.unlink(missing_ok=True)

    def ask(self, path: Path, patience_s: float, request: Any) -> Any:
        """Return the answer to a request; raise what it raised there.

        Raises
        ------
        FormatError
            When the child dies or does not answer; `path` is what it was working on.
        """
        try:
            self._send((patience_s, request))
            answer = self._receive(patience_s + _MARGIN_S)
        except (EOFError, BrokenPipeError, ConnectionError, TimeoutError) as error:
            self.end()
            failure = FormatError(f"{path}: {_what_ended(self._process.returncode, error, patience_s)}")
            failure.add_note(self._last_words)
            raise failure from None
        except BaseException:
            self.end()  # what it would answer belongs to nobody
            raise
        if isinstance(answer, _Raised):
            answer.again()
        return answer

    def blocks(self, path: Path, patience_s: float, key: int, number: int) -> Iterator[np.ndarray]:
        """Yield the blocks of an element of the volume that was read last; each is there until the next but one."""
        for turn in range(sys.maxsize):
            answer = self.ask(path, patience_s, ("", "block", (key, number, turn % _SLOTS)))
            if answer is None:
                return
            shape, dtype, file = answer
            if file is not None:
                with Path(file).open("r+b") as opened:
                    self._slots[turn % _SLOTS] = mmap.mmap(opened.fileno(), 0)
                Path(file).unlink()
            yield np.frombuffer(self._slots[turn % _SLOTS] or b"", dtype, int(np.prod(shape))).reshape(shape)

    def _send(self, message: Any) -> None:
        assert self._process.stdin is not None
        self._waiting = True
        _write(self._process.stdin, message)

    def _receive(self, within_s: float) -> Any:
        stream = self._process.stdout
        assert stream is not None
        if not select.select([stream], [], [], within_s)[0]:
            raise TimeoutError
        answer = _read(stream)
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


class _Raised:
    """An error on its way between processes."""

    def __init__(self, error: BaseException) -> None:
        self.text = "".join(traceback.format_exception(error))
        try:
            self.error = pickle.loads(pickle.dumps(error))
        except Exception:  # foreign errors may not travel
            self.error = RuntimeError(f"{type(error).__name__}: {error}")

    def again(self) -> None:
        """Raise it, with the traceback of the other process as a note."""
        self.error.add_note(self.text)
        raise self.error


def _write(stream: IO[bytes], message: Any) -> None:
    data = pickle.dumps(message, pickle.HIGHEST_PROTOCOL)
    stream.write(_LENGTH.pack(len(data)) + data)
    stream.flush()


def _read(stream: IO[bytes]) -> Any:
    head = stream.read(_LENGTH.size)
    if len(head) < _LENGTH.size:
        raise EOFError
    data = stream.read(_LENGTH.unpack(head)[0])
    return pickle.loads(data)


def serve() -> None:
    """Answer requests until the input ends; the body of the child."""
    from mri_io.formats import format_names

    source, answers = sys.stdin.buffer, os.fdopen(os.dup(1), "wb")
    os.dup2(2, 1)  # what libraries print does not get between the answers
    _Service.running = True
    service = _Service()
    _write(answers, format_names())  # which imports the readers
    while True:
        try:
            patience_s, (name, method, argument) = _read(source)
        except EOFError:
            return
        # A C thread ends this process when it hangs, even while a library keeps Python waiting and the parent is gone.
        faulthandler.dump_traceback_later(patience_s, exit=True)
        answer: Any
        try:
            answer = service.answer(name, method, argument)
        except Exception as error:
            answer = _Raised(error)
        faulthandler.cancel_dump_traceback_later()
        _write(answers, answer)
        with suppress(Exception):  # met again, and reported, when the block is asked for
            service.prepare(patience_s)


class _Service:
    """What the child does."""

    running = False
    """Whether this process is a child: readers then work in it."""

    def __init__(self) -> None:
        self._key = 0
        self._raw: RawVolume | None = None
        self._iterators: dict[int, Iterator[np.ndarray]] = {}
        self._next: tuple[int, Any] | None = None
        self._slots: list[mmap.mmap | None] = [None] * _SLOTS

    def answer(self, name: str, method: str, argument: Any) -> Any:
        """Do what a request says."""
        from mri_io.formats import get_format

        if method == "block":
            return self._block(*argument)
        answer = getattr(get_format(name), method)(argument)
        if method != "read":
            return answer
        self._key, self._raw, self._iterators, self._next = self._key + 1, answer, {}, None
        bare = [replace(element, blocks=_nothing) for element in answer.elements]
        return self._key, replace(answer, elements=tuple(bare))

    def _block(self, key: int, number: int, slot: int) -> Any:
        """Put the next block of an element into a slot; its shape, dtype and, where it is new, the slot's file."""
        if key != self._key or self._raw is None:
            raise RuntimeError("another volume has been read meanwhile")
        block = self._pull(number)
        if block is None:
            self._iterators.pop(number, None)
            return None
        block = np.ascontiguousarray(block)
        file, mapped = None, self._slots[slot]
        if mapped is None or len(mapped) < max(block.nbytes, 1):
            file, mapped = _shared_file(max(block.nbytes, 1))
            self._slots[slot] = mapped
        np.frombuffer(mapped, np.uint8, block.nbytes)[:] = block.reshape(-1).view(np.uint8)
        return block.shape, block.dtype, file

    def _pull(self, number: int) -> np.ndarray | None:
        if self._next is not None and self._next[0] == number:
            (_, found), self._next = self._next, None
            if isinstance(found, BaseException):
                raise found
            block: np.ndarray | None = found
            return block
        assert self._raw is not None
        if number not in self._iterators:
            self._iterators = {number: iter(self._raw.elements[number].blocks())}
        return next(self._iterators[number], None)

    def prepare(self, patience_s: float) -> None:
        """Read the block after the last one while the parent is busy with that."""
        if self._next is not None or not self._iterators:
            return
        number = next(iter(self._iterators))
        faulthandler.dump_traceback_later(patience_s, exit=True)
        try:
            self._next = number, next(self._iterators[number], None)
        except Exception as error:
            self._next = number, error
        finally:
            faulthandler.cancel_dump_traceback_later()


def _nothing() -> Iterator[np.ndarray]:
    """Stand for blocks that stay in the other process."""
    return iter(())


def _shared_folders() -> list[str]:
    """Return where files may be that two processes share: in memory where the system has such a place."""
    return [*(["/dev/shm"] if os.access("/dev/shm", os.W_OK) else []), tempfile.gettempdir()]


def _shared_file(size: int) -> tuple[str, mmap.mmap]:
    """Return a new file and its mapping, all of it there: a page that is not when it is written to kills the process.

    Raises
    ------
    StoreError
        When no place has room.
    """
    for folder in _shared_folders():
        descriptor, name = tempfile.mkstemp(prefix=f"{_PREFIX}{os.getpid()}-", dir=folder)
        try:
            os.posix_fallocate(descriptor, 0, size) if hasattr(os, "posix_fallocate") else os.ftruncate(
                descriptor, size
            )
            return name, mmap.mmap(descriptor, size)
        except OSError:
            Path(name).unlink()
        finally:
            os.close(descriptor)
    raise StoreError(f"{', '.join(_shared_folders())}: no room for a block of {size / 1e6:.0f} MB. Free space there.")
