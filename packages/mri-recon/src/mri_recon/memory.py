"""What the work on a volume holds in memory at most, beside a process of mri-io.

Measured with 4 to 30 coils and slices of k-space of 3 to 57 MB.
"""

import math
from typing import Any

from mri_io.store import Volume

__all__ = ["calibration_memory", "reconstruction_memory"]

_TORCH = 100 * 10**6
"""Torch imported, and what its first operations keep."""


def _sizes(volume: Volume) -> tuple[int, int]:
    """Return the bytes of one slice of k-space, and of one complex image of all slices."""
    shape = volume["kspace"].shape
    return 8 * math.prod(shape[-3:]), 8 * math.prod(shape[:-3]) * math.prod(shape[-2:])


def calibration_memory(volume: Volume, maps: int = 1) -> int:
    """Return the bytes that estimating coil maps of a volume needs.

    Beside the blocks of `mri_recon.calibration.espirit` and their eigenvectors, about 150 MB, a slice of k-space and
    the maps of one slice, which are put together from blocks, and written.
    """
    kspace, _ = _sizes(volume)
    return _TORCH + 150 * 10**6 + (1 + 4 * maps) * kspace


def reconstruction_memory(volume: Volume, network: Any = None) -> int:
    """Return the bytes that reconstructing a volume slice by slice needs.

    Parameters
    ----------
    volume
        Its k-space counts: a slice, its maps and what the operators make of them, ten times in all, and three times
        the reconstruction.
    network
        Configuration of a network: twice the features of a U-Net at the full size, with estimated maps of every coil.
    """
    kspace, images = _sizes(volume)
    features = 0
    if network is not None:
        pixels = math.prod(volume["kspace"].shape[-2:])
        widths = [network.channels]
        if network.coil_maps == "estimated":
            widths.append(network.sens_channels * volume["kspace"].shape[-3])
        features = 2 * 4 * pixels * max(widths)
    return _TORCH + 10 * kspace + 3 * images + features
