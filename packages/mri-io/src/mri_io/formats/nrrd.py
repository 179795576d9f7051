"""NRRD images through pynrrd: one file, or a header with its data beside it."""

import bz2
import gzip
import math
import os
import re
from collections.abc import Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager
from pathlib import Path
from tempfile import TemporaryFile, gettempdir
from typing import IO, Any

import numpy as np

from mri_io.errors import FormatError, StoreError, expected_got
from mri_io.formats.base import import_extra
from mri_io.formats.contents import unexpected_content
from mri_io.formats.images.files import (
    MOST_EXPANSION,
    ImageFile,
    Reader,
    check_claimed_size,
    read_to_end,
    reading,
    voxel_size,
)
from mri_io.formats.images.single import ImageFormat, header_beside

__all__ = ["NrrdFormat"]

_KIND = "NRRD image"
MAGIC = b"NRRD000"
MOST_HEADER_BYTES = 2**20
_BLOCK_BYTES = 2**20
_TAKEN_APART_BYTES = 2**24
"""Of a series whose members lie side by side, how much is in memory at once."""

_NAMES = {
    "i1": "signed char,int8,int8_t",
    "u1": "uchar,unsigned char,uint8,uint8_t",
    "i2": "short,short int,signed short,signed short int,int16,int16_t",
    "u2": "ushort,unsigned short,unsigned short int,uint16,uint16_t",
    "i4": "int,signed int,int32,int32_t",
    "u4": "uint,unsigned int,uint32,uint32_t",
    "i8": "longlong,long long,long long int,signed long long,signed long long int,int64,int64_t",
    "u8": "ulonglong,unsigned long long,unsigned long long int,uint64,uint64_t",
    "f4": "float",
    "f8": "double",
}
_TYPES = {name: code for code, names in _NAMES.items() for name in names.split(",")}
_TO_RAS = {
    "right-anterior-superior": (1, 1, 1),
    "left-anterior-superior": (-1, 1, 1),
    "left-posterior-superior": (-1, -1, 1),
}
_SHORT = {"RAS": "right-anterior-superior", "LAS": "left-anterior-superior", "LPS": "left-posterior-superior"}
_UNITS_MM = {"mm": 1.0, "millimeter": 1.0, "cm": 10.0, "m": 1000.0, "um": 1e-3, "µm": 1e-3, "": 1.0}
_PACKED = {"raw": "", "gzip": "gzip", "gz": "gzip", "bzip2": "bzip2", "bz2": "bzip2"}
_SERIES = {"time": "frame", "list": "set", "vector": "set", "covariant-vector": "set"}
_SPATIAL = ("domain", "space")


class NrrdFormat(ImageFormat):
    """Images, and series along one axis, first or last: ``time`` becomes ``frame``, ``list`` and ``vector`` ``set``.

    Positions in the spaces LPS, LAS and RAS become RAS+ mm. Segmentations of 3D Slicer name their labels.
    """

    name = "nrrd"
    endings = (".nrrd", ".nhdr")
    summary = "NRRD (.nrrd, .nhdr with its data): images and series, spaces LPS, LAS, RAS"

    def sniff(self, path: Path) -> bool:
        """Whether the file begins as NRRD files do, or holds the data of one."""
        if not path.is_file():
            return False
        if self.header_of(path) != path:
            return True
        return _has_magic(path)

    def header_of(self, path: Path) -> Path:
        """Return the ``.nhdr`` of a file with its data."""
        data = path.suffix.lower() in (".raw", ".gz", ".bz2", ".bzip2", ".gzip", ".dat")
        return header_beside(path, ".nhdr", self.files_of) if data else path

    def files_of(self, path: Path) -> tuple[Path, ...]:
        """Return the file, and that with its data."""
        try:
            with path.open("rb") as file:
                found = re.search(rb"^data ?file:[ \t]*(.+?)[ \t\r]*$", _head(file), re.MULTILINE)
        except OSError:
            return (path,)
        data = path.parent / found[1].decode(errors="replace") if found else path
        return tuple(dict.fromkeys((path, data))) if data.is_file() else (path,)

    def open(self, path: Path) -> ImageFile:
        """Read the header.

        Raises
        ------
        FormatError
            When the file is damaged or truncated, in text, of another space or with axes that are neither of space nor
            of one series.
        """
        nrrd = import_extra("nrrd", "nrrd")
        if not _has_magic(path):
            raise unexpected_content(path, _KIND)
        with reading(path, _KIND), path.open("rb") as file:
            header = nrrd.read_header(_head(file).decode("latin-1").splitlines(keepends=True))
            dtype = _dtype(header, path)
            sizes = tuple(int(n) for n in header["sizes"])
            data = _data_file(header, path)
            encoding = str(header["encoding"]).lower()
        if encoding not in _PACKED:
            raise FormatError(expected_got("encoding", expected=tuple(_PACKED), got=repr(encoding), where=path))
        check_claimed_size(data, sizes, dtype.itemsize, packed=_PACKED[encoding])
        axis, series = _series_axis(header, sizes, path)
        spatial = tuple(n for i, n in enumerate(sizes) if i != axis)
        affine = _affine(header, axis, path)
        voxel = _voxel_mm(header, affine, axis)
        source = _Data(path, data, header, dtype, spatial, _PACKED[encoding])
        interleaved = axis == 0 and bool(series)
        return ImageFile(
            path=path,
            kind=_KIND,
            shape=(*((sizes[axis],) if axis is not None and series else ()), *spatial[::-1]),
            series=(series,) if series else (),
            dtype=dtype.newbyteorder("="),
            reader=source.interleaved if interleaved else source.sequential,
            affine=affine,
            voxel_mm=voxel,
            held=3 * _TAKEN_APART_BYTES if interleaved else 0,
            labels=_slicer_labels(header, path) if not series else {},
        )


def _has_magic(path: Path) -> bool:
    with path.open("rb") as file:
        return file.read(len(MAGIC)) == MAGIC


def _head(file: IO[bytes]) -> bytes:
    """Return the header of a file, up to the empty line that ends it."""
    head = file.read(MOST_HEADER_BYTES)
    end = re.search(rb"\r?\n\r?\n", head)
    return head[: end.end()] if end else head


def _dtype(header: Mapping[str, Any], path: Path) -> np.dtype[Any]:
    named = str(header["type"]).lower()
    if named not in _TYPES:
        raise FormatError(expected_got("type", expected="integers or floats", got=repr(named), where=path))
    return np.dtype({"little": "<", "big": ">"}.get(str(header.get("endian", "")).lower(), "=") + _TYPES[named])


def _data_file(header: Mapping[str, Any], path: Path) -> Path:
    named = header.get("data file", header.get("datafile"))
    if named is None:
        return path
    if str(named).startswith("LIST") or "%" in str(named):
        raise FormatError(expected_got("data file", expected="one file", got=repr(named), where=path))
    data = path.parent / str(named)
    if not data.is_file():
        raise FormatError(f"{data}: expected beside {path.name}, found no file. The two are one image.")
    return data


def _series_axis(header: Mapping[str, Any], sizes: Sequence[int], path: Path) -> tuple[int | None, str]:
    """Return the axis that is none of space, and what it becomes; None and nothing where all are of space."""
    kinds = [str(kind).lower() for kind in header.get("kinds", [])]
    directions = header.get("space directions")
    if directions is not None:
        other = [i for i, row in enumerate(np.asarray(directions, float)) if np.isnan(row).any()]
    elif kinds:
        other = [i for i, kind in enumerate(kinds) if kind not in _SPATIAL]
        other = [] if len(sizes) == 3 else other
    else:
        other = []
    if len(sizes) - len(other) != 3 or (other and other[0] not in (0, len(sizes) - 1)):
        expected = "three of space and perhaps one of a series, first or last"
        got = f"sizes {tuple(sizes)}, kinds {' '.join(kinds) or 'not stated'}"
        raise FormatError(expected_got("axes", expected=expected, got=got, where=path))
    if not other:
        return None, ""
    kind = kinds[other[0]] if kinds else "list"
    if sizes[other[0]] == 1:
        return other[0], ""
    if kind not in _SERIES:
        fix = "Colours, complex numbers, tensors and matrices are not read."
        raise FormatError(
            expected_got(f"kind of axis {other[0]}", expected=tuple(_SERIES), got=repr(kind), where=path, fix=fix)
        )
    return other[0], _SERIES[kind]


def _affine(header: Mapping[str, Any], axis: int | None, path: Path) -> np.ndarray | None:
    """Return voxel (x, y, slice) to RAS+ mm, None when the header does not state an anatomical space."""
    space, directions = header.get("space"), header.get("space directions")
    if space is None or directions is None:
        return None
    name = _SHORT.get(str(space), str(space).lower())
    if name not in _TO_RAS:
        raise FormatError(
            expected_got(
                "space",
                expected=tuple(_TO_RAS),
                got=repr(str(space)),
                where=path,
                fix="Without a patient's axes it does not say where the image lies.",
            )
        )
    columns = np.array([row for i, row in enumerate(np.asarray(directions, float)) if i != axis]).T
    origin = np.asarray(header.get("space origin", np.zeros(3)), float)
    if columns.shape != (3, 3) or origin.shape != (3,):
        got = f"directions {columns.T.tolist()}, origin {origin.tolist()}"
        raise FormatError(expected_got("space", expected="three dimensions", got=got, where=path))
    affine = np.eye(4)
    affine[:3, :3], affine[:3, 3] = columns, np.nan_to_num(origin)
    units = [_UNITS_MM.get(str(unit).strip().lower()) for unit in header.get("space units", ["mm"] * 3)]
    if None in units:
        got = header["space units"]
        raise FormatError(expected_got("space units", expected=tuple(_UNITS_MM)[:-1], got=got, where=path))
    scale = np.array(units, float) * _TO_RAS[name]
    affine[:3] *= scale[:, None]
    return affine + 0.0  # no negative zeros


def _voxel_mm(
    header: Mapping[str, Any], affine: np.ndarray | None, axis: int | None
) -> tuple[float, float, float] | None:
    if affine is not None:
        return voxel_size(affine)
    spacings = [float(mm) for i, mm in enumerate(header.get("spacings", [])) if i != axis]
    if len(spacings) != 3 or not np.isfinite(spacings).all() or min(spacings) <= 0:
        return None
    return spacings[0], spacings[1], spacings[2]


_SEGMENT = re.compile(r"Segment(\d+)_(LabelValue|Name|Layer)")


def _slicer_labels(header: Mapping[str, Any], path: Path) -> dict[int, str]:
    """Return the names that 3D Slicer gives the labels of a segmentation."""
    segments: dict[str, dict[str, str]] = {}
    for key, value in header.items():
        if found := _SEGMENT.fullmatch(key):
            segments.setdefault(found[1], {})[found[2]] = str(value)
    try:
        return {int(s["LabelValue"]): s["Name"] for s in segments.values() if {"LabelValue", "Name"} <= s.keys()}
    except ValueError:
        raise FormatError(
            expected_got("label values of the segments", expected="integers", got=segments, where=path)
        ) from None


class _Data:
    """The numbers of a file, the first axis fastest."""

    def __init__(
        self,
        path: Path,
        data: Path,
        header: Mapping[str, Any],
        dtype: np.dtype[Any],
        spatial: tuple[int, ...],
        packed: str,
    ) -> None:
        self._path, self._data, self._dtype, self._spatial, self._packed = path, data, dtype, spatial, packed
        self._lines = _skip(header, "line", data, packed)
        self._bytes = _skip(header, "byte", data, packed)
        self.nbytes = int(np.prod(header["sizes"], dtype=np.int64)) * dtype.itemsize

    @contextmanager
    def _opened(self) -> Iterator[IO[bytes]]:
        """Open the file at its first number."""
        with ExitStack() as files:
            file: IO[bytes] = files.enter_context(self._data.open("rb"))
            if self._data == self._path:
                file.seek(len(_head(file)))
            for _ in range(self._lines):
                if not file.readline():
                    raise EOFError(f"fewer than the {self._lines} lines to be skipped")
            if self._bytes == -1 and not self._packed:
                file.seek(-self.nbytes, os.SEEK_END)
            unpacked: Any = file
            if self._packed == "gzip":
                unpacked = files.enter_context(gzip.GzipFile(fileobj=file))
            elif self._packed:
                unpacked = files.enter_context(bz2.BZ2File(file))
            _pass_over(unpacked, max(0, self._bytes))
            yield unpacked
            if self._packed:
                read_to_end(unpacked)

    @contextmanager
    def sequential(self) -> Iterator[Reader]:
        """Read slices from a stream, where the series is the last axis."""
        with self._opened() as stream:
            position = 0
            x, y, z = self._spatial
            plane = x * y * self._dtype.itemsize

            def read(index: tuple[int, ...], start: int, stop: int) -> np.ndarray:
                nonlocal position
                wanted = (int(index[0]) * z if index else 0) + start
                if wanted < position:
                    raise ValueError(f"slice {wanted} asked for after slice {position}")
                _pass_over(stream, plane * (wanted - position))
                values = np.frombuffer(_exactly(stream, plane * (stop - start)), self._dtype)
                position = wanted + stop - start
                return values.astype(self._dtype.newbyteorder("="), copy=False).reshape(stop - start, y, x)

            yield read

    @contextmanager
    def interleaved(self) -> Iterator[Reader]:
        """Read slices where the series is the first axis, from a temporary file in which each member lies by itself."""
        x, y, z = self._spatial
        plane = x * y * self._dtype.itemsize
        with TemporaryFile() as apart:
            with self._opened() as stream:
                self._take_apart(stream, apart)

            def read(index: tuple[int, ...], start: int, stop: int) -> np.ndarray:
                apart.seek((int(index[0]) * z + start) * plane)
                values = np.frombuffer(_exactly(apart, (stop - start) * plane), self._dtype)
                return values.astype(self._dtype.newbyteorder("="), copy=False).reshape(stop - start, y, x)

            yield read

    def _take_apart(self, stream: IO[bytes], apart: IO[bytes]) -> None:
        """Write the members of a series, whose values lie side by side, one after the other."""
        size, voxels = self._dtype.itemsize, math.prod(self._spatial)
        members = self.nbytes // (voxels * size)
        step = max(1, _TAKEN_APART_BYTES // (members * size))
        for start in range(0, voxels, step):
            count = min(step, voxels - start)
            values = np.frombuffer(_exactly(stream, count * members * size), self._dtype).reshape(count, members)
            try:
                for number, member in enumerate(np.ascontiguousarray(values.T)):
                    apart.seek((number * voxels + start) * size)
                    apart.write(member.data)
                apart.flush()
            except OSError as error:
                raise StoreError(
                    f"{gettempdir()}: no room for the members of {self._path}, {self.nbytes / 1e6:.0f} MB ({error}). "
                    "Free space there, or name another folder in TMPDIR."
                ) from error


def _skip(header: Mapping[str, Any], unit: str, data: Path, packed: str) -> int:
    """Return how many lines or bytes stand before the data; FormatError where the file is shorter."""
    found = int(header.get(f"{unit} skip", header.get(f"{unit}skip", 0)))
    size = data.stat().st_size
    # Lines are skipped in the file as it is, bytes in what it unpacks to. -1 bytes: the data are its end.
    most = size * (MOST_EXPANSION[packed] if unit == "byte" else 1)
    if not (-1 if unit == "byte" else 0) <= found <= most:
        got = f"{found} in a file of {size} bytes"
        raise FormatError(expected_got(f"{unit} skip", expected="no more than the file has", got=got, where=data))
    return found


def _pass_over(stream: IO[bytes], count: int) -> None:
    """Read so many bytes and forget them; EOFError when there are fewer."""
    while count > 0:
        count -= len(_exactly(stream, min(count, _BLOCK_BYTES)))


def _exactly(stream: IO[bytes], count: int) -> bytes:
    """Read so many bytes; EOFError when there are fewer."""
    found = stream.read(count) if count else b""
    if len(found) < count:
        raise EOFError(f"{count - len(found)} bytes are missing")
    return found
