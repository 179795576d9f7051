"""Coil compression: energy, unitarity, and what it does to images."""

import pytest
import torch

from mri_io.simulate import ellipse_phantom, shepp_logan
from mri_recon.errors import ConfigError, ShapeError
from mri_recon.physics import ifft2c, root_sum_of_squares
from mri_recon.physics.compression import geometric_compression, svd_compression, virtual_coils
from mri_recon.testing import complex_normal


@pytest.fixture(scope="module")
def kspace() -> torch.Tensor:
    return torch.from_numpy(ellipse_phantom(shepp_logan(), (48, 41), coils=12).kspace)


@pytest.mark.parametrize("compression", [svd_compression, geometric_compression])
def test_all_virtual_coils_keep_everything(kspace, compression):
    found = compression(kspace, coils=12)
    rss = root_sum_of_squares(ifft2c(found.apply(kspace)))
    torch.testing.assert_close(rss, root_sum_of_squares(ifft2c(kspace)), rtol=1e-4, atol=1e-5)
    unit = torch.eye(12, dtype=torch.complex128)
    white = found.apply_covariance(unit)
    torch.testing.assert_close(white, unit.expand_as(white))
    assert found.kept == pytest.approx(1)


def test_svd_keeps_the_energy_that_the_singular_values_say(kspace):
    energies = torch.linalg.svdvals(kspace.flatten(1)).square()
    for count in (1, 3, 6):
        found = svd_compression(kspace, coils=count)
        kept = float(found.apply(kspace).abs().square().sum() / kspace.abs().square().sum())
        assert kept == pytest.approx(float(energies[:count].sum() / energies.sum()), rel=1e-4)
        assert found.kept == pytest.approx(kept, rel=1e-4)
    assert svd_compression(kspace * 1e-13, energy=0.99).coils == svd_compression(kspace, energy=0.99).coils


@pytest.mark.parametrize("axis", [-1, -2])
def test_geometric_compression_keeps_more_than_one_matrix_and_is_smooth(kspace, axis):
    one = svd_compression(kspace, coils=3).apply(kspace).abs().square().sum()
    found = geometric_compression(kspace, coils=3, axis=axis)
    assert found.apply(kspace).abs().square().sum() > one
    steps = (found.matrix[1:] - found.matrix[:-1]).abs().square().sum(dim=(1, 2)).sqrt()
    assert float(steps.max()) < 0.8 * 3**0.5  # matrices of any phase are sqrt(6) apart
    batch = torch.stack([kspace, 2j * kspace])
    torch.testing.assert_close(found.apply(batch)[1], 2j * found.apply(kspace), rtol=1e-4, atol=1e-5)


def test_the_number_of_coils_is_what_the_energy_needs():
    energies = torch.tensor([8.0, 1.0, 0.9, 0.1])
    assert [virtual_coils(energies, energy=e) for e in (0.5, 0.8, 0.85, 0.99, 1.0)] == [1, 1, 2, 3, 4]
    for options in ({"coils": 5}, {"coils": 0}, {"energy": 0.0}, {"energy": 1.5}):
        with pytest.raises(ConfigError, match="expected"):
            virtual_coils(energies, **options)
    with pytest.raises(ConfigError, match="not all zero"):
        svd_compression(torch.zeros(3, 8, 8, dtype=torch.complex64))
    with pytest.raises(ShapeError, match="expected 3 coils"):
        svd_compression(complex_normal((3, 8, 8), seed=0)).apply(complex_normal((4, 8, 8), seed=0))
