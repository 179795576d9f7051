"""The non-uniform transform against sums, closed forms and SigPy; Toeplitz, density compensation, trajectories."""

import math
import sys

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from mri_io.errors import MissingPackageError
from mri_recon.classical.cg_sense import conjugate_gradient
from mri_recon.errors import ConfigError, ShapeError
from mri_recon.physics import fftc, ifft2c
from mri_recon.physics.density import iterative_density, radial_density, voronoi_density
from mri_recon.physics.noncartesian import NonCartesianOperator, NonCartesianSense
from mri_recon.physics.trajectories import radial, radial_3d, spiral
from mri_recon.testing import assert_adjoint, assert_linear, complex_normal
from mri_recon.testing.analytic import ellipse_kspace, gaussian_image, gaussian_kspace

pytest.importorskip("finufft")
shapes = st.lists(st.integers(2, 7), min_size=2, max_size=3).map(tuple)


def anywhere(points: int, shape: tuple[int, ...], seed: int = 0) -> torch.Tensor:
    share = torch.rand(points, len(shape), generator=torch.Generator().manual_seed(seed), dtype=torch.float64)
    return (share - 0.5) * torch.tensor(shape)


def grid(shape: tuple[int, ...]) -> torch.Tensor:
    return torch.stack(torch.meshgrid(*[torch.arange(n) - n // 2 for n in shape], indexing="ij"), dim=-1).double()


@settings(max_examples=10, deadline=None)
@given(shape=shapes, points=st.integers(1, 9))
def test_the_transform_is_the_sum_that_defines_it(shape: tuple[int, ...], points: int) -> None:
    trajectory = anywhere(points, shape)
    operator = NonCartesianOperator(trajectory, shape)
    turns = trajectory @ (grid(shape).reshape(-1, len(shape)) / torch.tensor(shape)).T
    matrix = torch.exp(-2j * math.pi * turns) / math.sqrt(math.prod(shape))
    x = complex_normal((2, 3, *shape))
    torch.testing.assert_close(operator(x), x.reshape(2, 3, -1) @ matrix.T, rtol=1e-7, atol=1e-7)
    assert_adjoint(operator.forward, operator.adjoint, x.shape, rtol=1e-8)
    assert_linear(operator.forward, x.shape, rtol=1e-8)
    weights = torch.rand(points, dtype=torch.float64)
    for found, weight in ((operator.normal(x), torch.ones(points)), (operator.toeplitz(weights)(x), weights)):
        expected = operator.adjoint(weight * operator.forward(x))
        torch.testing.assert_close(found, expected, rtol=1e-7, atol=1e-7)


@pytest.mark.parametrize("shape", [(6, 9), (4, 5, 6)])
def test_at_cartesian_points_it_is_the_centred_fft(shape: tuple[int, ...]) -> None:
    operator = NonCartesianOperator(grid(shape), shape)
    x = complex_normal((2, *shape))
    torch.testing.assert_close(operator(x), fftc(x, range(-len(shape), 0)), rtol=1e-8, atol=1e-8)
    torch.testing.assert_close(operator.normal(x), x, rtol=1e-8, atol=1e-8)
    torch.testing.assert_close(iterative_density(grid(shape), shape), torch.ones(shape).double(), rtol=1e-4, atol=0)
    single = operator(x.to(torch.complex64))
    assert single.dtype == torch.complex64
    torch.testing.assert_close(single, fftc(x, range(-len(shape), 0)).to(torch.complex64), rtol=1e-4, atol=2e-5)


@pytest.mark.parametrize("trajectory", [radial(9, 40, 40), spiral(5, 50, 40), radial_3d(20, 32, 32)])
def test_a_gaussian_has_its_closed_form(trajectory: torch.Tensor) -> None:
    shape = (40, 41) if trajectory.shape[-1] == 2 else (32, 33, 34)
    width = 0.07
    found = NonCartesianOperator(trajectory, shape)(gaussian_image(shape, width).to(torch.complex128))
    expected = gaussian_kspace(trajectory, shape, width).to(torch.complex128)
    assert float((found - expected).abs().max() / expected.abs().max()) < 1e-7
    image = gaussian_image(shape, width).to(torch.complex128)
    dims = tuple(range(-len(shape), 0))
    torch.testing.assert_close(fftc(image, dims), gaussian_kspace(grid(shape), shape, width) + 0j, rtol=0, atol=1e-6)


@pytest.mark.parametrize("kind", ["radial", "golden", "spiral", "iterative"])
def test_the_weighted_adjoint_of_an_ellipse_is_its_image(kind: str) -> None:
    """Against the same disc of closed-form k-space on a grid, which rings in the same way."""
    shape, ellipse = (48, 48), {"radii": (0.2, 0.13), "centre": (0.05, -0.1)}
    trajectory = spiral(12, 500, 48) if kind == "spiral" else radial(89, 96, 48, golden=kind == "golden")
    analytic = kind == "radial"
    weights = radial_density(trajectory) if analytic else iterative_density(trajectory, shape)
    operator = NonCartesianOperator(trajectory, shape)
    found = operator.adjoint(weights * ellipse_kspace(trajectory, shape, **ellipse))
    disc = torch.linalg.vector_norm(grid(shape), dim=-1) < 24
    expected = ifft2c(disc * ellipse_kspace(grid(shape), shape, **ellipse))
    error = torch.linalg.vector_norm(found - expected) / torch.linalg.vector_norm(expected)
    assert float(error) < 0.08
    middle = (slice(24 + 2 - 3, 24 + 2 + 4), slice(24 - 5 - 2, 24 - 5 + 3))
    assert float(found[middle].real.mean()) == pytest.approx(1, abs=0.05)


def test_iterative_weights_are_the_areas_of_rings() -> None:
    trajectory = radial(80, 64, 32)
    ratio = iterative_density(trajectory, (32, 32)) / radial_density(trajectory)
    inside = torch.linalg.vector_norm(trajectory, dim=-1) < 14
    torch.testing.assert_close(ratio[inside].median(), torch.ones(()).double(), rtol=0.03, atol=0)
    assert float(radial_density(trajectory).sum()) == pytest.approx(math.pi * 16**2, rel=0.01)
    ball = radial_density(radial_3d(50, 64, 32)).sum()
    assert float(ball) == pytest.approx(4 / 3 * math.pi * 16**3, rel=0.01)


def test_gradients_through_transform_adjoint_and_normal() -> None:
    operator = NonCartesianOperator(anywhere(5, (3, 4)), (3, 4), accuracy=1e-13)
    x = complex_normal((2, 3, 4)).requires_grad_()
    y = complex_normal((2, 5), seed=1).requires_grad_()
    for function, value in ((operator.forward, x), (operator.adjoint, y), (operator.normal, x)):
        assert torch.autograd.gradcheck(function, (value,))
    assert torch.autograd.gradgradcheck(operator.forward, (x,))


def test_agrees_with_sigpy() -> None:
    sigpy = pytest.importorskip("sigpy")
    trajectory, x = radial(7, 32, 32), complex_normal((3, 32, 32))
    theirs = sigpy.nufft(x.numpy(), trajectory.numpy(), oversamp=2, width=6)
    ours = NonCartesianOperator(trajectory, (32, 32))(x)
    assert np.linalg.norm(ours.numpy() - theirs) / np.linalg.norm(theirs) < 1e-3


def test_coils_are_solved_for_from_undersampled_spokes() -> None:
    shape = (32, 32)
    maps = torch.stack([gaussian_image(shape, w).roll(s, -1) + 0.3j for w, s in ((0.3, 8), (0.4, -8), (0.5, 0))])[None]
    maps = maps / maps.abs().square().sum(dim=1, keepdim=True).sqrt()
    operator = NonCartesianSense(maps, radial(25, 64, 32))
    truth = gaussian_image(shape, 0.1).to(torch.complex128)[None]
    samples = operator(truth)
    assert samples.shape == (3, 25, 64)
    assert_adjoint(operator.forward, operator.adjoint, truth.shape, rtol=1e-8)
    torch.testing.assert_close(operator.normal(truth), operator.adjoint(samples), rtol=1e-6, atol=1e-6)
    found, _, _ = conjugate_gradient(operator, operator.adjoint(samples), 1e-6, 40, 1e-8)
    assert float((found - truth).norm() / truth.norm()) < 1e-3


def test_what_does_not_fit_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    with pytest.raises(ShapeError, match=r"trajectory: expected real \(..., 3\)"):
        NonCartesianOperator(anywhere(4, (3, 3)), (3, 3, 3))
    with pytest.raises(ShapeError, match="finite"):
        NonCartesianOperator(torch.full((2, 2), torch.nan), (3, 3))
    with pytest.raises(ShapeError, match="images: expected"):
        NonCartesianOperator(anywhere(4, (3, 3)), (3, 3))(complex_normal((2, 3, 4)))
    with pytest.raises(ConfigError, match="spokes > 0"):
        radial(0, 4, 4)
    with pytest.raises(ConfigError, match="iterations >= 1"):
        iterative_density(anywhere(4, (3, 3)), (3, 3), iterations=0)
    monkeypatch.setitem(sys.modules, "finufft", None)
    with pytest.raises(MissingPackageError, match=r"mri-recon\[noncart\]"):
        NonCartesianOperator(anywhere(4, (3, 3)), (3, 3))


def test_the_transform_is_that_of_mri_nufft() -> None:
    mrinufft = pytest.importorskip("mrinufft")
    shape = (24, 20)
    trajectory = anywhere(200, shape)
    x = complex_normal(shape, dtype=torch.complex64)
    samples = (2 * math.pi * trajectory / torch.tensor(shape)).numpy().astype(np.float32)
    peer = mrinufft.get_operator("finufft")(samples, shape, n_coils=1).op(x.numpy()).ravel()
    found = NonCartesianOperator(trajectory, shape)(x.to(torch.complex128)).numpy()
    scale = np.vdot(found, peer).real / np.vdot(found, found).real  # the convention of the norm
    assert np.linalg.norm(peer - scale * found) < 1e-4 * np.linalg.norm(peer)


def test_cells_are_the_analytic_weights_of_spokes() -> None:
    pytest.importorskip("mrinufft")
    trajectory = radial(spokes=48, samples=64, matrix=32).double()
    cells, known = voronoi_density(trajectory), radial_density(trajectory)
    inner = slice(4, -4)  # the cells at the ends are extrapolated, those in the middle are polygons of few corners
    away = torch.linalg.vector_norm(trajectory, dim=-1)[:, inner] > 3
    ratio = (cells / known)[:, inner][away]
    assert float((ratio - ratio.median()).abs().max()) < 0.02
    assert abs(float(ratio.median()) - 1) < 0.08  # the hull is half a sample narrower than the disc
    one = complex_normal((32, 32))
    images = [
        NonCartesianOperator(trajectory, (32, 32)).adjoint(w * NonCartesianOperator(trajectory, (32, 32))(one))
        for w in (cells, known)
    ]
    difference = torch.linalg.vector_norm(images[0] / ratio.median() - images[1])
    assert difference < 0.1 * torch.linalg.vector_norm(images[1])
    with pytest.raises(ConfigError, match="different places but for the origin"):
        voronoi_density(torch.cat([trajectory, trajectory]))
    with pytest.raises(ShapeError, match="expected"):
        voronoi_density(trajectory[0, :4])
