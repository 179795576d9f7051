r"""What the sparse reconstructions share: scale, regularisation from the noise level, and the bound of the operator.

.. math:: \min_x \tfrac12 \|A x - y\|^2 + \lambda \|W x\|_1

Each batch element is divided by the largest magnitude of its zero-filled image :math:`A^H y`, so :math:`\lambda` has
no unit. The automatic one is

.. math:: \lambda = \kappa \, \sigma^2 / \overline{|W A^H y|}

with the noise level :math:`\sigma = \sqrt{E |n|^2}` of k-space and the mean over the pixels that a coil sees. With
:math:`\kappa = 1` and the mean of the true :math:`|W x|` it is the maximum a posteriori weight of complex normal noise
and coefficients with a density proportional to :math:`\exp(-|c| / b)`, of mean :math:`2 b` (as BayesShrink chooses
thresholds: Chang, Yu and Vetterli 2000, doi:10.1109/83.862633). The zero-filled image has smaller coefficients, because
samples are missing, and what is measured is an error and not a probability: :math:`\kappa` is calibrated on scans and
phantoms of different noise and sampling, for all of which the error is near its smallest.
"""

from collections.abc import Callable

import torch
from torch import Tensor

from mri_io.errors import NonFiniteError
from mri_recon.classical.kernels import check_maps, check_sampled
from mri_recon.classical.result import Reconstruction, plain
from mri_recon.classical.solvers import Solution
from mri_recon.classical.solvers.batched import divide
from mri_recon.errors import ConfigError
from mri_recon.physics import SenseOperator
from mri_recon.physics.noise import noise_level
from mri_recon.types import Kspace, Maps, Mask

__all__ = ["KAPPA", "Problem", "largest_eigenvalue"]

KAPPA = 0.32


def largest_eigenvalue(maps: Maps) -> Tensor:
    """Return a bound of the largest eigenvalue of ``A^H A`` per batch element, (..., 1, 1, 1).

    Sampling takes energy away, so that of the maps alone bounds it: over pixels, the largest eigenvalue of the Gram
    matrix of the map sets. It is met where the centre of k-space is sampled, and unlike a power iteration never low.
    """
    if maps.shape[-4] == 1:
        per_pixel = torch.view_as_real(maps).square().sum(dim=(-4, -1))
    else:
        gram = torch.einsum("...mcyx,...ncyx->...yxmn", maps.conj(), maps)
        per_pixel = torch.linalg.eigvalsh(gram)[..., -1][..., None, :, :]
    return per_pixel.amax(dim=(-3, -2, -1), keepdim=True)


class Problem:
    """A batch of least-squares problems in relative units.

    Parameters
    ----------
    kspace, mask, maps
        As the methods take them.
    sparse
        The magnitudes ``|W x|`` of images (..., map, y, x), in that shape, that the penalty sums up.
    regularisation
        Relative lambda, or None for the automatic one.

    Attributes
    ----------
    right
        ``A^H y`` over `scale`, (..., map, y, x).
    scale, regularisation, largest
        Per batch element, (..., 1, 1, 1).

    Raises
    ------
    ConfigError
        For a negative regularisation, or a mask that samples nothing.
    ShapeError
        When the maps are not for these coils and this matrix.
    NonFiniteError
        For k-space or maps that are not finite.
    """

    def __init__(
        self,
        kspace: Kspace,
        mask: Mask,
        maps: Maps,
        sparse: Callable[[Tensor], Tensor],
        regularisation: float | None,
    ) -> None:
        if regularisation is not None and not regularisation >= 0:
            raise ConfigError(f"regularisation: expected a number >= 0, or None for automatic, got {regularisation}.")
        check_maps(kspace, maps, "kspace, maps")
        check_sampled(mask, "mask")
        operator = SenseOperator(maps, mask)
        self.normal = operator.normal
        self.seen = (maps != 0).any(dim=-3)
        right = operator.adjoint(kspace)
        self.scale = right.abs().amax(dim=(-3, -2, -1), keepdim=True)
        if not bool(torch.isfinite(self.scale).all()):
            raise NonFiniteError("kspace, maps: expected finite numbers, found NaN or infinity. Leave the slice out.")
        divisor = torch.where(self.scale > 0, self.scale, torch.ones_like(self.scale))
        self.right = right / divisor
        self.noise = noise_level(kspace, mask)
        self.largest = largest_eigenvalue(maps)
        if regularisation is None:
            axes = (-3, -2, -1)
            total = sparse(self.right).sum(dim=axes, keepdim=True)
            variance = (self.noise / divisor).square()
            self.regularisation = KAPPA * divide(variance * self.seen.sum(dim=axes, keepdim=True), total)
        else:
            self.regularisation = torch.full_like(self.scale, regularisation)

    def reconstruction(self, solution: Solution) -> Reconstruction:
        """Return a solver's solution in the units of the data, zero where no coil sees anything.

        There the data say nothing, and the penalty would continue the image into the empty background.
        """
        image = self.scale * torch.where(self.seen, solution.x, torch.zeros_like(solution.x))
        settings = {"regularisation": plain(self.regularisation), "noise_level": plain(self.noise)}
        image = image[..., 0, :, :] if image.shape[-3] == 1 else image
        return Reconstruction(image, solution.iterations, solution.residual, solution.reason, settings)
