"""Walsh, Inati, low-resolution maps and JSENSE against known maps, dense algebra and SigPy."""

import numpy as np
import pytest
import torch

from mri_io.simulate import ellipse_phantom, shepp_logan
from mri_recon.calibration import (
    InatiConfig,
    JsenseConfig,
    LowResolutionConfig,
    WalshConfig,
    apply_support,
    inati,
    inati_maps,
    jsense,
    low_resolution,
    low_resolution_support,
    walsh,
    walsh_maps,
)
from mri_recon.errors import ConfigError
from mri_recon.physics import fft2c, ifft2c
from mri_recon.testing import complex_normal

SHAPE = (64, 56)
METHODS = {
    "walsh": (walsh, WalshConfig()),
    "inati": (inati, InatiConfig()),
    "low-resolution": (low_resolution, LowResolutionConfig()),
    "jsense": (jsense, JsenseConfig()),
    "jsense-polynomial": (jsense, JsenseConfig(basis="polynomial", order=8)),
}


@pytest.fixture(scope="module")
def scan() -> dict[str, torch.Tensor]:
    phantom = ellipse_phantom(shepp_logan(), SHAPE, coils=5)
    noise = 0.003 * complex_normal(phantom.kspace.shape, seed=0)
    kspace = (torch.from_numpy(phantom.kspace) + noise).to(torch.complex64)
    y, x = (n // 2 - 12 for n in SHAPE)
    return {
        "kspace": kspace,
        "centre": kspace[:, y : y + 24, x : x + 24],
        "maps": torch.from_numpy(phantom.sensitivities),
        "inside": torch.from_numpy(phantom.image).abs() > 0.05,
    }


def angle(maps: torch.Tensor, other: torch.Tensor, where: torch.Tensor) -> float:
    """Return the mean of 1 - |<s, s'>|^2 of unit maps."""
    unit = [m / m.abs().square().sum(dim=0).sqrt().clamp_min(1e-12) for m in (maps, other)]
    return float((1 - (unit[0].conj() * unit[1]).sum(dim=0).abs().square())[where].mean())


@pytest.mark.parametrize("name", METHODS)
def test_methods_find_known_maps_of_norm_one_in_any_units(scan, name):
    method, config = METHODS[name]
    maps = method(scan["centre"], SHAPE, config)
    assert maps.shape == (1, 5, *SHAPE)
    norm = maps.abs().square().sum(dim=1)[0]
    support = norm > 0
    torch.testing.assert_close(norm[support], torch.ones_like(norm[support]), rtol=1e-4, atol=1e-4)
    assert float(support[scan["inside"]].float().mean()) > 0.99
    assert float(support.float().mean()) < 0.8
    assert angle(maps[0], scan["maps"], support & scan["inside"]) < 8e-3
    for factor in (1e13, 1e-13):
        other = method(scan["centre"] * factor, SHAPE, config)
        assert torch.equal(other.abs() > 0, maps.abs() > 0)
        assert angle(other[0], maps[0], support) < 1e-4


@pytest.mark.parametrize("name", METHODS)
def test_methods_refuse_zeros_and_nan_and_take_one_coil_and_odd_grids(scan, name):
    method, config = METHODS[name]
    with pytest.raises(ConfigError, match="all zero"):
        method(torch.zeros_like(scan["centre"]), SHAPE, config)
    with pytest.raises(ConfigError, match="finite"):
        method(torch.full_like(scan["centre"], complex("inf")), SHAPE, config)
    one = method(scan["centre"][:1, :23, :21], (33, 47), config)
    assert bool(torch.isfinite(one.abs()).all())
    values = one.abs()[one != 0]
    torch.testing.assert_close(values, torch.ones_like(values), rtol=1e-4, atol=1e-4)


def test_walsh_maps_are_the_eigenvectors_of_the_local_covariance(scan):
    images = ifft2c(scan["kspace"])
    maps = walsh_maps(images, 3)
    dark = 1e-3  # at the last pixel, of 1 % of the brightest coil image: fewer products
    for y, x, tolerance in ((30, 28, 1e-5), (20, 30, 1e-5), (32, 14, 1e-5), (40, 25, dark)):
        box = images[:, y - 1 : y + 2, x - 1 : x + 2].flatten(1)
        leading = torch.linalg.eigh(box @ box.mH)[1][:, -1]
        assert float((leading.conj() * maps[:, y, x]).sum().abs()) > 1 - tolerance


def test_inati_reaches_the_maps_of_walsh_where_there_is_a_signal(scan):
    images = ifft2c(scan["kspace"])
    signal = scan["inside"]
    assert angle(inati_maps(images, 5, 30), walsh_maps(images, 5), signal) < 1e-3


@pytest.mark.parametrize("basis", ["kernel", "polynomial"])
def test_jsense_finds_maps_that_its_basis_can_make_exactly(basis):
    y, x = torch.meshgrid(torch.linspace(-1, 1, 49)[:-1], torch.linspace(-1, 1, 49)[:-1], indexing="ij")
    waves = [torch.exp(1j * torch.pi * (a * y + b * x)) for a, b in ((0, 0), (1, 0), (0, 1), (-1, 0))]
    powers = [torch.ones_like(y), y, x, y * x]
    weights = complex_normal((4, 4), seed=1).to(torch.complex64)
    weights[:, 0] += 3
    terms = torch.stack(waves if basis == "kernel" else powers).to(torch.complex64)
    maps = torch.einsum("cp,pyx->cyx", weights, terms)
    image = torch.exp(-4 * (y**2 + x**2)) * (1 + 0.5 * torch.cos(12 * y))
    kspace = fft2c(maps * image)[:, 12:36, 12:36]
    config = JsenseConfig(basis=basis, order=3 if basis == "kernel" else 2, regularisation=1e-6, iterations=30)
    found = jsense(kspace, (48, 48), config)[0]
    plain = low_resolution(kspace, (48, 48))[0]
    inside = (y**2 + x**2 < 0.4) & (found.abs().sum(dim=0) > 0) & (plain.abs().sum(dim=0) > 0)
    assert angle(found, maps, inside) < 2e-4
    assert angle(found, maps, inside) < angle(plain, maps, inside)


def test_jsense_is_as_good_as_sigpy(scan):
    app = pytest.importorskip("sigpy.mri").app
    theirs = torch.from_numpy(
        np.asarray(app.JsenseRecon(scan["kspace"].numpy(), mps_ker_width=8, ksp_calib_width=24, show_pbar=False).run())
    )
    ours = jsense(scan["centre"], SHAPE)[0]
    where = scan["inside"] & (ours.abs().sum(dim=0) > 0)
    assert angle(ours, scan["maps"], where) <= 1.1 * angle(theirs, scan["maps"], where)


def test_support_is_where_the_signal_is():
    images = torch.zeros(2, 3, 32, 32, dtype=torch.complex64)
    images[0, :, 8:20, 10:22] = 1 + 1j
    images[1, 0, 4:28, 4:28] = 1e-13
    support = low_resolution_support(images, 0.5)
    assert int(support[0].sum()) == 14 * 14  # grown by one pixel
    assert int(support[1].sum()) == 26 * 26
    maps = torch.ones(2, 1, 3, 32, 32, dtype=torch.complex64)
    assert torch.equal(apply_support(maps, support)[:, 0, 0].real > 0, support)
