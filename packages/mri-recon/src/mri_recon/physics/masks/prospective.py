"""The mask of a scan that was itself undersampled, found from the zeros of its data."""

import numpy as np
import torch
from torch import Tensor

from mri_recon.errors import ConfigError, ShapeError

__all__ = ["prospective_mask"]


def prospective_mask(kspace: np.ndarray | Tensor, shared: int | tuple[int, ...] = ()) -> np.ndarray:
    """Return which positions of k-space were sampled: those where any coil is not zero.

    Parameters
    ----------
    kspace
        (..., coil, ky, kx), zero where not sampled; an array or a tensor on any device.
    shared
        Axes in front of the coils, non-negative, that share one pattern, e.g. slices: a position counts when any of
        them has it. Such an axis has length one in the mask.

    Returns
    -------
    numpy.ndarray
        uint8 (..., 1 or ky, 1 or kx), 1 where sampled; an axis along which nothing changes has length one, unless the
        other has too.

    Raises
    ------
    ShapeError
        For k-space of fewer than three axes.
    ConfigError
        When nothing is sampled, or values are not finite.
    """
    if kspace.ndim < 3:
        raise ShapeError(f"kspace: expected (..., coil, ky, kx), got {tuple(kspace.shape)}.")
    if isinstance(kspace, Tensor):
        sampled = (kspace != 0).any(dim=-3).cpu().numpy()
        finite = bool(torch.isfinite(kspace).all())
    else:
        sampled, finite = (kspace != 0).any(axis=-3), bool(np.isfinite(kspace).all())
    if not finite:
        raise ConfigError(
            "kspace: expected finite values, got NaN or infinity. Leave such readouts out, or set them to 0."
        )
    if not sampled.any():
        raise ConfigError("kspace: expected a signal, got zeros only: no mask can be found.")
    if shared != ():
        sampled = np.asarray(sampled.any(axis=shared, keepdims=True))
    for line in (sampled[..., :1, :], sampled[..., :1]):
        if np.array_equal(np.broadcast_to(line, sampled.shape), sampled):
            return line.astype(np.uint8)
    return sampled.astype(np.uint8)
