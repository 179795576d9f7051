"""Calibration data for kernels in k-space, and their Gram matrix, as GRAPPA and SPIRiT need them."""

import logging
from collections.abc import Iterator
from contextlib import contextmanager
from functools import lru_cache

import torch
from jaxtyping import Complex
from torch import Tensor

from mri_recon.errors import ConfigError, ShapeError
from mri_recon.physics.coils import combine, root_sum_of_squares
from mri_recon.physics.fourier import ifft2c
from mri_recon.physics.masks import calibration_region
from mri_recon.types import CoilImages, Kspace, Maps

__all__ = [
    "BLOCK_BYTES",
    "calibration_data",
    "check_calibration",
    "check_input",
    "check_maps",
    "check_sampled",
    "coil_combination",
    "gram_matrix",
    "image_combination",
    "one_thread",
    "unit_scale",
]

_log = logging.getLogger(__name__)

BLOCK_BYTES = 64 * 2**20
"""Size of the temporary arrays; work is done in pieces of at most about this."""


def check_input(kspace: Tensor, mask: Tensor, method: str, maps: Tensor | None = None) -> Tensor:
    """Return the mask as bool (batch or 1, ky, kx), after checks that every method on k-space needs.

    Parameters
    ----------
    kspace
        (..., coil, ky, kx).
    mask
        Broadcastable to it, one for all coils.
    method
        Its name, for messages.
    maps
        (..., map, coil, y, x), or None.

    Raises
    ------
    ShapeError
        When k-space is not complex (..., coil, ky, kx), or mask or maps do not fit.
    ConfigError
        When nothing is sampled, or k-space has values that are not finite.
    """
    if kspace.ndim < 3 or not kspace.is_complex():
        raise ShapeError(f"{method}: expected complex (..., coil, ky, kx), got {kspace.dtype} {tuple(kspace.shape)}.")
    check_maps(kspace, maps, method)
    lead, grid = kspace.shape[:-3], kspace.shape[-2:]
    shape = (1,) * (kspace.ndim - mask.ndim) + tuple(mask.shape)
    wanted = (*lead, 1, *grid)
    if len(shape) != kspace.ndim or any(m not in (1, n) for m, n in zip(shape, wanted, strict=True)):
        raise ShapeError(
            f"{method}: expected a mask that broadcasts to {wanted}, one for all coils, got {tuple(mask.shape)}."
        )
    sampled = (mask != 0).reshape(shape)
    check_sampled(mask, method)
    if not bool(torch.isfinite(torch.view_as_real(kspace)).all()):
        raise ConfigError(f"{method}: k-space has values that are not finite. Find the broken lines and set them to 0.")
    if all(n == 1 for n in shape[:-3]):
        return sampled.expand(*shape[:-2], *grid).reshape(1, *grid)
    return sampled.expand(*lead, 1, *grid).reshape(-1, *grid)


def check_sampled(mask: Tensor, method: str) -> None:
    """Refuse a mask that samples nothing."""
    if not bool((mask != 0).any()):
        raise ConfigError(f"{method}: the mask samples nothing. Choose another mask.")


def check_maps(kspace: Tensor, maps: Tensor | None, method: str) -> None:
    """Refuse maps (..., map, coil, y, x) that are not for the coils and the matrix of k-space (..., coil, ky, kx)."""
    if maps is not None and (maps.ndim < 4 or maps.shape[-3:] != kspace.shape[-3:] or not maps.is_complex()):
        expected = ", ".join(map(str, kspace.shape[-3:]))
        raise ShapeError(
            f"{method}: expected complex coil maps (..., map, {expected}), as k-space has coils, ky and kx, "
            f"got {maps.dtype} {tuple(maps.shape)}. Calibrate on this k-space."
        )


def unit_scale(kspace: Kspace) -> Tensor:
    """Return the largest magnitude per batch element, 1 where all is zero; (..., 1, 1, 1)."""
    largest = kspace.abs().amax(dim=(-3, -2, -1), keepdim=True)
    return torch.where(largest > 0, largest, torch.ones_like(largest))


def calibration_data(
    kspace: Complex[Tensor, "*batch coil ky kx"], mask: Tensor, kernel: tuple[int, int], method: str
) -> Complex[Tensor, "*batch coil cy cx"]:
    """Return the fully sampled centre of k-space.

    Parameters
    ----------
    kspace, mask
        Of one sampling pattern, bool (ky, kx).
    kernel
        Size in positions along (ky, kx).
    method
        Its name, for messages.

    Raises
    ------
    ConfigError
        When the centre is smaller than the kernel.
    """
    rows, columns = calibration_region(mask.cpu().numpy())
    data = kspace[..., rows, columns]
    check_calibration(data, kernel, method)
    return data


def check_calibration(data: Tensor, kernel: tuple[int, int], method: str) -> None:
    """Refuse calibration data smaller than the kernel."""
    cy, cx = data.shape[-2:]
    if cy < kernel[0] or cx < kernel[1]:
        raise ConfigError(
            f"{method}: expected at least {kernel[0]} x {kernel[1]} fully sampled central positions for this kernel, "
            f"got {cy} x {cx}. Use a smaller kernel, data with more calibration lines, or give calibration data."
        )
    if cy < 2 * kernel[0] or cx < 2 * kernel[1]:
        _warn_of_few(method, cy, cx, kernel)


@lru_cache(maxsize=64)  # once, and not for each slice
def _warn_of_few(method: str, cy: int, cx: int, kernel: tuple[int, int]) -> None:
    _log.warning(
        "%s: calibration from %d x %d positions with a kernel of %d x %d is poor; expect ghosts. "
        "Use a smaller kernel, or more calibration lines",
        *(method, cy, cx, *kernel),
    )


def gram_matrix(
    calibration: Complex[Tensor, "coil cy cx"], kernel: tuple[int, int]
) -> tuple[Complex[Tensor, "k k"], int]:
    """Return ``A^H A`` in double precision, the rows of A being all windows of the calibration data of one slice.

    Columns run over the positions in the window, then coils. Temporary memory is at most about `BLOCK_BYTES`.

    Returns
    -------
    Tensor, int
        (k, k) with ``k = height * width * coil``, and the number of windows.
    """
    height, width = kernel
    windows = calibration.unfold(-2, height, 1).unfold(-2, width, 1)  # coil, wy, wx, height, width
    coils, wy, wx = windows.shape[:3]
    size = height * width * coils
    gram = calibration.new_zeros((size, size), dtype=torch.complex128)
    rows = max(1, BLOCK_BYTES // (wx * size * calibration.element_size()))
    for top in range(0, wy, rows):
        block = windows[:, top : top + rows].permute(1, 2, 3, 4, 0).reshape(-1, size)
        gram += block.mH @ block
    return gram, wy * wx


@contextmanager
def one_thread() -> Iterator[None]:
    """Let torch use one thread: on many small matrices threads cost more than they bring."""
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    try:
        yield
    finally:
        torch.set_num_threads(before)


def coil_combination(kspace: Kspace, maps: Maps | None) -> Tensor:
    """Return the image of complete k-space: by the maps, or the root sum of squares without them.

    Returns
    -------
    Tensor
        (..., y, x), or (..., map, y, x) with several map sets.
    """
    return image_combination(ifft2c(kspace), maps)


def image_combination(coil_images: CoilImages, maps: Maps | None) -> Tensor:
    """Combine coil images as `coil_combination` does."""
    if maps is None:
        return root_sum_of_squares(coil_images)
    images = combine(coil_images, maps)
    return images[..., 0, :, :] if maps.shape[-4] == 1 else images
