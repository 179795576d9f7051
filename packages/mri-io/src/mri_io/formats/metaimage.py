"""MetaImage files through SimpleITK: one file, or a header with its data beside it."""

from collections.abc import Iterator, Mapping
from contextlib import AbstractContextManager, contextmanager, nullcontext
from pathlib import Path
from typing import Any

import numpy as np

from mri_io.errors import FormatError, expected_got
from mri_io.formats.base import import_extra
from mri_io.formats.contents import unexpected_content
from mri_io.formats.images.files import ImageFile, Reader, check_claimed_size, reading, voxel_size
from mri_io.formats.images.single import ImageFormat, header_beside
from mri_io.formats.unpacking import Unpacked

__all__ = ["MetaImageFormat"]

_KIND = "MetaImage"
MOST_HEADER_BYTES = 2**16
LOCAL = "LOCAL"
_BIG_ENDIAN = ("BinaryDataByteOrderMSB", "ElementByteOrderMSB")
_NEEDED = {"NDims", "DimSize", "ElementType", "ElementDataFile"}
LIBRARY_BYTES = 128 * 2**20
"""What loading SimpleITK takes; measured."""
_BYTES = {"CHAR": 1, "UCHAR": 1, "SHORT": 2, "USHORT": 2, "INT": 4, "UINT": 4, "LONG": 4, "ULONG": 4, "FLOAT": 4}
"""By the element types' names without ``MET_``; all others have eight bytes."""


class MetaImageFormat(ImageFormat):
    """Images of three dimensions, and of four, of which the fourth is ``frame``; LPS becomes RAS+ mm."""

    name = "metaimage"
    endings = (".mha", ".mhd")
    summary = "MetaImage (.mha, .mhd with .raw or .zraw): images and time series"

    def sniff(self, path: Path) -> bool:
        """Whether the file begins with the fields of a MetaImage, or holds the data of one."""
        return path.is_file() and (self.header_of(path) != path or _header(path)[0].keys() >= _NEEDED)

    def is_fragile(self, path: Path) -> bool:
        """Whether ITK would parse the file."""
        return path.is_file() and _header(path)[0].keys() >= _NEEDED

    def header_of(self, path: Path) -> Path:
        """Return the ``.mhd`` of a ``.raw`` or ``.zraw``."""
        return header_beside(path, ".mhd", self.files_of) if path.suffix.lower() in (".raw", ".zraw") else path

    def files_of(self, path: Path) -> tuple[Path, ...]:
        """Return the file, and that with its data."""
        try:
            named = _header(path)[0].get("ElementDataFile", LOCAL)
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
        data, offset = _check_data(path)
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
        stored = dtype.newbyteorder(">" if _is_true(_header(path)[0], *_BIG_ENDIAN) else "<")
        return ImageFile(
            path=path,
            kind=_KIND,
            shape=(*frames, *size[2::-1]),
            series=("frame",) if frames else (),
            dtype=dtype,
            reader=lambda: _slices(sitk, reader, size) if offset is None else _unpacked(data, offset, stored, size),
            affine=affine,
            voxel_mm=voxel_size(affine),
            held=LIBRARY_BYTES,
        )


def _header(path: Path) -> tuple[dict[str, str], int]:
    """Return the fields of a header, which ends with the name of the data's file, and its bytes."""
    with path.open("rb") as file:
        head = file.read(MOST_HEADER_BYTES)
    fields: dict[str, str] = {}
    end = 0
    for line in head.split(b"\n"):
        end += len(line) + 1
        key, equals, value = line.partition(b"=")
        if not equals:
            continue
        fields[key.strip().decode("latin-1")] = value.strip().decode("latin-1")
        if key.strip() == b"ElementDataFile":
            break
    return fields, end


def _is_true(fields: Mapping[str, str], *names: str) -> bool:
    return any(fields.get(name, "").lower() in ("true", "1") for name in names)


def _check_data(path: Path) -> tuple[Path, int | None]:
    """Check the data's file against the header; return it and, where they are compressed, the byte where they begin."""
    fields, end = _header(path)
    if not fields.keys() >= _NEEDED:
        raise unexpected_content(path, _KIND)
    named = fields["ElementDataFile"]
    if named.split()[:1] == ["LIST"] or "%" in named:
        raise FormatError(expected_got("data file", expected="one file", got=repr(named), where=path))
    data = path if named == LOCAL else path.parent / named
    if not data.is_file():
        raise FormatError(f"{data}: expected beside {path.name}, found no file. The two are one image.")
    compressed = _is_true(fields, "CompressedData")
    with reading(path, _KIND):
        shape = tuple(int(n) for n in fields["DimSize"].split())
        itemsize = _BYTES.get(fields["ElementType"].removeprefix("MET_").removesuffix("_ARRAY"), 8)
        channels = int(fields.get("ElementNumberOfChannels", 1))
        skipped = int(fields.get("HeaderSize", 0))
    check_claimed_size(data, shape, itemsize * channels, packed="gzip" if compressed else "")
    if not compressed:
        return data, None
    return data, skipped if skipped > 0 else (end if named == LOCAL else 0)


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


@contextmanager
def _unpacked(data: Path, offset: int, dtype: np.dtype[Any], size: tuple[int, ...]) -> Iterator[Reader]:
    """Give a function that reads slices of compressed data, which are unpacked as far as they are asked for."""
    with data.open("rb") as file:
        file.seek(offset)
        stream, position = Unpacked(file, data.stat().st_size - offset, packed=True), 0
        plane = size[0] * size[1] * dtype.itemsize

        def read(index: tuple[int, ...], start: int, stop: int) -> np.ndarray:
            nonlocal position
            wanted = (int(index[0]) * size[2] if index else 0) + start
            if wanted < position:
                raise ValueError(f"slice {wanted} asked for after slice {position}")
            stream.skip(plane * (wanted - position))
            values = np.frombuffer(stream.read(plane * (stop - start)), dtype)
            position = wanted + stop - start
            return values.astype(dtype.newbyteorder("="), copy=False).reshape(stop - start, size[1], size[0])

        yield read
        stream.finish()
