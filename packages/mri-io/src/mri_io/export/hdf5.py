"""HDF5 files that have their space on the disk before the first byte of data."""

import errno
import io
import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import h5py

__all__ = ["allocate", "hdf5_file"]

_NOT_SUPPORTED = {errno.EINVAL, errno.EOPNOTSUPP, errno.ENOSYS}
_ZEROS = bytes(2**20)
_METADATA = 64 * 2**10


@contextmanager
def hdf5_file(path: Path, size: int) -> Iterator[h5py.File]:
    """Yield a new HDF5 file with room for `size` bytes of datasets; what is not used is given back at the end.

    The HDF5 library cannot close a file to which a write failed: it keeps it open, with its space, and ends the
    process with a segmentation fault when that exits. So the disk must not become full while it writes.

    Raises
    ------
    OSError
        When there is no room; HDF5 has not seen the file by then.
    """
    empty = io.BytesIO()
    h5py.File(empty, "w").close()
    path.write_bytes(empty.getvalue())
    allocate(path, size + _METADATA)
    with h5py.File(path, "r+") as file:  # which shortens the file to what it holds when it closes it
        yield file


def allocate(path: Path, size: int) -> None:
    """Lengthen a file to `size` bytes that are there: writing to them does not fail for want of space."""
    with path.open("r+b", buffering=0) as file:
        if hasattr(os, "posix_fallocate"):  # not on macOS
            try:
                os.posix_fallocate(file.fileno(), 0, size)
            except OSError as error:
                if error.errno not in _NOT_SUPPORTED:
                    raise
            else:
                return
        left = size - file.seek(0, os.SEEK_END)
        while left > 0:
            left -= file.write(_ZEROS[:left])
