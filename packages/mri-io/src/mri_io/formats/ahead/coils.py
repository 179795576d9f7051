"""Coil maps of AHEAD: HDF5 with the arrays ``0real`` and ``1imag`` (coil, z, y, x)."""

from collections.abc import Iterator, Mapping
from pathlib import Path

import numpy as np

from mri_io.errors import FormatError, expected_got
from mri_io.formats.base import RawElement
from mri_io.formats.hdf5 import hdf5_outline, open_hdf5, stored_array

__all__ = ["coil_maps", "is_coil_maps"]

PARTS = ("0real", "1imag")
BLOCK_BYTES = 64 * 2**20


def is_coil_maps(path: Path) -> bool:
    """Whether a file holds the two arrays."""
    outline = hdf5_outline(path)
    return outline is not None and outline.arrays.keys() >= set(PARTS)


def coil_maps(path: Path, sizes: Mapping[str, int]) -> RawElement:
    """Return the element ``sens/ahead`` (z, map, coil, y, x).

    Parameters
    ----------
    path
        The file.
    sizes
        Lengths of ``kz``, ``coil``, ``ky`` and ``kx`` of k-space, which the maps must have.

    Raises
    ------
    FormatError
        When the maps have other lengths or are no numbers.
    """
    expected = tuple(sizes[name] for name in ("coil", "kz", "ky", "kx"))
    with open_hdf5(path) as file:
        found = [stored_array(file, name) for name in PARTS]
        got = [(array.shape, array.dtype.kind) for array in found]
    if got != [(expected, "f")] * 2:
        raise FormatError(
            expected_got(
                f"coil maps {' and '.join(PARTS)}",
                expected=f"real numbers (coil, z, y, x) {expected}, as in k-space",
                got=" and ".join(f"{shape} of kind {kind}" for shape, kind in got),
                where=path,
                fix="Where the readout is oversampled: --oversampling keep.",
            )
        )
    coils, slices, rows, columns = expected

    def blocks() -> Iterator[np.ndarray]:
        step = max(1, BLOCK_BYTES // (8 * coils * rows * columns))
        with open_hdf5(path) as file:
            real, imaginary = (file[name] for name in PARTS)
            for start in range(0, slices, step):
                part = np.empty((min(step, slices - start), 1, coils, rows, columns), np.complex64)
                part.real[:, 0] = real[:, start : start + step].swapaxes(0, 1)
                part.imag[:, 0] = imaginary[:, start : start + step].swapaxes(0, 1)
                yield part

    shape = (slices, 1, coils, rows, columns)
    return RawElement("sens/ahead", shape, np.dtype(np.complex64), blocks, dims=("z", "map", "coil", "y", "x"))
