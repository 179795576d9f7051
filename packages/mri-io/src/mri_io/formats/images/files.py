"""Image files as the store takes them: lazily, the series in front, (slice, y, x) behind, with an affine to RAS+ mm."""

import math
from collections.abc import Callable, Iterator, Mapping
from contextlib import AbstractContextManager, contextmanager
from dataclasses import dataclass, field, replace
from gzip import GzipFile
from pathlib import Path
from typing import IO, Any

import numpy as np

from mri_io.errors import FormatError, MriError, NonFiniteError, expected_got
from mri_io.formats.base import RawElement
from mri_io.schema.attributes import Header

__all__ = [
    "ENDINGS",
    "ImageFile",
    "check_claimed_size",
    "image_element",
    "image_stem",
    "label_element",
    "label_memory",
    "read_to_end",
    "reading",
    "voxel_size",
]

ENDINGS = (".nii.gz", ".nii", ".nrrd", ".nhdr", ".mha", ".mhd", ".hdr", ".par")
"""Endings of the files by which images are named, in lower case; data files beside headers are not among them."""

BLOCK_BYTES = 16 * 2**20
"""Size of a block of slices; a block has one slice at least."""
WORKING_BLOCKS = 6
"""How many blocks are in memory at once, as read, scaled, converted, checked, and compressed; measured."""
MOST_EXPANSION = {"": 1.0, "gzip": 1032.0, "bzip2": 50_000.0}
"""The most bytes that one byte of a file can stand for. Deflate: a match of 258 bytes takes at least two bits."""

Reader = Callable[[tuple[int, ...], int, int], np.ndarray]
"""Gives the slices from `start` to `stop`, (n, y, x), of one member of the series, by its index."""


def image_stem(name: str) -> str:
    """Return a file's name without the ending of an image file.

    Examples
    --------
    >>> image_stem("sub-01_T1w.nii.gz"), image_stem("scan.PAR"), image_stem("notes.txt")
    ('sub-01_T1w', 'scan', 'notes.txt')
    """
    found = next((ending for ending in ENDINGS if name.lower().endswith(ending)), "")
    return name[: len(name) - len(found)]


@dataclass(frozen=True)
class ImageFile:
    """An image in a file, of which the header was read.

    Attributes
    ----------
    path
        What errors name.
    kind
        What it is, for messages: ``"NIfTI image"``.
    shape
        The series, then slices, rows and columns.
    series
        Names of the dimensions of the series, any of ``set``, ``frame``, ``echo``.
    dtype
        Of the values as `reader` gives them.
    reader
        Opens the file, for a function that reads slices; slices are asked for in C order.
    affine
        Voxel (x, y, slice) to RAS+ mm, None when the file does not say where it lies.
    voxel_mm
        Size of a voxel along x, y, slice.
    held
        Bytes of the data that reading holds as a whole, 0 where slices are read one by one.
    labels
        Names of label ids that the file itself states.
    facts
        What it tells of the acquisition, as fields of `Header`.
    attributes
        What else the element should say.
    """

    path: Path
    kind: str
    shape: tuple[int, ...]
    series: tuple[str, ...]
    dtype: np.dtype[Any]
    reader: Callable[[], AbstractContextManager[Reader]]
    affine: np.ndarray | None = None
    voxel_mm: tuple[float, float, float] | None = None
    held: int = 0
    labels: Mapping[int, str] = field(default_factory=dict)
    facts: Mapping[str, Any] = field(default_factory=dict)
    attributes: Mapping[str, Any] = field(default_factory=dict)

    @property
    def dims(self) -> tuple[str, ...]:
        """Names of all dimensions."""
        return (*self.series, "slice", "y", "x")

    @property
    def memory(self) -> int:
        """The most bytes that reading and writing it holds."""
        row = self.shape[-1] * self.shape[-2] * 8
        return self.held + WORKING_BLOCKS * max(BLOCK_BYTES, row)

    def blocks(self) -> Iterator[np.ndarray]:
        """Read the values in blocks (n, y, x), one member of the series after the other.

        Raises
        ------
        FormatError
            When the file is truncated or damaged.
        """
        slices, rows, columns = self.shape[-3:]
        step = max(1, BLOCK_BYTES // (rows * columns * 8))
        with reading(self.path, self.kind), self.reader() as read:
            for index in np.ndindex(self.shape[:-3]):
                for start in range(0, slices, step):
                    yield read(index, start, min(start + step, slices))

    def member(self, number: int) -> "ImageFile":
        """Return one member along the first dimension of the series."""

        @contextmanager
        def reader() -> Iterator[Reader]:
            with self.reader() as read:
                yield lambda index, start, stop: read((number, *index), start, stop)

        return replace(self, shape=self.shape[1:], series=self.series[1:], reader=reader)

    def header(self) -> Header:
        """Return what is known of the acquisition."""
        slices, rows, columns = self.shape[-3:]
        fov = None
        if self.voxel_mm is not None:
            x, y, z = (float(mm) / 1000 for mm in self.voxel_mm)
            fov = (x * columns, y * rows, z * slices)
        return Header(recon_matrix=(columns, rows, slices), recon_fov_m=fov, **self.facts)


@contextmanager
def reading(path: Path, kind: str) -> Iterator[None]:
    """Turn whatever a library raises on a bad file into a FormatError that names the file."""
    try:
        yield
    except MriError:
        raise
    except Exception as error:  # each library, zlib and numpy have their own
        text = str(error) or type(error).__name__
        raise FormatError(
            f"{path}: expected a readable {kind}, got: {text.rstrip('.')}. The file is truncated or of another format."
        ) from error


def read_to_end(packed: IO[bytes] | GzipFile) -> None:
    """Read what is left of a packed stream: it checks its length and checksum at its end, and nowhere before."""
    while packed.read(BLOCK_BYTES):
        pass


def voxel_size(affine: np.ndarray) -> tuple[float, float, float]:
    """Return the lengths (mm) of a voxel along x, y and slice."""
    x, y, z = np.linalg.norm(affine[:3, :3], axis=0)
    return float(x), float(y), float(z)


def check_claimed_size(path: Path, shape: tuple[int, ...], itemsize: int, *, offset: int = 0, packed: str = "") -> None:
    """Raise FormatError when a file cannot hold as much data as its header claims.

    Parameters
    ----------
    path
        The file with the data.
    shape, itemsize
        What the header claims.
    offset
        Where the data begin, unpacked.
    packed
        ``"gzip"``, ``"bzip2"`` or nothing.
    """
    if not shape or min(shape) < 1:
        raise FormatError(expected_got("dimensions", expected="lengths from 1", got=shape, where=path))
    claimed, size = math.prod(int(n) for n in shape) * itemsize, path.stat().st_size
    if claimed + offset > size * MOST_EXPANSION[packed]:
        raise FormatError(
            expected_got(
                "size",
                expected=f"{claimed} bytes of data, as the header claims with {tuple(map(int, shape))}",
                got=f"a file of {size} bytes",
                where=path,
                fix="The file is truncated, or its header is damaged.",
            )
        )


def image_element(image: ImageFile, path: str) -> RawElement:
    """Return an image as an element: integers that fit become int16, all else float32.

    Raises
    ------
    FormatError
        When its values are complex or colours.
    """
    dtype = _stored_dtype(image)

    def blocks() -> Iterator[np.ndarray]:
        for block in image.blocks():
            with np.errstate(over="ignore"):  # becomes infinite, and is refused
                stored = np.ascontiguousarray(block, dtype=dtype)
            if dtype.kind == "f" and not np.isfinite(stored).all():
                count = int((~np.isfinite(stored)).sum())
                got = f"{count} NaN or infinite (as float32)"
                fix = "Repair the file, or leave it out."
                raise NonFiniteError(expected_got("values", expected="finite", got=got, where=image.path, fix=fix))
            yield stored

    return RawElement(
        path, image.shape, dtype, blocks, dims=image.dims, affine=image.affine, attributes=image.attributes
    )


def _stored_dtype(image: ImageFile) -> np.dtype[Any]:
    kind, dtype = image.dtype.kind, np.dtype(np.float32)
    if kind not in "iufb":
        raise FormatError(
            expected_got(
                "values",
                expected="real numbers",
                got=f"{image.dtype} (complex)" if kind == "c" else f"{image.dtype} (colours or vectors)",
                where=image.path,
                fix="Convert magnitude and phase, or the components, as files of their own." if kind == "c" else "",
            )
        )
    if kind == "f":
        return dtype
    bounds = np.iinfo(np.int16)
    if kind == "b" or np.can_cast(image.dtype, np.int16):
        return np.dtype(np.int16)
    fits = all(block.min() >= bounds.min and block.max() <= bounds.max for block in image.blocks())
    return np.dtype(np.int16) if fits else dtype


def label_element(
    image: ImageFile, path: str, names: Mapping[int, str] | None = None, *, named_in: str = "labels.json"
) -> RawElement:
    """Return a label map as an element; it is read at once.

    Parameters
    ----------
    image
        A file that holds integers from 0 to 65535, of whatever dtype.
    path
        ``seg/<name>``.
    names
        Names of the ids; without any those that the file states, else ``label 1`` and so on.
    named_in
        The file in which they can be named.

    Raises
    ------
    FormatError
        When there are other values, or ids that are not named.
    """
    if image.dtype.kind not in "iufb":
        raise FormatError(expected_got("label map", expected="integers from 0", got=image.dtype, where=image.path))
    stored = np.empty(image.shape, np.uint16)
    flat, done = stored.reshape(-1), 0
    for block in image.blocks():
        whole = block if block.dtype.kind in "iub" else np.rint(block)
        if not (np.array_equal(whole, block) and whole.min() >= 0 and whole.max() <= np.iinfo(np.uint16).max):
            fix = "If it is an image, give it a name that says so; if it was resampled, do so without interpolation."
            raise FormatError(
                expected_got("label map", expected="integers from 0 to 65535", got="others", where=image.path, fix=fix)
            )
        flat[done : done + block.size] = whole.reshape(-1)
        done += block.size
    ids = [int(value) for value in np.flatnonzero(np.bincount(flat, minlength=1)) if value]
    declared = {int(key): name for key, name in (names or image.labels).items() if int(key) > 0}
    declared = declared or {value: f"label {value}" for value in ids or [1]}
    if undeclared := sorted(set(ids) - set(declared)):
        raise FormatError(
            expected_got(
                "label ids",
                expected=f"0 and {', '.join(map(str, declared))}",
                got=", ".join(map(str, undeclared[:10])),
                where=image.path,
                fix=f"Name every id of {path.partition('/')[2]!r} in {named_in}." if named_in else "",
            )
        )
    dtype = np.dtype(np.uint8 if max(declared) < 256 else np.uint16)
    return RawElement.of(path, stored.astype(dtype), dims=image.dims, affine=image.affine, labels=declared)


def label_memory(image: ImageFile) -> int:
    """Return the most bytes that `label_element` holds."""
    return image.memory + math.prod(image.shape) * 3
