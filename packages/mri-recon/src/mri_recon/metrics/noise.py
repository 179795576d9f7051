"""What a reconstruction does to noise: g-factors, exact for regular SENSE, and by pseudo-replicas for any method."""

from collections.abc import Callable
from dataclasses import dataclass

import torch
from torch import Tensor

from mri_recon.errors import ConfigError, ShapeError

__all__ = ["Replicas", "pseudo_replicas", "replica_gfactor", "sense_gfactor"]


def sense_gfactor(maps: Tensor, steps: tuple[int, int], covariance: Tensor | None = None) -> Tensor:
    r"""Return the g-factor of SENSE on a regular lattice (Pruessmann 1999, eq. 23, doi:10.1002/(SICI)1522-2594).

    .. math:: g_\rho = \sqrt{[(S^H \Psi^{-1} S)^{-1}]_{\rho\rho} \, [S^H \Psi^{-1} S]_{\rho\rho}}

    S has the sensitivities of the pixels that fold onto each other. The pattern is every n-th line and every m-th
    column, without a centre on top.

    Parameters
    ----------
    maps
        Coil sensitivities (coil, y, x), complex, zero where there is no object.
    steps
        (n, m); they divide y and x.
    covariance
        Noise covariance of the coils, (coil, coil); None for the identity.

    Returns
    -------
    Tensor
        (y, x), at least one; zero where there is no object, infinite where pixels cannot be told apart.

    Raises
    ------
    ShapeError
        When the steps do not divide the grid.
    """
    coils, rows, columns = maps.shape
    n, m = steps
    if rows % n or columns % m:
        raise ShapeError(f"g-factor: expected a grid that {n} x {m} divides, got {rows} x {columns}.")
    if covariance is not None:
        root = torch.linalg.cholesky(covariance.to(maps.dtype))
        maps = torch.linalg.solve_triangular(root, maps.reshape(coils, -1), upper=False).reshape(maps.shape)
    folded = maps.reshape(coils, n, rows // n, m, columns // m).permute(2, 4, 0, 1, 3).flatten(3)
    folded = folded.to(torch.complex128)
    gram = folded.mH @ folded
    power = gram.diagonal(dim1=-2, dim2=-1).real
    empty = power == 0
    values, vectors = torch.linalg.eigh(gram + torch.diag_embed(empty.to(gram.dtype)))
    # Eigenvalues that vanish but for rounding: pixels that all coils see alike.
    lost = values <= 1e-12 * values.amax(dim=-1, keepdim=True)
    share = vectors.abs().square() / torch.where(lost, torch.ones_like(values), values)[..., None, :]
    share = torch.where(lost[..., None, :] & (share > 1e-9), torch.inf, share)
    g = torch.where(empty, 0.0, (share.sum(dim=-1) * power).sqrt())
    g = g.reshape(rows // n, columns // m, n, m).permute(2, 0, 3, 1).reshape(rows, columns)
    return g.to(maps.real.dtype)


@dataclass(frozen=True)
class Replicas:
    """Mean and standard deviation of a reconstruction over replicas of the noise.

    Attributes
    ----------
    mean
        Mean image.
    deviation
        Standard deviation of the real, and of the imaginary part: of both together over the root of two.
    """

    mean: Tensor
    deviation: Tensor

    @property
    def snr(self) -> Tensor:
        """Signal-to-noise ratio, zero where there is no noise."""
        return torch.where(self.deviation > 0, self.mean.abs() / self.deviation, 0.0)


def pseudo_replicas(
    reconstruct: Callable[[Tensor, Tensor], Tensor],
    kspace: Tensor,
    mask: Tensor,
    *,
    noise: float | Tensor = 1.0,
    replicas: int = 100,
    seed: int = 0,
) -> Replicas:
    """Measure the noise of a reconstruction by adding noise to its data again and again.

    Robson et al. 2008, doi:10.1002/mrm.21728. For methods that are not linear the result holds for this image and level
    only. The error of a deviation from n replicas is about ``1 / (2 sqrt(n))`` of it. One image is in memory at a time.

    Parameters
    ----------
    reconstruct
        Function of (k-space, mask) that returns the image.
    kspace
        (..., coil, ky, kx), complex.
    mask
        Broadcastable to it; noise is added where it is not zero, and k-space set to zero elsewhere.
    noise
        Standard deviation of real and imaginary part each, or the covariance (coil, coil) of such noise.
    replicas
        Number of reconstructions, at least 2.
    seed
        Of the noise.

    Raises
    ------
    ConfigError
        For fewer than two replicas.
    """
    if replicas < 2:
        raise ConfigError(f"replicas: expected at least 2, got {replicas}.")
    generator = torch.Generator().manual_seed(seed)
    sampled = (mask != 0).to(kspace.real.dtype)
    root = torch.linalg.cholesky(noise.to(kspace.dtype)) if isinstance(noise, Tensor) else None
    mean: Tensor | None = None
    spread = torch.zeros(())
    for count in range(1, replicas + 1):
        drawn = torch.randn(kspace.shape, dtype=kspace.dtype, generator=generator).to(kspace.device) * 2**0.5
        drawn = drawn * noise if root is None else torch.einsum("cd,...dyx->...cyx", root.to(kspace.device), drawn)
        image = reconstruct(sampled * (kspace + drawn), mask)
        if mean is None:
            mean, spread = image, torch.zeros_like(image.abs())
            continue
        step = image - mean
        mean = mean + step / count
        spread = spread + (step.conj() * (image - mean)).real
    assert mean is not None
    parts = 2 if mean.is_complex() else 1
    return Replicas(mean, (spread / (parts * (replicas - 1))).sqrt())


def replica_gfactor(
    reconstruct: Callable[[Tensor, Tensor], Tensor],
    kspace: Tensor,
    mask: Tensor,
    *,
    noise: float | Tensor = 1.0,
    replicas: int = 100,
    seed: int = 0,
) -> Tensor:
    r"""Return the g-factor of any method, :math:`\sigma / (\sigma_\mathrm{full} \sqrt{R})`, by pseudo-replicas.

    Parameters
    ----------
    kspace
        Fully sampled; zeros do for a linear method.
    mask
        R is its acceleration, of the positions of (ky, kx).
    reconstruct, noise, replicas, seed
        See `pseudo_replicas`.

    Returns
    -------
    Tensor
        As the image, zero where the fully sampled image has no noise.
    """
    options = {"noise": noise, "replicas": replicas, "seed": seed}
    part = pseudo_replicas(reconstruct, kspace, mask, **options).deviation  # type: ignore[arg-type]
    full = pseudo_replicas(reconstruct, kspace, torch.ones_like(mask), **options).deviation  # type: ignore[arg-type]
    acceleration = mask.numel() / int((mask != 0).sum())
    floor = full > 1e-6 * full.amax()
    return torch.where(floor, part / (torch.where(floor, full, 1.0) * acceleration**0.5), 0.0)
