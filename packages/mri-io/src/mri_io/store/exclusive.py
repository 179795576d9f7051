"""Work that one process at a time does in a cohort, while others that want to do the same wait for it.

In a folder the lock of a file says that somebody is at work, in an object store a claim. Both end with the process that
holds them, so that nobody waits for the dead. Where a file system has no locks nobody waits.
"""

import os
import random
import time
from collections.abc import Iterator
from contextlib import AbstractContextManager, contextmanager, nullcontext, suppress
from pathlib import Path
from types import ModuleType

from mri_io.errors import StoreError
from mri_io.store.durable import storage_errors
from mri_io.store.remote.claims import BusyError, Claim
from mri_io.store.remote.paths import AnyPath, StorePath
from mri_io.store.staging import STAGING, WORK

__all__ = ["exclusive"]

fcntl: ModuleType | None
try:
    import fcntl
except ImportError:  # not on Windows
    fcntl = None

_ASKED_EVERY_S = 1.0


def exclusive(volumes: AnyPath, name: str) -> AbstractContextManager[None]:
    """Wait until no other process does the work of this name, and keep others from it meanwhile.

    Parameters
    ----------
    volumes
        The folder with the volumes of a cohort.
    name
        What is to be done: letters, digits and hyphens.
    """
    place = volumes / STAGING / f"{WORK}{name}"
    if isinstance(place, StorePath):
        return _claimed(place)
    return _locked(place) if fcntl is not None else nullcontext()


@contextmanager
def _claimed(place: StorePath) -> Iterator[None]:
    while True:
        try:
            claim = Claim.take(place)
            break
        except BusyError:
            time.sleep(_ASKED_EVERY_S * random.uniform(0.5, 1.5))
    try:
        yield
    finally:
        with suppress(StoreError):  # it expires
            claim.remove()


@contextmanager
def _locked(place: Path) -> Iterator[None]:
    with storage_errors(place):
        place.parent.mkdir(parents=True, exist_ok=True)
        while not _is_at(descriptor := _lock(place), place):
            os.close(descriptor)
    try:
        yield
    finally:
        with suppress(OSError):
            place.unlink()  # while it is locked: who waits for it sees that it is gone
        os.close(descriptor)


def _lock(place: Path) -> int:
    assert fcntl is not None
    descriptor = os.open(place, os.O_RDWR | os.O_CREAT, 0o666)
    with suppress(OSError):  # a file system without locks
        fcntl.flock(descriptor, fcntl.LOCK_EX)
    return descriptor


def _is_at(descriptor: int, place: Path) -> bool:
    try:
        return os.path.samestat(os.fstat(descriptor), place.stat())
    except FileNotFoundError:
        return False
