"""What a result may be called, when it is there already, and which affine it gets."""

import numpy as np
import torch

from mri_io.errors import SchemaError
from mri_io.schema import Provenance
from mri_io.schema.elements import element_type
from mri_io.store import Volume
from mri_recon.errors import ConfigError

__all__ = ["already_there", "check_device", "known_affine", "result_path"]


def result_path(kind: str, name: str) -> str:
    """Return the path of a result; ConfigError, before anything is computed, when it cannot be one."""
    try:
        element_type(f"{kind}/{name}")
    except SchemaError as error:
        raise ConfigError(f"--name: {error}") from None
    return f"{kind}/{name}"


def check_device(device: str, scheduler: str) -> None:
    """Raise ConfigError when a device is unknown, or not there where the work is done on this machine."""
    try:
        kind = torch.device(device).type
    except RuntimeError:
        raise ConfigError(f"device: expected cpu, cuda, cuda:1, ..., got {device!r}.") from None
    if kind == "cuda" and "://" not in scheduler and not torch.cuda.is_available():
        raise ConfigError("device: cuda: PyTorch finds no CUDA device on this machine. Use --device cpu.")


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
