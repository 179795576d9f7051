"""Noise level of k-space: known noise with and without signal, any units, batches, padding."""

import math

import pytest
import torch

from mri_io.simulate import ellipse_phantom, shepp_logan
from mri_recon.errors import ConfigError
from mri_recon.physics import equispaced_mask, noise_level
from mri_recon.physics.noise import coil_noise_levels, outermost_samples
from mri_recon.testing import complex_normal

LEVELS = torch.tensor([1.0, 2.0, 3.0, 4.0], dtype=torch.float64)


def noisy(units: float = 1.0, size: tuple[int, int] = (128, 96)) -> torch.Tensor:
    """Return a phantom's k-space, of up to thousands, with noise of LEVELS per coil."""
    clean = torch.from_numpy(ellipse_phantom(shepp_logan(), size, coils=4).kspace)
    noise = LEVELS[:, None, None] * complex_normal((4, *size), seed=3)
    return units * (20 * clean + noise)


@pytest.mark.parametrize("units", [1.0, 1e13, 1e-13])
@pytest.mark.parametrize("dtype", [torch.complex64, torch.complex128])
def test_noise_level_is_found_below_the_signal_in_any_units(units: float, dtype: torch.dtype) -> None:
    kspace = noisy(units).to(dtype)
    truth = units * float(LEVELS.square().mean().sqrt())
    assert noise_level(kspace).shape == (1, 1, 1)
    assert float(noise_level(kspace)) == pytest.approx(truth, rel=0.06)
    torch.testing.assert_close(coil_noise_levels(kspace).double(), units * LEVELS, rtol=0.15, atol=0)


def test_undersampling_padding_and_empty_coils_do_not_change_the_level() -> None:
    kspace = noisy()
    mask = torch.from_numpy(equispaced_mask(96, 4, 0.08, seed=0)).float()[None]
    truth = float(LEVELS.square().mean().sqrt())
    assert float(noise_level(kspace * mask, mask)) == pytest.approx(truth, rel=0.1)
    torch.testing.assert_close(noise_level(kspace * mask, mask), noise_level(kspace * mask))
    torch.testing.assert_close(noise_level(kspace * mask, mask.expand(1, 128, 96)), noise_level(kspace * mask))
    padded = torch.nn.functional.pad(kspace, (10, 10, 20, 20))
    torch.testing.assert_close(noise_level(padded, torch.ones(1, 116)), noise_level(padded))
    assert float(noise_level(padded)) == pytest.approx(truth, rel=0.1)
    empty = torch.cat([kspace, torch.zeros_like(kspace[:2])])
    torch.testing.assert_close(noise_level(empty), noise_level(kspace))


def test_batch_elements_are_measured_alone_and_empty_ones_are_zero() -> None:
    kspace = torch.stack([noisy(), 100 * noisy(), torch.zeros_like(noisy())])
    mask = torch.ones(3, 1, 1, 96)
    mask[1, ..., ::3] = 0
    found = noise_level(kspace * mask, mask)
    assert found.shape == (3, 1, 1, 1)
    torch.testing.assert_close(found[0], noise_level(noisy()))
    torch.testing.assert_close(found[1], noise_level(100 * noisy() * mask[1], mask[1]))
    assert float(found[2]) == 0


def test_the_corners_are_taken_first() -> None:
    kspace = torch.zeros(1, 128, 128, dtype=torch.complex128)
    kspace[..., :24, :24] = 1 + 1j
    kspace[..., 60:68, 60:68] = 1e6
    samples = outermost_samples(kspace, fraction=0.5)
    assert samples.shape[0] == 1
    assert bool((samples[~samples.isnan()] == 1 + 1j).all())
    assert int((~samples.isnan()).sum()) == (24 * 24 + 64) // 2
    assert math.isclose(float(noise_level(kspace)), math.sqrt(2) / 0.6744897501960817)
    # Of fewer points than a median needs at least, all.
    assert int((~outermost_samples(kspace[..., 56:72, 56:72]).isnan()).sum()) == 64


def test_noise_refuses_what_it_cannot_measure() -> None:
    with pytest.raises(ConfigError, match="fraction"):
        outermost_samples(noisy(), fraction=0)
