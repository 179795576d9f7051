"""NIfTI images through nibabel; the affine is kept as it is, in mm."""

import gzip
import math
from contextlib import AbstractContextManager, nullcontext
from pathlib import Path
from typing import Any

import nibabel
import numpy as np

from mri_io.errors import FormatError, expected_got
from mri_io.formats.images.files import ImageFile, Reader, check_claimed_size, reading, voxel_size
from mri_io.formats.images.single import ImageFormat

__all__ = ["NiftiFormat", "from_nibabel", "open_pair"]

_KIND = "NIfTI image"
_MAGIC_1 = (b"n+1\0", b"ni1\0")
_MAGIC_2 = (b"n+2\0", b"ni2\0")
_UNITS_MM = {1: 1e3, 2: 1.0, 3: 1e-3}
"""By the standard's codes: metre, mm, micrometre."""
_TIME_UNITS_S = {"sec": 1.0, "msec": 1e-3, "usec": 1e-6}


def is_nifti_header(head: bytes) -> bool:
    """Whether the beginning of a file has the magic of NIfTI-1 or -2."""
    return head[344:348] in _MAGIC_1 or head[4:8] in _MAGIC_2


class NiftiFormat(ImageFormat):
    """Images of three dimensions, and series: the fourth is ``frame``, the fifth ``set``.

    The file's slices are the third axis; the stored array is the file's transposed.
    """

    name = "nifti"
    summary = "NIfTI-1 and -2 (.nii, .nii.gz, .hdr with .img): images and time series"

    def sniff(self, path: Path) -> bool:
        """Whether the file has the magic of NIfTI-1 or -2, compressed or not."""
        header = self.header_of(path)
        if not header.is_file():
            return False
        named = header.name.endswith((".nii", ".nii.gz"))
        try:
            with header.open("rb") as file:
                head = file.read(352)
            if head[:2] == b"\x1f\x8b":
                if not header.name.endswith(".nii.gz"):
                    return False
                with gzip.open(header) as packed:
                    head = packed.read(352)
        except (OSError, EOFError, gzip.BadGzipFile):
            return named
        return named or is_nifti_header(head)

    def header_of(self, path: Path) -> Path:
        """Return the header of a pair, ``.hdr`` for ``.img``, or the file itself."""
        return path.with_suffix(".hdr") if path.suffix == ".img" else path

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
        with reading(path, _KIND):
            image: Any = nibabel.load(path, keep_file_open=True)  # so that slices of .nii.gz are read in one pass
        packed = "gzip" if path.name.endswith(".gz") else ""
        return from_nibabel(image, path, _KIND, data=path, packed=packed)


def _paired(path: Path) -> bool:
    return path.suffix == ".hdr"


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


def _frame_step(header: Any, ndim: int) -> float | None:
    """Return the seconds between frames, None where the file does not state them."""
    if ndim < 4 or not hasattr(header, "get_xyzt_units"):
        return None
    unit, step = header.get_xyzt_units()[1], float(header.get_zooms()[3])
    seconds = step * _TIME_UNITS_S.get(unit, 0.0)
    return seconds if seconds > 0 and math.isfinite(seconds) else None
