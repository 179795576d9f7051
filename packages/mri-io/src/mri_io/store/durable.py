"""Files that are written whole and reach the disk: the lowest layer of the store."""

import errno
import json
import os
import threading
import uuid
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

from mri_io.errors import StoreError
from mri_io.store.remote.paths import AnyPath, StorePath

__all__ = [
    "EarlyFlush",
    "flush_folder",
    "flush_tree",
    "storage_errors",
    "write_bytes_atomic",
    "write_json_atomic",
    "write_text_atomic",
]

_REMEDY = {
    errno.ENOSPC: "The file system is full: free space, then run the command again; it continues there.",
    errno.EDQUOT: "The disk quota is used up: free space, then run the command again; it continues there.",
    errno.EFBIG: "The file is larger than the system allows: raise the limit (ulimit -f) or use another disk.",
    errno.EACCES: "Check the permissions of the folder.",
    errno.EPERM: "Check the permissions of the folder.",
    errno.EROFS: "The file system is mounted read-only.",
    errno.EMFILE: "Too many files are open: raise the limit (ulimit -n).",
}

_EARLY_BYTES = 64 * 2**20


@contextmanager
def storage_errors(where: AnyPath | str) -> Iterator[None]:
    """Turn an OSError of the file system into a StoreError that names the place and a remedy."""
    try:
        yield
    except StoreError:
        raise
    except OSError as error:
        remedy = _REMEDY.get(
            error.errno or 0, "Nothing half-written is visible; run the command again once it is mended."
        )
        reason = os.strerror(error.errno) if error.errno else str(error)
        raise StoreError(f"{where}: cannot write: {reason}. {remedy}") from error


def write_json_atomic(path: AnyPath, content: Any) -> None:
    """Write a JSON file so that readers see the old content or the new, never a part."""
    write_text_atomic(path, json.dumps(content, indent=1, allow_nan=False) + "\n")


def write_text_atomic(path: AnyPath, text: str) -> None:
    """Write a text file so that readers see the old content or the new, never a part."""
    write_bytes_atomic(path, text.encode())


def write_bytes_atomic(path: AnyPath, content: bytes) -> None:
    """Write a file so that readers see the old content or the new, never a part."""
    if isinstance(path, StorePath):
        path.write(content)
        return
    temporary = path.with_name(f".{path.name}.{uuid.uuid4().hex}")
    with storage_errors(path):
        try:
            path.parent.mkdir(parents=True, exist_ok=True)
            with temporary.open("wb") as file:
                file.write(content)
                file.flush()
                os.fsync(file.fileno())
            temporary.replace(path)
        finally:
            temporary.unlink(missing_ok=True)
            flush_folder(path.parent)


def flush_tree(folder: Path) -> None:
    """Flush every file and directory below `folder`, and itself, to disk; files before their directories."""
    for root, _, names in os.walk(folder, topdown=False):
        for name in names:
            _flush(Path(root, name))
        flush_folder(Path(root))


def flush_folder(folder: Path) -> None:
    """Flush a directory, so that the names in it survive a loss of power."""
    if os.name != "nt":  # directories cannot be flushed there
        _flush(folder)


def _flush(path: Path) -> None:
    descriptor = os.open(path, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


class EarlyFlush:
    """Bring a long file to the disk while the rest of it is still being made, in a thread of its own.

    The final flush, which is what makes it durable, then has little left to do. It is no more than a hint: where the
    system has no such call, or it fails, the final flush does it all.
    """

    def __init__(self, descriptor: int) -> None:
        self._descriptor, self._next = descriptor, _EARLY_BYTES
        self._thread: threading.Thread | None = None

    def reached(self, size: int) -> None:
        """Begin to flush when another piece of the file has been written, unless an earlier piece is not done yet."""
        if size < self._next or not hasattr(os, "fdatasync") or (self._thread and self._thread.is_alive()):
            return
        self._next = size + _EARLY_BYTES
        self._thread = threading.Thread(target=self._flush, daemon=True)
        self._thread.start()

    def _flush(self) -> None:
        with suppress(OSError):
            os.fdatasync(self._descriptor)

    def finish(self) -> None:
        """Wait for what was begun: the file may be closed thereafter."""
        if self._thread is not None:
            self._thread.join()
