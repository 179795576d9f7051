"""SPIRiT: its kernels against regression and convolution, completed k-space against the phantom, GRAPPA and algebra."""

from importlib import import_module

import numpy as np
import pytest
import torch

from mri_io.simulate import ellipse_phantom, shepp_logan
from mri_recon.classical.grappa import grappa
from mri_recon.classical.kernels import gram_matrix
from mri_recon.classical.spirit import consistency_matrices, spirit, spirit_kspace
from mri_recon.errors import ConfigError
from mri_recon.physics import equispaced_mask, fft2c, ifft2c
from mri_recon.testing import complex_normal

GRID = (64, 56)


@pytest.fixture(scope="module")
def phantom() -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
    """Return noisy k-space, maps of norm one, and the image."""
    scan = ellipse_phantom(shepp_logan(), GRID, coils=5)
    maps = torch.from_numpy(scan.sensitivities)
    norm = maps.abs().square().sum(dim=0).sqrt()
    kspace = torch.from_numpy(scan.kspace)
    noisy = kspace + 0.003 * complex_normal(kspace.shape, dtype=torch.complex64)
    return noisy, (maps / norm)[None], torch.from_numpy(scan.image).abs() * norm


def pattern(name: str) -> torch.Tensor:
    if name == "lines":
        return torch.from_numpy(equispaced_mask(GRID[1], 3, 0.3, seed=0)).float()[None]
    if name == "rows":
        return torch.from_numpy(equispaced_mask(GRID[0], 3, 0.3, seed=0)).float()[:, None]
    mask = torch.zeros(GRID)
    mask[::2, ::2] = 1
    if name == "scattered":
        mask = (torch.rand(GRID, generator=torch.Generator().manual_seed(0)) < 0.3).float()
    mask[22:42, 18:38] = 1
    return mask


def error(found: torch.Tensor, truth: torch.Tensor) -> float:
    return float((found.abs() - truth).square().sum() / truth.square().sum())


def test_the_kernels_are_regressions_of_each_coil_on_all_neighbours() -> None:
    calibration = complex_normal((2, 9, 8))
    gram, _ = gram_matrix(calibration, (3, 3))
    weights = import_module("mri_recon.classical.spirit")._weights(gram, (3, 3), 0.1, 0.0)
    rows = np.stack(
        [calibration[:, y : y + 3, x : x + 3].permute(1, 2, 0).reshape(-1).numpy() for y in range(7) for x in range(6)]
    )
    ridge = 0.1 * np.trace(rows.conj().T @ rows).real / 18
    for coil in range(2):
        others = np.delete(np.arange(18), 8 + coil)
        a = rows[:, others]
        solved = np.linalg.solve(a.conj().T @ a + ridge * np.eye(17), a.conj().T @ rows[:, 8 + coil])
        np.testing.assert_allclose(np.delete(weights[coil].reshape(-1), 8 + coil), solved, rtol=1e-8, atol=1e-10)
        assert weights[coil, 1, 1, coil] == 0


@pytest.mark.parametrize("shape", [(12, 10), (11, 9)])
def test_matrices_at_pixels_are_the_convolution_of_kspace(shape: tuple[int, int]) -> None:
    weights, kspace = complex_normal((2, 3, 5, 2)), complex_normal((2, *shape), seed=1)
    expected = -kspace
    for dy in range(3):
        for dx in range(5):
            moved = kspace.roll((1 - dy, 2 - dx), dims=(-2, -1))  # position k takes what lies at k + offset
            expected = expected + torch.einsum("ab,byx->ayx", weights[:, dy, dx], moved)
    matrices = consistency_matrices(weights, shape)
    image = ifft2c(kspace)
    energy = torch.einsum("ayx,abyx,byx->", image.conj(), matrices, image)
    assert float(energy.real) == pytest.approx(float(expected.abs().square().sum()), rel=1e-9)


@pytest.mark.parametrize("weight", [None, 0.7])
@pytest.mark.parametrize("lines", [True, False])
def test_it_solves_the_least_squares_problem(weight: float | None, lines: bool) -> None:
    shape = (6, 5)
    matrices = consistency_matrices(complex_normal((2, 3, 3, 2)) * 0.3, shape)
    mask = torch.rand((1, 5) if lines else shape, generator=torch.Generator().manual_seed(4)) < 0.5
    mask = mask.expand(shape)
    data = complex_normal((2, *shape), seed=2) * mask
    found, _, _ = spirit_kspace(data, mask, matrices, weight, 300, 1e-12)
    columns = [
        fft2c(torch.einsum("abyx,byx->ayx", matrices, ifft2c(e.view(2, *shape)))).flatten()
        for e in torch.eye(60, dtype=torch.complex128)
    ]
    normal, keep = torch.stack(columns, dim=1), mask.expand(2, *shape).flatten()
    if weight is None:
        expected = data.flatten().clone()
        free = ~keep
        expected[free] = torch.linalg.solve(normal[free][:, free], -(normal @ data.flatten())[free])
    else:
        expected = torch.linalg.solve(normal + weight * torch.diag(keep.double()), weight * data.flatten())
    torch.testing.assert_close(found.flatten(), expected, rtol=1e-6, atol=1e-6)


@pytest.mark.parametrize("name", ["lines", "rows", "2x2", "scattered"])
def test_the_image_is_as_good_as_that_of_grappa(name: str, phantom: tuple[torch.Tensor, ...]) -> None:
    kspace, maps, image = phantom
    mask = pattern(name)
    found = spirit(kspace * mask, mask, maps)
    zero = (maps[0].conj() * ifft2c(kspace * mask)).sum(dim=0)
    assert error(found.image, image) < 0.35 * error(zero, image)
    assert error(found.image, image) < 1.1 * error(grappa(kspace * mask, mask, maps).image, image)
    assert found.reason == ("converged" if found.residual <= 1e-3 else "iterations")


def test_a_weight_lets_noisy_samples_give_way(phantom: tuple[torch.Tensor, ...]) -> None:
    kspace, maps, image = phantom
    noisy, mask = kspace + 0.03 * complex_normal(kspace.shape, seed=3, dtype=torch.complex64), pattern("2x2")
    hard = spirit(noisy * mask, mask, maps, noise=0.03)
    soft = spirit(noisy * mask, mask, maps, noise=0.03, data_weight=1.0)
    assert error(soft.image, image) < error(hard.image, image)
    assert spirit(noisy * mask, mask, maps, iterations=1).reason == "iterations"


def test_units_the_batch_and_one_coil(phantom: tuple[torch.Tensor, ...]) -> None:
    kspace, mask = phantom[0], pattern("2x2")
    y = kspace * mask
    alone = spirit(y, mask, iterations=8).image
    batch = torch.stack([1e13 * y, torch.zeros_like(y), 1e-13 * y])
    together = spirit(batch, mask, iterations=8).image
    torch.testing.assert_close(together[0] / 1e13, alone, rtol=1e-3, atol=1e-4)
    torch.testing.assert_close(together[2] / 1e-13, alone, rtol=1e-3, atol=1e-4)
    assert not together[1].any()
    assert torch.isfinite(spirit(y[:1], mask).image).all()
    assert spirit(y.to(torch.complex128), mask, iterations=2).image.dtype == torch.float64


def test_bad_input_is_refused_with_what_to_do(phantom: tuple[torch.Tensor, ...]) -> None:
    kspace = phantom[0]
    few = torch.from_numpy(equispaced_mask(GRID[1], 3, 0.05, seed=0)).float()[None]
    with pytest.raises(ConfigError, match="7 x 7 fully sampled"):
        spirit(kspace * few, few)
    with pytest.raises(ConfigError, match="odd"):
        spirit(kspace, few, kernel=(4, 5))
    with pytest.raises(ConfigError, match="samples nothing"):
        spirit(kspace, 0 * few)
    with pytest.raises(ConfigError, match="not finite"):
        spirit(kspace * torch.inf, few)
