"""HDF5 files: which reader knows one, and data sets that the file itself holds in full.

What no reader knows is claimed here too, last of all, so that it is refused by name and never passed over.
"""

import math
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from functools import lru_cache
from pathlib import Path
from typing import Any

import h5py
import numpy as np

from mri_io.errors import FormatError, MriError, expected_got
from mri_io.formats.base import Format, Identity, RawVolume, SourceItem

__all__ = [
    "Hdf5Based",
    "Hdf5Format",
    "Hdf5Outline",
    "found_number",
    "hdf5_layout",
    "hdf5_outline",
    "holds_hdf5",
    "is_hdf5",
    "open_hdf5",
    "rows_at_once",
    "stored_array",
    "stored_text",
]

_MAGIC = b"\x89HDF\r\n\x1a\n"
_USER_BLOCK = 512
_ENDINGS = (".h5", ".hdf5", ".mrd")
_BLOCK_BYTES = 32 * 2**20
_DEEPEST_BYTES = 256 * 2**20
_MOST_PACKED = 200
"""Measured values hardly pack, undersampled ones by their acceleration; zeros pack a thousand times."""
_LIBRARY_ERRORS = (OSError, RuntimeError, KeyError, ValueError, TypeError)
_MOST_NAMED = 10
_REMEMBERED = 16


def is_hdf5(path: Path) -> bool:
    """Whether a file starts as HDF5 does."""
    if not path.is_file():
        return False
    with path.open("rb") as file:
        return file.read(8) == _MAGIC


def holds_hdf5(path: Path) -> bool:
    """Whether a file is HDF5, also one of MATLAB behind a text of its own, or a folder may hold some; by names only."""
    if path.is_dir():
        return any(next(path.glob(f"{below}*{ending}"), None) for ending in _ENDINGS for below in ("", "*/"))
    if is_hdf5(path) or not path.is_file():
        return path.is_file()
    with path.open("rb") as file:
        file.seek(_USER_BLOCK)
        return file.read(8) == _MAGIC


class Hdf5Based(Format):
    """Base of readers of HDF5 files, which the library may hang on when they are damaged."""

    def is_fragile(self, path: Path) -> bool:
        """Whether the HDF5 library would be asked."""
        return holds_hdf5(path)


@contextmanager
def open_hdf5(path: Path) -> Iterator[h5py.File]:
    """Open an HDF5 file for reading; errors of the library become FormatError."""
    try:
        with h5py.File(path) as file:
            yield file
    except MriError:
        raise
    except _LIBRARY_ERRORS as error:
        raise FormatError(
            f"{path}: expected a readable HDF5 file, got an error of the HDF5 library: {error}. "
            "The file is truncated or damaged: copy it again from its source."
        ) from error


@dataclass(frozen=True)
class Hdf5Outline:
    """What is at the top of an HDF5 file, by which readers tell theirs from those of others.

    Attributes
    ----------
    arrays
        Of each array the number of dimensions and the kind of its dtype, as numpy has it.
    groups
        Of each group the members, and of those that are groups again the names in them.
    """

    arrays: Mapping[str, tuple[int, str]] = field(default_factory=dict)
    groups: Mapping[str, Mapping[str, frozenset[str]]] = field(default_factory=dict)


def hdf5_outline(path: Path) -> Hdf5Outline | None:
    """Return what is at the top of an HDF5 file, nothing where it cannot be opened; None where it is no HDF5 file.

    Every reader asks this of a file in turn: it is remembered as long as the file is the same.
    """
    if not is_hdf5(path):
        return None
    try:
        stat = path.stat()
        return _outline(path, (stat.st_dev, stat.st_ino, stat.st_size, stat.st_mtime_ns))
    except _LIBRARY_ERRORS:
        return Hdf5Outline()


@lru_cache(_REMEMBERED)
def _outline(path: Path, identity: tuple[int, ...]) -> Hdf5Outline:
    arrays: dict[str, tuple[int, str]] = {}
    groups: dict[str, dict[str, frozenset[str]]] = {}
    with h5py.File(path) as file:
        for name in file:
            found = file.get(name)
            if isinstance(found, h5py.Dataset):
                arrays[name] = (len(found.shape or ()), _kind(found))
            elif isinstance(found, h5py.Group):
                groups[name] = {member: _names(found, member) for member in found}
    return Hdf5Outline(arrays, groups)


def _kind(array: h5py.Dataset) -> str:
    try:
        return str(array.dtype.kind)
    except _LIBRARY_ERRORS:  # a type that numpy has not
        return ""


def _names(group: h5py.Group, member: str) -> frozenset[str]:
    try:
        return frozenset(group[member] if group.get(member, getclass=True) is h5py.Group else ())
    except _LIBRARY_ERRORS:  # damaged; its reader says so
        return frozenset()


def hdf5_layout(path: Path) -> str | None:
    """Return the name of the reader that knows an HDF5 file by what is in it.

    It is ``"hdf5"`` where none does or the file cannot be opened, and None where it is no HDF5 file.
    """
    outline = hdf5_outline(path)
    return None if outline is None else _layout(outline)


def _layout(outline: Hdf5Outline) -> str:
    names = outline.arrays.keys() | outline.groups.keys()
    if any("xml" in members for members in outline.groups.values()):
        return "ismrmrd"
    if "kspace" not in names:
        return Hdf5Format.name
    ndim, kind = outline.arrays.get("kspace", (0, ""))
    if ndim == 5 and {"maps", "target"} <= names:
        return "skm-tea"
    if ndim == 4 and kind == "f" and "ismrmrd_header" not in names:
        return "cc359"
    return "fastmri"


def stored_array(file: h5py.File, name: str, *, pairs: bool = False) -> h5py.Dataset:
    """Return an array of a file after making sure that the file holds all of it.

    The HDF5 library fills in zeros for what was never written, however large the array is said to be. With `pairs` it
    may hold pairs of numbers ``real`` and ``imag``, as MATLAB writes complex ones.

    Raises
    ------
    FormatError
        When there is no such array, it lies in another file, a part of it was never written, or it unpacks to more
        than two hundred times its size.
    """
    found, where = file.get(name), file.filename
    if not isinstance(found, h5py.Dataset):
        got = "nothing" if found is None else "a group"
        raise FormatError(expected_got(name, expected="an array (HDF5 data set)", got=got, where=where))
    if found.file.filename != file.filename or found.is_virtual or found.external:
        raise FormatError(
            expected_got(name, expected="data in the file itself", got="a reference to another file", where=where)
        )
    numbers = found.dtype.kind in "biufc" or (pairs and found.dtype.names == ("real", "imag"))
    if found.shape is None or not numbers:
        raise FormatError(expected_got(name, expected="an array of numbers", got=f"{found.dtype}", where=where))
    size = found.id.get_storage_size()
    if found.chunks is None:
        wanted, got, unit = found.nbytes, size, "bytes"
    else:
        wanted = math.prod(-(-n // chunk) for n, chunk in zip(found.shape, found.chunks, strict=True))
        got, unit = found.id.get_num_chunks(), "chunks"
    if got < wanted:
        fix = "Its writer was interrupted: copy the file again from its source."
        raise FormatError(
            expected_got(name, expected=f"{wanted} {unit} of data", got=f"{got} {unit}", where=where, fix=fix)
        )
    if found.nbytes > _MOST_PACKED * max(size, 1):
        expected = f"at most {_MOST_PACKED} times the {size} bytes in the file"
        raise FormatError(expected_got(f"{name} unpacked", expected=expected, got=f"{found.nbytes} bytes", where=where))
    return found


def rows_at_once(array: h5py.Dataset) -> int:
    """Return how many rows of the first dimension to read at a time: whole chunks, of 32 MiB if one is not more."""
    row = max(1, array.nbytes // max(1, array.shape[0]))
    rows = max(1, _BLOCK_BYTES // row)
    depth = array.chunks[0] if array.chunks else 1
    if depth <= rows:
        return rows // depth * depth
    # A chunk that does not fit is unpacked again for every part of it: rather take it whole, within limits.
    return depth if depth * row <= _DEEPEST_BYTES else rows


def stored_text(value: Any) -> str:
    """Return text that an attribute or data set holds as bytes or characters; what is no UTF-8 becomes a mark."""
    # h5py keeps such bytes of texts as surrogates.
    raw = value if isinstance(value, bytes) else str(value).encode("utf-8", errors="surrogateescape")
    return raw.decode("utf-8", errors="replace")


class Hdf5Format(Hdf5Based):
    """HDF5 files that no other reader knows: refused, with what is in them."""

    name = "hdf5"
    summary = "any other HDF5 file: refused, with what is in it"

    def sniff(self, path: Path) -> bool:
        """Whether it is an HDF5 file at all."""
        return is_hdf5(path)

    def identify(self, item: SourceItem) -> Identity:
        """Raise FormatError."""
        raise FormatError(_refusal(item.path))

    def read(self, item: SourceItem) -> RawVolume:
        """Raise FormatError."""
        raise FormatError(_refusal(item.path))


def _refusal(path: Path) -> str:
    with open_hdf5(path) as file:
        names = sorted(file)
        found = [
            f"{name} {file[name].shape}" if isinstance(file.get(name), h5py.Dataset) else name
            for name in names[:_MOST_NAMED]
        ]
    more = ["..."] if len(names) > _MOST_NAMED else []
    return expected_got(
        "data set",
        expected="'kspace' (fastMRI, Calgary-Campinas, SKM-TEA) or a group with 'xml' (ISMRMRD)",
        got=[*found, *more] or "an empty file",
        where=path,
        fix="This HDF5 file holds no k-space that is known; leave it out.",
    )


def found_number(attributes: Any, name: str) -> float | None:
    """Return an attribute of one finite number, None where there is none."""
    value = np.asarray(attributes.get(name, np.nan))
    return (
        float(value.ravel()[0]) if value.size == 1 and value.dtype.kind in "iuf" and np.isfinite(value).all() else None
    )
