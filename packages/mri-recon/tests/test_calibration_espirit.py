"""ESPIRiT against dense eigensolvers, BART, the law of Marchenko and Pastur, and an object larger than the image."""

import shutil
import subprocess
from pathlib import Path

import numpy as np
import pytest
import torch

from mri_io.simulate import ellipse_phantom, shepp_logan
from mri_recon.calibration import EspiritConfig, espirit, espirit_eigenmaps
from mri_recon.calibration.kernels import calibration_matrix, kernel_correlation, kernel_space, local_matrices
from mri_recon.calibration.leading import leading_eigenvectors
from mri_recon.classical import cg_sense
from mri_recon.errors import ConfigError
from mri_recon.physics import expand, fft2c
from mri_recon.testing import complex_normal

SHAPE = (96, 80)


@pytest.fixture(scope="module")
def scan() -> dict[str, torch.Tensor]:
    phantom = ellipse_phantom(shepp_logan(), SHAPE, coils=6)
    rng = np.random.default_rng(0)
    noise = 0.003 * (rng.standard_normal(phantom.kspace.shape) + 1j * rng.standard_normal(phantom.kspace.shape))
    return {
        "kspace": torch.from_numpy((phantom.kspace + noise).astype(np.complex64)),
        "maps": torch.from_numpy(phantom.sensitivities),
        "image": torch.from_numpy(phantom.image),
    }


def centre(kspace: torch.Tensor, width: int = 24) -> torch.Tensor:
    y, x = (n // 2 - width // 2 for n in kspace.shape[-2:])
    return kspace[..., y : y + width, x : x + width]


def angle(maps: torch.Tensor, other: torch.Tensor) -> torch.Tensor:
    """Return 1 - |<s, s'>|^2 of unit maps where both have support, (pixel,)."""
    both = (maps.abs().sum(dim=0) > 0) & (other.abs().sum(dim=0) > 0)
    unit = [m / m.abs().square().sum(dim=0).sqrt().clamp_min(1e-12) for m in (maps, other)]
    return (1 - (unit[0].conj() * unit[1]).sum(dim=0).abs().square())[both]


def test_maps_are_the_eigenvectors_that_a_dense_solver_finds(scan):
    values, maps = (part[0] for part in reversed(espirit_eigenmaps(centre(scan["kspace"]), SHAPE)))
    kernels, _ = kernel_space(centre(scan["kspace"]).to(torch.complex128), 6, 0.02)
    y, x = ((torch.arange(n, dtype=torch.float64) - n // 2) / n for n in SHAPE)
    dense_values, dense = torch.linalg.eigh(local_matrices(kernel_correlation(kernels), y, x))
    torch.testing.assert_close(values.double(), dense_values[..., -1], rtol=1e-4, atol=1e-4)
    clear = dense_values[..., -1] - dense_values[..., -2] > 0.05
    assert float(clear.double().mean()) > 0.8
    error = 1 - (maps.conj() * dense[..., -1].permute(2, 0, 1)).sum(dim=0).abs().square()
    assert float(error[clear].max()) < 1e-4


def test_local_matrices_are_the_sum_over_kernels_of_their_transforms():
    kernels = complex_normal((5, 3, 4, 4), seed=1, dtype=torch.complex128)
    position = 0.173
    wave = torch.exp(2j * torch.pi * position * torch.arange(4, dtype=torch.float64))
    at = torch.einsum("kcyx,y,x->kc", kernels, wave, wave)
    expected = torch.einsum("ka,kb->ab", at, at.conj()) / 16
    place = torch.tensor([position], dtype=torch.float64)
    torch.testing.assert_close(local_matrices(kernel_correlation(kernels), place, place)[0, 0], expected)


@pytest.mark.parametrize("wanted", [1, 2, 3])
def test_leading_eigenvectors_do_not_depend_on_the_start(wanted):
    vectors = torch.linalg.qr(complex_normal((200, 6, 6), seed=0, dtype=torch.complex128))[0]
    values = torch.tensor([1.0, 0.9, 0.6, 0.3, 0.1, 0.0], dtype=torch.float64)
    matrices = (vectors * values) @ vectors.mH
    start = complex_normal((200, 6, wanted), seed=3, dtype=torch.complex128)
    found, leading = leading_eigenvectors(matrices, start, wanted=wanted, tolerance=1e-6)
    torch.testing.assert_close(found, values[:wanted].expand(200, -1), rtol=1e-6, atol=1e-9)
    overlap = (leading.conj() * vectors[..., :wanted]).sum(dim=1).abs()
    torch.testing.assert_close(overlap, torch.ones_like(overlap), rtol=1e-6, atol=1e-9)


@pytest.mark.parametrize("factor", [1e13, 1e-13])
def test_maps_do_not_depend_on_the_units(scan, factor):
    config = EspiritConfig(threshold="auto", crop="auto", maps=2)
    maps = espirit(centre(scan["kspace"]), SHAPE, config)
    other = espirit(centre(scan["kspace"]) * factor, SHAPE, config)
    torch.testing.assert_close((maps != 0).float().mean(), (other != 0).float().mean(), rtol=1e-3, atol=0)
    assert float(angle(maps[0], other[0]).max()) < 1e-3


@pytest.mark.parametrize("noise", [0.003, 0.03])
def test_the_automatic_threshold_finds_the_noise(noise):
    phantom = ellipse_phantom(shepp_logan(), SHAPE, coils=8)
    data = torch.from_numpy(phantom.kspace) + noise * complex_normal(phantom.kspace.shape, seed=2)
    kernels, level = kernel_space(centre(data), 6, "auto")
    expected = noise * float(complex_normal((10000,), seed=5).abs().square().mean().sqrt())
    assert 0.8 * expected < level < 1.2 * expected
    clean = torch.linalg.svdvals(calibration_matrix(centre(torch.from_numpy(phantom.kspace)), 6))
    edge = expected * (17**2 + 2 * 17 * 19 + 19**2) ** 0.5  # sqrt(361) + sqrt(288), to a few per cent
    above = int((clean > edge).sum())
    assert 0.7 * above <= len(kernels) <= 1.3 * above


def test_noise_alone_has_no_maps_and_singular_data_are_refused():
    with pytest.raises(ConfigError, match="no singular value is above the noise"):
        espirit(complex_normal((4, 24, 24), seed=0), SHAPE, EspiritConfig(threshold="auto"))
    with pytest.raises(ConfigError, match="finite"):
        espirit(torch.full((4, 24, 24), complex("nan")), SHAPE)
    with pytest.raises(ConfigError, match="all zero"):
        espirit(torch.zeros((4, 24, 24), dtype=torch.complex64), SHAPE)


def test_one_coil_and_equal_coils_have_documented_maps(scan):
    one = espirit(centre(scan["kspace"])[:1], SHAPE)
    support = one.abs().sum(dim=(0, 1)) > 0
    assert bool(support.any())
    torch.testing.assert_close(one[0, 0][support], torch.ones_like(one[0, 0][support]), rtol=1e-4, atol=1e-4)
    twice = espirit(centre(scan["kspace"])[:1].repeat(2, 1, 1), SHAPE)[0]
    inside = twice.abs().sum(dim=0) > 0
    torch.testing.assert_close(twice[0][inside], twice[1][inside], rtol=1e-3, atol=1e-3)


def test_soft_maps_are_smooth_weights_of_the_cropped(scan):
    hard = espirit(centre(scan["kspace"]), SHAPE)[0]
    soft = espirit(centre(scan["kspace"]), SHAPE, EspiritConfig(soft=True))[0]
    norm = soft.abs().square().sum(dim=0).sqrt()
    assert float(norm.max()) < 1.0001
    assert bool(((norm > 0.05) & (norm < 0.95)).any())
    assert float(angle(hard, soft).max()) < 1e-3
    assert bool((norm[hard.abs().sum(dim=0) > 0] >= 0.49).all())


def test_two_map_sets_reconstruct_an_object_larger_than_the_image():
    phantom = ellipse_phantom(shepp_logan(), (120, 96), coils=8)
    full = torch.from_numpy(phantom.sensitivities * phantom.image)
    folded = full[:, 24:].clone()  # 96 rows of 120: what lies above comes back below
    folded[:, -24:] += full[:, :24]
    kspace = fft2c(folded) + 2e-3 * complex_normal(folded.shape, seed=0)
    mask = torch.zeros(1, 1, 96)
    mask[..., ::2] = 1
    mask[..., 36:60] = 1
    errors = []
    for sets in (1, 2):
        maps = espirit(centre(kspace), (96, 96), EspiritConfig(maps=sets, crop=0.9, threshold=0.01))
        images = cg_sense(kspace * mask, mask, maps).image
        images = images if images.ndim == 3 else images[None]
        errors.append(float((expand(images, maps) - folded).abs().square().sum() / folded.abs().square().sum()))
    assert errors[1] < 0.02
    assert errors[0] > 4 * errors[1]


@pytest.mark.skipif(shutil.which("bart") is None, reason="needs BART (apt install bart)")
def test_maps_agree_with_bart(scan, tmp_path: Path):
    cfl = scan["kspace"].numpy().transpose(2, 1, 0)  # kx, ky, coil
    (tmp_path / "k.hdr").write_text(f"# Dimensions\n{cfl.shape[1]} {cfl.shape[0]} 1 {cfl.shape[2]}\n")
    cfl.transpose(1, 0, 2).ravel(order="F").astype(np.complex64).tofile(tmp_path / "k.cfl")
    command = ["bart", "ecalib", "-r", "24", "-m", "1", "-t", "0.0004", "-c", "0.9", "k", "s"]
    subprocess.run(command, cwd=tmp_path, check=True, capture_output=True)
    data = np.fromfile(tmp_path / "s.cfl", np.complex64).reshape((*SHAPE, 6), order="F")
    theirs = torch.from_numpy(np.ascontiguousarray(data.transpose(2, 0, 1)))
    ours = espirit(centre(scan["kspace"]), SHAPE, EspiritConfig(crop=0.9))[0]
    assert float(angle(ours, theirs).mean()) < 2e-3
    supports = [m.abs().sum(dim=0) > 0 for m in (ours, theirs)]
    assert float((supports[0] == supports[1]).float().mean()) > 0.9
