"""Linear operators with forward, adjoint and normal, and their compositions."""

from mri_recon.physics.operators.base import Composition, LinearOperator, power_iteration
from mri_recon.physics.operators.coil import CoilOperator
from mri_recon.physics.operators.fourier import FourierOperator
from mri_recon.physics.operators.reduced import ReducedSense
from mri_recon.physics.operators.sampling import SamplingOperator
from mri_recon.physics.operators.sense import SenseOperator

__all__ = [
    "CoilOperator",
    "Composition",
    "FourierOperator",
    "LinearOperator",
    "ReducedSense",
    "SamplingOperator",
    "SenseOperator",
    "power_iteration",
]
