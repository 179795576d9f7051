r"""Compressed sensing with wavelets (Lustig 2007, doi:10.1002/mrm.21391, eq. 3; SparseSENSE, Liu 2008).

.. math:: \min_x \tfrac12 \|A x - y\|^2 + \lambda \|W x\|_1

with orthonormal Daubechies wavelets, solved by FISTA. The image is moved by another random number of pixels in each
iteration, and back (Figueiredo and Nowak 2003, doi:10.1109/TIP.2003.814255, section VI; as in BART), so that the result
has no blocks at the places where wavelets happen to lie; the last iterations are averaged. As the moves go on the
change in an iteration does not become small, and usually the number of iterations ends it. The approximation of the
coarsest level, which is not sparse, is not penalised. With several map sets the coefficients of the sets at a place
shrink together.
"""

import torch
from pydantic import Field
from torch import Tensor

from mri_io.config import Config
from mri_recon.classical.regularised import Problem
from mri_recon.classical.result import Reconstruction
from mri_recon.classical.solvers import fista, soft_threshold
from mri_recon.classical.transforms import WaveletTransform
from mri_recon.types import Kspace, Maps, Mask

__all__ = ["WaveletConfig", "wavelet"]


AVERAGED = 10
"""Iterations over which the random moves are averaged; it takes a quarter of a decibel of their noise away."""


class WaveletConfig(Config):
    """Parameters of `wavelet`."""

    regularisation: float | None = Field(
        default=None,
        ge=0,
        description="weight of the l1 norm relative to the brightest zero-filled pixel; null: from the noise level",
    )
    iterations: int = Field(default=100, ge=1, description="FISTA iterations at most")
    tolerance: float = Field(default=1e-4, ge=0, description="stop when an iteration changes the image by less")
    moments: int = Field(default=2, ge=1, le=10, description="vanishing moments of the Daubechies wavelet")
    levels: int | None = Field(default=None, ge=1, description="of the pyramid; null: down to 16 pixels")
    cycle_spinning: bool = Field(default=True, description="move the image randomly in each iteration")
    seed: int = Field(default=0, ge=0, description="of the random moves")


def wavelet(
    kspace: Kspace,
    mask: Mask,
    maps: Maps,
    *,
    regularisation: float | None = None,
    iterations: int = 100,
    tolerance: float = 1e-4,
    moments: int = 2,
    levels: int | None = None,
    cycle_spinning: bool = True,
    seed: int = 0,
) -> Reconstruction:
    """Reconstruct Cartesian multi-coil k-space with an l1 norm of wavelet coefficients.

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
    iterations
        At most so many.
    tolerance
        Stop when the relative change of the image in an iteration is at most this.
    moments, levels
        Of the wavelet, see `WaveletTransform`.
    cycle_spinning, seed
        Whether the image is moved randomly, the same way in the whole batch, and the seed.

    Returns
    -------
    Reconstruction
        Its residual is the relative change in the last iteration; settings: ``regularisation``, as said above, and
        ``noise_level`` in the units of k-space, per batch element where there are several.
    """
    shape = (int(maps.shape[-2]), int(maps.shape[-1]))
    transform = WaveletTransform(shape, moments=moments, levels=levels, dtype=maps.dtype, device=maps.device)
    corner = (..., slice(transform.coarsest[0]), slice(transform.coarsest[1]))
    group = (-3,) if maps.shape[-4] > 1 else ()

    def details(image: Tensor) -> Tensor:
        magnitudes = transform(image).abs()
        magnitudes[corner] = 0
        return magnitudes

    problem = Problem(kspace, mask, maps, details, regularisation)
    generator = torch.Generator().manual_seed(seed)

    def proximal(image: Tensor, step: Tensor) -> Tensor:
        shift = (0, 0)
        if cycle_spinning:
            moves = torch.randint(2**transform.levels, (2,), generator=generator).tolist()
            shift = (moves[0], moves[1])
        coefficients = transform.forward(image, shift)
        shrunk = soft_threshold(coefficients, step * problem.regularisation, group)
        shrunk[corner] = coefficients[corner]
        return transform.adjoint(shrunk, shift)

    solution = fista(
        problem.normal,
        problem.right,
        proximal,
        problem.largest,
        iterations=iterations,
        tolerance=tolerance,
        average=AVERAGED if cycle_spinning else 1,
    )
    return problem.reconstruction(solution)
