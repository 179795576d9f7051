"""Damage files as failing hardware does, and fail as full disks do."""

import errno
import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any
from unittest.mock import patch

__all__ = ["flip_bit", "full_disk", "truncate"]


def flip_bit(path: Path, position: int) -> None:
    """Flip one bit of a file, counted from its first; the file keeps its size."""
    data = bytearray(path.read_bytes())
    data[position // 8] ^= 1 << (position % 8)
    path.write_bytes(data)


def truncate(path: Path, size: int) -> None:
    """Cut a file off after `size` bytes, or from its end where that is negative."""
    keep = size if size >= 0 else path.stat().st_size + size
    os.truncate(path, keep)


@contextmanager
def full_disk(after: int) -> Iterator[None]:
    """Let the disk be full once `after` bytes of data have been written to elements."""
    left = after

    def write(file: Any, data: Any) -> None:
        nonlocal left
        left -= len(data)
        if left < 0:
            file.write(data[: len(data) + left])
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
        file.write(data)

    with patch("mri_io.store.shards._write", write):
        yield
