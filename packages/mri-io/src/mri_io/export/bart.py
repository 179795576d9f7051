"""BART cfl/hdr: complex64 in Fortran order."""

from collections.abc import Sequence
from pathlib import Path

import numpy as np

from mri_io.errors import ConfigError
from mri_io.export.base import ElementExporter, ExportItem

__all__ = ["AXES", "BartExporter"]

AXES = {"kx": 0, "x": 0, "ky": 1, "y": 1, "coil": 3, "map": 4, "slice": 13, "z": 2}
"""BART's dimension of each of ours; `mri_io.formats.bart` reads k-space back to the same array."""


class BartExporter(ElementExporter):
    """A cfl/hdr pair; columns are BART's dimension 0, rows 1, coils 3, map sets 4, slices 13."""

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
        """Write the pair."""
        element = item.element
        array = element.numpy().astype(np.complex64)
        order = sorted(range(array.ndim), key=lambda axis: AXES[element.dims[axis]])
        dims = [1] * 16
        for axis in order:
            dims[AXES[element.dims[axis]]] = array.shape[axis]
        targets[0].write_text("# Dimensions\n" + " ".join(map(str, dims)) + "\n", encoding="ascii")
        targets[1].write_bytes(array.transpose(order).astype("<c8").tobytes(order="F"))
