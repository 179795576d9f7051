"""Homodyne and POCS on phantoms with a smooth phase, on both axes and sides, odd and even sizes."""

from pathlib import Path

import numpy as np
import pytest
import torch

from mri_io.formats.bart import read_cfl
from mri_io.simulate import ellipse_phantom, shepp_logan
from mri_recon.calibration import espirit
from mri_recon.classical import zero_filled
from mri_recon.classical.homodyne import homodyne, homodyne_weights
from mri_recon.classical.partial_fourier import PartialFourier
from mri_recon.classical.pocs import pocs
from mri_recon.errors import ConfigError
from mri_recon.physics import fft2c, ifft2c, root_sum_of_squares
from mri_recon.testing import complex_normal

METHODS = {"homodyne": homodyne, "pocs": pocs}


def scan(shape: tuple[int, int], bend: float = 2.0) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
    """Return k-space, image and maps of a phantom whose phase bends smoothly by some radians."""
    phantom = ellipse_phantom(shepp_logan(), shape, coils=3)
    maps = torch.from_numpy(phantom.sensitivities)
    maps = maps / maps.abs().square().sum(dim=0).sqrt()
    y, x = (torch.linspace(-1, 1, n) for n in shape)
    phase = bend * (0.5 * y[:, None] + 0.4 * x + 0.6 * y[:, None] * x + 0.5 * x**2)
    image = torch.from_numpy(phantom.image).abs() * torch.polar(torch.ones(shape), phase)
    return fft2c(maps * image), image, maps[None]


def partial(shape: tuple[int, int], axis: int, share: float, *, late: bool) -> torch.Tensor:
    """Return a mask (ky|1, kx|1) of the first, or else the last, share of an axis."""
    lines = torch.zeros(shape[axis])
    kept = round(share * shape[axis])
    lines[-kept:] = 1 if late else 0
    lines[:kept] = lines[:kept] if late else 1
    return lines[:, None] if axis == -2 else lines[None]


def error(found: torch.Tensor, truth: torch.Tensor) -> float:
    return float((found.abs() - truth.abs()).square().sum() / truth.abs().square().sum())


@pytest.mark.parametrize("shape", [(72, 64), (65, 71)])
@pytest.mark.parametrize("axis", [-2, -1])
@pytest.mark.parametrize("late", [True, False])
@pytest.mark.parametrize("name", METHODS)
def test_error_is_far_below_zero_filling(name: str, shape: tuple[int, int], axis: int, late: bool) -> None:
    kspace, image, maps = scan(shape)
    mask = partial(shape, axis, 0.62, late=late)
    found = METHODS[name](kspace * mask, mask, maps)
    zero = root_sum_of_squares(ifft2c(kspace * mask))
    assert error(found.image, image) < 0.5 * error(zero, image)
    assert found.settings["axis"] == axis
    summed = METHODS[name](kspace * mask, mask).image
    assert not summed.is_complex()
    assert error(summed, image) < 0.5 * error(zero, image)


@pytest.mark.parametrize("shape", [(24, 20), (25, 21)])
@pytest.mark.parametrize("ramp", [0.0, 0.5, 1.0])
def test_a_real_image_comes_back_exactly_by_homodyne(shape: tuple[int, int], ramp: float) -> None:
    """Without noise and phase the sum of weights, W(k) + W(-k) = 2, is all that counts; on both sides."""
    image = complex_normal(shape).real.abs() + 3  # a real image of which the low resolution is positive
    kspace = fft2c(image.to(torch.complex128))[None]
    # The frequency -N / 2 of an even length has no mirror image: leave the side that holds it.
    mask = partial(shape, -1, 0.8, late=False)
    found = homodyne(kspace * mask, mask, torch.ones(1, 1, *shape, dtype=torch.complex128), ramp=ramp).image
    torch.testing.assert_close(found, image.to(torch.complex128), rtol=1e-6, atol=1e-6)


def test_the_weights_of_mirrored_frequencies_add_up_to_two() -> None:
    for length in (16, 17):
        for low, high in ((0, 11), (5, length)):
            weights = homodyne_weights(PartialFourier(-1, low, high, length), 1.0, torch.device("cpu"))
            k = torch.arange(1, (length + 1) // 2)
            centre = length // 2
            torch.testing.assert_close(weights[centre + k] + weights[centre - k], torch.full((len(k),), 2.0).double())
            assert float(weights[centre]) == pytest.approx(1)


def test_pocs_keeps_what_was_acquired_and_says_why_it_stopped() -> None:
    kspace, _, _ = scan((48, 40))
    mask = partial((48, 40), -2, 0.7, late=True)
    one = torch.ones(1, 1, 48, 40, dtype=torch.complex64)
    found = pocs(kspace[:1] * mask, mask, one, tolerance=1e-2)
    assert 0.5 < found.settings["trust"] <= 1
    assert found.reason == "converged"
    assert found.residual <= 1e-2
    torch.testing.assert_close(fft2c(found.image)[None] * mask, kspace[:1] * mask, rtol=1e-3, atol=1e-4)
    assert pocs(kspace * mask, mask, iterations=2, tolerance=0).reason == "iterations"


@pytest.mark.parametrize("name", METHODS)
def test_units_and_the_rest_of_the_batch_do_not_matter(name: str) -> None:
    kspace, _, maps = scan((40, 36))
    mask = partial((40, 36), -1, 0.7, late=True)
    y = kspace * mask
    alone = METHODS[name](y, mask, maps).image
    batch = torch.stack([1e13 * y, torch.zeros_like(y), 1e-13 * y, y.flip(0)])
    together = METHODS[name](batch, mask, maps.expand(4, *maps.shape)).image
    for number, factor in ((0, 1e13), (2, 1e-13)):
        # Where the low-resolution image is nearly zero its phase hangs on rounding: compare the whole.
        assert torch.linalg.vector_norm(together[number] / factor - alone) < 1e-3 * torch.linalg.vector_norm(alone)
    assert not together[1].any()


@pytest.mark.parametrize("name", METHODS)
def test_patterns_that_are_not_partial_fourier_are_refused(name: str) -> None:
    kspace, _, _ = scan((24, 20))
    both = partial((24, 20), -1, 0.7, late=True) * partial((24, 20), -2, 0.7, late=True)
    middle = partial((24, 20), -1, 0.8, late=True) * partial((24, 20), -1, 0.8, late=False)
    gaps = partial((24, 20), -1, 0.7, late=True).clone()
    gaps[:, 12] = 0
    for mask, message in (
        (torch.ones(1, 20), "0 such axes"),
        (both, "2 such axes"),
        (middle, "smaller matrix"),
        (gaps, "GRAPPA or SPIRiT"),
        (partial((24, 20), -1, 0.7, late=True) * (torch.arange(24) % 3 != 1)[:, None], "along ky sampled, found gaps"),
        (partial((24, 20), -1, 0.4, late=True), "both sides of the centre"),
        (torch.zeros(1, 20), "samples nothing"),
    ):
        with pytest.raises(ConfigError, match=message):
            METHODS[name](kspace * mask, mask)


def test_what_noise_makes_worthless_is_not_completed() -> None:
    kspace, image, maps = scan((72, 64))
    mask = partial((72, 64), -2, 0.62, late=True)
    noise = complex_normal(kspace.shape)
    found = {level: pocs((kspace + level * noise) * mask, mask, maps) for level in (0.0, 0.1, 0.3)}
    trusts = [each.settings["trust"] for each in found.values()]
    assert trusts[0] > 0.97 > trusts[1] > 0.6 > trusts[2] > 0.1
    whole = pocs((kspace + 0.3 * noise) * mask, mask, maps, trust=1)
    assert error(found[0.3].image, image) < 0.7 * error(whole.image, image)
    with pytest.raises(ConfigError, match="0 <= trust <= 1"):
        pocs(kspace * mask, mask, maps, trust=2)


@pytest.mark.realdata
@pytest.mark.parametrize("axis", [-2, -1])
def test_of_a_real_slice_more_is_won_than_lost(real_data: Path, axis: int) -> None:
    """Fully sampled k-space cut to five eighths: POCS is better than zero filling, homodyne not much worse."""
    data = read_cfl(real_data / "kspace_brain8ch" / "full.cfl")
    full = torch.from_numpy(np.ascontiguousarray(data[0].transpose(2, 0, 1)))
    maps = espirit(full[:, 103:127, 78:102], (230, 180))
    truth = zero_filled(full, maps)
    for late in (True, False):
        mask = partial((230, 180), axis, 5 / 8, late=late)
        zero, direct, iterated = (
            10 * np.log10(error(image, truth))
            for image in (
                zero_filled(full * mask, maps),
                homodyne(full * mask, mask, maps).image,
                pocs(full * mask, mask, maps).image,
            )
        )
        assert iterated < zero - 0.8
        assert direct < zero + 1.5


def test_maps_of_any_norm_give_the_image_of_maps_of_norm_one() -> None:
    kspace, _, maps = scan((48, 40))
    mask = partial((48, 40), -2, 0.62, late=True)
    uneven = maps * torch.linspace(0.3, 2.5, 40)
    unit, other = (pocs(kspace * mask, mask, each) for each in (maps, uneven))
    assert unit.settings["trust"] == pytest.approx(other.settings["trust"], abs=0.02)
    expected = unit.image * torch.linspace(0.3, 2.5, 40)
    assert torch.linalg.vector_norm(other.image - expected) < 0.02 * torch.linalg.vector_norm(expected)
