"""BART cfl/hdr: complex64 in Fortran order."""

import math
from collections.abc import Sequence
from pathlib import Path
from typing import BinaryIO

import numpy as np

from mri_io.errors import ConfigError
from mri_io.export.base import ElementExporter, ExportItem
from mri_io.schema.elements import DATA, element_type

__all__ = ["AXES", "BartExporter"]

AXES = {
    **{"kx": 0, "x": 0, "ky": 1, "y": 1, "kz": 2, "z": 2, "coil": 3, "map": 4},
    **{"echo": 5, "frame": 10, "set": 11, "slice": 13},
}
"""BART's dimension of each of ours; `mri_io.formats.bart` reads k-space back to the same array."""
MOST_DIMENSIONS = 16


class BartExporter(ElementExporter):
    """A cfl/hdr pair; columns are BART's dimension 0, rows 1, partitions 2, coils 3, map sets 4, slices 13.

    Of series echoes are dimension 5, frames 10 and sets 11.
    """

    name = "bart"
    summary = "BART cfl/hdr of k-space, coil maps and images, complex"
    parts = ("complex",)

    def names(self, item: ExportItem) -> list[str]:
        """Return the names of the pair."""
        element = item.element
        if any(name not in AXES for name in element.dims):
            raise ConfigError(f"{element.folder}: BART has no place for dimensions {element.dims}.")
        return [self.stem(item) + ending for ending in (".hdr", ".cfl")]

    def memory(self, item: ExportItem) -> int:
        """Return what a chunk takes, read, as single-precision complex numbers, and in the order of the file."""
        element = item.element
        inner = element_type(element.path).arrays[DATA].inner or len(element.shape)
        return math.prod(element.shape[len(element.shape) - inner :]) * (element.dtype.itemsize + 3 * 8)

    def write(self, item: ExportItem, targets: Sequence[Path]) -> None:
        """Write the pair, chunk after chunk."""
        element = item.element
        places = [AXES[name] for name in element.dims]
        dims = [1] * MOST_DIMENSIONS
        for place, length in zip(places, element.shape, strict=True):
            dims[place] = length
        targets[0].write_text("# Dimensions\n" + " ".join(map(str, dims)) + "\n", encoding="ascii")
        inner = element_type(element.path).arrays[DATA].inner or len(places)
        leading = len(places) - inner
        with targets[1].open("wb") as file:
            for position in np.ndindex(*element.shape[:leading]):
                block = self.converted(element, element[position] if position else element.numpy())
                first = sum(number * math.prod(dims[:place]) for number, place in zip(position, places, strict=False))
                _write_block(file, block, places[leading:], dims, first)


def _write_block(file: BinaryIO, block: np.ndarray, places: Sequence[int], dims: Sequence[int], first: int) -> None:
    """Write a block whose axes are BART's dimensions `places` into a file, its first value at number `first`.

    The file is written, not mapped: a full disk ends a process that writes to a map.
    """
    slowest_first = sorted(range(len(places)), key=lambda axis: -places[axis])
    block, places = block.transpose(slowest_first), [places[axis] for axis in slowest_first]
    steps = [math.prod(dims[:place]) for place in places]
    whole = [math.prod(block.shape[axis + 1 :]) for axis in range(block.ndim)]
    # What follows the last axis between whose entries other blocks lie is one piece of the file.
    outer = max(
        (axis + 1 for axis in range(block.ndim) if steps[axis] != whole[axis] and dims[places[axis]] > 1), default=0
    )
    for index in np.ndindex(*block.shape[:outer]):
        file.seek(8 * (first + sum(number * step for number, step in zip(index, steps, strict=False))))
        file.write(np.ascontiguousarray(block[index], "<c8").data)
