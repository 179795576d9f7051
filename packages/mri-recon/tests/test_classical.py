"""ESPIRiT and CG-SENSE against SigPy, the closed-form phantom and dense algebra."""

import shutil
import subprocess
from pathlib import Path

import numpy as np
import pytest
import torch

from mri_io.simulate import ellipse_phantom, shepp_logan
from mri_recon.calibration import EspiritConfig, espirit
from mri_recon.classical import cg_sense, zero_filled
from mri_recon.errors import ConfigError
from mri_recon.metrics import psnr
from mri_recon.physics import SenseOperator, equispaced_mask
from mri_recon.testing import complex_normal


@pytest.fixture(scope="module")
def scan() -> dict[str, torch.Tensor]:
    phantom = ellipse_phantom(shepp_logan(), (96, 80), coils=6)
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


def map_error(maps: torch.Tensor, other: torch.Tensor) -> float:
    """Return 1 - |<s, s'>|^2 of unit maps, averaged where both have support."""
    both = (maps.abs().sum(dim=0) > 0) & (other.abs().sum(dim=0) > 0)
    unit = [m / m.abs().square().sum(dim=0).sqrt().clamp_min(1e-12) for m in (maps, other)]
    return float((1 - (unit[0].conj() * unit[1]).sum(dim=0).abs().square())[both].mean())


def test_espirit_finds_the_true_sensitivities(scan: dict[str, torch.Tensor]) -> None:
    maps = espirit(centre(scan["kspace"]), (96, 80), EspiritConfig(crop=0.9))[0]
    assert map_error(maps, scan["maps"]) < 2e-3
    support = maps.abs().sum(dim=0) > 0
    inside = scan["image"].abs() > 0.05
    assert float(support[inside].float().mean()) > 0.95
    norm = maps.abs().square().sum(dim=0)[support]
    torch.testing.assert_close(norm, torch.ones_like(norm), rtol=1e-4, atol=1e-4)


def test_espirit_agrees_with_sigpy(scan: dict[str, torch.Tensor]) -> None:
    sigpy_mri = pytest.importorskip("sigpy.mri")
    app = sigpy_mri.app.EspiritCalib(
        scan["kspace"].numpy(), calib_width=24, thresh=0.02, kernel_width=6, crop=0.9, show_pbar=False
    )
    theirs = torch.from_numpy(np.asarray(app.run()))
    ours = espirit(centre(scan["kspace"]), (96, 80), EspiritConfig(crop=0.9))[0]
    assert map_error(ours, theirs) < 1e-4
    supports = [m.abs().sum(dim=0) > 0 for m in (ours, theirs)]
    assert float((supports[0] == supports[1]).float().mean()) > 0.98


def test_espirit_refuses_what_it_cannot_calibrate(scan: dict[str, torch.Tensor]) -> None:
    with pytest.raises(ConfigError, match="6 x 6"):
        espirit(centre(scan["kspace"], 4), (96, 80))
    with pytest.raises(ConfigError, match="all zero"):
        espirit(torch.zeros(4, 24, 24, dtype=torch.complex64), (96, 80))


def test_cg_solves_the_regularised_normal_equations_exactly() -> None:
    maps, y = complex_normal((1, 3, 5, 4)), complex_normal((3, 5, 4), seed=1)
    mask = torch.tensor([[1.0, 1, 0, 1]]).double()
    operator = SenseOperator(maps, mask)
    columns = [operator.normal(e.view(1, 5, 4)).flatten() for e in torch.eye(20, dtype=torch.complex128)]
    matrix = torch.stack(columns, dim=1) + 0.1 * torch.eye(20)
    expected = torch.linalg.solve(matrix, operator.adjoint(mask * y).flatten())
    result = cg_sense(mask * y, mask, maps, regularisation=0.1, iterations=100, tolerance=1e-12)
    torch.testing.assert_close(result.image.flatten(), expected, rtol=1e-8, atol=1e-8)
    assert result.reason == "converged"
    assert cg_sense(mask * y, mask, maps, iterations=2, tolerance=1e-12).reason == "iterations"
    again = cg_sense(mask * y, mask, maps, regularisation=0.1, tolerance=1e-9, start=result.image)
    assert again.iterations == 0


def test_cg_sense_agrees_with_sigpy(scan: dict[str, torch.Tensor]) -> None:
    sigpy_mri = pytest.importorskip("sigpy.mri")
    mask = torch.from_numpy(equispaced_mask(80, 4, 0.08, seed=0)).float()[None]
    maps = espirit(centre(scan["kspace"], 12), (96, 80))
    y = scan["kspace"] * mask
    lamda = 0.01
    app = sigpy_mri.app.SenseRecon(
        y.numpy(),
        maps[0].numpy(),
        lamda=lamda,
        weights=np.broadcast_to(mask.numpy(), y.shape),
        max_iter=30,
        show_pbar=False,
        tol=0,
    )
    theirs = torch.from_numpy(np.asarray(app.run()))
    ours = cg_sense(y, mask, maps, regularisation=lamda, iterations=30, tolerance=0).image
    inside = maps[0].abs().sum(dim=0) > 0
    error = torch.linalg.vector_norm((ours - theirs)[inside]) / torch.linalg.vector_norm(theirs[inside])
    assert float(error) < 1e-4


@pytest.mark.skipif(shutil.which("bart") is None, reason="BART is not installed")
def test_cg_sense_agrees_with_bart(scan: dict[str, torch.Tensor], tmp_path: Path) -> None:
    mask = torch.from_numpy(equispaced_mask(80, 4, 0.08, seed=0)).float()[None]
    maps = espirit(centre(scan["kspace"], 12), (96, 80))
    y = scan["kspace"] * mask
    for name, array in (("k", y), ("s", maps[0])):
        (tmp_path / f"{name}.hdr").write_text("# Dimensions\n1 96 80 6\n")
        array.permute(1, 2, 0).numpy()[None].ravel(order="F").tofile(tmp_path / f"{name}.cfl")
    command = ["bart", "pics", "-S", "-w", "1", "-l2", "-r", "0.01", "-i", "30", "k", "s", "x"]
    subprocess.run(command, cwd=tmp_path, check=True, capture_output=True)
    theirs = torch.from_numpy(np.fromfile(tmp_path / "x.cfl", np.complex64).reshape((96, 80), order="F").copy())
    ours = cg_sense(y, mask, maps, regularisation=0.01, iterations=30, tolerance=0).image
    inside = maps[0].abs().sum(dim=0) > 0
    error = torch.linalg.vector_norm((ours - theirs)[inside]) / torch.linalg.vector_norm(theirs[inside])
    assert float(error) < 1e-4


def test_a_batch_is_reconstructed_as_its_slices_one_by_one(scan: dict[str, torch.Tensor]) -> None:
    mask = torch.from_numpy(equispaced_mask(80, 4, 0.08, seed=0)).float()[None]
    maps = espirit(centre(scan["kspace"], 12), (96, 80))
    y = torch.stack([scan["kspace"], 50 * scan["kspace"].flip(-2)]) * mask
    both = cg_sense(y, mask, torch.stack([maps, maps.flip(-2)]), iterations=12, tolerance=0).image
    alone = cg_sense(y[:1], mask, maps[None], iterations=12, tolerance=0).image
    torch.testing.assert_close(both[:1], alone, rtol=1e-4, atol=1e-5)


def test_cg_sense_beats_zero_filling_by_far(scan: dict[str, torch.Tensor]) -> None:
    mask = torch.from_numpy(equispaced_mask(80, 3, 0.15, seed=0)).float()[None]
    maps = espirit(centre(scan["kspace"], 12), (96, 80))
    reference = zero_filled(scan["kspace"], maps).abs().numpy()[None]
    zero = zero_filled(scan["kspace"] * mask, maps).abs().numpy()[None]
    cg = cg_sense(scan["kspace"] * mask, mask, maps).image.abs().numpy()[None]
    assert psnr(reference, cg) > psnr(reference, zero) + 6


@pytest.mark.realdata
def test_prospective_scan_of_a_brain_reaches_the_established_tools(real_data) -> None:
    from mri_io.formats.bart import read_cfl
    from mri_recon.metrics import least_squares_scale
    from mri_recon.physics import calibration_region

    def load(name: str) -> torch.Tensor:
        data = read_cfl(real_data / "kspace_brain8ch" / f"{name}.cfl")
        return torch.from_numpy(np.ascontiguousarray(data[0].transpose(2, 0, 1)))

    full, under = load("full"), load("und2x2")
    pattern = (under.abs().sum(dim=0) > 0).numpy()
    maps_full = espirit(centre(full), (230, 180))
    reference = zero_filled(full, maps_full).abs().numpy()[None]
    maps = espirit(under[(slice(None), *calibration_region(pattern))], (230, 180))
    image = cg_sense(under, torch.from_numpy(pattern).float(), maps).image.abs().numpy()[None]
    zero = zero_filled(under, maps).abs().numpy()[None]
    found = psnr(reference, least_squares_scale(reference, image) * image)
    assert found >= 35.5  # BART and SigPy: 35.9
    assert psnr(reference, least_squares_scale(reference, zero) * zero) == pytest.approx(23.5, abs=0.3)
