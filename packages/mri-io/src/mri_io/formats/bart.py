"""BART cfl/hdr pairs: complex64 in Fortran order, up to 16 dimensions."""

from collections.abc import Iterator
from pathlib import Path

import numpy as np

from mri_io.errors import FormatError, expected_got
from mri_io.formats.base import Format, Identity, RawElement, RawVolume, SourceItem, identify

__all__ = ["BartFormat", "read_cfl"]

COIL, SLICE = 3, 13
_NAMES = {4: "maps", 5: "echo time", 6: "coefficients", 10: "time", 11: "second time", 12: "level", 14: "average"}


def read_cfl(path: Path) -> np.ndarray:
    """Map a cfl file; the array has the dimensions of its header, without trailing ones.

    Parameters
    ----------
    path
        The ``.cfl`` or ``.hdr`` file, or their common stem.

    Raises
    ------
    FormatError
        When one of the pair is missing, the header has no dimensions, or the size contradicts it.
    """
    stem = path.with_suffix("") if path.suffix in (".cfl", ".hdr") else path
    header, data = stem.with_suffix(".hdr"), stem.with_suffix(".cfl")
    for file, other in ((header, data), (data, header)):
        if not file.is_file():
            raise FormatError(f"{file}: expected beside {other.name}, found no file. BART data are a pair.")
    lines = header.read_text(encoding="utf-8", errors="replace").splitlines()
    try:
        start = next(number for number, line in enumerate(lines) if line.strip() == "# Dimensions")
        dims = [int(word) for word in lines[start + 1].split()]
    except (StopIteration, IndexError, ValueError):
        raise FormatError(
            expected_got("header", expected="a line '# Dimensions' and then integers", got=lines[:3], where=header)
        ) from None
    size = int(np.prod(dims, dtype=np.int64)) * 8
    if not dims or min(dims) < 1 or data.stat().st_size != size:
        raise FormatError(
            expected_got(
                "size",
                expected=f"{size} bytes for the dimensions {tuple(dims)} of {header.name}",
                got=f"{data.stat().st_size} bytes",
                where=data,
                fix="The file is truncated or belongs to another header.",
            )
        )
    while len(dims) > 1 and dims[-1] == 1:
        dims.pop()
    return np.memmap(data, dtype="<c8", mode="r", shape=tuple(dims), order="F")


class BartFormat(Format):
    """Multi-coil Cartesian k-space of one or several slices.

    The in-plane axes are phase 1 and readout: rows ``ky`` are dimension 1, columns ``kx`` dimension 0. Where the
    readout has length one (a slice cut from a 3-D scan, both in-plane axes phase-encoded) rows are dimension 1 and
    columns dimension 2. Coils are dimension 3, slices dimension 13. Positions where all coils are zero everywhere
    were not acquired; they give ``mask/acquired``.
    """

    name = "bart"
    summary = "BART cfl/hdr: k-space (readout, phase 1, phase 2, coil, ..., slice)"

    def sniff(self, path: Path) -> bool:
        """Whether the path is one of a pair, the header beginning as BART's do."""
        if path.suffix not in (".cfl", ".hdr") or not path.is_file():
            return False
        header = path.with_suffix(".hdr")
        return not header.is_file() or header.read_bytes()[:200].find(b"# Dimensions") >= 0

    def find(self, path: Path) -> list[SourceItem]:
        """Return the pair, the same item for either file of it."""
        data = path.with_suffix(".cfl")
        files = tuple(file for file in (path.with_suffix(".hdr"), data) if file.is_file())
        return [SourceItem(self.name, data, files, data.name)]

    def identify(self, item: SourceItem) -> Identity:
        """Return the identity after the file's name: BART files know no patient."""
        return identify(item.path, item.path.stem, "bart")

    def read(self, item: SourceItem) -> RawVolume:
        """Read one pair."""
        data = read_cfl(item.path)
        dims = [*data.shape, *[1] * (16 - data.ndim)]
        for axis, length in enumerate(dims):
            flat_2d = axis == 2 and dims[0] == 1
            if length > 1 and axis not in (0, 1, COIL, SLICE) and not flat_2d:
                raise FormatError(
                    expected_got(
                        f"dimension {axis} ({_NAMES.get(axis, 'phase 2' if axis == 2 else 'unnamed')})",
                        expected="length 1 (2-D Cartesian, one or several slices)",
                        got=length,
                        where=item.path,
                    )
                )
        columns = 2 if dims[0] == 1 and dims[2] > 1 else 0
        full = data.reshape(dims, order="F") if data.ndim < 16 else data
        order = (SLICE, COIL, 1, columns)
        kspace = full.transpose(*order, *[axis for axis in range(16) if axis not in order])
        kspace = kspace.reshape(kspace.shape[:4])
        elements = [RawElement("kspace", kspace.shape, np.dtype(np.complex64), lambda: _slices(kspace))]
        mask = acquired_mask(kspace)
        if mask is not None:
            elements.append(mask)
        return RawVolume(elements=tuple(elements))


def acquired_mask(kspace: np.ndarray) -> RawElement | None:
    """Return the sampling pattern found from the data, None when every position was acquired.

    Parameters
    ----------
    kspace
        (slice, coil, ky, kx); a position is acquired when any coil of any slice is not zero there.
    """
    pattern = np.zeros(kspace.shape[2:], dtype=bool)
    for block in kspace:
        pattern |= np.any(block != 0, axis=0)
    if pattern.all() or not pattern.any():
        return None
    attributes = {"acceleration": float(pattern.size / pattern.sum()), "found_from_data": True}
    for dim, axis in (("kx", 0), ("ky", 1)):
        line = np.asarray(pattern.any(axis=axis, keepdims=True))
        if np.array_equal(pattern, np.broadcast_to(line, pattern.shape)):
            return RawElement.of("mask/acquired", line.ravel().astype(np.uint8), dims=(dim,), attributes=attributes)
    return RawElement.of("mask/acquired", pattern.astype(np.uint8), dims=("ky", "kx"), attributes=attributes)


def _slices(kspace: np.ndarray) -> Iterator[np.ndarray]:
    for block in kspace:
        yield np.ascontiguousarray(block[None], dtype=np.complex64)
