"""l1-wavelet reconstruction and FISTA: against closed solutions, optimality, BART, units and batches."""

import shutil
import subprocess
from pathlib import Path

import numpy as np
import pytest
import torch

from mri_io.errors import NonFiniteError
from mri_io.simulate import ellipse_phantom, shepp_logan
from mri_recon.calibration import espirit
from mri_recon.classical import WaveletConfig, cg_sense, wavelet, zero_filled
from mri_recon.classical.regularised import largest_eigenvalue
from mri_recon.classical.solvers import fista, soft_threshold
from mri_recon.classical.transforms import WaveletTransform
from mri_recon.errors import ConfigError
from mri_recon.metrics import nmse, psnr
from mri_recon.physics import SenseOperator, equispaced_mask
from mri_recon.testing import complex_normal


class Scan:
    """A phantom of 64 x 56 pixels in six coils, every third line and the centre sampled, with maps from it."""

    def __init__(self, noise: float = 0.01) -> None:
        phantom = ellipse_phantom(shepp_logan(), (64, 56), coils=6)
        rng = np.random.default_rng(0)
        added = rng.standard_normal(phantom.kspace.shape) + 1j * rng.standard_normal(phantom.kspace.shape)
        clean = torch.from_numpy(phantom.kspace)
        full = torch.from_numpy((phantom.kspace + noise / np.sqrt(2) * added).astype(np.complex64))
        self.mask = torch.from_numpy(equispaced_mask(56, 3, 0.25, offset=0)).float()[None]
        self.kspace = full * self.mask
        self.maps = espirit(full[:, 22:42, 21:35], (64, 56))
        self.truth = zero_filled(clean, self.maps)

    def error(self, image: torch.Tensor) -> float:
        return nmse(self.truth.abs().numpy()[None], image.abs().numpy()[None])


@pytest.fixture(scope="module")
def scan() -> Scan:
    return Scan()


def test_soft_threshold_shrinks_magnitudes_and_groups() -> None:
    x = torch.tensor([3 + 4j, 0.3 + 0.4j, 0], dtype=torch.complex128)
    torch.testing.assert_close(soft_threshold(x, 1.0), torch.tensor([2.4 + 3.2j, 0, 0], dtype=torch.complex128))
    torch.testing.assert_close(soft_threshold(x, 0.0), x)
    pair = torch.tensor([[3.0, 0.3], [4.0, 0.4]], dtype=torch.complex128)
    expected = torch.tensor([[2.4, 0.0], [3.2, 0.0]], dtype=torch.complex128)
    torch.testing.assert_close(soft_threshold(pair, 1.0, (0,)), expected)


def test_fista_finds_the_closed_solution_of_a_separable_problem_and_says_so() -> None:
    weights, right = torch.linspace(0.05, 1, 40).double().view(1, 1, 40), complex_normal((2, 1, 1, 40))
    exact = soft_threshold(right, 0.3) / weights
    largest = torch.ones(2, 1, 1, 1).double()

    def solve(iterations: int):
        return fista(
            lambda x: weights * x,
            right,
            lambda v, step: soft_threshold(v, 0.3 * step),
            largest,
            iterations=iterations,
            tolerance=1e-12,
        )

    found = solve(500)
    torch.testing.assert_close(found.x, exact, rtol=1e-7, atol=1e-8)
    assert found.converged
    assert found.iterations < 500
    assert solve(3).reason == "iterations"
    assert solve(3).residual > 1e-3


def test_the_result_satisfies_the_optimality_conditions() -> None:
    """The gradient's detail coefficients are at most lambda, and lambda where a coefficient is not zero."""
    maps, y, lam = complex_normal((1, 6, 20, 15)), complex_normal((6, 20, 15), seed=1), 0.1
    mask = torch.tensor([1.0, 1, 1, 0] * 5)[:15].double()[None]
    result = wavelet(y, mask, maps, regularisation=lam, iterations=300, tolerance=1e-9, cycle_spinning=False, levels=2)
    assert result.reason == "converged"
    transform = WaveletTransform((20, 15), levels=2, dtype=torch.complex128)
    operator = SenseOperator(maps, mask)
    force = transform(operator.adjoint(y - operator.forward(result.image[None])))[0] / operator.adjoint(y).abs().max()
    details = torch.ones(20, 15, dtype=torch.bool)
    details[:5, :4] = False
    shrunk = details & (transform(result.image).abs() > 1e-6)
    assert 10 < int(shrunk.sum()) < int(details.sum())
    assert float(force[details].abs().max()) <= lam * (1 + 1e-5)
    torch.testing.assert_close(force[shrunk].abs(), torch.full((int(shrunk.sum()),), lam).double(), rtol=1e-4, atol=0)
    assert float(force[~details].abs().max()) <= 1e-5  # the approximation is not penalised


def test_bound_of_the_eigenvalue_is_met_by_one_and_two_map_sets() -> None:
    for sets in (1, 2):
        maps = complex_normal((3, sets, 4, 6, 5)) * torch.tensor([1.0, 2, 3]).view(3, 1, 1, 1, 1)
        bound = largest_eigenvalue(maps)
        assert bound.shape == (3, 1, 1, 1)
        torch.testing.assert_close(SenseOperator(maps, torch.ones(1, 5)).norm(100), bound, rtol=1e-2, atol=0)


def test_wavelets_beat_the_solution_without_them(scan: Scan) -> None:
    result = wavelet(scan.kspace, scan.mask, scan.maps)
    assert scan.error(result.image) < 0.8 * scan.error(cg_sense(scan.kspace, scan.mask, scan.maps).image)
    assert 0 < result.settings["regularisation"] < 0.1
    assert result.settings["noise_level"] == pytest.approx(0.01, rel=1)  # signal at the edge of k-space adds


@pytest.mark.parametrize("factor", [1e13, 1e-13])
def test_the_units_of_k_space_do_not_matter(scan: Scan, factor: float) -> None:
    one = wavelet(scan.kspace, scan.mask, scan.maps, iterations=10)
    other = wavelet(scan.kspace * factor, scan.mask, scan.maps, iterations=10)
    torch.testing.assert_close(other.image / factor, one.image, rtol=1e-3, atol=1e-5)
    assert other.settings["regularisation"] == pytest.approx(one.settings["regularisation"], rel=1e-4)


def test_a_batch_is_reconstructed_as_its_slices_one_by_one_and_zeros_stay_zero(scan: Scan) -> None:
    y = torch.stack([scan.kspace, 1e4 * scan.kspace.flip(-2), torch.zeros_like(scan.kspace)])
    maps = torch.stack([scan.maps, scan.maps.flip(-2), scan.maps])
    options = {"tolerance": 3e-3, "cycle_spinning": False}
    together = wavelet(y, scan.mask, maps, **options)
    assert together.reason == "converged"
    for number in range(3):
        alone = wavelet(y[number], scan.mask, maps[number], **options)
        torch.testing.assert_close(together.image[number], alone.image, rtol=1e-4, atol=1e-4 * 1e4 ** (number == 1))
    assert not together.image[2].any()
    assert len(together.settings["regularisation"]) == 3


def test_two_map_sets_give_two_images(scan: Scan) -> None:
    both = torch.cat([scan.maps, torch.zeros_like(scan.maps)])
    found = wavelet(scan.kspace, scan.mask, both, iterations=20)
    assert found.image.shape == (2, 64, 56)
    one = wavelet(scan.kspace, scan.mask, scan.maps, iterations=20)
    torch.testing.assert_close(found.image[0], one.image, rtol=1e-3, atol=1e-4)
    assert not found.image[1].any()


def test_cycle_spinning_is_seeded(scan: Scan) -> None:
    images = [wavelet(scan.kspace, scan.mask, scan.maps, seed=seed, iterations=8).image for seed in (0, 0, 1)]
    assert torch.equal(images[0], images[1])
    assert not torch.equal(images[0], images[2])


def test_bad_input_is_refused(scan: Scan) -> None:
    with pytest.raises(ConfigError, match="regularisation: expected a number >= 0"):
        wavelet(scan.kspace, scan.mask, scan.maps, regularisation=-1)
    broken = scan.kspace.clone()
    broken[0, 0, 0] = torch.nan
    with pytest.raises(NonFiniteError, match="finite"):
        wavelet(broken, scan.mask, scan.maps)
    with pytest.raises(ValueError, match="levels"):
        WaveletConfig(levels=0)


def write_cfl(path: Path, array: np.ndarray) -> None:
    sizes = " ".join(map(str, (*array.shape, *(1,) * (16 - array.ndim))))
    path.with_suffix(".hdr").write_text(f"# Dimensions\n{sizes}\n")
    array.astype(np.complex64).ravel(order="F").tofile(path.with_suffix(".cfl"))


@pytest.mark.skipif(shutil.which("bart") is None, reason="BART is not installed")
def test_as_good_as_bart(scan: Scan, tmp_path: Path) -> None:
    from mri_io.formats.bart import read_cfl

    write_cfl(tmp_path / "k", scan.kspace.numpy().transpose(1, 2, 0)[None])
    write_cfl(tmp_path / "s", scan.maps[0].numpy().transpose(1, 2, 0)[None])
    errors = []
    for weight in (0.002, 0.006):
        command = ["bart", "pics", "-S", "-R", f"W:6:0:{weight}", "-i", "100", "k", "s", "x"]
        subprocess.run(command, cwd=tmp_path, check=True, capture_output=True)
        image = torch.from_numpy(np.squeeze(read_cfl(tmp_path / "x.cfl")).copy())
        errors.append(scan.error(image))
    assert scan.error(wavelet(scan.kspace, scan.mask, scan.maps).image) < 1.05 * min(errors)
    assert psnr(scan.truth.abs().numpy()[None], image.abs().numpy()[None]) > 15  # BART's image is one
