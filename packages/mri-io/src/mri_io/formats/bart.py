"""BART cfl/hdr pairs: complex64 in Fortran order, up to 16 dimensions."""

import math
from pathlib import Path

import numpy as np

from mri_io.errors import FormatError, expected_got
from mri_io.formats.array_files.axes import elements_of
from mri_io.formats.array_files.sources import mapped_source
from mri_io.formats.base import Format, Identity, RawVolume, SourceItem, identify
from mri_io.formats.names import bids_suffix

__all__ = ["DIMENSIONS", "BartFormat", "read_cfl"]

DIMENSIONS = {0: "kx", 1: "ky", 2: "kz", 3: "coil", 5: "echo", 10: "frame", 11: "set", 13: "slice"}
"""What BART's dimensions are in k-space: readout, phase 1, phase 2, coil, echo time, time, second time, slice."""
MOST_DIMENSIONS = 16
MOST_HEADER_BYTES = 1 << 20
STREAMED = 1 << 29
_OTHERS = {
    4: "maps",
    6: "coefficients",
    7: "second coefficients",
    8: "iteration",
    9: "shift",
    12: "level",
    14: "average",
}


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
    data, dims = _pair(path)
    while len(dims) > 1 and dims[-1] == 1:
        dims = dims[:-1]
    return np.memmap(data, dtype="<c8", mode="r", shape=dims, order="F")


def _pair(path: Path) -> tuple[Path, tuple[int, ...]]:
    """Return the data file of a pair and all dimensions, after a look at its size."""
    stem = path.with_suffix("") if path.suffix in (".cfl", ".hdr") else path
    header, data = stem.with_suffix(".hdr"), stem.with_suffix(".cfl")
    for file, other in ((header, data), (data, header)):
        if not file.is_file():
            raise FormatError(f"{file}: expected beside {other.name}, found no file. BART data are a pair.")
    with header.open("rb") as opened:
        lines = opened.read(MOST_HEADER_BYTES).decode("utf-8", errors="replace").splitlines()
    try:
        start = next(number for number, line in enumerate(lines) if line.strip() == "# Dimensions")
        dims = tuple(int(word) for word in lines[start + 1].split())
    except (StopIteration, IndexError, ValueError):
        got = [line[:80] for line in lines[:3]]
        expected = "a line '# Dimensions' and then integers"
        raise FormatError(expected_got("header", expected=expected, got=got, where=header)) from None
    if not 0 < len(dims) <= MOST_DIMENSIONS:
        expected = f"1 to {MOST_DIMENSIONS} dimensions"
        raise FormatError(expected_got("header", expected=expected, got=len(dims), where=header))
    size, actual = math.prod(dims) * 8, data.stat().st_size
    if min(dims) < 1 or actual != size:
        raise FormatError(
            expected_got(
                "size",
                expected=f"{size} bytes for the dimensions {dims} of {header.name}",
                got=f"{actual} bytes",
                where=data,
                fix="The file is truncated or belongs to another header.",
            )
        )
    return data, dims + (1,) * (MOST_DIMENSIONS - len(dims))


class BartFormat(Format):
    """Multi-coil Cartesian k-space, 2-D and 3-D, in series; with ``--format bart --axes`` coil maps and images, too.

    Rows ``ky`` are dimension 1 (phase 1), columns ``kx`` dimension 0 (readout), partitions ``kz`` dimension 2 (phase
    2). Where the readout has length one (a slice cut from a 3-D scan, both in-plane axes phase-encoded) columns are
    dimension 2. Positions where all coils of all slices are zero were not acquired; they give ``mask/acquired``.
    """

    name = "bart"
    endings = (".cfl",)
    summary = (
        "BART cfl/hdr: k-space (readout, phase 1, phase 2, coil, ..., slice); maps and images with --format bart --axes"
    )
    options_when_named = frozenset({"axes"})  # a folder may hold .npy files beside

    def sniff(self, path: Path) -> bool:
        """Whether the path is one of a pair, the header beginning as BART's do."""
        header = path.with_suffix(".hdr")
        if path.suffix not in (".cfl", ".hdr") or not path.is_file() or not header.is_file():
            return False
        with header.open("rb") as file:
            return b"# Dimensions" in file.read(200)

    def find(self, path: Path) -> list[SourceItem]:
        """Return the pair, the same item for either file of it."""
        data = path.with_suffix(".cfl")
        files = tuple(file for file in (path.with_suffix(".hdr"), data) if file.is_file())
        return [SourceItem(self.name, data, files, data.name)]

    def identify(self, item: SourceItem) -> Identity:
        """Return the identity after the file's name: BART files know no patient."""
        return identify(item.path, item.path.stem, "bart")

    def memory(self, item: SourceItem) -> int:
        """Return a bound for blocks of an array that is read in parts."""
        return STREAMED

    def read(self, item: SourceItem) -> RawVolume:
        """Read one pair as k-space, or as what the names of its dimensions say."""
        data, dims = _pair(item.path)
        axes = item.choices.axes
        named = _of_kspace(dims, data) if axes is None else (*axes, *["-"] * (MOST_DIMENSIONS - len(axes)))
        source = mapped_source(data, dims, np.dtype("<c8"), order="F")
        return RawVolume(elements_of(source, named, bids_suffix(item.path.stem)))


def _of_kspace(dims: tuple[int, ...], path: Path) -> tuple[str, ...]:
    """Return the names of the dimensions of k-space, ``-`` for those that are not there."""
    names = DIMENSIONS | ({0: "-", 2: "kx"} if dims[0] == 1 and dims[2] > 1 else {})
    for axis, length in enumerate(dims):
        if length > 1 and axis not in names:
            raise FormatError(
                expected_got(
                    f"dimension {axis} ({_OTHERS.get(axis, 'unnamed')})",
                    expected="length 1 in k-space",
                    got=length,
                    where=path,
                    fix="Name what is no k-space: --format bart --axes x,y,-,coil,map for maps, x,y for an image.",
                )
            )
    return tuple(
        names[axis] if axis in names and (length > 1 or names[axis] in ("kx", "ky")) else "-"
        for axis, length in enumerate(dims)
    )
