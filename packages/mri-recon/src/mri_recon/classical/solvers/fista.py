r"""FISTA: accelerated proximal gradients (Beck and Teboulle 2009, doi:10.1137/080716542, eqs. 4.1 to 4.3).

.. math:: \min_x \tfrac12 \langle x, N x \rangle - \Re \langle b, x \rangle + g(x)

that is least squares with :math:`N = A^H A` and :math:`b = A^H y`, plus g.
"""

from collections.abc import Callable

import torch
from torch import Tensor

from mri_recon.classical.solvers.batched import Solution, divide, dot, norm, where_active

__all__ = ["fista"]


def fista(
    normal: Callable[[Tensor], Tensor],
    right: Tensor,
    proximal: Callable[[Tensor, Tensor], Tensor],
    largest: Tensor,
    *,
    unknowns: int = 3,
    iterations: int = 100,
    tolerance: float = 1e-4,
    average: int = 1,
    start: Tensor | None = None,
) -> Solution:
    """Minimise a quadratic plus a function whose proximal operator is known.

    The momentum of a batch element starts anew when it points uphill (O'Donoghue and Candes 2015,
    doi:10.1007/s10208-013-9150-3, section 3.2), which keeps the rate of a well-conditioned problem.

    Parameters
    ----------
    normal
        N, Hermitian and positive semidefinite.
    right
        b, complex (..., unknowns).
    proximal
        ``proximal(v, step)`` returns the minimiser of ``|x - v|^2 / 2 + step g(x)``; the step is per batch element.
    largest
        Bound of the largest eigenvalue of N per batch element, broadcastable to `right`.
    unknowns
        Number of axes of the unknowns of one batch element.
    iterations
        At most so many.
    tolerance
        A batch element stops when it moves by at most this share of its norm in one iteration.
    average
        Return a mean over about so many of the last values (exponential, Polyak and Juditsky 1992,
        doi:10.1137/0330046), for a proximal operator that changes randomly from call to call.
    start
        First value, by default zero.

    Returns
    -------
    Solution
        Its residual is the relative change of what is returned in the last iteration.
    """
    step = divide(torch.ones_like(largest), largest)
    x = torch.zeros_like(right) if start is None else start
    point, mean = x, x
    ones = torch.ones(right.shape[: right.ndim - unknowns] + (1,) * unknowns, dtype=step.dtype, device=step.device)
    momentum, change, active = ones, torch.inf * ones, ones > 0
    done = 0
    while done < iterations and bool(active.any()):
        fresh = proximal(point - step * (normal(point) - right), step)
        moved = fresh - x
        # Uphill: the direction just taken opposes the step from the extrapolated point.
        uphill = dot(point - fresh, moved, unknowns) > 0
        following = torch.where(uphill, ones, (1 + (1 + 4 * momentum.square()).sqrt()) / 2)
        push = torch.where(uphill, torch.zeros_like(ones), (momentum - 1) / following)
        point, momentum = fresh + push * moved, following
        x = fresh
        weight = max(2 / (average + 1), 1 / (done + 1))
        current = x if weight == 1 else mean + weight * (x - mean)
        change = torch.where(active, divide(norm(current - mean, unknowns), norm(current, unknowns)), change)
        mean = where_active(active, current, mean)
        active = active & (change > tolerance)
        done += 1
    return Solution(mean, done, float(change.max()), not bool(active.any()))
