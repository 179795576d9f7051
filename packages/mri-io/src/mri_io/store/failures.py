"""The record of failed items, one JSON object a line; a torn last line is ignored by readers."""

import json
import os
from collections.abc import Iterator, Mapping
from contextlib import contextmanager, suppress
from typing import Any

from mri_io.store.durable import storage_errors, write_text_atomic
from mri_io.store.remote.paths import AnyPath, StorePath

__all__ = ["Failures"]


class Failures:
    """Rows of ``failures.jsonl`` of a cohort."""

    def __init__(self, cohort: AnyPath) -> None:
        self.path = cohort / "failures.jsonl"

    def append(self, row: Mapping[str, Any]) -> None:
        """Append a row and flush it to disk."""
        if isinstance(self.path, StorePath):
            line = (json.dumps(dict(row)) + "\n").encode()
            self.path.update(lambda old: (old or b"") + line)
            return
        with self._locked(), storage_errors(self.path), self.path.open("ab+") as file:
            # A killed writer may have left a torn line: start a new one.
            file.seek(0, os.SEEK_END)
            torn = False
            if file.tell() > 0:
                file.seek(-1, os.SEEK_END)
                torn = file.read(1) != b"\n"
            file.write((("\n" if torn else "") + json.dumps(dict(row)) + "\n").encode())
            file.flush()
            os.fsync(file.fileno())

    def rows(self) -> list[dict[str, Any]]:
        """Return all rows that can be read."""
        try:
            return _rows(self.path.read_bytes())
        except FileNotFoundError:
            return []

    def clear(self, item: str, stage: str | None = None) -> None:
        """Remove the rows of an item, at one stage or at all."""

        def matches(row: Mapping[str, Any]) -> bool:
            return row.get("item") == item and stage in (None, row.get("stage"))

        def without(content: bytes | None) -> bytes | None:
            rows = _rows(content or b"")
            kept = [row for row in rows if not matches(row)]
            return None if kept == rows else "".join(json.dumps(row) + "\n" for row in kept).encode()

        if isinstance(self.path, StorePath):
            self.path.update(without)
        elif any(map(matches, self.rows())):
            with self._locked():
                new = without(self.path.read_bytes())
                if new is not None:
                    write_text_atomic(self.path, new.decode())

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
