"""Publication: a directory becomes visible whole, by one atomic rename, or not at all.

Everything is written into a staging directory beside the volumes, its ``zarr.json`` last; then every file and
directory is flushed to disk; then one rename moves it to its place.

- A process killed at any moment leaves a staging directory, which readers never see and ``gc`` removes.
- Two writers of one element never mix: a rename onto a committed directory fails, and the loser is told.
- A replacement swaps the new directory and the old one in a single step (Linux ``renameat2``, ``RENAME_EXCHANGE``), so
  that readers find the old element until they find the new one. Where the system cannot swap, the old one is moved
  aside first; a crash in that instant leaves a note from which ``gc`` completes the replacement.
"""

import contextlib
import ctypes
import errno
import os
import uuid
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from mri_io.errors import ElementExistsError, StoreError
from mri_io.store.jsonfile import dump_json, fsync_folder, write_text_atomic

__all__ = [
    "NODE",
    "REPLACED",
    "TARGET",
    "discard",
    "is_committed",
    "publish",
    "storage_errors",
    "write_json_atomic",
    "write_text",
]
