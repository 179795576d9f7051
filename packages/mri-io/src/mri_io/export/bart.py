"""BART cfl/hdr: complex64 in Fortran order."""

from collections.abc import Callable
from pathlib import Path

import numpy as np

from mri_io.errors import ConfigError
from mri_io.export.names import exported_stem
from mri_io.store.element import Element

__all__ = ["AXES", "write_cfl"]

AXES = {"kx": 0, "x": 0, "ky": 1, "y": 1, "coil": 3, "map": 4, "slice": 13, "z": 2}
"""BART's dimension of each of ours; `mri_io.formats.bart` reads k-space back to the same array."""


def write_cfl(element: Element, folder: Path, part: Callable[[np.ndarray], np.ndarray]) -> list[Path]:
    """Write a pair; columns are BART's dimension 0, rows 1, coils 3, map sets 4, slices 13."""
    if any(name not in AXES for name in element.dims):
        raise ConfigError(f"{element.folder}: BART has no place for dimensions {element.dims}.")
    array = element.numpy().astype(np.complex64)
    order = sorted(range(array.ndim), key=lambda axis: AXES[element.dims[axis]])
    dims = [1] * 16
    for axis in order:
        dims[AXES[element.dims[axis]]] = array.shape[axis]
    stem = folder / exported_stem(element)
    files = [stem.with_name(stem.name + ".hdr"), stem.with_name(stem.name + ".cfl")]
    files[0].write_text("# Dimensions\n" + " ".join(map(str, dims)) + "\n", encoding="ascii")
    files[1].write_bytes(array.transpose(order).astype("<c8").tobytes(order="F"))
    return files
