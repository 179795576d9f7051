"""Staging directories: where a writer works unseen, and how others tell whether it still lives."""

import os
import shutil
import socket
import tempfile
import time
import uuid
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from types import ModuleType
from typing import IO

from mri_io.errors import StoreError
from mri_io.store.commit import is_unfinished
from mri_io.store.durable import storage_errors
from mri_io.store.remote.paths import AnyPath, StorePath

__all__ = ["OWNER", "STAGING", "WORK", "clear_abandoned", "is_abandoned", "local_staging", "staging"]

fcntl: ModuleType | None
try:
    import fcntl
except ImportError:  # not on Windows
    fcntl = None

STAGING = ".staging"
"""Folder beside the volumes, invisible to readers."""
WORK = "work-"
"""How the names of files in it begin that processes lock while they work; see `mri_io.store.exclusive`."""
OWNER = ".owner"
"""File in a staging directory that its writer keeps locked for as long as it lives."""
_GRACE_S = 60.0
_LONG_S = 86400.0
_BUSY, _FREE, _UNKNOWN = "busy", "free", "unknown"


def local_staging() -> Path:
    """Return the folder, in the system's for temporary files, that holds what is on its way to an object store.

    It is this user's alone: nobody else may read it.
    """
    folder = Path(tempfile.gettempdir(), f"mri-io-{os.getuid() if hasattr(os, 'getuid') else 'user'}")
    with storage_errors(folder):
        folder.mkdir(mode=0o700, exist_ok=True)
        if hasattr(os, "getuid") and folder.stat().st_uid != os.getuid():
            raise StoreError(f"{folder}: belongs to another user. Set TMPDIR to a folder of your own.")
    return folder


@contextmanager
def staging(parent: AnyPath) -> Iterator[Path]:
    """Yield an empty directory ``<parent>/.staging/<uuid>-<host>-<pid>``; it is removed at the end.

    What goes to an object store is staged in `local_staging`, where what killed writers left is cleared away first.

    It stays, for garbage collection, when it holds the only copy of what could neither be replaced nor put back.
    Its writer holds a lock on the file ``.owner`` in it. The system drops the lock when the process ends, however it
    ends, so that garbage collection can tell the dead from the living even when a process number is used again.
    """
    if isinstance(parent, StorePath):
        parent = local_staging()
        clear_abandoned(parent)
    folder = parent / STAGING / f"{uuid.uuid4().hex}-{socket.gethostname()}-{os.getpid()}"
    owner: IO[bytes] | None = None
    try:
        with storage_errors(folder):
            folder.mkdir(parents=True)
            owner = (folder / OWNER).open("wb")
            _try_lock(owner)
        yield folder
    finally:
        if not is_unfinished(folder):
            shutil.rmtree(folder, ignore_errors=True)
        if owner is not None:
            owner.close()


def clear_abandoned(parent: Path) -> None:
    """Remove what killed writers have left in the local staging of object stores."""
    for folder in (parent / STAGING).glob("*"):
        if is_abandoned(folder, _LONG_S):
            shutil.rmtree(folder, ignore_errors=True)


def is_abandoned(folder: Path, older_than_s: float) -> bool:
    """Whether the writer of a staging directory is dead, or on another machine and silent for so long.

    A file that processes lock is abandoned when none holds it.

    Never true for a living writer of this machine. Where the file system has no locks the process number decides,
    and the age where there is none of this machine.
    """
    if folder.name.startswith(WORK):
        with suppress(FileNotFoundError), folder.open("rb+") as file:
            return _try_lock(file) == _FREE
        return False
    host, _, process = folder.name.partition("-")[2].rpartition("-")
    age = time.time() - _last_change(folder)
    if host == socket.gethostname() and os.name != "nt":
        dead = not (process.isdigit() and _runs(int(process)))
        try:
            with (folder / OWNER).open("rb+") as owner:
                state = _try_lock(owner)
        except FileNotFoundError:
            # Between making the directory and locking the file, or being removed; else its writer died there.
            return age > _GRACE_S or dead
        return dead if state == _UNKNOWN else state == _FREE
    return age > older_than_s


def _try_lock(file: IO[bytes]) -> str:
    """Lock a file until it is closed; say whether another holds it, or that locks do not work here."""
    if fcntl is None:
        return _UNKNOWN
    try:
        fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        return _BUSY
    except OSError:
        return _UNKNOWN
    return _FREE


def _runs(process: int) -> bool:
    try:
        os.kill(process, 0)
    except ProcessLookupError:
        return False
    except PermissionError:
        return True
    return True


def _last_change(folder: Path) -> float:
    latest = 0.0
    for root, _, names in os.walk(folder):
        for path in (Path(root), *(Path(root, name) for name in names)):
            with suppress(OSError):
                latest = max(latest, path.stat().st_mtime)
    return latest
