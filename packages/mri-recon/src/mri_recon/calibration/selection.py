r"""Which eigenvalues of ESPIRiT are signal: the crop of least estimated risk, and smooth weights.

Projecting the coil images of the calibration region on the maps removes noise and, where there is a signal that the
maps do not explain, signal. Stein's unbiased estimate of the error (Iyer 2020, doi:10.1002/mrm.28270, eq. 6) is, with
C coils, noise of variance :math:`\sigma^2` and pixels of eigenvalue above the crop c as the support,

.. math:: \mathrm{SURE}(c) = \sum_{\lambda > c} (\|x\|^2 - |s^H x|^2 + 2 \sigma^2) + \sum_{\lambda \le c} \|x\|^2
   - C N \sigma^2

and its least value is found by sorting pixels by their eigenvalue.
"""

import torch
from jaxtyping import Complex, Float
from torch import Tensor

from mri_recon.calibration.kernels import local_matrices
from mri_recon.physics import ifft2c

__all__ = ["crop_by_risk", "soft_weights"]

_LOWEST, _HIGHEST = 0.5, 0.99


def crop_by_risk(
    calibration: Complex[Tensor, "coil cy cx"], correlation: Complex[Tensor, "coil coil lag lag"], noise: float
) -> float:
    """Return the eigenvalue below which maps are to be cropped.

    Parameters
    ----------
    calibration
        Fully sampled centre of k-space, in the units of `noise`.
    correlation
        Of the kernels.
    noise
        Standard deviation of the complex noise of `calibration`.

    Returns
    -------
    float
        Between 0.5 and 0.99. Ringing of the low resolution counts as signal, so the support is rather too large.
    """
    y, x = ((torch.arange(n, device=calibration.device) - n // 2) / n for n in calibration.shape[-2:])
    values, vectors = torch.linalg.eigh(local_matrices(correlation, y, x))
    images = ifft2c(calibration)
    explained = torch.einsum("yxc,cyx->yx", vectors[..., -1].conj(), images).abs().square()
    largest, order = values[..., -1].flatten().sort(descending=True)
    risk = (2 * noise**2 - explained.flatten()[order]).cumsum(0)
    return float(largest[int(risk.argmin())].clamp(_LOWEST, _HIGHEST))


def soft_weights(values: Float[Tensor, "map y x"], crop: float) -> Float[Tensor, "map y x"]:
    """Return smooth weights of maps: zero at 0.95 of the crop, a half at the crop, one above (soft-SENSE).

    The cubic ``3 t^2 - 2 t^3``, so that value and slope are continuous; the range is as wide below as above the crop.
    """
    width = max(0.05 * crop, 1e-3)
    t = ((values - crop) / width + 1).mul(0.5).clamp(0, 1)
    return t * t * (3 - 2 * t)
