"""NIfTI images through nibabel; the affine is kept as it is, in mm."""

import gzip
import math
import weakref
import zlib
from collections.abc import Iterator
from contextlib import AbstractContextManager, ExitStack, contextmanager, nullcontext
from dataclasses import replace
from io import BufferedReader
from pathlib import Path
from typing import Any

import nibabel
import numpy as np

from mri_io.errors import FormatError, expected_got
from mri_io.formats.contents import unexpected_content
from mri_io.formats.images.files import ImageFile, Reader, check_claimed_size, read_to_end, reading, voxel_size
from mri_io.formats.images.single import ImageFormat

__all__ = ["NiftiFormat", "from_nibabel", "open_pair"]

_KIND = "NIfTI image"
_MAGIC_1 = (b"n+1\0", b"ni1\0")
_MAGIC_2 = (b"n+2\0", b"ni2\0")
HEAD_BYTES = 352
_UNITS_MM = {1: 1e3, 2: 1.0, 3: 1e-3}
"""By the standard's codes: metre, mm, micrometre."""
_TIME_UNITS_S = {"sec": 1.0, "msec": 1e-3, "usec": 1e-6}


def is_nifti_header(head: bytes) -> bool:
    """Whether the beginning of a file has the magic of NIfTI-1 or -2."""
    return head[344:348] in _MAGIC_1 or head[4:8] in _MAGIC_2


def _holds_data(head: bytes) -> bool:
    """Whether the magic is that of a header with its data behind it, not of one of a pair."""
    return head[344:348] == _MAGIC_1[0] or head[4:8] == _MAGIC_2[0]


class NiftiFormat(ImageFormat):
    """Images of three dimensions, and series: the fourth is ``frame``, the fifth ``set``.

    The file's slices are the third axis; the stored array is the file's transposed.
    """

    name = "nifti"
    endings = (".nii", ".nii.gz")
    summary = "NIfTI-1 and -2 (.nii, .nii.gz, .hdr with .img): images and time series"

    def sniff(self, path: Path) -> bool:
        """Whether the file has the magic of NIfTI-1 or -2, compressed or not."""
        return path.is_file() and is_nifti_header(_head(self.header_of(path)))

    def header_of(self, path: Path) -> Path:
        """Return the header of a pair, ``.hdr`` for ``.img``, or the file itself."""
        header = path.with_suffix(".hdr")
        return header if path.suffix == ".img" and header.is_file() else path

    def files_of(self, path: Path) -> tuple[Path, ...]:
        """Return the file, or the two of a pair."""
        return tuple(file for file in (path, path.with_suffix(".img")) if file.is_file()) if _paired(path) else (path,)

    def open(self, path: Path) -> ImageFile:
        """Read the header.

        Raises
        ------
        FormatError
            When the file is no NIfTI, truncated, has more than five dimensions, or half of a pair is missing.
        """
        if _paired(path):
            return open_pair(path, _KIND)
        head = _head(path)
        if not is_nifti_header(head):
            raise unexpected_content(path, _KIND)
        if not _holds_data(head):
            fix = "Name the two .hdr and .img, with one stem."
            expected, got = "header and data of a NIfTI image", "the header of a pair"
            raise FormatError(expected_got("content", expected=expected, got=got, where=path, fix=fix))
        image_class: Any = nibabel.Nifti2Image if head[4:8] in _MAGIC_2 else nibabel.Nifti1Image
        with reading(path, _KIND), ExitStack() as opened:
            # nibabel goes by names. The file stays open, so that slices are unpacked in one pass.
            stream = opened.enter_context(_unpacked(path))
            image = image_class.from_file_map(image_class.make_file_map({"image": stream}))
            weakref.finalize(image, opened.pop_all().close)
        if not isinstance(stream, gzip.GzipFile):
            return from_nibabel(image, path, _KIND, data=path)
        found = from_nibabel(image, path, _KIND, data=path, packed="gzip")
        return replace(found, reader=lambda: _whole(found.reader(), stream))


def _is_packed(path: Path) -> bool:
    with path.open("rb") as file:
        return file.read(2) == b"\x1f\x8b"


def _unpacked(path: Path) -> gzip.GzipFile | BufferedReader:
    return gzip.open(path) if _is_packed(path) else path.open("rb")


def _head(path: Path) -> bytes:
    """Return the first bytes of a file, unpacked; none where it is damaged."""
    with _unpacked(path) as file:
        try:
            return file.read(HEAD_BYTES)
        except (EOFError, zlib.error, gzip.BadGzipFile):
            return b""


def _paired(path: Path) -> bool:
    """Whether data are in a file beside: a header that says so, or one that has such a file."""
    return path.suffix == ".hdr" and (path.with_suffix(".img").is_file() or not _holds_data(_head(path)))


def open_pair(path: Path, kind: str) -> ImageFile:
    """Read the header of a pair ``.hdr`` and ``.img``, NIfTI or Analyze."""
    data = path.with_suffix(".img")
    if not data.is_file():
        raise FormatError(f"{data}: expected beside {path.name}, found no file. The two are one image.")
    with reading(path, kind):
        image: Any = nibabel.load(path)
    return from_nibabel(image, path, kind, data=data)


def from_nibabel(image: Any, path: Path, kind: str, *, data: Path, packed: str = "") -> ImageFile:
    """Describe an image of nibabel's whose data lie in Fortran order, (x, y, z, t, vector)."""
    with reading(path, kind):
        shape, proxy = tuple(int(n) for n in image.shape), image.dataobj
        lengths = (*shape, 1, 1, 1)[: max(3, len(shape))]
        while len(lengths) > 3 and lengths[-1] == 1:
            lengths = lengths[:-1]
        if len(shape) < 2 or len(lengths) > 5:
            fix = "Write the members as files of their own." if len(lengths) > 5 else ""
            expected = "(x, y, z[, t[, set]])"
            raise FormatError(expected_got("dimensions", expected=expected, got=shape, where=path, fix=fix))
        check_claimed_size(data, shape, proxy.dtype.itemsize, offset=int(proxy.offset), packed=packed)
        scaled = np.any(np.asarray(proxy.slope) != 1) or np.any(np.asarray(proxy.inter) != 0)
        header = image.header
        affine = np.diag([*[_unit_mm(header)] * 3, 1.0]) @ np.asarray(image.affine, np.float64)
        step = _frame_step(header, len(lengths))
        assumed = "sform_code" in header and not int(header["sform_code"]) and not int(header["qform_code"])
    series = {name: n for name, n in (("set", lengths[4:]), ("frame", lengths[3:4])) if n not in ((), (1,))}
    attributes: dict[str, Any] = {"frame_step_s": step} if step else {}
    if assumed:
        attributes["orientation"] = "assumed: the file states none"
    return ImageFile(
        path=path,
        kind=kind,
        shape=(*(n for (n,) in series.values()), *lengths[2::-1]),
        series=tuple(series),
        dtype=np.dtype(np.float64) if scaled else proxy.dtype.newbyteorder("="),
        reader=lambda: _reader(image, lengths),
        affine=affine,
        voxel_mm=voxel_size(affine),
        attributes=attributes,
    )


def _reader(image: Any, lengths: tuple[int, ...]) -> AbstractContextManager[Reader]:
    """Return a function that reads slices; the index is (set, frame) as far as these are longer than one."""
    proxy, ndim = image.dataobj, len(image.shape)

    def read(index: tuple[int, ...], start: int, stop: int) -> np.ndarray:
        if ndim == 2:
            return np.asarray(proxy).T[None]
        rest = [0] * (ndim - 3)
        if len(lengths) == 4:
            rest[0] = index[0]
        elif len(lengths) == 5:
            rest[1], rest[0] = index[0], index[1] if len(index) > 1 else 0
        block = np.asarray(proxy[(slice(None), slice(None), slice(start, stop), *rest)])
        return block.astype(block.dtype.newbyteorder("="), copy=False).T

    return nullcontext(read)  # nibabel closes the file with the image


def _unit_mm(header: Any) -> float:
    """Return the mm of the header's unit of space; one that is not stated, or of no known code, is taken as mm."""
    return _UNITS_MM.get(int(header["xyzt_units"]) % 8, 1.0) if "xyzt_units" in header else 1.0


@contextmanager
def _whole(reader: AbstractContextManager[Reader], stream: gzip.GzipFile) -> Iterator[Reader]:
    with reader as read:
        yield read
        read_to_end(stream)


def _frame_step(header: Any, ndim: int) -> float | None:
    """Return the seconds between frames, None where the file does not state them."""
    if ndim < 4 or not hasattr(header, "get_xyzt_units"):
        return None
    unit, step = header.get_xyzt_units()[1], float(header.get_zooms()[3])
    seconds = step * _TIME_UNITS_S.get(unit, 0.0)
    return seconds if seconds > 0 and math.isfinite(seconds) else None
