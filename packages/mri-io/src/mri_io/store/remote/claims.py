"""Claims: how one writer at a time gets a node of an object store, and how a dead one loses it.

An object store knows no renames and no locks, but it writes an object only if there is none, or only if the present one
has a certain ETag. A writer claims a node by writing its ``zarr.json``, the object by which a node is committed, as an
empty group that names the writer. It renews the claim while it uploads, and commits by writing the real content over
its own claim. Whoever takes an expired claim over changes the ETag, so that the former holder can neither renew nor
commit, whenever it wakes up.
"""

import json
import threading
import time
import uuid
from collections.abc import Callable
from typing import Any

from mri_io.errors import ElementExistsError, StoreError
from mri_io.schema.attributes import now_utc
from mri_io.store.metadata import CLAIM, is_claim
from mri_io.store.remote.backends import ABSENT, ConflictError, Stat
from mri_io.store.remote.machine import has_died, this_process
from mri_io.store.remote.paths import StorePath
from mri_io.store.staging import STAGING

__all__ = ["BusyError", "Claim", "claim_of", "is_claimed", "is_expired", "server_time"]

LEASE_S = 120.0
"""A claim that has not been renewed for so long has expired."""
_ATTEMPTS = 8


class BusyError(StoreError):
    """Another writer is at work on a node."""


def claim_of(raw: bytes) -> dict[str, Any] | None:
    """Return what a claim says, None when the bytes of a ``zarr.json`` are no claim."""
    if not is_claim(raw):
        return None
    claim: dict[str, Any] = json.loads(raw)["attributes"][CLAIM]
    return claim


def is_claimed(folder: StorePath) -> bool:
    """Whether a node is claimed rather than committed."""
    try:
        return claim_of((folder / "zarr.json").read_bytes()) is not None
    except FileNotFoundError:
        return False


def is_expired(claim: dict[str, Any], stat: Stat, now: Callable[[], float]) -> bool:
    """Whether a claim may be taken over: given up, its writer dead, or not renewed for longer than its lease.

    `now` returns the time by the clock of the server; it is called only when the claim itself does not tell.
    """
    if claim.get("released") or has_died(claim):
        return True
    lease = max(float(claim.get("lease_s", LEASE_S)), 0.0)
    return now() - stat.modified > lease


def server_time(volumes: StorePath) -> float:
    """Return the time by the clock that dates objects, which those of writers differ from: that of a new object."""
    probe = volumes.live() / STAGING / f"clock-{uuid.uuid4().hex}"
    probe.write(b"")
    stat = probe.file_stat()
    probe.backend.delete([probe.key])
    return time.time() if stat is None else stat.modified


def _volumes(node: StorePath) -> StorePath:
    below = (path for path in (node, *node.parents) if path.name.endswith(".zarr") or path.name == STAGING)
    return next(below, node).parent


def _now() -> float:
    """Return seconds that go on while the process or the machine sleeps."""
    clock = getattr(time, "CLOCK_BOOTTIME", getattr(time, "CLOCK_MONOTONIC", None))
    return time.monotonic() if clock is None else time.clock_gettime(clock)


class Claim:
    """A node that this process has claimed; a thread renews it until it is committed or given up.

    Parameters
    ----------
    folder
        The node.

    Attributes
    ----------
    former
        The committed ``zarr.json`` that the claim has taken the place of.
    """

    def __init__(self, folder: StorePath) -> None:
        self.folder = folder.live()
        self._path = self.folder / "zarr.json"
        self._id, self._tag, self._count = uuid.uuid4().hex, "", 0
        self._confirmed, self._lost = 0.0, ""
        self.former: bytes | None = None
        self._lock, self._stop = threading.Lock(), threading.Event()
        self._thread: threading.Thread | None = None
        self._process = this_process()

    @classmethod
    def take(cls, folder: StorePath, *, replace: bool = False, former: str | None = None) -> "Claim":
        """Claim a node.

        Parameters
        ----------
        folder
            The node.
        replace
            Whether a committed one may be replaced.
        former
            Its tag, when only that one may be.

        Raises
        ------
        ElementExistsError
            When it is committed and `replace` is false.
        BusyError
            When another writer holds it.
        StoreError
            When another writer has replaced it.
        """
        claim = cls(folder)
        for _ in range(_ATTEMPTS):
            condition = claim._condition(replace, former)
            if condition is None or claim._write(claim.text(), condition):
                claim._thread = threading.Thread(target=claim._keep, name="mri-io claim", daemon=True)
                claim._thread.start()
                return claim
        raise StoreError(f"{folder}: other writers keep claiming it. Run the step again.")

    def _condition(self, replace: bool, former: str | None) -> str | None:
        """Return on what condition the node can be claimed now, None when it is ours already."""
        self._confirmed = _now()
        try:
            raw, stat = self._path.read()
        except FileNotFoundError:
            return ABSENT
        found = claim_of(raw)
        if found is None and not replace:
            raise ElementExistsError(
                f"{self.folder}: is committed already, and committed data are immutable. "
                "Choose another name or ask for replacement."
            )
        if found is None and former not in (None, stat.tag):
            raise StoreError(f"{self.folder}: another writer has replaced it meanwhile. Run the step again.")
        if found is None:
            self.former = raw
            return stat.tag
        if found.get("writer") == self._id:  # the answer to the request was lost
            self._tag = stat.tag
            return None
        if not is_expired(found, stat, lambda: server_time(_volumes(self.folder))):
            raise BusyError(
                f"{self.folder}: another writer is at work on it: process {found.get('pid')} on {found.get('host')}, "
                f"since {found.get('created_utc')}. Wait for it; if it has died, its claim expires after "
                f"{float(found.get('lease_s', LEASE_S)):.0f} s."
            )
        return stat.tag

    def text(self, *, released: bool = False) -> bytes:
        """Return an empty group that names the writer, different each time."""
        self._count += 1
        content = {
            "writer": self._id,
            **self._process,
            "created_utc": now_utc(),
            "lease_s": LEASE_S,
            "renewal": self._count,
            "released": released,
        }
        group = {"zarr_format": 3, "node_type": "group", "attributes": {CLAIM: content}}
        return (json.dumps(group, indent=1) + "\n").encode()

    def _write(self, text: bytes, condition: str) -> bool:
        """Write the node's ``zarr.json``; say whether the condition held."""
        began = _now()
        try:
            self._tag = self._path.write(text, condition)
        except ConflictError:
            return False
        self._confirmed = began
        return True

    def _keep(self) -> None:
        while not self._stop.wait(LEASE_S / 6):
            try:
                self._renew()
            except StoreError:
                if self._lost:
                    return  # `check` tells of it; of a server that is away for a moment nobody needs to know

    def _renew(self) -> None:
        with self._lock:
            if self._stop.is_set():
                return
            for _ in range(_ATTEMPTS):
                if self._write(self.text(), self._tag):
                    return
                self._look()
        raise StoreError(f"{self.folder}: the claim cannot be renewed. Run the step again.")

    def _look(self) -> None:
        """After a condition failed: learn the tag when the answer to our own write was lost, else that all is lost."""
        try:
            raw, stat = self._path.read()
        except FileNotFoundError:
            raw, stat = b"", None
        found = claim_of(raw)
        if stat is None or found is None or found.get("writer") != self._id:
            self._lost = (
                f"{self.folder}: another writer has taken it over, since nothing was heard of this one for "
                f"{LEASE_S:.0f} s. Nothing has been committed here; run the step again."
            )
            raise StoreError(self._lost)
        self._tag = stat.tag

    def check(self) -> None:
        """Raise StoreError unless the claim is held now: to be called before every change below the node.

        The claim is renewed first when that has not been done for half of its lease, as in a process that was stopped.
        """
        if self._lost:
            raise StoreError(self._lost)
        if _now() - self._confirmed > LEASE_S / 2:
            self._renew()

    def commit(self, text: bytes) -> None:
        """Put the real content in place of the claim: the node is committed.

        Raises
        ------
        StoreError
            When the claim has been taken over, and nothing is committed; or when the server does not answer, and the
            message says that it is not known.
        """
        self.check()
        self._end()
        with self._lock:
            for attempt in range(_ATTEMPTS):
                try:
                    if self._write(text, self._tag) or self._path.read_bytes() == text:
                        return
                    self._look()
                except (ConflictError, FileNotFoundError):
                    self._look()
                except StoreError as error:
                    if self._lost:
                        raise
                    if attempt == _ATTEMPTS - 1:
                        raise StoreError(f"{self.folder}: it is not known whether it was committed: {error}") from error
                    time.sleep(min(2.0, 0.1 * 2**attempt))
        raise StoreError(f"{self.folder}: could not be committed. Run the step again.")

    def give_back(self) -> None:
        """Leave the node as it was before the claim, nothing below it having been changed."""
        if self.former is None:
            self.remove()
        else:
            self.commit(self.former)

    def release(self) -> None:
        """Give the claim up: others need not wait until it expires."""
        self._end()
        with self._lock:
            if not self._lost and not self._write(self.text(released=True), self._tag):
                self._lost = f"{self.folder}: the claim has been taken over."

    def remove(self) -> None:
        """Remove the claim itself: the node is absent."""
        self._end()
        self.check_now()
        self.folder.backend.delete([self._path.key])

    def check_now(self) -> None:
        """Raise StoreError unless the server says that the claim is ours: before what cannot be made conditional."""
        with self._lock:
            if self._lost:
                raise StoreError(self._lost)
            if not self._write(self.text(), self._tag):
                self._look()

    def _end(self) -> None:
        self._stop.set()
        if self._thread is not None and self._thread is not threading.current_thread():
            self._thread.join()
