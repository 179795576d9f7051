"""The physics of acquisition: Fourier transform, coils, sampling, and their composition."""

from mri_recon.physics.coils import combine, expand, root_sum_of_squares
from mri_recon.physics.fourier import fft1c, fft2c, fftc, ifft1c, ifft2c, ifftc
from mri_recon.physics.masks import (
    MASKS,
    calibration_region,
    equispaced_fraction_mask,
    equispaced_mask,
    random_mask,
)
from mri_recon.physics.noise import noise_level
from mri_recon.physics.operators import (
    CoilOperator,
    FourierOperator,
    LinearOperator,
    SamplingOperator,
    SenseOperator,
)

__all__ = [
    "MASKS",
    "CoilOperator",
    "FourierOperator",
    "LinearOperator",
    "SamplingOperator",
    "SenseOperator",
    "calibration_region",
    "combine",
    "equispaced_fraction_mask",
    "equispaced_mask",
    "expand",
    "fft1c",
    "fft2c",
    "fftc",
    "ifft1c",
    "ifft2c",
    "ifftc",
    "noise_level",
    "random_mask",
    "root_sum_of_squares",
]
