r"""The Fourier transform at any points of k-space, by finufft (extra ``[noncart]``), alone and with coils.

.. math:: (A x)_j = N^{-1/2} \sum_n x_n \exp(-2 \pi i \sum_d k_{j d} (n_d - c_d) / N_d), \quad c = \lfloor N / 2 \rfloor

with k in cycles per field of view: at the integers it is the centred orthonormal FFT of `mri_recon.physics.fourier`.
Barnett 2019, doi:10.1137/18M120885X.
"""

import math
from importlib import import_module
from typing import Any

import numpy as np
import torch
from torch import Tensor

from mri_io.errors import MissingPackageError
from mri_recon.errors import ShapeError
from mri_recon.physics.operators.base import Composition, LinearOperator
from mri_recon.physics.operators.coil import CoilOperator

__all__ = ["NonCartesianOperator", "NonCartesianSense", "ToeplitzOperator"]

ACCURACY = {torch.complex64: 1e-6, torch.complex128: 1e-10}
"""Relative accuracy that finufft is asked for, when none is given."""


def _finufft() -> Any:
    try:
        return import_module("finufft")
    except ImportError as error:
        raise MissingPackageError(
            f"finufft is needed for non-Cartesian data and not installed ({error}). "
            "Install it: pip install 'mri-recon[noncart]'"
        ) from error


class NonCartesianOperator(LinearOperator):
    """Non-uniform Fourier transform of images in two or three dimensions.

    The transform itself runs on the CPU, wherever the images are; `normal`, by a Toeplitz matrix, on their device.

    Parameters
    ----------
    trajectory
        (*points, dimension), real, cycles per field of view in the order of the image's axes, see
        `mri_recon.physics.trajectories`. Points beyond the edge of k-space are folded back.
    shape
        (y, x) or (z, y, x) of the images.
    accuracy
        Relative error of the transform; None: 1e-6 for complex64, 1e-10 for complex128.

    Raises
    ------
    ShapeError
        When trajectory and shape do not fit together, or the trajectory is not finite.
    MissingPackageError
        When finufft is not installed.
    """

    def __init__(self, trajectory: Tensor, shape: tuple[int, ...], *, accuracy: float | None = None) -> None:
        if trajectory.ndim < 2 or trajectory.shape[-1] != len(shape) or trajectory.is_complex():
            raise ShapeError(
                f"trajectory: expected real (..., {len(shape)}) for images {tuple(shape)}, got {trajectory.dtype} "
                f"{tuple(trajectory.shape)}."
            )
        if not bool(torch.isfinite(trajectory).all()):
            raise ShapeError("trajectory: expected finite coordinates, got NaN or infinity.")
        self.trajectory, self.shape, self.accuracy = trajectory, tuple(shape), accuracy
        self.points = tuple(trajectory.shape[:-1])
        turns = trajectory.detach().double().cpu().reshape(-1, len(shape)) / torch.tensor(shape)
        # Folded before it is rounded to single precision: the phase of a far point would lose digits.
        self._angles = (2 * math.pi * (turns - turns.round())).numpy()
        self._scale = 1 / math.sqrt(math.prod(shape))
        self._plans: dict[tuple[int, torch.dtype], Any] = {}
        self._normal: ToeplitzOperator | None = None
        _finufft()

    def forward(self, x: Tensor) -> Tensor:
        """Return samples (..., *points) of images (..., *shape)."""
        return _Transform.apply(x, self, False)

    def adjoint(self, y: Tensor) -> Tensor:
        """Return images (..., *shape) of samples (..., *points); without density compensation."""
        return _Transform.apply(y, self, True)

    def normal(self, x: Tensor) -> Tensor:
        """Return ``A^H A x`` by FFTs of twice the size, see `ToeplitzOperator`."""
        if self._normal is None:
            self._normal = self.toeplitz()
        return self._normal.forward(x)

    def toeplitz(self, weights: Tensor | None = None) -> "ToeplitzOperator":
        """Return ``A^H W A`` as an operator of its own.

        Parameters
        ----------
        weights
            (*points), real, such as a density compensation; None: ones.
        """
        double = tuple(2 * n for n in self.shape)
        # The same points, seen from twice the field of view.
        wide = NonCartesianOperator(2 * self.trajectory.detach().double(), double, accuracy=self.accuracy or 1e-10)
        ones = torch.ones(self.points, dtype=torch.float64) if weights is None else weights.detach().double().cpu()
        spread = wide.adjoint(ones.expand(self.points).to(torch.complex128))
        return ToeplitzOperator(spread * (self._scale**2 / wide._scale))

    def execute(self, x: Tensor, *, adjoint: bool) -> Tensor:
        """Apply forward or adjoint, outside of autograd."""
        inner, outer = (self.points, self.shape) if adjoint else (self.shape, self.points)
        if tuple(x.shape[x.ndim - len(inner) :]) != inner or not x.is_complex():
            name = "samples" if adjoint else "images"
            raise ShapeError(f"{name}: expected complex (..., {inner}), got {x.dtype} {tuple(x.shape)}.")
        batch = tuple(x.shape[: x.ndim - len(inner)])
        count = math.prod(batch)
        if count == 0 or 0 in self.points:
            return x.new_zeros((*batch, *outer))
        values = x.detach().resolve_conj().cpu().contiguous().numpy()
        values = values.reshape(count, -1) if adjoint else values.reshape(count, *self.shape)
        plan = self._plan(count, x.dtype)
        result = np.asarray((plan.execute_adjoint if adjoint else plan.execute)(values))
        result *= self._scale
        return torch.from_numpy(result).reshape(*batch, *outer).to(x.device)

    def _plan(self, count: int, dtype: torch.dtype) -> Any:
        if (count, dtype) not in self._plans:
            single = dtype == torch.complex64
            plan = _finufft().Plan(
                2,
                self.shape,
                n_trans=count,
                eps=self.accuracy or ACCURACY[dtype],
                isign=-1,
                dtype="complex64" if single else "complex128",
                nthreads=torch.get_num_threads(),
            )
            angles = self._angles.astype(np.float32 if single else np.float64)
            plan.setpts(*(np.ascontiguousarray(column) for column in angles.T))
            self._plans = {(count, dtype): plan}  # the last one: a solver asks for the same again and again
        return self._plans[count, dtype]


class _Transform(torch.autograd.Function):
    """The transform with its adjoint as derivative, which is differentiable in turn."""

    @staticmethod
    def forward(ctx: Any, x: Tensor, operator: NonCartesianOperator, adjoint: bool) -> Tensor:
        ctx.operator, ctx.is_adjoint = operator, adjoint
        return operator.execute(x, adjoint=adjoint)

    @staticmethod
    def backward(ctx: Any, *gradients: Tensor) -> tuple[Tensor, None, None]:
        return _Transform.apply(gradients[0], ctx.operator, not ctx.is_adjoint), None, None


class ToeplitzOperator(LinearOperator):
    r"""Convolution with a point-spread function: ``A^H W A`` without transforms at non-uniform points.

    Its matrix depends on the difference of two positions only, so that it is part of a circulant matrix of twice the
    size, which FFTs diagonalise (Fessler 2005, doi:10.1109/TSP.2005.853152, section V). The eigenvalues are real.

    Parameters
    ----------
    spread
        The point-spread function, complex, twice the image's size along each axis, zero shift in the middle.
    """

    def __init__(self, spread: Tensor) -> None:
        self.dims = tuple(range(-spread.ndim, 0))
        spread = torch.fft.ifftshift(spread, dim=self.dims)
        self.shape = tuple(n // 2 for n in spread.shape)
        for dim, length in enumerate(self.shape):
            # A shift by the whole image: never used; without it the function is Hermitian and its transform real.
            spread.narrow(dim, length, 1).zero_()
        self.kernel = torch.fft.fftn(spread).real

    def forward(self, x: Tensor) -> Tensor:
        """Return images (..., *shape) of images of that shape."""
        self.kernel = self.kernel.to(x.device)
        kernel = self.kernel.to(x.real.dtype)
        wide = torch.fft.fftn(x, s=[2 * n for n in self.shape], dim=self.dims)
        wide = torch.fft.ifftn(wide.mul_(kernel), dim=self.dims)
        return wide[(..., *(slice(n) for n in self.shape))]

    def adjoint(self, y: Tensor) -> Tensor:
        """Return the same as `forward`."""
        return self.forward(y)


class NonCartesianSense(Composition):
    r"""Non-uniform transform of coil images, :math:`A = F_k S` (Pruessmann 2001, doi:10.1002/mrm.1241).

    Images (..., map, y, x) to samples (..., coil, *points), in two or three dimensions; `normal` by a Toeplitz matrix.
    `mri_recon.classical.cg_sense.conjugate_gradient` solves with it.

    Parameters
    ----------
    maps
        (..., map, coil, y, x) or (..., map, coil, z, y, x).
    trajectory, accuracy
        As of `NonCartesianOperator`.
    """

    def __init__(self, maps: Tensor, trajectory: Tensor, *, accuracy: float | None = None) -> None:
        spatial = trajectory.shape[-1]
        coil = CoilOperator(maps, spatial=spatial)
        super().__init__(NonCartesianOperator(trajectory, tuple(maps.shape[-spatial:]), accuracy=accuracy), coil)
