"""Proximal operators of norms of complex numbers."""

import torch
from torch import Tensor

__all__ = ["soft_threshold"]


def soft_threshold(x: Tensor, threshold: float | Tensor, group: tuple[int, ...] = ()) -> Tensor:
    r"""Shrink magnitudes: the proximal operator of :math:`\tau \sum |x|`, or of the norms of groups.

    .. math:: x \max(1 - \tau / \|x\|, 0)

    Parameters
    ----------
    x
        Complex.
    threshold
        tau, broadcastable to x.
    group
        Axes over which a norm is taken in place of the magnitude (Yuan and Lin 2006,
        doi:10.1111/j.1467-9868.2005.00532.x): its entries shrink together.
    """
    size = torch.linalg.vector_norm(x, dim=group, keepdim=True) if group else x.abs()
    # The larger of the two is never below the threshold, so the quotient is in range for every unit and zero.
    largest = torch.maximum(size, torch.as_tensor(threshold, dtype=size.dtype, device=size.device))
    factor = (size - threshold).clamp_min_(0) / torch.where(largest > 0, largest, torch.ones_like(largest))
    return x * factor
