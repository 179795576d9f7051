r"""Total variation (Rudin, Osher and Fatemi 1992, doi:10.1016/0167-2789(92)90242-F; Block 2007, doi:10.1002/mrm.21236).

.. math:: \min_x \tfrac12 \|A x - y\|^2 + \lambda \sum_r \sqrt{|\partial_y x_r|^2 + |\partial_x x_r|^2}

isotropic, of complex images, solved by ADMM. Edges stay sharp; what changes slowly comes out as flat steps. With
several map sets the differences of the sets at a place shrink together.
"""

import torch
from pydantic import Field
from torch import Tensor

from mri_io.config import Config
from mri_recon.classical.regularised import Problem
from mri_recon.classical.result import Reconstruction
from mri_recon.classical.solvers import Penalty, admm, soft_threshold
from mri_recon.classical.transforms import FiniteDifferences
from mri_recon.types import Kspace, Maps, Mask

__all__ = ["TotalVariationConfig", "total_variation"]

RHO = 20.0
"""First weight of the splitting over lambda; the image is about one at its brightest."""
SMALLEST_RHO = 1e-3


class TotalVariationConfig(Config):
    """Parameters of `total_variation`."""

    regularisation: float | None = Field(
        default=None,
        ge=0,
        description="weight of the variation relative to the brightest zero-filled pixel; null: from the noise level",
    )
    iterations: int = Field(default=100, ge=1, description="ADMM iterations at most")
    tolerance: float = Field(default=2e-3, ge=0, description="relative primal and dual residual to stop at")
    inner: int = Field(default=4, ge=1, description="conjugate gradient steps in an iteration")


def total_variation(
    kspace: Kspace,
    mask: Mask,
    maps: Maps,
    *,
    regularisation: float | None = None,
    iterations: int = 100,
    tolerance: float = 2e-3,
    inner: int = 4,
) -> Reconstruction:
    """Reconstruct Cartesian multi-coil k-space with total variation.

    Parameters
    ----------
    kspace
        (..., coil, ky, kx), zero where not sampled.
    mask
        Broadcastable to `kspace`.
    maps
        (..., map, coil, y, x), of norm one over coils in their support.
    regularisation
        lambda, relative to the largest magnitude of the zero-filled image ``A^H y`` of each batch element. None: from
        the noise level of each batch element, see `mri_recon.classical.regularised`.
    iterations, inner
        At most so many of ADMM; conjugate gradient steps in each.
    tolerance
        Stop when primal and dual residual, relative to what they compare, are at most this.

    Returns
    -------
    Reconstruction
        Its residual is the larger of the two; settings: ``regularisation``, as said above, and ``noise_level`` in the
        units of k-space, per batch element where there are several.
    """
    gradient = FiniteDifferences()
    problem = Problem(kspace, mask, maps, lambda x: torch.linalg.vector_norm(gradient(x), dim=-3), regularisation)
    group = (-4, -3) if maps.shape[-4] > 1 else (-3,)

    def proximal(differences: Tensor, step: Tensor) -> Tensor:
        return soft_threshold(differences, step * problem.regularisation[..., None], group)

    solution = admm(
        problem.normal,
        problem.right,
        [Penalty(gradient, proximal, added_axes=1)],
        rho=(RHO * problem.regularisation).clamp_min(SMALLEST_RHO),
        iterations=iterations,
        inner=inner,
        tolerance=tolerance,
    )
    return problem.reconstruction(solution)
