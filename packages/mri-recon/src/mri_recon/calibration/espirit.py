r"""ESPIRiT: coil sensitivities as eigenvectors of the calibration kernels (Uecker 2014, doi:10.1002/mrm.24751).

1. Windows of the calibration region, as rows of a matrix A; the eigenvectors of :math:`A^H A` whose singular value
   exceeds a threshold span the space of kernels (eq. 4). The Gram matrix is small, so no SVD of A is needed.
2. In image space the kernels give at each pixel a Hermitian matrix :math:`M(r)`, here from their correlation
   :math:`R(d)` by a separable transform of :math:`(2 k - 1)^2` terms (eq. 12), with no padded FFT per kernel.
3. The eigenvectors of :math:`M(r)` with eigenvalue near one are the sensitivities (eq. 13). Where the eigenvalue is
   below `crop` there is no signal, and the map is zero.

Differs from SigPy's implementation by the reference of the phase: that of the strongest virtual coil in place of the
first coil, whose phase is undefined where it sees nothing.
"""

import logging

import torch
from jaxtyping import Complex
from pydantic import Field
from torch import Tensor

from mri_io.config import Config
from mri_recon.errors import ConfigError

__all__ = ["EspiritConfig", "espirit"]

_log = logging.getLogger(__name__)

_BLOCK_BYTES = 64 * 2**20


class EspiritConfig(Config):
    """Parameters of ESPIRiT; the defaults are those of the paper and of BART, the crop as in SigPy."""

    kernel: int = Field(default=6, ge=2, description="width of the kernels")
    threshold: float = Field(default=0.02, gt=0, lt=1, description="of singular values, relative to the largest")
    crop: float = Field(default=0.95, ge=0, lt=1, description="smallest eigenvalue that counts as signal")
    maps: int = Field(default=1, ge=1, description="number of map sets")
    calibration: int = Field(default=24, ge=4, description="largest width of the calibration region")


def espirit(
    calibration: Complex[Tensor, "coil cy cx"], shape: tuple[int, int], config: EspiritConfig | None = None
) -> Complex[Tensor, "map coil y x"]:
    """Estimate coil sensitivities of one slice.

    Parameters
    ----------
    calibration
        Fully sampled centre of k-space.
    shape
        Grid (y, x) of the maps.
    config
        Parameters; by default `EspiritConfig()`.

    Returns
    -------
    Tensor
        (map, coil, y, x); over the coils of norm one inside the support, zero outside.

    Raises
    ------
    ConfigError
        When the calibration region is smaller than the kernel, or zero.
    """
    config = config or EspiritConfig()
    width = config.kernel
    coils, cy, cx = calibration.shape
    if min(cy, cx) < width:
        raise ConfigError(
            f"calibration: expected at least {width} x {width} fully sampled central positions, got {cy} x {cx}. "
            "Use a smaller kernel or data with more calibration lines."
        )
    if min(cy, cx) < 2 * width - 4:
        _log.warning(
            "calibration from %d x %d positions with kernels of %d is poor; expect holes in the maps", cy, cx, width
        )
    if config.maps > coils:
        raise ConfigError(f"maps: expected at most {coils}, the number of coils, got {config.maps}.")
    if not torch.any(calibration):
        raise ConfigError("calibration: the calibration region is all zero.")
    kernels = _kernel_space(calibration, width, config.threshold)
    correlation = _correlate(kernels, coils, width)
    reference = _virtual_coil(calibration)
    ny, nx = shape
    rows = max(1, _BLOCK_BYTES // (coils * coils * nx * 8))
    parts = [
        _eigen_maps(_local_matrices(correlation, shape, slice(top, min(top + rows, ny))), reference, config)
        for top in range(0, ny, rows)
    ]
    return torch.cat(parts, dim=-2)


def _kernel_space(calibration: Tensor, width: int, threshold: float) -> Tensor:
    """Return the projection onto the kernels' space, (coil * width^2, coil * width^2)."""
    windows = calibration.unfold(-2, width, 1).unfold(-2, width, 1)  # coil, wy, wx, width, width
    matrix = windows.permute(1, 2, 0, 3, 4).reshape(-1, calibration.shape[0] * width * width)
    gram = matrix.mH @ matrix
    values, vectors = torch.linalg.eigh(gram)
    kept = vectors[:, values > threshold**2 * values[-1]]
    return (kept @ kept.mH).conj()


def _correlate(projection: Tensor, coils: int, width: int) -> Tensor:
    """Sum the projection along diagonals: (coil, coil, 2 width - 1, 2 width - 1) by displacement."""
    p = projection.reshape(coils, width, width, coils, width, width)
    span = 2 * width - 1
    out = p.new_zeros((coils, coils, span, span))
    for dy in range(-width + 1, width):
        for dx in range(-width + 1, width):
            y = torch.arange(max(0, dy), min(width, width + dy), device=p.device)
            x = torch.arange(max(0, dx), min(width, width + dx), device=p.device)
            block = p[:, y][:, :, x][..., y - dy, :][..., x - dx]  # coil, y, x, coil, y', x'
            total = torch.einsum("ayxbyx->ab", block)
            out[:, :, dy + width - 1, dx + width - 1] = total
    return out / width**2


def _local_matrices(correlation: Tensor, shape: tuple[int, int], rows: slice) -> Tensor:
    """Return M(r) of some rows, (y, x, coil, coil)."""
    span = correlation.shape[-1]
    device = correlation.device
    lags = torch.arange(span, device=device) - span // 2

    def waves(positions: Tensor, length: int) -> Tensor:
        phase = 2 * torch.pi * torch.outer(positions - length // 2, lags) / length
        return torch.polar(torch.ones_like(phase), phase).to(correlation.dtype)

    y = waves(torch.arange(rows.start, rows.stop, device=device), shape[0])
    x = waves(torch.arange(shape[1], device=device), shape[1])
    matrices: Tensor = torch.einsum("yd,abde,xe->yxab", y, correlation, x)
    return matrices


def _virtual_coil(calibration: Tensor) -> Tensor:
    """Return the combination of coils with the most energy, (coil,)."""
    data = calibration.reshape(calibration.shape[0], -1)
    _, vectors = torch.linalg.eigh(data @ data.mH)
    strongest = vectors[:, -1]
    # An eigenvector has no phase of its own: make its largest component real, so that maps are reproducible.
    return strongest * torch.exp(-1j * strongest[strongest.abs().argmax()].angle())


def _eigen_maps(matrices: Tensor, reference: Tensor, config: EspiritConfig) -> Tensor:
    """Return the cropped leading eigenvectors, (map, coil, y, x)."""
    values, vectors = torch.linalg.eigh(matrices)
    leading = vectors[..., -config.maps :].flip(-1)
    kept = values[..., -config.maps :].flip(-1) > config.crop
    seen = torch.einsum("c,yxcm->yxm", reference.conj(), leading)
    phase = torch.where(seen.abs() > 0, seen.conj() / seen.abs().clamp_min(1e-30), torch.ones_like(seen))
    maps = leading * (phase * kept)[..., None, :]
    return maps.permute(3, 2, 0, 1).contiguous()
