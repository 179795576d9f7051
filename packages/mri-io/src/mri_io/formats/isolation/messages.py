"""What goes between the two processes: pickled messages through pipes, blocks of arrays through shared memory."""

import mmap
import os
import pickle
import struct
import tempfile
import traceback
from pathlib import Path
from typing import IO, Any

from mri_io.errors import StoreError
from mri_io.formats.base import SourceItem

__all__ = ["PREFIX", "SLOTS", "Raised", "files_of", "read", "shared_file", "shared_folders", "write"]

PREFIX = "mri-io-"
"""How the names of shared files begin."""
SLOTS = 3
"""Shared files of a process: one block is read while the last is written, and the one before that is still there."""
_LENGTH = struct.Struct("<Q")


class Raised:
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


def files_of(argument: Path | SourceItem) -> list[Path]:
    """Return the files that a request is about, first the one by which it is named."""
    return [argument.path, *argument.files] if isinstance(argument, SourceItem) else [argument]


def write(stream: IO[bytes], message: Any) -> None:
    """Send a message."""
    data = pickle.dumps(message, pickle.HIGHEST_PROTOCOL)
    stream.write(_LENGTH.pack(len(data)) + data)
    stream.flush()


def read(stream: IO[bytes]) -> Any:
    """Return the next message; EOFError when the other side is gone."""
    head = stream.read(_LENGTH.size)
    if len(head) < _LENGTH.size:
        raise EOFError
    data = stream.read(_LENGTH.unpack(head)[0])
    return pickle.loads(data)


def shared_folders() -> list[str]:
    """Return where files may be that two processes share: in memory where the system has such a place."""
    return [*(["/dev/shm"] if os.access("/dev/shm", os.W_OK) else []), tempfile.gettempdir()]


def shared_file(size: int) -> tuple[str, mmap.mmap]:
    """Return a new file and its mapping, all of it there: a page that is not when it is written to kills the process.

    Raises
    ------
    StoreError
        When no place has room.
    """
    for folder in shared_folders():
        descriptor, name = tempfile.mkstemp(prefix=f"{PREFIX}{os.getpid()}-", dir=folder)
        try:
            os.posix_fallocate(descriptor, 0, size) if hasattr(os, "posix_fallocate") else os.ftruncate(
                descriptor, size
            )
            return name, mmap.mmap(descriptor, size)
        except OSError:
            Path(name).unlink()
        finally:
            os.close(descriptor)
    raise StoreError(f"{', '.join(shared_folders())}: no room for a block of {size / 1e6:.0f} MB. Free space there.")
