"""Total variation and ADMM: against closed solutions, optimality, scikit-image, BART, units and batches."""

import shutil
import subprocess
from pathlib import Path

import numpy as np
import pytest
import torch

from mri_io.simulate import ellipse_phantom, shepp_logan
from mri_recon.calibration import espirit
from mri_recon.classical import cg_sense, total_variation, zero_filled
from mri_recon.classical.solvers import Penalty, admm, soft_threshold
from mri_recon.classical.transforms import FiniteDifferences
from mri_recon.errors import ConfigError
from mri_recon.metrics import nmse
from mri_recon.physics import LinearOperator, SenseOperator, equispaced_mask, fft2c
from mri_recon.testing import complex_normal


class Scan:
    """A phantom of 64 x 56 pixels in six coils, every third line and the centre sampled, with maps from it."""

    def __init__(self, noise: float = 0.01) -> None:
        phantom = ellipse_phantom(shepp_logan(), (64, 56), coils=6)
        rng = np.random.default_rng(0)
        added = rng.standard_normal(phantom.kspace.shape) + 1j * rng.standard_normal(phantom.kspace.shape)
        full = torch.from_numpy((phantom.kspace + noise / np.sqrt(2) * added).astype(np.complex64))
        self.mask = torch.from_numpy(equispaced_mask(56, 3, 0.25, offset=0)).float()[None]
        self.kspace = full * self.mask
        self.maps = espirit(full[:, 22:42, 21:35], (64, 56))
        self.truth = zero_filled(torch.from_numpy(phantom.kspace), self.maps)

    def error(self, image: torch.Tensor) -> float:
        return nmse(self.truth.abs().numpy()[None], image.abs().numpy()[None])


@pytest.fixture(scope="module")
def scan() -> Scan:
    return Scan()


class Identity(LinearOperator):
    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return x

    adjoint = forward


def test_admm_finds_the_closed_solution_of_a_separable_problem_and_says_so() -> None:
    weights, right = torch.linspace(0.05, 1, 40).double().view(1, 1, 40), complex_normal((2, 1, 1, 40))
    exact = soft_threshold(right, 0.5) / weights
    # Two penalties whose sum is the norm, so that the sum over penalties is tested too.
    halves = [Penalty(Identity(), lambda v, step: soft_threshold(v, 0.25 * step))] * 2

    def solve(iterations: int, rho: float):
        first = torch.full((2, 1, 1, 1), rho).double()
        return admm(lambda x: weights * x, right, halves, rho=first, iterations=iterations, inner=8, tolerance=1e-8)

    for rho in (0.05, 5.0):  # far from the best value, to be adapted
        found = solve(400, rho)
        assert found.converged
        torch.testing.assert_close(found.x, exact, rtol=1e-5, atol=1e-5)
    assert solve(3, 1.0).reason == "iterations"


def test_denoising_is_that_of_a_dual_certificate() -> None:
    """Fully sampled data of one coil: |x - y|^2 / 2 + lambda TV(x) has no gap to its dual at y - x."""
    y = torch.zeros(1, 12, 10, dtype=torch.complex128)
    y[:, 3:9, 3:7] = 1 + 0.5j
    y = y + 0.2 * complex_normal((1, 12, 10))
    lam = 0.1
    maps = torch.ones(1, 1, 12, 10, dtype=torch.complex128)
    scale = float(y.abs().max())
    found = total_variation(
        fft2c(y), torch.ones(12, 10), maps, regularisation=lam, iterations=400, tolerance=1e-5, inner=4
    )
    assert found.reason == "converged"
    x = found.image / scale
    variation = float(torch.linalg.vector_norm(FiniteDifferences()(x), dim=-3).sum())
    # At the optimum y - x = lambda D^H p with |p| <= 1 and <p, D x> = TV(x): so <y - x, x> = lambda TV(x).
    force = y[0] / scale - x
    assert float((force.conj() * x).real.sum()) == pytest.approx(lam * variation, rel=1e-4)

    # Any other image is no better.
    def objective(z: torch.Tensor) -> float:
        differences = torch.linalg.vector_norm(FiniteDifferences()(z), dim=-3).sum()
        return float((z - y[0] / scale).abs().square().sum() / 2 + lam * differences)

    for seed in range(5):
        assert objective(x + 1e-3 * complex_normal(x.shape, seed)) > objective(x)
    assert float(force.sum().abs()) < 1e-4 * float(force.abs().sum())  # the mean is not penalised


def test_variation_beats_the_solution_without_it(scan: Scan) -> None:
    result = total_variation(scan.kspace, scan.mask, scan.maps)
    assert scan.error(result.image) < 0.8 * scan.error(cg_sense(scan.kspace, scan.mask, scan.maps).image)
    assert 0 < result.settings["regularisation"] < 0.1
    assert result.reason in ("converged", "iterations")


def test_a_strong_weight_leaves_a_constant_and_none_leaves_least_squares(scan: Scan) -> None:
    maps = torch.ones(1, 1, 16, 12, dtype=torch.complex128)
    image = complex_normal((1, 16, 12)) + 2
    options = {"iterations": 100, "tolerance": 1e-8, "inner": 10}
    flat = total_variation(fft2c(image), torch.ones(16, 12), maps, regularisation=100.0, **options).image
    torch.testing.assert_close(flat, image.mean().expand(16, 12), rtol=1e-4, atol=1e-4)
    same = total_variation(fft2c(image), torch.ones(16, 12), maps, regularisation=0.0, **options).image
    torch.testing.assert_close(same, image[0], rtol=1e-5, atol=1e-5)


@pytest.mark.parametrize("factor", [1e13, 1e-13])
def test_the_units_of_k_space_do_not_matter(scan: Scan, factor: float) -> None:
    one = total_variation(scan.kspace, scan.mask, scan.maps, iterations=6)
    other = total_variation(scan.kspace * factor, scan.mask, scan.maps, iterations=6)
    torch.testing.assert_close(other.image / factor, one.image, rtol=1e-3, atol=1e-5)


def test_a_batch_is_reconstructed_as_its_slices_one_by_one_and_zeros_stay_zero(scan: Scan) -> None:
    y = torch.stack([scan.kspace, 1e4 * scan.kspace.flip(-2), torch.zeros_like(scan.kspace)])
    maps = torch.stack([scan.maps, scan.maps.flip(-2), scan.maps])
    together = total_variation(y, scan.mask, maps, tolerance=1e-2)
    assert together.reason == "converged"
    for number in range(3):
        alone = total_variation(y[number], scan.mask, maps[number], tolerance=1e-2)
        torch.testing.assert_close(together.image[number], alone.image, rtol=1e-3, atol=1e-3 * 1e4 ** (number == 1))
    assert not together.image[2].any()


def test_two_map_sets_give_two_images(scan: Scan) -> None:
    both = torch.cat([scan.maps, torch.zeros_like(scan.maps)])
    found = total_variation(scan.kspace, scan.mask, both, iterations=6).image
    assert found.shape == (2, 64, 56)
    assert not found[1].any()
    assert bool(torch.isfinite(found.abs()).all())


def test_bad_input_is_refused(scan: Scan) -> None:
    with pytest.raises(ConfigError, match="regularisation: expected a number >= 0"):
        total_variation(scan.kspace, scan.mask, scan.maps, regularisation=float("nan"))


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
        command = ["bart", "pics", "-S", "-R", f"T:6:0:{weight}", "-i", "100", "k", "s", "x"]
        subprocess.run(command, cwd=tmp_path, check=True, capture_output=True)
        errors.append(scan.error(torch.from_numpy(np.squeeze(read_cfl(tmp_path / "x.cfl")).copy())))
    assert min(errors) < 0.1  # BART's image is one
    assert scan.error(total_variation(scan.kspace, scan.mask, scan.maps).image) < 1.05 * min(errors)


def test_operator_and_method_agree_on_the_data(scan: Scan) -> None:
    """What was sampled is explained up to about the noise."""
    found = total_variation(scan.kspace, scan.mask, scan.maps).image
    rest = scan.kspace - SenseOperator(scan.maps, scan.mask)(found[None])
    level = float(torch.linalg.vector_norm(rest) / (scan.mask.sum() * 64 * 6) ** 0.5)
    assert 0.005 < level < 0.06
