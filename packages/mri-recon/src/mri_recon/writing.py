"""When a result is there already, and which affine it gets."""

import numpy as np

from mri_io.schema import Provenance
from mri_io.store import Volume
from mri_recon.errors import ConfigError

__all__ = ["already_there", "known_affine"]


def already_there(volume: Volume, path: str, made: Provenance, *, replace: bool) -> bool:
    """Whether an element exists and came from the same computation.

    Raises
    ------
    ConfigError
        When it exists, came from another computation, and `replace` is false.
    """
    if replace or path not in volume:
        return False
    if volume.is_current(path, made):
        return True
    raise ConfigError(
        f"{volume.path}: {path} exists and was made in another way or from other data. "
        "Choose another --name, or --replace it."
    )


def known_affine(volume: Volume, shape: tuple[int, int, int]) -> np.ndarray | None:
    """Return the affine of any image, reconstruction or label map of the volume on a grid, None when unknown."""
    for element in volume.elements().values():
        if element.affine is not None and element.shape == shape:
            return element.affine
    return None
