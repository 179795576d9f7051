r"""The end-to-end variational network (Sriram et al. 2020, arXiv:2004.06688).

.. math:: k^{t + 1} = k^t - \eta^t M (k^t - y) - F S U^t(S^H F^{-1} k^t)

Parameter names are those of fastMRI's `VarNet`, so that its published weights load unchanged.
"""

import torch
from jaxtyping import Complex
from torch import Tensor, nn

from mri_recon.classical import cg_sense
from mri_recon.errors import ShapeError
from mri_recon.networks.output import ReconOutput
from mri_recon.networks.unet import NormUnet
from mri_recon.physics import combine, expand, fft2c, ifft2c, root_sum_of_squares

__all__ = ["SensitivityModel", "VarNet", "VarNetBlock", "central_lines"]


def central_lines(mask: Tensor) -> Tensor:
    """Return the mask of the fully sampled lines around the centre, symmetric, as fastMRI counts them.

    Parameters
    ----------
    mask
        (batch, 1, 1, kx) or (batch, 1, ky, 1), not zero where sampled.

    Returns
    -------
    Tensor
        Boolean, same shape. Per batch element.
    """
    lines = (mask != 0).flatten(1)
    middle = lines.shape[1] // 2
    left = lines[:, :middle].flip(1).cumprod(dim=1).sum(dim=1)
    right = lines[:, middle:].cumprod(dim=1).sum(dim=1)
    # fastMRI: at least one line on each side, and the same number on both.
    half = torch.minimum(left, right).clamp_min(1)[:, None]
    positions = torch.arange(lines.shape[1], device=mask.device)[None]
    width = 2 * half
    pad = (lines.shape[1] - width + 1) // 2
    return ((positions >= pad) & (positions < pad + width)).view(mask.shape)


class SensitivityModel(nn.Module):
    """Estimate coil maps from the central lines: a U-Net on each coil image, then division by the RSS."""

    def __init__(self, channels: int, pools: int) -> None:
        super().__init__()
        self.norm_unet = NormUnet(channels, pools)

    def forward(self, kspace: Complex[Tensor, "batch coil ky kx"], mask: Tensor) -> Complex[Tensor, "batch coil y x"]:
        """Return coil maps; coils go through the network one after another to bound the memory.

        Raises
        ------
        ShapeError
            When the mask is not of lines.
        """
        if 1 not in mask.shape[-2:]:
            raise ShapeError(
                "mask: expected lines, (batch, 1, 1, kx) or (batch, 1, ky, 1), from whose centre the network estimates "
                f"its coil maps, got {tuple(mask.shape)}. Use a mask of lines, or train with model.coil_maps: stored."
            )
        images = ifft2c(central_lines(mask) * kspace)
        maps = torch.stack([self.norm_unet(images[:, coil]) for coil in range(images.shape[1])], dim=1)
        norm = root_sum_of_squares(maps).unsqueeze(1)
        return maps / norm.clamp_min(torch.finfo(norm.dtype).tiny ** 0.5)


class VarNetBlock(nn.Module):
    """One cascade: soft data consistency and a refinement by a U-Net."""

    def __init__(self, model: nn.Module) -> None:
        super().__init__()
        self.model = model
        self.dc_weight = nn.Parameter(torch.ones(1))

    def forward(self, current: Tensor, reference: Tensor, mask: Tensor, maps: Tensor) -> Tensor:
        """Return the next k-space (batch, coil, ky, kx)."""
        image = combine(ifft2c(current), maps)[:, 0]
        refinement = fft2c(expand(self.model(image)[:, None], maps))
        consistency = mask * (current - reference) * self.dc_weight
        return current - consistency - refinement


class VarNet(nn.Module):
    """Unrolled reconstruction with unshared cascades.

    Parameters
    ----------
    cascades
        Number of cascades.
    channels, pools
        Of the cascades' U-Nets.
    sens_channels, sens_pools
        Of the sensitivity network; 0 channels leave it out, and maps must be given.
    combination
        ``"rss"``: root sum of squares of the coil images, as fastMRI; ``"sense"``: complex combination by the maps.
    residual
        False, as published: a refinement is given the mean of the image that it refines. True: it is not, since it is
        a difference, and it is nearly zero before training.
    start_iterations
        k^0 is what was measured. With more than 0 iterations the lines between are filled in by CG-SENSE, which
        leaves the cascades noise to remove instead of aliasing, and shortens training.
    """

    def __init__(
        self,
        *,
        cascades: int = 12,
        channels: int = 18,
        pools: int = 4,
        sens_channels: int = 8,
        sens_pools: int = 4,
        combination: str = "rss",
        residual: bool = False,
        start_iterations: int = 0,
    ) -> None:
        super().__init__()
        if sens_channels:
            self.sens_net = SensitivityModel(sens_channels, sens_pools)
        networks = [NormUnet(channels, pools, residual=residual) for _ in range(cascades)]
        self.cascades = nn.ModuleList(VarNetBlock(network) for network in networks)
        self.combination, self.start_iterations = combination, start_iterations

    def forward(
        self,
        kspace: Complex[Tensor, "batch coil ky kx"],
        mask: Tensor,
        maps: Complex[Tensor, "batch map coil y x"] | None = None,
    ) -> ReconOutput:
        """Reconstruct.

        Parameters
        ----------
        kspace
            Zero where not sampled.
        mask
            Broadcastable to `kspace`, not zero where sampled. Without maps it must be of lines,
            (batch, 1, 1, kx) or (batch, 1, ky, 1).
        maps
            Coil sensitivities; None estimates them with the sensitivity network.

        Returns
        -------
        ReconOutput
            (batch, y, x), real for ``"rss"``, complex for ``"sense"``.

        Raises
        ------
        ShapeError
            When maps are to be estimated and the mask is not of lines.
        """
        if maps is None:
            maps = self.sens_net(kspace, mask).unsqueeze(1)
        sampled = (mask != 0).to(kspace.real.dtype)
        current = self._start(kspace, sampled, maps) if self.start_iterations else kspace
        for cascade in self.cascades:
            current = cascade(current, kspace, sampled, maps)
        images = ifft2c(current)
        if self.combination == "rss":
            return ReconOutput(root_sum_of_squares(images))
        return ReconOutput(combine(images, maps)[:, 0])

    @torch.no_grad()
    def _start(self, kspace: Tensor, sampled: Tensor, maps: Tensor) -> Tensor:
        """Return the measured k-space with the other samples as CG-SENSE predicts them."""
        image = cg_sense(kspace, sampled, maps, iterations=self.start_iterations).image
        predicted = fft2c(expand(image if maps.shape[-4] > 1 else image[..., None, :, :], maps))
        return kspace + (1 - sampled) * predicted
