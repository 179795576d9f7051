"""Files that are written whole and reach the disk: the lowest layer of the store."""

import errno
import json
import os
import uuid
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from mri_io.errors import StoreError

__all__ = ["flush_folder", "flush_tree", "storage_errors", "write_json_atomic", "write_text_atomic"]

_REMEDY = {
    errno.ENOSPC: "The file system is full: free space, then run the command again; it continues there.",
    errno.EDQUOT: "The disk quota is used up: free space, then run the command again; it continues there.",
    errno.EFBIG: "The file is larger than the system allows: raise the limit (ulimit -f) or use another disk.",
    errno.EACCES: "Check the permissions of the folder.",
    errno.EPERM: "Check the permissions of the folder.",
    errno.EROFS: "The file system is mounted read-only.",
    errno.EMFILE: "Too many files are open: raise the limit (ulimit -n).",
}


@contextmanager
def storage_errors(where: Path | str) -> Iterator[None]:
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


def write_json_atomic(path: Path, content: Any) -> None:
    """Write a JSON file so that readers see the old content or the new, never a part."""
    write_text_atomic(path, json.dumps(content, indent=1, allow_nan=False) + "\n")


def write_text_atomic(path: Path, text: str) -> None:
    """Write a text file so that readers see the old content or the new, never a part."""
    temporary = path.with_name(f".{path.name}.{uuid.uuid4().hex}")
    with storage_errors(path):
        try:
            path.parent.mkdir(parents=True, exist_ok=True)
            with temporary.open("w", encoding="utf-8", newline="") as file:
                file.write(text)
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
