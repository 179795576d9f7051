r"""ESPIRiT: coil sensitivities as eigenvectors of the calibration kernels (Uecker 2014, doi:10.1002/mrm.24751).

1. Windows of the calibration region, as rows of a matrix A; the eigenvectors of :math:`A^H A` whose singular value
   exceeds a threshold span the space of kernels (eq. 4). The Gram matrix is small, so no SVD of A is needed.
2. In image space the kernels give at each pixel a Hermitian matrix :math:`M(r)`, here from their correlation
   :math:`R(d)` by a separable transform of :math:`(2 k - 1)^2` terms (eq. 12), with no padded FFT per kernel.
3. The eigenvectors of :math:`M(r)` with eigenvalue near one are the sensitivities (eq. 13). Where the eigenvalue is
   below `crop` there is no signal, and the map is zero.

M(r) has few Fourier terms, so its eigenvectors are found on every fourth pixel, interpolated, and refined on the full
grid until the residual says that they are eigenvectors there.

Differs from SigPy's implementation by the reference of the phase: that of the strongest virtual coil in place of the
first coil, whose phase is undefined where it sees nothing.
"""

import logging

import torch
from jaxtyping import Complex, Float
from pydantic import Field
from torch import Tensor

from mri_io.config import Config
from mri_recon.calibration.kernels import Threshold, kernel_correlation, kernel_space, local_matrices
from mri_recon.calibration.leading import leading_eigenvectors
from mri_recon.calibration.selection import crop_by_risk, soft_weights
from mri_recon.errors import ConfigError

__all__ = ["EspiritConfig", "espirit", "espirit_eigenmaps"]

_log = logging.getLogger(__name__)

_BLOCK_BYTES = 16 * 2**20
"""Of the matrices that are held at a time; their number grows with the square of the coils."""
_COARSE = 4
_MARGIN = 0.05
"""By how much the largest eigenvalue may differ from that of the next coarse pixels where maps are looked for."""


class EspiritConfig(Config):
    """Parameters of ESPIRiT; the defaults are those of the paper and of BART, the crop as in SigPy."""

    kernel: int = Field(default=6, ge=2, description="width of the kernels")
    threshold: Threshold = Field(
        default=0.02, description="of singular values, relative to the largest; auto: above the noise"
    )
    crop: Threshold = Field(
        default=0.95, description="smallest eigenvalue that counts as signal; auto: of least estimated risk"
    )
    soft: bool = Field(default=False, description="weight maps smoothly by their eigenvalue instead of cropping")
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
        (map, coil, y, x); over the coils of norm one inside the support, zero outside. With ``soft`` the norm falls
        smoothly from one to zero around the crop.

    Raises
    ------
    ConfigError
        When the calibration region is smaller than the kernel, zero, not finite or, with an automatic threshold,
        nothing but noise; for more map sets than coils.
    """
    config = config or EspiritConfig()
    correlation, reference, noise = _calibrate(calibration, config)
    crop = config.crop
    if crop == "auto":
        crop = crop_by_risk(calibration / _scale(calibration), correlation, noise)
    maps, values = _eigenmaps(correlation, reference, shape, config.maps, crop * 0.95 if config.soft else crop)
    weights = soft_weights(values, crop) if config.soft else (values > crop).to(values.dtype)
    return maps * weights[:, None]


def espirit_eigenmaps(
    calibration: Complex[Tensor, "coil cy cx"], shape: tuple[int, int], config: EspiritConfig | None = None
) -> tuple[Complex[Tensor, "map coil y x"], Float[Tensor, "map y x"]]:
    """Return the eigenvectors of norm one everywhere, and their eigenvalues; `config`'s crop is not applied."""
    config = config or EspiritConfig()
    correlation, reference, _ = _calibrate(calibration, config)
    return _eigenmaps(correlation, reference, shape, config.maps, 0.0)


def _scale(calibration: Tensor) -> Tensor:
    return torch.view_as_real(calibration).abs().max()


def _calibrate(calibration: Tensor, config: EspiritConfig) -> tuple[Tensor, Tensor, float]:
    """Return the correlation of the kernels, the reference of the phase and the noise of data scaled by `_scale`."""
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
    scale = _scale(calibration)
    if not torch.isfinite(scale):
        raise ConfigError("calibration: expected finite values, found NaN or infinity. Repair the k-space.")
    if scale == 0:
        raise ConfigError("calibration: the calibration region is all zero.")
    scaled = calibration / scale
    kernels, noise = kernel_space(scaled, width, config.threshold)
    return kernel_correlation(kernels), _virtual_coil(scaled), noise


def _virtual_coil(calibration: Tensor) -> Tensor:
    """Return the combination of coils with the most energy, (coil,)."""
    data = calibration.reshape(calibration.shape[0], -1)
    _, vectors = torch.linalg.eigh(data @ data.mH)
    strongest = vectors[:, -1]
    # An eigenvector has no phase of its own: make its largest component real, so that maps are reproducible.
    return strongest * torch.exp(-1j * strongest[strongest.abs().argmax()].angle())


def _positions(length: int, device: torch.device) -> Tensor:
    return (torch.arange(length, device=device) - length // 2) / length


def _eigenmaps(
    correlation: Tensor, reference: Tensor, shape: tuple[int, int], sets: int, floor: float
) -> tuple[Tensor, Tensor]:
    """Return eigenvectors (map, coil, y, x), zero where the eigenvalue is well below `floor`, and eigenvalues."""
    span, coils = correlation.shape[-1], correlation.shape[0]
    y, x = (_positions(length, correlation.device) for length in shape)
    counts = [min(n, max(n // _COARSE + 1, 2 * span)) for n in shape]
    coarse_y, coarse_x = (
        torch.linspace(float(p[0]), float(p[-1]), n, device=p.device) for p, n in zip((y, x), counts, strict=True)
    )
    guards = sets if sets == 1 else min(sets + 1, coils)
    values, vectors = _coarse(correlation, coarse_y, coarse_x, guards, sets, reference)
    largest = torch.nn.functional.max_pool2d(values[None, :1], 3, 1, 1)
    active = torch.nn.functional.interpolate(largest, shape, mode="nearest")[0, 0] > floor - _MARGIN
    start = _resize(vectors, shape)
    maps = correlation.new_zeros((sets, coils, *shape))
    spectrum = torch.nn.functional.interpolate(values[None], shape, mode="bilinear", align_corners=True)[0]
    rows = max(1, _BLOCK_BYTES // (coils * coils * shape[1] * correlation.element_size()))
    for top in range(0, shape[0], rows):
        block = slice(top, min(top + rows, shape[0]))
        here = active[block]
        if not bool(here.any()):
            continue
        matrices = local_matrices(correlation, y[block], x)[here]
        found, leading = leading_eigenvectors(
            matrices, start[:, :, block][:, :, here].permute(2, 1, 0), wanted=sets, floor=floor
        )
        spectrum[:, block][:, here] = found.mT
        maps[:, :, block][:, :, here] = _aligned(leading, reference).permute(2, 1, 0)
    return maps, spectrum


def _coarse(
    correlation: Tensor, y: Tensor, x: Tensor, count: int, sets: int, reference: Tensor
) -> tuple[Tensor, Tensor]:
    """Return eigenvalues (set, y, x) and eigenvectors (count, coil, y, x) on a coarse grid, some rows at a time."""
    rows = max(1, _BLOCK_BYTES // (correlation.shape[0] ** 2 * len(x) * correlation.element_size()))
    parts = []
    for some in y.split(rows):
        values, vectors = torch.linalg.eigh(local_matrices(correlation, some, x))
        vectors = _aligned(vectors.flip(-1)[..., :count], reference)
        parts.append((values.flip(-1)[..., :sets].permute(2, 0, 1), vectors.permute(3, 2, 0, 1)))
    return torch.cat([part[0] for part in parts], dim=1), torch.cat([part[1] for part in parts], dim=2)


def _aligned(vectors: Tensor, reference: Tensor) -> Tensor:
    """Turn the phase of vectors (..., coil, n) to that of the reference coil, where it sees them."""
    seen = torch.einsum("c,...cm->...m", reference.conj(), vectors)
    phase = torch.where(seen.abs() > 0, seen.conj() / seen.abs().clamp_min(1e-30), torch.ones_like(seen))
    return vectors * phase[..., None, :]


def _resize(vectors: Tensor, shape: tuple[int, int]) -> Tensor:
    """Interpolate (..., y, x) by cubic convolution, the first and last positions on each other."""
    parts = torch.view_as_real(vectors).movedim(-1, 1).flatten(0, 2)[None]
    fine = torch.nn.functional.interpolate(parts, shape, mode="bicubic", align_corners=True)[0]
    count, coils = vectors.shape[:2]
    return torch.complex(*fine.reshape(count, 2, coils, *shape).unbind(1))
