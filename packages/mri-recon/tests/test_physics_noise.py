"""Noise level of k-space: known noise with and without signal, any units, batches, padding."""

import math

import pytest
import torch

from mri_io.errors import FormatError
from mri_io.simulate import ellipse_phantom, shepp_logan
from mri_recon.errors import ConfigError, ShapeError
from mri_recon.physics import combine, equispaced_mask, expand, ifft2c, noise_level
from mri_recon.physics.noise import (
    background_samples,
    coil_noise_levels,
    noise_covariance,
    outermost_samples,
    patch_samples,
    whiten_kspace,
    whiten_maps,
    whitening_matrix,
)
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


MIXING = torch.tensor([[1, 0, 0, 0], [0.5j, 2, 0, 0], [0.2, -0.4, 1, 0], [0, 0.3, 0.1j, 3]], dtype=torch.complex128)


def correlated(units: float = 1.0, size: tuple[int, int] = (128, 96)) -> torch.Tensor:
    """Return a phantom's k-space whose coils share noise of covariance MIXING MIXING^H."""
    clean = torch.from_numpy(ellipse_phantom(shepp_logan(), size, coils=4).kspace)
    return units * (20 * clean + torch.einsum("dc,cyx->dyx", MIXING, complex_normal((4, *size), seed=3)))


@pytest.mark.parametrize("source", ["scan", "outermost", "patch", "background"])
def test_covariance_is_found_and_whitening_makes_noise_white(source: str) -> None:
    kspace = correlated()
    scan = torch.einsum("dc,cn->dn", MIXING, complex_normal((4, 5000), seed=9))
    samples = {
        "scan": scan,
        "outermost": outermost_samples(kspace, fraction=0.1),
        "patch": patch_samples(kspace, slice(0, 16), slice(0, 40)),
        "background": background_samples(kspace, fraction=0.03),
    }[source]
    truth = MIXING @ MIXING.mH
    covariance = noise_covariance(samples)
    assert float((covariance - truth).norm() / truth.norm()) < {"background": 0.3}.get(source, 0.12)
    torch.testing.assert_close(noise_covariance(samples, 4.0), covariance / 4)
    matrix = whitening_matrix(noise_covariance(scan))
    white = noise_covariance(outermost_samples(whiten_kspace(kspace, matrix), fraction=0.1))
    torch.testing.assert_close(white, torch.eye(4, dtype=white.dtype), rtol=0, atol=0.15)
    assert float(noise_level(whiten_kspace(kspace, matrix))) == pytest.approx(1, abs=0.06)


def test_given_levels_whiten_each_coil() -> None:
    torch.testing.assert_close(whitening_matrix(LEVELS), torch.diag(1 / LEVELS).to(torch.complex128))
    torch.testing.assert_close(
        coil_noise_levels(whiten_kspace(noisy(), whitening_matrix(LEVELS))).mean().item(), 1.0, rtol=0.06, atol=0
    )


@pytest.mark.parametrize("units", [1.0, 1e13, 1e-13])
def test_whitened_maps_combine_to_the_same_image_with_less_noise(units: float) -> None:
    size = (32, 24)
    maps = complex_normal((1, 4, *size), seed=5).to(torch.complex64)
    maps = maps / maps.abs().square().sum(dim=1, keepdim=True).sqrt()
    maps[..., :4, :] = 0
    matrix = whitening_matrix((units**2 * MIXING @ MIXING.mH).to(torch.complex128))
    mixed, norm = whiten_maps(maps, matrix)
    assert bool(torch.isfinite(mixed.real).all())
    support = norm > 0
    assert int(support.sum()) == 28 * 24
    length = mixed.abs().square().sum(dim=1)
    torch.testing.assert_close(length[support], torch.ones_like(length[support]), rtol=1e-4, atol=1e-4)
    image = units * complex_normal((1, *size), seed=6, dtype=torch.complex64)
    white = combine(whiten_kspace(expand(image, maps), matrix), mixed)
    torch.testing.assert_close((white / norm)[support] / units, image[support] / units, rtol=1e-3, atol=1e-4)
    if units == 1:  # Roemer 1990: the weighted combination has the least variance
        noise = torch.einsum("dc,cyx->dyx", MIXING.to(torch.complex64), complex_normal((4, *size), dtype=maps.dtype))
        plain = combine(ifft2c(noise), maps)[support].abs().square().mean()
        weighted = (combine(whiten_kspace(ifft2c(noise), matrix), mixed) / norm)[support].abs().square().mean()
        assert float(weighted) < 0.7 * float(plain)


def test_noise_that_cannot_be_whitened_is_named() -> None:
    noise = complex_normal((3, 100))
    noise[2] = 0
    with pytest.raises(FormatError, match="no noise in coils 2"):
        whitening_matrix(noise_covariance(noise))
    noise[2] = 2j * noise[0]
    with pytest.raises(FormatError, match="depend on each other"):
        whitening_matrix(noise_covariance(noise))
    with pytest.raises(ShapeError, match="got none"):
        noise_covariance(patch_samples(torch.zeros(2, 4, 4, dtype=torch.complex64)))
    with pytest.raises(ConfigError, match="within"):
        patch_samples(noisy(), slice(500, 600))
    with pytest.raises(ConfigError, match="ratio"):
        noise_covariance(noise, 0)
