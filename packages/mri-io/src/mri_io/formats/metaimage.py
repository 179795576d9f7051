"""MetaImage files through SimpleITK: one file, or a header with its data beside it."""

import math
from contextlib import AbstractContextManager, nullcontext
from pathlib import Path
from typing import Any

import numpy as np

from mri_io.errors import FormatError, expected_got
from mri_io.formats.base import import_extra
from mri_io.formats.contents import unexpected_content
from mri_io.formats.images.files import ImageFile, Reader, check_claimed_size, reading, voxel_size
from mri_io.formats.images.single import ImageFormat, header_beside

__all__ = ["MetaImageFormat"]

_KIND = "MetaImage"
MOST_HEADER_BYTES = 2**16
LOCAL = "LOCAL"
_NEEDED = {"NDims", "DimSize", "ElementType", "ElementDataFile"}
LIBRARY_BYTES = 128 * 2**20
"""What loading SimpleITK takes; measured."""
_BYTES = {"CHAR": 1, "UCHAR": 1, "SHORT": 2, "USHORT": 2, "INT": 4, "UINT": 4, "FLOAT": 4}
"""By the element types' names without ``MET_``; all others have eight bytes."""


class MetaImageFormat(ImageFormat):
    """Images of three dimensions, and of four, of which the fourth is ``frame``; LPS becomes RAS+ mm."""

    name = "metaimage"
    endings = (".mha", ".mhd")
    summary = "MetaImage (.mha, .mhd with .raw or .zraw): images and time series"

    def sniff(self, path: Path) -> bool:
        """Whether the file begins with the fields of a MetaImage, or holds the data of one."""
        return path.is_file() and (self.header_of(path) != path or _fields(path).keys() >= _NEEDED)

    def is_fragile(self, path: Path) -> bool:
        """Whether ITK would parse the file."""
        return path.is_file() and _fields(path).keys() >= _NEEDED

    def header_of(self, path: Path) -> Path:
        """Return the ``.mhd`` of a ``.raw`` or ``.zraw``."""
        return header_beside(path, ".mhd", self.files_of) if path.suffix.lower() in (".raw", ".zraw") else path

    def files_of(self, path: Path) -> tuple[Path, ...]:
        """Return the file, and that with its data."""
        try:
            named = _fields(path).get("ElementDataFile", LOCAL)
        except OSError:
            return (path,)
        data = path.parent / named
        return (path, data) if named != LOCAL and data.is_file() else (path,)

    def open(self, path: Path) -> ImageFile:
        """Read the header.

        Raises
        ------
        FormatError
            When the file is damaged or truncated, its data are missing or in several files, or it is not of three or
            four dimensions with one number per voxel.
        """
        sitk = import_extra("SimpleITK", "metaimage")
        compressed = _check_data(path)
        with reading(path, _KIND):
            reader = sitk.ImageFileReader()
            reader.SetImageIO("MetaImageIO")
            reader.SetFileName(str(path))
            reader.ReadImageInformation()
            size, channels = reader.GetSize(), reader.GetNumberOfComponents()
            dtype = sitk.GetArrayViewFromImage(sitk.Image([1] * len(size), reader.GetPixelID())).dtype
        if len(size) not in (3, 4) or channels != 1:
            expected = "(x, y, z) or (x, y, z, t) with one number per voxel"
            got = f"{size} with {channels}"
            raise FormatError(expected_got("dimensions", expected=expected, got=got, where=path))
        frames = size[3:] if size[3:] != (1,) else ()
        affine = _affine(reader, len(size))
        return ImageFile(
            path=path,
            kind=_KIND,
            shape=(*frames, *size[2::-1]),
            series=("frame",) if frames else (),
            dtype=dtype,
            reader=lambda: _whole(sitk, path, len(size)) if compressed else _slices(sitk, reader, size),
            affine=affine,
            voxel_mm=voxel_size(affine),
            held=LIBRARY_BYTES + (2 * math.prod(size) * dtype.itemsize if compressed else 0),
        )


def _fields(path: Path) -> dict[str, str]:
    """Return the fields of a header, which ends with the name of the data's file."""
    with path.open("rb") as file:
        head = file.read(MOST_HEADER_BYTES)
    fields: dict[str, str] = {}
    for line in head.split(b"\n"):
        key, equals, value = line.partition(b"=")
        if not equals:
            continue
        fields[key.strip().decode("latin-1")] = value.strip().decode("latin-1")
        if key.strip() == b"ElementDataFile":
            break
    return fields


def _check_data(path: Path) -> bool:
    """Check the data's file against the header; return whether it is compressed."""
    fields = _fields(path)
    if not fields.keys() >= _NEEDED:
        raise unexpected_content(path, _KIND)
    named = fields["ElementDataFile"]
    if named.split()[:1] == ["LIST"] or "%" in named:
        raise FormatError(expected_got("data file", expected="one file", got=repr(named), where=path))
    data = path if named == LOCAL else path.parent / named
    if not data.is_file():
        raise FormatError(f"{data}: expected beside {path.name}, found no file. The two are one image.")
    compressed = fields.get("CompressedData", "False").lower() == "true"
    with reading(path, _KIND):
        shape = tuple(int(n) for n in fields["DimSize"].split())
        itemsize = _BYTES.get(fields["ElementType"].removeprefix("MET_").removesuffix("_ARRAY"), 8)
        channels = int(fields.get("ElementNumberOfChannels", 1))
    check_claimed_size(data, shape, itemsize * channels, packed="gzip" if compressed else "")
    return compressed


def _affine(reader: Any, ndim: int) -> np.ndarray:
    direction = np.array(reader.GetDirection()).reshape(ndim, ndim)[:3, :3]
    affine = np.eye(4)
    affine[:3, :3] = direction * np.array(reader.GetSpacing()[:3])
    affine[:3, 3] = reader.GetOrigin()[:3]
    return np.diag([-1.0, -1.0, 1.0, 1.0]) @ affine + 0.0  # ITK's axes are LPS; no negative zeros


def _slices(sitk: Any, reader: Any, size: tuple[int, ...]) -> AbstractContextManager[Reader]:
    """Return a function that reads slices of an uncompressed file."""

    def read(index: tuple[int, ...], start: int, stop: int) -> np.ndarray:
        frame = [int(index[0]) if index else 0] if len(size) == 4 else []
        reader.SetExtractIndex([0, 0, start, *frame])
        reader.SetExtractSize([size[0], size[1], stop - start, *[0] * len(frame)])
        return np.asarray(sitk.GetArrayFromImage(reader.Execute())).reshape(stop - start, size[1], size[0])

    return nullcontext(read)


def _whole(sitk: Any, path: Path, ndim: int) -> AbstractContextManager[Reader]:
    """Return a function that gives slices of a file unpacked at once."""
    values = sitk.GetArrayFromImage(sitk.ReadImage(str(path), imageIO="MetaImageIO"))

    def read(index: tuple[int, ...], start: int, stop: int) -> np.ndarray:
        frame = (int(index[0]) if index else 0,) if ndim == 4 else ()
        return np.asarray(values[(*frame, slice(start, stop))])

    return nullcontext(read)
