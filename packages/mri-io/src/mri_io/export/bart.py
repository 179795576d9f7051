"""BART cfl/hdr: complex64 in Fortran order."""

from collections.abc import Callable, Sequence
from pathlib import Path

import numpy as np

from mri_io.errors import ConfigError
from mri_io.store.element import Element

__all__ = ["AXES", "endings", "write"]

AXES = {"kx": 0, "x": 0, "ky": 1, "y": 1, "coil": 3, "map": 4, "slice": 13, "z": 2}
"""BART's dimension of each of ours; `mri_io.formats.bart` reads k-space back to the same array."""


def endings(element: Element) -> list[str]:
    """Return the ends of the pair's names."""
    if any(name not in AXES for name in element.dims):
        raise ConfigError(f"{element.folder}: BART has no place for dimensions {element.dims}.")
    return [".hdr", ".cfl"]


def write(element: Element, files: Sequence[Path], part: Callable[[np.ndarray], np.ndarray]) -> None:
    """Write a pair; columns are BART's dimension 0, rows 1, coils 3, map sets 4, slices 13."""
    array = element.numpy().astype(np.complex64)
    order = sorted(range(array.ndim), key=lambda axis: AXES[element.dims[axis]])
    dims = [1] * 16
    for axis in order:
        dims[AXES[element.dims[axis]]] = array.shape[axis]
    files[0].write_text("# Dimensions\n" + " ".join(map(str, dims)) + "\n", encoding="ascii")
    files[1].write_bytes(array.transpose(order).astype("<c8").tobytes(order="F"))
