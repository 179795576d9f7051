"""What the work on a volume holds in memory at most, beside a process of mri-io.

Measured with 4 to 30 coils and slices of k-space of 3 to 57 MB.
"""

import math
from typing import Any

from mri_io.schema.elements import SERIES
from mri_io.store import Volume

__all__ = ["BATCH_BYTES", "calibration_memory", "compression_memory", "reconstruction_memory"]

BATCH_BYTES = 16 * 2**20
"""K-space of planes that are reconstructed together: small ones gain by it, large ones fill the processor alone."""

_TORCH = 100 * 10**6
"""Torch imported, and what its first operations keep."""
_METHODS = 280 * 10**6
"""The same of the classical methods, which use more of it, and SciPy."""
_KERNELS = 380 * 10**6
"""Blocks in which kernels are fitted and taken to image space."""


def _sizes(volume: Volume) -> tuple[int, int]:
    """Return the bytes of one slice of k-space, and of one complex image of all slices."""
    shape = volume["kspace"].shape
    return 8 * math.prod(shape[-3:]), 8 * math.prod(shape[:-3]) * math.prod(shape[-2:])


def _members(volume: Volume) -> int:
    """Return how many members the series of a volume has, one where it is none."""
    kspace = volume["kspace"]
    return math.prod(length for name, length in zip(kspace.dims, kspace.shape, strict=True) if name in SERIES)


def calibration_memory(volume: Volume, maps: int = 1) -> int:
    """Return the bytes that estimating coil maps of a volume needs.

    Beside the blocks of `mri_recon.calibration.espirit` and their eigenvectors, about 150 MB, a slice of k-space, the
    coil images or first eigenvectors that the maps start from, and the maps of one slice; of a volume that is encoded
    in three dimensions all of k-space and the maps, of a series all members of a slice.
    """
    kspace, _ = _sizes(volume)
    whole = (1 + 2 * maps) * volume["kspace"].nbytes if "kz" in volume["kspace"].dims else 0
    return _TORCH + 150 * 10**6 + (5 + 5 * maps) * kspace + 2 * (_members(volume) - 1) * kspace + whole


def compression_memory(volume: Volume, width: int) -> int:
    """Return the bytes that compressing the coils of a volume needs.

    Slices and what they become, five in all; lines of k-space of a width of all slices, four times; the images and
    label maps that go along are no more than two complex images of all slices.
    """
    kspace, images = _sizes(volume)
    shape = volume["kspace"].shape
    lines = 8 * math.prod(shape[:-2]) * width * max(shape[-2:])
    return _TORCH + 5 * kspace + 4 * lines + 2 * images


def reconstruction_memory(volume: Volume, network: Any = None, method: str = "cg-sense") -> int:
    """Return the bytes that reconstructing a volume plane by plane needs.

    Parameters
    ----------
    volume
        Its k-space counts: the planes of a batch of all members of a series, their maps and what the operators make of
        them, eleven times in all (ten of a network), three times the reconstruction; all of a volume that is encoded
        in three dimensions.
    network
        Configuration of a network, None for a method: twice the features of a U-Net at the full size, with estimated
        maps of every coil.
    method
        A classical one: the kernels of GRAPPA and SPIRiT come to it, and SPIRiT's matrix of coils for each pixel.
    """
    kspace, images = _sizes(volume)
    dims, shape = volume["kspace"].dims, volume["kspace"].shape
    batch = kspace * _members(volume)
    if network is None:
        batch = min(max(batch, BATCH_BYTES), 8 * math.prod(shape))
        kernels = _KERNELS if method in ("grappa", "spirit") else 0
        matrices = kspace * shape[-3] if method == "spirit" else 0
        whole = 8 * math.prod(shape) + 4 * images if "kz" in dims else 0
        return _METHODS + 11 * batch + 3 * images + whole + kernels + matrices
    whole = 8 * math.prod(shape) if "kz" in dims else 0
    widths = [network.channels]
    if network.coil_maps == "estimated":
        widths.append(network.sens_channels * shape[-3])
    features = 2 * 4 * math.prod(shape[-2:]) * max(widths)
    return _TORCH + 10 * batch + 3 * images + whole + features
