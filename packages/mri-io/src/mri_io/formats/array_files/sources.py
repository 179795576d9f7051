"""Arrays in ``.npy`` files and MATLAB files of versions 5 and 7.3, read in parts when they are asked for."""

import math
import struct
import zlib
from collections.abc import Callable
from dataclasses import dataclass, replace
from pathlib import Path
from tokenize import TokenError
from typing import Any, Literal

import h5py
import numpy as np

from mri_io.errors import FormatError, expected_got
from mri_io.formats.array_files.matlab5 import check_matlab_5_array
from mri_io.formats.hdf5 import open_hdf5, stored_array

__all__ = ["ArraySource", "is_array_file", "joined", "mapped_source", "open_array", "unpacked_bytes"]

Index = tuple[int | slice, ...]
_NPY = b"\x93NUMPY"
_MATLAB_5, _MATLAB_7 = b"MATLAB 5.0 MAT-file", b"MATLAB 7.3 MAT-file"
_NUMBERS = "biufc"
MOST_PACKED = 200
"""Measured values hardly pack; a file that claims to unpack to more is damaged, or means harm."""
PIECE_BYTES = 1 << 27
_SIZES = {"single": 8, "double": 16, "logical": 1}
"""Bytes of a number of MATLAB's classes, which may be complex."""
_DAMAGE = (
    *(ValueError, TypeError, OSError, KeyError, IndexError, EOFError, ArithmeticError, NotImplementedError),
    *(struct.error, zlib.error, MemoryError, SyntaxError, TokenError, RecursionError, AttributeError),
)


@dataclass(frozen=True)
class ArraySource:
    """An array in a file.

    Attributes
    ----------
    path
        The file, for errors.
    name
        The variable, empty where the file holds one array without name.
    shape, dtype
        Of the array; numbers, real or complex.
    read
        Returns the part at an index of integers and slices, one for each dimension.
    """

    path: Path
    name: str
    shape: tuple[int, ...]
    dtype: np.dtype[Any]
    read: Callable[[Index], np.ndarray]

    def padded(self, ndim: int) -> "ArraySource":
        """Return the array with dimensions of length one at its end; MATLAB leaves these away."""
        extra = ndim - len(self.shape)
        if extra <= 0:
            return self

        def read(index: Index) -> np.ndarray:
            part = self.read(index[: len(self.shape)])
            return part[(..., *[None] * extra)][(..., *index[len(self.shape) :])]

        return replace(self, shape=(*self.shape, *[1] * extra), read=read)


def is_array_file(path: Path) -> bool:
    """Whether a file starts as ``.npy`` or MATLAB files do."""
    if not path.is_file():
        return False
    with path.open("rb") as file:
        return file.read(len(_MATLAB_5)).startswith((_NPY, _MATLAB_5, _MATLAB_7))


def open_array(path: Path, variable: str | None) -> ArraySource:
    """Return the array of a file, of several the one named.

    Raises
    ------
    FormatError
        When the file is truncated or damaged, holds no array of numbers or several, or none of that name.
    """
    with path.open("rb") as file:
        start = file.read(len(_MATLAB_5))
    if start.startswith(_NPY):
        if variable is not None:
            raise FormatError(
                expected_got("--variable", expected="none, .npy files hold one array", got=variable, where=path)
            )
        return _open_npy(path)
    return _open_matlab_5(path, variable) if start == _MATLAB_5 else _open_matlab_7(path, variable)


def mapped_source(
    path: Path, shape: tuple[int, ...], dtype: np.dtype[Any], *, offset: int = 0, order: Literal["C", "F"] = "C"
) -> ArraySource:
    """Return an array that lies in a file as in memory.

    The file is mapped anew for each part, and large parts in pieces: pages of a map count as memory of the process as
    long as it exists.
    """

    def part(index: Index) -> np.ndarray:
        return np.array(np.memmap(path, dtype, "r", offset, shape, order)[index])

    def read(index: Index) -> np.ndarray:
        slowest = 0 if order == "C" else len(shape) - 1
        spans = [
            item.indices(size) if isinstance(item, slice) else (item, item + 1, 1)
            for item, size in zip(index, shape, strict=True)
        ]
        start, stop, _ = spans[slowest]
        row = max(1, math.prod(shape) // max(1, shape[slowest]) * dtype.itemsize)
        step = max(1, PIECE_BYTES // row)
        if not isinstance(index[slowest], slice) or stop - start <= step:
            return part(index)
        axis = sum(isinstance(item, slice) for item in index[:slowest])
        pieces = [
            part((*index[:slowest], slice(first, min(first + step, stop)), *index[slowest + 1 :]))
            for first in range(start, stop, step)
        ]
        return np.concatenate(pieces, axis=axis)

    return ArraySource(path, "", shape, dtype, read)


def _open_npy(path: Path) -> ArraySource:
    size = path.stat().st_size
    readers = {(1, 0): np.lib.format.read_array_header_1_0, (2, 0): np.lib.format.read_array_header_2_0}
    try:
        with path.open("rb") as file:
            version = np.lib.format.read_magic(file)
            shape, fortran, dtype = readers[version](file)
            offset = file.tell()
    except _DAMAGE as error:
        raise _damaged(path, "a readable .npy header", f"{error or type(error).__name__}") from error
    if dtype.hasobject:
        raise FormatError(
            expected_got(
                "dtype",
                expected="numbers",
                got="Python objects (pickled)",
                where=path,
                fix="These are not read, since they may run code: save an array of numbers.",
            )
        )
    _check_numbers(dtype, path)
    wanted = math.prod(shape) * dtype.itemsize
    if min(shape, default=0) < 0 or wanted > size - offset:
        raise _damaged(path, f"{wanted} bytes of {dtype} {shape}", f"{size - offset} bytes")
    return mapped_source(path, shape, dtype, offset=offset, order="F" if fortran else "C")


def unpacked_bytes(path: Path, variable: str | None) -> int:
    """Return the bytes of an array that is read whole, from what its file claims; 0 for those read in parts."""
    with path.open("rb") as file:
        if file.read(len(_MATLAB_5)) != _MATLAB_5:
            return 0
    _, shape, kind = _find_matlab_5(path, variable)
    return math.prod(shape) * _SIZES.get(kind, 16)


def _find_matlab_5(path: Path, variable: str | None) -> tuple[str, tuple[int, ...], str]:
    """Return name, shape and class of the array to read."""
    import scipy.io

    try:
        listed = {name: (shape, kind) for name, shape, kind in scipy.io.whosmat(path) if _is_number(kind)}
    except (*_DAMAGE, scipy.io.matlab.MatReadError) as error:
        raise _damaged(path, "a readable MATLAB 5 file", str(error)) from error
    name = _choose({name: shape for name, (shape, _) in listed.items()}, variable, path)
    return name, *listed[name]


def _open_matlab_5(path: Path, variable: str | None) -> ArraySource:
    import scipy.io

    name, shape, kind = _find_matlab_5(path, variable)
    claimed = math.prod(shape) * _SIZES.get(kind, 2)
    if claimed > MOST_PACKED * path.stat().st_size:
        raise _damaged(path, f"at most {MOST_PACKED} times the file's size", f"{name} of {claimed} bytes")
    check_matlab_5_array(path, name)
    try:
        array = np.asarray(scipy.io.loadmat(path, variable_names=[name])[name])
    except (*_DAMAGE, scipy.io.matlab.MatReadError) as error:
        raise _damaged(path, f"a readable array {name} {shape}", str(error)) from error
    _check_numbers(array.dtype, path)
    return ArraySource(path, name, array.shape, array.dtype, array.__getitem__)


def _is_number(kind: str) -> bool:
    return kind in ("double", "single", "logical") or kind.lstrip("u").startswith("int")


def _open_matlab_7(path: Path, variable: str | None) -> ArraySource:
    with open_hdf5(path) as file:
        arrays = {key: found.shape[::-1] for key in file if (found := _matlab_array(file, key)) is not None}
        name = _choose(arrays, variable, path)
        dtype = stored_array(file, name, pairs=True).dtype
        pair = dtype.names is not None
        if pair:
            dtype = np.result_type(dtype["real"], np.complex64)

    def read(index: Index) -> np.ndarray:
        with open_hdf5(path) as opened:
            # MATLAB's first dimension is the fastest, HDF5's the slowest.
            part = np.asarray(opened[name][index[::-1]])
        return (joined(part["real"], part["imag"]) if pair else part).transpose()

    return ArraySource(path, name, arrays[name], dtype, read)


def joined(real: np.ndarray, imaginary: np.ndarray) -> np.ndarray:
    """Return complex numbers, complex64 unless their parts are of more than single precision."""
    result = np.empty(real.shape, np.result_type(real, np.complex64))
    result.real, result.imag = real, imaginary
    return result


def _matlab_array(file: h5py.File, key: str) -> h5py.Dataset | None:
    """Return a data set that holds numbers, None for MATLAB's own lists, text, cells and structures."""
    found = file.get(key)
    if key.startswith("#") or not isinstance(found, h5py.Dataset) or found.shape is None:
        return None
    numbers = found.dtype.kind in _NUMBERS or found.dtype.names == ("real", "imag")
    text = bytes(found.attrs.get("MATLAB_class", b"")) in (b"char", b"cell") or "MATLAB_empty" in found.attrs
    return found if numbers and not text else None


def _choose(arrays: dict[str, tuple[int, ...]], variable: str | None, path: Path) -> str:
    """Return the name of the array to read."""
    listed = ", ".join(f"{name} {shape}" for name, shape in arrays.items()) or "none"
    if variable is not None and variable not in arrays:
        raise FormatError(expected_got("--variable", expected=f"one of {listed}", got=variable, where=path))
    if variable is None and len(arrays) != 1:
        fix = f"Choose one: --variable {next(iter(arrays))}." if arrays else "The file holds no array of numbers."
        raise FormatError(expected_got("arrays", expected="one", got=listed, where=path, fix=fix))
    return variable or next(iter(arrays))


def _check_numbers(dtype: np.dtype[Any], path: Path) -> None:
    if dtype.kind not in _NUMBERS:
        raise FormatError(expected_got("dtype", expected="real or complex numbers", got=dtype, where=path))


def _damaged(path: Path, expected: str, got: str) -> FormatError:
    fix = "The file is truncated or damaged: copy it again from its source."
    return FormatError(expected_got("array", expected=expected, got=got, where=path, fix=fix))
