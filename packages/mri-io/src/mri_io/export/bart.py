"""BART cfl/hdr: complex64 in Fortran order."""

import math
from collections.abc import Sequence
from pathlib import Path

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

    def write(self, item: ExportItem, targets: Sequence[Path]) -> None:
        """Write the pair, chunk after chunk."""
        element = item.element
        places = [AXES[name] for name in element.dims]
        dims = [1] * MOST_DIMENSIONS
        for place, length in zip(places, element.shape, strict=True):
            dims[place] = length
        targets[0].write_text("# Dimensions\n" + " ".join(map(str, dims)) + "\n", encoding="ascii")
        with targets[1].open("wb") as file:
            file.truncate(math.prod(dims) * 8)
        inner = element_type(element.path).arrays[DATA].inner or len(places)
        leading = len(places) - inner
        within = places[leading:]
        for position in np.ndindex(*element.shape[:leading]):
            block = self.converted(element, element[position] if position else element.numpy())
            index: list[int | slice] = [0] * MOST_DIMENSIONS
            for place, number in zip(places[:leading], position, strict=True):
                index[place] = number
            for place in within:
                index[place] = slice(None)
            # Mapped anew each time: pages of a map count as memory of the process as long as it exists.
            mapped = np.memmap(targets[1], "<c8", "r+", shape=tuple(dims), order="F")
            mapped[tuple(index)] = block.transpose(np.argsort(within))
            mapped.flush()
            del mapped
