"""Locally low rank against the SVD, frame-wise CG-SENSE on a simulated cine, and BART where it is installed."""

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from mri_io.simulate import ellipse_phantom, shepp_logan
from mri_recon.classical.cg_sense import cg_sense
from mri_recon.classical.low_rank import low_rank, shrink_blocks
from mri_recon.errors import ConfigError, ShapeError
from mri_recon.physics import fft2c
from mri_recon.testing import complex_normal

FRAMES, GRID, LEVEL = 12, (48, 44), 0.02


@pytest.fixture(scope="module")
def cine() -> tuple[torch.Tensor, torch.Tensor, torch.Tensor, torch.Tensor]:
    """Return k-space, mask, maps and images of a beating disc in a head; the lines move from frame to frame."""
    phantom = ellipse_phantom(shepp_logan(), GRID, coils=4)
    maps = torch.from_numpy(phantom.sensitivities)
    maps = maps / maps.abs().square().sum(dim=0).sqrt()
    y, x = torch.meshgrid(*(torch.linspace(-1, 1, n) for n in GRID), indexing="ij")
    phase = 2 * torch.pi * torch.arange(FRAMES) / FRAMES
    radius = (0.25 + 0.08 * torch.cos(phase))[:, None, None]
    disc = torch.sigmoid((radius - (y**2 + x**2).sqrt()) * 25)
    image = torch.from_numpy(phantom.image).abs() + 0.6 * disc + 0j
    kspace = fft2c(maps * image[:, None])
    mask = torch.zeros(FRAMES, 1, 1, GRID[1])
    for frame in range(FRAMES):
        mask[frame, :, :, frame % 4 :: 4] = 1
    noisy = kspace + LEVEL * complex_normal(kspace.shape, dtype=torch.complex64)
    return noisy * mask, mask, maps[None], image


def error(found: torch.Tensor, truth: torch.Tensor) -> float:
    return float((found - truth).abs().square().sum() / truth.abs().square().sum())


@settings(max_examples=6)
@given(
    frames=st.integers(1, 7),
    block=st.integers(1, 4),
    ny=st.integers(1, 3),
    nx=st.integers(1, 3),
    shift=st.tuples(st.integers(0, 3), st.integers(0, 3)),
)
def test_blocks_are_shrunk_as_by_the_singular_value_decomposition(
    frames: int, block: int, ny: int, nx: int, shift: tuple[int, int]
) -> None:
    shape = (ny * block, nx * block)
    series = complex_normal((2, frames, 1, *shape))
    threshold = torch.tensor([0.5, 1.5]).double().view(2, 1, 1, 1, 1)
    start = shift[0] % block, shift[1] % block
    found = shrink_blocks(series, threshold, block, start)
    for row in range(-start[0], shape[0], block):
        for column in range(-start[1], shape[1], block):
            place = (slice(max(row, 0), row + block), slice(max(column, 0), column + block))
            for number in range(2):
                matrix = series[number, :, 0][(slice(None), *place)].reshape(frames, -1)
                u, s, v = torch.linalg.svd(matrix, full_matrices=False)
                expected = (u * (s - threshold[number].item()).clamp_min(0)) @ v
                got = found[number, :, 0][(slice(None), *place)].reshape(frames, -1)
                torch.testing.assert_close(got, expected, rtol=1e-7, atol=1e-7)


def test_a_cine_is_much_better_than_frame_by_frame(cine: tuple[torch.Tensor, ...]) -> None:
    kspace, mask, maps, image = cine
    found = low_rank(kspace, mask, maps, noise=LEVEL)
    single = min(
        error(cg_sense(kspace, mask, maps.expand(FRAMES, *maps.shape), regularisation=r).image, image)
        for r in (5e-3, 5e-2)
    )
    assert found.image.shape == image.shape
    assert error(found.image, image) < 0.2 * single
    # The level found from so coarse a matrix is twice too high.
    assert error(low_rank(kspace, mask, maps).image, image) < 0.25 * single
    tried = [error(low_rank(kspace, mask, maps, regularisation=r).image, image) for r in (6e-3, 2e-2, 6e-2)]
    assert max(tried) > 2 * min(tried)
    assert error(found.image, image) < 1.6 * min(tried)


def test_it_converges_and_says_so(cine: tuple[torch.Tensor, ...]) -> None:
    kspace, mask, maps, _ = cine
    found = low_rank(kspace, mask, maps, iterations=100, tolerance=1e-2)
    assert found.reason == "converged"
    assert found.residual <= 1e-2
    assert low_rank(kspace, mask, maps, iterations=2).reason == "iterations"
    assert found.settings["regularisation"][0] > 0


def test_units_the_batch_and_maps_per_frame(cine: tuple[torch.Tensor, ...]) -> None:
    kspace, mask, maps, _ = cine
    kspace, mask = kspace[:4], mask[:4]
    alone = low_rank(kspace, mask, maps, iterations=8).image
    dynamic = low_rank(kspace, mask, maps.expand(4, *maps.shape), iterations=8).image
    torch.testing.assert_close(dynamic, alone)
    batch = torch.stack([1e13 * kspace, torch.zeros_like(kspace), 1e-13 * kspace])
    together = low_rank(batch, mask, maps.expand(3, *maps.shape), iterations=8).image
    torch.testing.assert_close(together[0] / 1e13, alone, rtol=1e-3, atol=1e-4)
    torch.testing.assert_close(together[2] / 1e-13, alone, rtol=1e-3, atol=1e-4)
    assert not together[1].any()
    two = torch.cat([maps, maps.flip(-1)]) / 2**0.5
    assert low_rank(kspace, mask, two, iterations=2).image.shape == (4, 2, *GRID)


def test_bad_input_is_refused(cine: tuple[torch.Tensor, ...]) -> None:
    kspace, mask, maps, _ = cine
    with pytest.raises(ConfigError, match="samples nothing"):
        low_rank(kspace, 0 * mask, maps)
    with pytest.raises(ShapeError, match="maps"):
        low_rank(kspace[None], mask, maps)
    with pytest.raises(ConfigError, match="block"):
        low_rank(kspace, mask, maps, block=0)
