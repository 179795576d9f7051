"""Metrics against scikit-image, SciPy and closed forms; noise against the analytic g-factor."""

import numpy as np
import pytest
import torch
from scipy.signal import convolve2d
from skimage.metrics import peak_signal_noise_ratio, structural_similarity

from mri_recon.errors import ConfigError, ShapeError
from mri_recon.metrics import (
    difference_map,
    hfen,
    pseudo_replicas,
    psnr,
    replica_gfactor,
    sense_gfactor,
    ssim,
)
from mri_recon.physics import SenseOperator, ifft2c


@pytest.fixture(scope="module")
def images():
    rng = np.random.default_rng(3)
    truth = rng.random((3, 41, 37)) * np.array([1, 2, 5])[:, None, None]
    return truth, np.abs(truth + 0.2 * rng.standard_normal(truth.shape))


@pytest.mark.parametrize("peak", ["volume", "slice", 4.0])
@pytest.mark.parametrize("window", ["uniform", "gaussian"])
def test_similarity_is_that_of_scikit_image(images, peak, window):
    truth, image = images
    region = np.zeros(truth.shape, bool)
    region[1:, :9, 5:] = True  # reaches the border
    tops = {"volume": [truth.max()] * 3, "slice": truth.max(axis=(1, 2))}.get(peak, [4.0] * 3)
    options = {} if window == "uniform" else {"gaussian_weights": True, "use_sample_covariance": False}
    found = [
        structural_similarity(t, i, data_range=top, full=True, **options)
        for t, i, top in zip(truth, image, tops, strict=True)
    ]
    assert ssim(truth, image, peak=peak, window=window) == pytest.approx(np.mean([f[0] for f in found]), abs=1e-9)
    inside = np.mean([found[n][1][region[n]].mean() for n in (1, 2)])
    assert ssim(truth, image, region, peak=peak, window=window) == pytest.approx(inside, abs=1e-9)


def test_similarity_in_single_precision(images):
    truth, image = (volume.astype(np.float32) for volume in images)
    expected = np.mean([structural_similarity(t, i, data_range=truth.max()) for t, i in zip(truth, image, strict=True)])
    assert ssim(truth, image) == pytest.approx(expected, abs=1e-6)


def test_decibels_with_the_maximum_of_slices(images):
    truth, image = images
    each = [peak_signal_noise_ratio(t, i, data_range=t.max()) for t, i in zip(truth, image, strict=True)]
    assert psnr(truth, image, peak="slice") == pytest.approx(np.mean(each))
    empty = truth.copy()
    empty[0] = 0
    assert psnr(empty, image, peak="slice") == pytest.approx(np.mean(each[1:]))
    assert np.isfinite(ssim(empty, image, peak="slice"))


def test_high_frequency_error_is_that_of_the_filter(images):
    truth, image = images
    x = np.arange(15) - 7
    gauss = np.exp(-(x[:, None] ** 2 + x**2) / (2 * 1.5**2))
    gauss /= gauss.sum()
    kernel = gauss * (x[:, None] ** 2 + x**2 - 2 * 1.5**2) / 1.5**4
    kernel -= kernel.mean()  # as MATLAB's fspecial("log", 15, 1.5)
    filtered = [np.stack([convolve2d(p, kernel, mode="same") for p in v]) for v in (image - truth, truth)]
    expected = np.linalg.norm(filtered[0]) / np.linalg.norm(filtered[1])
    assert hfen(truth, image) == pytest.approx(expected, rel=1e-9)
    region = truth > 0.5
    expected = np.linalg.norm(filtered[0][region]) / np.linalg.norm(filtered[1][region])
    assert hfen(truth, image, region) == pytest.approx(expected, rel=1e-9)
    assert hfen(truth, truth) == 0
    assert np.isnan(hfen(0 * truth, truth))


def test_difference_maps_have_a_stated_scale():
    reference, image = np.array([[0.0, 10.0, 5.0]]), np.array([[0.5, 9.0, 1.0]])
    np.testing.assert_allclose(difference_map(reference, image, 5), [[0.25, 0.5, 1.0]])
    np.testing.assert_allclose(difference_map(reference, image, 5, peak=20), [[0.125, 0.25, 1.0]])
    with pytest.raises(ShapeError, match="reference's shape"):
        difference_map(reference, image.T)


def smooth_maps(coils=6, rows=16, columns=12):
    """Coils around an object that fills the grid but for a corner."""
    y, x = torch.meshgrid(torch.linspace(-1, 1, rows), torch.linspace(-1, 1, columns), indexing="ij")
    angle = 2 * torch.pi * torch.arange(coils) / coils
    near = [torch.exp(-((y - a.sin()) ** 2) - (x - a.cos()) ** 2) * torch.exp(1j * (a + x * a.cos())) for a in angle]
    maps = torch.stack(near).to(torch.complex128)
    maps = maps / maps.abs().square().sum(dim=0).sqrt()
    maps[:, :3, :3] = 0
    return maps


def unfolded(maps):
    """Least squares by the normal equations, as a matrix: independent of aliasing groups."""
    rows, columns = maps.shape[-2:]
    unit = torch.eye(rows * columns, dtype=maps.dtype).reshape(-1, 1, rows, columns)

    inverses = {}

    def reconstruct(kspace, mask):
        operator = SenseOperator(maps[None], mask)
        key = int(mask.sum())
        if key not in inverses:
            normal = operator.normal(unit).reshape(rows * columns, -1).T
            inverses[key] = torch.linalg.pinv(normal, hermitian=True, rtol=1e-10)
        return (inverses[key] @ operator.adjoint(kspace).reshape(-1)).reshape(rows, columns)

    return reconstruct


@pytest.mark.parametrize("steps", [(1, 3), (2, 2)])
def test_replicas_agree_with_the_analytic_g_factor(steps):
    maps = smooth_maps()
    mask = torch.zeros(16, 12)
    mask[:: steps[0], :: steps[1]] = 1
    exact = sense_gfactor(maps, steps)
    seen = maps.abs().sum(dim=0) > 0
    assert float(exact[seen].min()) >= 1 - 1e-9
    assert float(exact.max()) > 1.1
    assert not exact[~seen].any()
    measured = replica_gfactor(unfolded(maps), torch.zeros(6, 16, 12, dtype=maps.dtype), mask, replicas=150, seed=1)
    ratio = measured[seen] / exact[seen]
    assert float(ratio.mean()) == pytest.approx(1, abs=0.02)
    assert float(ratio.std()) < 0.1  # 150 replicas: 6 %
    # Without noise of its own, a g-factor is that of whitened coils.
    coupled = torch.eye(6, dtype=maps.dtype) + 0.3
    white = torch.linalg.solve(torch.linalg.cholesky(coupled), maps.reshape(6, -1)).reshape(maps.shape)
    torch.testing.assert_close(sense_gfactor(maps, steps, coupled), sense_gfactor(white, steps))


def test_g_factors_of_special_coils():
    apart = torch.zeros(2, 4, 4, dtype=torch.complex64)
    apart[0, :, :2], apart[1, :, 2:] = 1, 1j
    assert torch.equal(sense_gfactor(apart, (1, 2)), torch.ones(4, 4))
    assert torch.isinf(sense_gfactor(torch.ones(2, 4, 4, dtype=torch.complex64), (1, 2))).all()
    with pytest.raises(ShapeError, match="2 x 3 divides, got 4 x 4"):
        sense_gfactor(apart, (2, 3))


def test_replicas_measure_the_noise_that_is_added():
    kspace = torch.zeros(2, 8, 8, dtype=torch.complex64)
    kspace[:, 4, 4] = 800  # an image of 100
    covariance = torch.tensor([[4.0, 1.0], [1.0, 9.0]])

    def second(kspace, mask):
        return ifft2c(kspace)[1]

    found = pseudo_replicas(second, kspace, torch.ones(8, 8), noise=covariance, replicas=200)
    assert float(found.deviation.mean()) == pytest.approx(3, rel=0.02)
    assert float(found.snr.mean()) == pytest.approx(100 / 3, rel=0.03)
    plain = pseudo_replicas(second, kspace, torch.ones(8, 8), noise=0.5, replicas=200)
    assert float(plain.deviation.mean()) == pytest.approx(0.5, rel=0.02)
    with pytest.raises(ConfigError, match="at least 2, got 1"):
        pseudo_replicas(second, kspace, torch.ones(8, 8), replicas=1)
