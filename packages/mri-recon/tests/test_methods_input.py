"""Unusual and wrong input of every classical method: a stated error or a documented result, never NaN."""

import math

import pytest
import torch

from mri_io.errors import MriError
from mri_io.simulate import ellipse_phantom, shepp_logan
from mri_recon.methods import METHODS
from mri_recon.physics import fft2c
from mri_recon.testing import complex_normal

GRID, COILS, FRAMES = (40, 36), 4, 3
PARTIAL = ("homodyne", "pocs")


def scan(coils: int = COILS) -> tuple[torch.Tensor, torch.Tensor]:
    """Return fully sampled k-space (coil, ky, kx) and maps (1, coil, y, x)."""
    phantom = ellipse_phantom(shepp_logan(), GRID, coils=max(coils, 2))
    maps = torch.from_numpy(phantom.sensitivities)[:coils]
    maps = maps / maps.abs().square().sum(dim=0).sqrt()
    noise = complex_normal((coils, *GRID), dtype=torch.complex64)
    return fft2c(maps * torch.from_numpy(phantom.image)) + 0.002 * noise, maps[None]


def sampled(name: str) -> torch.Tensor:
    lines = torch.arange(GRID[1])
    if name in PARTIAL:
        return (lines >= 12).float()[None]
    return ((lines % 2 == 0) | ((lines - 18).abs() < 9)).float()[None]


def reconstruct(name: str, kspace: torch.Tensor, mask: torch.Tensor, maps: torch.Tensor) -> torch.Tensor:
    """Run a method; a slice is three equal frames for those that take series."""
    _, function = METHODS[name].load()
    if METHODS[name].series:
        kspace, mask = kspace.expand(FRAMES, *kspace.shape).clone(), mask[None, None]
        return function(kspace, mask, maps).image[0]
    return function(kspace, mask, maps).image


@pytest.mark.parametrize("name", METHODS)
def test_a_slice_of_zeros_stays_zero(name):
    kspace, maps = scan()
    if name in ("grappa", "spirit"):  # they calibrate themselves: a slice is one of a batch
        batch = torch.stack([kspace, torch.zeros_like(kspace)]) * sampled(name)
        _, function = METHODS[name].load()
        image = function(batch, sampled(name), maps.expand(2, *maps.shape)).image[1]
    else:
        image = reconstruct(name, torch.zeros_like(kspace), sampled(name), maps)
    assert not image.any()


@pytest.mark.parametrize("name", METHODS)
def test_one_coil_gives_a_finite_image(name):
    kspace, maps = scan(coils=1)
    image = reconstruct(name, kspace * sampled(name), sampled(name), maps)
    assert image.shape == GRID
    assert torch.isfinite(image.abs()).all()
    assert image.any()


@pytest.mark.parametrize("name", METHODS)
@pytest.mark.parametrize("factor", [1e13, 1e-13])
def test_units_do_not_matter(name, factor):
    kspace, maps = scan()
    y = kspace * sampled(name)
    image = reconstruct(name, y, sampled(name), maps)
    scaled = reconstruct(name, factor * y, sampled(name), maps) / factor
    assert torch.linalg.vector_norm(scaled - image) < 2e-3 * torch.linalg.vector_norm(image)


@pytest.mark.parametrize("name", METHODS)
@pytest.mark.parametrize("what", ["maps of another matrix", "no samples", "NaN", "infinity"])
def test_wrong_input_is_refused(name, what):
    kspace, maps = scan()
    y, mask = kspace * sampled(name), sampled(name)
    if what == "maps of another matrix":
        maps = maps[..., :-2]
    elif what == "no samples":
        mask = torch.zeros_like(mask)
    else:
        y[1, 20, 18] = {"NaN": math.nan, "infinity": math.inf}[what]
    with pytest.raises(MriError):
        reconstruct(name, y, mask, maps)
