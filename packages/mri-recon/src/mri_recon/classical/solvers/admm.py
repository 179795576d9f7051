r"""ADMM: the alternating direction method of multipliers, for least squares with several penalties.

.. math:: \min_x \tfrac12 \langle x, N x \rangle - \Re \langle b, x \rangle + \sum_i g_i(K_i x)

Boyd et al. 2011, doi:10.1561/2200000016: scaled form (3.5 to 3.7), over-relaxation (section 3.4.3), stopping (3.12) and
balanced residuals (3.13), each per batch element. The quadratic problem of each iteration is solved by a few steps of
conjugate gradients from the last solution.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from mri_recon.classical.solvers.batched import Solution, divide, dot, norm, where_active
from mri_recon.physics import LinearOperator

__all__ = ["Penalty", "admm"]

RELAXATION = 1.6
BALANCE_EVERY = 5
"""Iterations between changes of rho; they become rarer, so that the method converges."""


@dataclass(frozen=True)
class Penalty:
    """``g(K x)``: the operator K, the proximal operator of g as a function of (v, step), and the axes K adds."""

    operator: LinearOperator
    proximal: Callable[[Tensor, Tensor], Tensor]
    added_axes: int = 0


def admm(
    normal: Callable[[Tensor], Tensor],
    right: Tensor,
    penalties: Sequence[Penalty],
    *,
    rho: Tensor,
    unknowns: int = 3,
    iterations: int = 100,
    inner: int = 5,
    tolerance: float = 1e-3,
    start: Tensor | None = None,
) -> Solution:
    """Minimise a quadratic plus penalties of linear maps of the unknowns.

    Parameters
    ----------
    normal, right, unknowns, start
        As of `fista`.
    penalties
        The terms ``g_i(K_i x)``.
    rho
        First weight of the splitting per batch element, (..., 1 per unknown axis); adapted in the course.
    iterations, inner
        At most so many, and of conjugate gradients in each.
    tolerance
        A batch element stops when its primal and dual residuals, relative to what they compare, are at most this.

    Returns
    -------
    Solution
        Its residual is the larger of the two, the largest in the batch.
    """
    x = right if start is None else start
    state = [(p.operator(x), torch.zeros_like(p.operator(x))) for p in penalties]
    residual = torch.full_like(rho, torch.inf)
    active = torch.ones_like(rho, dtype=torch.bool)
    done, balance_at = 0, BALANCE_EVERY
    while done < iterations and bool(active.any()):
        target = sum((p.operator.adjoint(z - u) for p, (z, u) in zip(penalties, state, strict=True)), 0 * x)
        solved = _solve(normal, penalties, rho, right + rho * target, x, inner, unknowns)
        x = where_active(active, solved, x)
        state, primal, dual = _split(penalties, state, x, rho, unknowns)
        residual = torch.where(active, torch.maximum(primal, dual), residual)
        active = active & (residual > tolerance)
        done += 1
        if done == balance_at:
            factor = torch.where(primal > 3 * dual, 2.0, torch.where(dual > 3 * primal, 0.5, 1.0)).to(rho)
            rho = rho * factor
            state = [(z, u / _unsqueeze(factor, p)) for p, (z, u) in zip(penalties, state, strict=True)]
            balance_at += BALANCE_EVERY + done // 2
    return Solution(x, done, float(residual.max()), not bool(active.any()))


def _unsqueeze(value: Tensor, penalty: Penalty) -> Tensor:
    return value[(..., *(None,) * penalty.added_axes)]


def _split(
    penalties: Sequence[Penalty], state: list[tuple[Tensor, Tensor]], x: Tensor, rho: Tensor, unknowns: int
) -> tuple[list[tuple[Tensor, Tensor]], Tensor, Tensor]:
    """Update the split and dual variables; return them and the relative primal and dual residuals."""
    fresh = []
    sums = torch.zeros((5, *rho.shape), dtype=rho.dtype, device=rho.device)
    backward, dual_force = torch.zeros_like(x), torch.zeros_like(x)
    for penalty, (z, u) in zip(penalties, state, strict=True):
        mapped = penalty.operator(x)
        relaxed = RELAXATION * mapped + (1 - RELAXATION) * z
        z_new = penalty.proximal(relaxed + u, _unsqueeze(1 / rho, penalty))
        u_new = u + relaxed - z_new
        axes = unknowns + penalty.added_axes
        for number, value in enumerate((mapped - z_new, mapped, z_new)):
            sums[number] += norm(value, axes).square().reshape(rho.shape)
        backward = backward + penalty.operator.adjoint(z_new - z)
        dual_force = dual_force + penalty.operator.adjoint(u_new)
        fresh.append((z_new, u_new))
    primal = divide(sums[0].sqrt(), torch.maximum(sums[1], sums[2]).sqrt())
    return fresh, primal, divide(norm(backward, unknowns), norm(dual_force, unknowns))


def _solve(
    normal: Callable[[Tensor], Tensor],
    penalties: Sequence[Penalty],
    rho: Tensor,
    right: Tensor,
    x: Tensor,
    iterations: int,
    unknowns: int,
) -> Tensor:
    """Solve ``(N + rho sum K^H K) x = right`` by conjugate gradients from x."""

    def apply(v: Tensor) -> Tensor:
        out = normal(v)
        for penalty in penalties:
            out = out + rho * penalty.operator.normal(v)
        return out

    r = right - apply(x)
    p, squared = r, dot(r, r, unknowns)
    for _ in range(iterations):
        q = apply(p)
        step = divide(squared, dot(p, q, unknowns))
        x, r = x + step * p, r - step * q
        following = dot(r, r, unknowns)
        p, squared = r + divide(following, squared) * p, following
    return x
