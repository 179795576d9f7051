"""Losses of reconstruction networks on magnitude images; batch elements whose target is zero do not count."""

import torch
from jaxtyping import Float, Shaped
from torch import Tensor, nn

from mri_recon.errors import ShapeError

__all__ = ["LOSSES", "ComplexL1Loss", "L1Loss", "SsimLoss", "zero_loss"]


class L1Loss(nn.Module):
    """Mean absolute difference of magnitudes, relative to the peak of each target."""

    def forward(
        self, image: Shaped[Tensor, "batch y x"], target: Shaped[Tensor, "batch y x"], peak: Float[Tensor, " batch"]
    ) -> Tensor:
        """Return the loss, a scalar."""
        difference = _magnitude(image) - _magnitude(target)
        return _mean_of_signals(difference.abs() / _scale(peak)[:, None, None], peak)


class ComplexL1Loss(nn.Module):
    """Mean absolute complex difference, relative to the peak of each target; the phase counts too."""

    def forward(
        self, image: Shaped[Tensor, "batch y x"], target: Shaped[Tensor, "batch y x"], peak: Float[Tensor, " batch"]
    ) -> Tensor:
        """Return the loss, a scalar."""
        return _mean_of_signals((image - target).abs() / _scale(peak)[:, None, None], peak)


class SsimLoss(nn.Module):
    """One minus the structural similarity of magnitudes, with a uniform window, as fastMRI trains its VarNet.

    Wang et al. 2004, doi:10.1109/TIP.2003.819861. Equal to fastMRI's `SSIMLoss` for `peak` as its `data_range`.

    Parameters
    ----------
    window
        Width in pixels.
    k1, k2
        Stabilising constants.
    """

    def __init__(self, window: int = 7, k1: float = 0.01, k2: float = 0.03) -> None:
        super().__init__()
        self.window, self.k1, self.k2 = window, k1, k2

    def forward(
        self, image: Shaped[Tensor, "batch y x"], target: Shaped[Tensor, "batch y x"], peak: Float[Tensor, " batch"]
    ) -> Tensor:
        """Return the loss, a scalar.

        Raises
        ------
        ShapeError
            When the images are smaller than the window.
        """
        if min(image.shape[-2:]) < self.window:
            raise ShapeError(f"ssim: expected at least {self.window} pixels, got {tuple(image.shape[-2:])}.")
        x, y = _magnitude(image)[:, None], _magnitude(target)[:, None]
        c1, c2 = ((k * _scale(peak)[:, None, None, None]) ** 2 for k in (self.k1, self.k2))
        moments = torch.cat([x, y, x * x, y * y, x * y], dim=1)
        mx, my, xx, yy, xy = nn.functional.avg_pool2d(moments, self.window, stride=1).split(1, dim=1)
        sample = self.window**2 / (self.window**2 - 1)
        vx, vy, vxy = sample * (xx - mx * mx), sample * (yy - my * my), sample * (xy - mx * my)
        value = (2 * mx * my + c1) * (2 * vxy + c2) / ((mx**2 + my**2 + c1) * (vx + vy + c2))
        return _mean_of_signals(1 - value, peak)


def zero_loss(module: nn.Module) -> Tensor:
    """Return the loss of a batch without any signal: zero, with gradients of zero for all that is trained."""
    return torch.stack([0 * parameter.sum() for parameter in module.parameters() if parameter.requires_grad]).sum()


def _scale(peak: Tensor) -> Tensor:
    """Return peaks to divide by: any number where the target is zero, which does not count."""
    return torch.where(peak > 0, peak, 1)


def _mean_of_signals(values: Tensor, peak: Tensor) -> Tensor:
    """Return the mean over the batch elements whose target is not zero, zero when there are none."""
    seen = peak > 0
    return torch.where(seen, values.flatten(1).mean(dim=1), 0).sum() / seen.sum().clamp_min(1)


def _magnitude(image: Tensor) -> Tensor:
    if not image.is_complex():
        return image
    # The root of a sum has no gradient at zero; the floor is far below any signal.
    return torch.view_as_real(image).square().sum(dim=-1).add(1e-24).sqrt()


LOSSES: dict[str, type[nn.Module]] = {"l1": L1Loss, "complex-l1": ComplexL1Loss, "ssim": SsimLoss}
"""Losses by the name that configurations use."""
