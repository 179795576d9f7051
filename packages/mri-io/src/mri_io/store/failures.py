"""The record of failed items, one JSON object a line; a torn last line is ignored by readers."""

import json
import os
from collections.abc import Iterator, Mapping
from contextlib import contextmanager, suppress
from typing import Any

from mri_io.store.durable import storage_errors, write_text_atomic
from mri_io.store.remote.paths import AnyPath, StorePath

__all__ = ["Failures"]

_Named = set[tuple[str, str]]
_named: dict[AnyPath, tuple[tuple[Any, ...], _Named]] = {}
"""Items and stages in records that this process has read, and what tells whether they have changed since.

A run clears every item that succeeds, and hardly any has failed before: the record is not read again for each.
"""
_MOST_NAMED = 16


class Failures:
    """Rows of ``failures.jsonl`` of a cohort."""

    def __init__(self, cohort: AnyPath) -> None:
        self.path = cohort / "failures.jsonl"

    def append(self, row: Mapping[str, Any]) -> None:
        """Append a row and flush it to disk."""
        line = (json.dumps(dict(row)) + "\n").encode()
        if isinstance(self.path, StorePath):
            self.path.update(lambda old: (old or b"") + line)
            return
        with self._locked(), storage_errors(self.path), self.path.open("ab+") as file:
            named = self._remembered(self._identity())
            # A killed writer may have left a torn line: start a new one.
            file.seek(0, os.SEEK_END)
            torn = False
            if file.tell() > 0:
                file.seek(-1, os.SEEK_END)
                torn = file.read(1) != b"\n"
            file.write((b"\n" if torn else b"") + line)
            file.flush()
            os.fsync(file.fileno())
            if named is not None:
                self._remember(self._identity(), {*named, _name(row)})

    def rows(self) -> list[dict[str, Any]]:
        """Return all rows that can be read."""
        try:
            return _rows(self.path.read_bytes())
        except FileNotFoundError:
            return []

    def clear(self, item: str | None, stage: str | None = None) -> None:
        """Remove the rows of an item, at one stage or at all; of a stage those of all items where `item` is None."""

        def without(content: bytes | None) -> bytes | None:
            lines = (content or b"").splitlines(keepends=True)
            kept = [line for line in lines if not _is_of(line, item, stage)]
            return None if len(kept) == len(lines) else b"".join(kept)

        if not _holds(self._names(), item, stage):
            return
        if isinstance(self.path, StorePath):
            self.path.update(without)
            return
        with self._locked():
            named = self._names()  # others may have added rows
            new = without(self.path.read_bytes())
            if new is not None:
                write_text_atomic(self.path, new.decode("utf-8", errors="replace"))
                rest = {name for name in named if not _holds({name}, item, stage)}
                self._remember(self._identity(), rest)

    def _names(self) -> _Named:
        """Return the items and stages of all rows, from memory while the record is what it was."""
        identity = self._identity()  # before reading: what is added meanwhile is read the next time
        if identity is None:
            return set()
        if (named := self._remembered(identity)) is None:
            named = {_name(row) for row in self.rows()}
            self._remember(identity, named)
        return named

    def _identity(self) -> tuple[Any, ...] | None:
        """Return what tells the record from itself after a change, None when there is none."""
        if isinstance(self.path, StorePath):
            found = self.path.file_stat()
            return None if found is None else (found.tag,)
        try:
            stat = self.path.stat()
        except FileNotFoundError:
            return None
        return stat.st_ino, stat.st_mtime_ns, stat.st_size

    def _remembered(self, identity: tuple[Any, ...] | None) -> _Named | None:
        known, named = _named.get(self.path, (None, None))
        return named if known == identity else None

    def _remember(self, identity: tuple[Any, ...] | None, named: _Named) -> None:
        if len(_named) >= _MOST_NAMED:
            _named.clear()
        if identity is not None:
            _named[self.path] = identity, named

    @contextmanager
    def _locked(self) -> Iterator[None]:
        """Keep other processes of this machine from changing the file meanwhile."""
        assert not isinstance(self.path, StorePath)
        try:
            import fcntl
        except ImportError:  # not on Windows; there only one process should write
            yield
            return
        with storage_errors(self.path), self.path.with_name(".failures.lock").open("w") as lock:
            with suppress(OSError):  # a file system without locks: better a row lost in a race than none recorded
                fcntl.flock(lock, fcntl.LOCK_EX)
            yield


def _rows(content: bytes) -> list[dict[str, Any]]:
    """Return the rows of a record that can be read."""
    rows = []
    for line in content.decode("utf-8", errors="replace").splitlines():
        try:
            row = json.loads(line)
        except ValueError:
            continue
        if isinstance(row, dict):
            rows.append(row)
    return rows


def _name(row: Mapping[str, Any]) -> tuple[str, str]:
    return str(row.get("item")), str(row.get("stage"))


def _holds(named: _Named, item: str | None, stage: str | None) -> bool:
    if item is not None and stage is not None:
        return (item, stage) in named
    return any(item in (None, found) and stage in (None, at) for found, at in named)


def _is_of(line: bytes, item: str | None, stage: str | None) -> bool:
    """Whether a line is a row of an item or stage; only those that may be are parsed."""
    return json.dumps(stage if item is None else item).encode() in line and any(
        _holds({_name(row)}, item, stage) for row in _rows(line)
    )
