"""Opening HDF5 files with errors that say what is wrong with the file."""

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import h5py

from mri_io.errors import FormatError

__all__ = ["is_hdf5", "open_hdf5"]

_MAGIC = b"\x89HDF\r\n\x1a\n"


def is_hdf5(path: Path) -> bool:
    """Whether a file starts as HDF5 does."""
    if not path.is_file():
        return False
    with path.open("rb") as file:
        return file.read(8) == _MAGIC


@contextmanager
def open_hdf5(path: Path) -> Iterator[h5py.File]:
    """Open an HDF5 file for reading; errors of the library become FormatError."""
    try:
        with h5py.File(path) as file:
            yield file
    except FormatError:
        raise
    except (OSError, RuntimeError, KeyError) as error:
        raise FormatError(
            f"{path}: expected a readable HDF5 file, got an error of the HDF5 library: {error}. "
            "The file is truncated or damaged: copy it again from its source."
        ) from error
