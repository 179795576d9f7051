"""GRAPPA against fully sampled phantoms, a direct implementation of the equation, and pygrappa when it is installed."""

from importlib import import_module

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from mri_io.simulate import ellipse_phantom, shepp_logan
from mri_recon.classical.grappa import GrappaConfig, automatic_kernel, grappa, grappa_kspace
from mri_recon.errors import ConfigError, ShapeError
from mri_recon.physics import combine, equispaced_mask, ifft2c, root_sum_of_squares
from mri_recon.testing import complex_normal

GRID = (80, 72)
LEVEL = 0.003


@pytest.fixture(scope="module")
def phantom() -> tuple[torch.Tensor, torch.Tensor]:
    scan = ellipse_phantom(shepp_logan(), GRID, coils=5)
    return torch.from_numpy(scan.kspace), torch.from_numpy(scan.sensitivities)


@pytest.fixture(scope="module")
def kspace(phantom: tuple[torch.Tensor, torch.Tensor]) -> torch.Tensor:
    return phantom[0] + LEVEL * complex_normal(phantom[0].shape, dtype=torch.complex64)


def lines(acceleration: int = 3, centre: float = 0.25) -> torch.Tensor:
    return torch.from_numpy(equispaced_mask(GRID[1], acceleration, centre, seed=0)).float()[None]


def grid(step_y: int, step_x: int, shift: int = 0, centre: int = 20) -> torch.Tensor:
    """Return every n-th position along both axes, rows shifted as in CAIPIRINHA, and a full centre."""
    mask = torch.zeros(GRID)
    for number, row in enumerate(range(0, GRID[0], step_y)):
        mask[row, number * shift % step_x :: step_x] = 1
    y, x = (n // 2 - centre // 2 for n in GRID)
    mask[y : y + centre, x : x + centre] = 1
    return mask


def scattered(share: float = 0.45) -> torch.Tensor:
    mask = (torch.rand(GRID, generator=torch.Generator().manual_seed(2)) < share).float()
    mask[30:50, 26:46] = 1
    return mask


PATTERNS = {"lines": lines(), "rows": None, "2x2": grid(2, 2), "caipirinha": grid(2, 2, 1), "scattered": scattered()}
PATTERNS["rows"] = torch.from_numpy(equispaced_mask(GRID[0], 3, 0.25, seed=1)).float()[:, None]


def missing_error(found: torch.Tensor, truth: torch.Tensor) -> float:
    return float((found - truth).abs().square().sum() / truth.abs().square().sum())


@pytest.mark.parametrize("name", PATTERNS)
def test_missing_samples_come_back_and_acquired_ones_stay(
    name: str, kspace: torch.Tensor, phantom: tuple[torch.Tensor, torch.Tensor]
) -> None:
    mask = PATTERNS[name]
    y = kspace * mask
    filled = grappa_kspace(y, mask)
    assert torch.equal(torch.where(mask != 0, filled, 0), y)
    assert missing_error(filled, phantom[0]) < 0.25 * missing_error(y, phantom[0])


@settings(max_examples=8)
@given(
    ny=st.integers(9, 14),
    nx=st.integers(9, 14),
    kernel=st.tuples(st.integers(1, 5), st.integers(1, 5)),
    coils=st.integers(1, 3),
    seed=st.integers(0, 9),
)
def test_it_is_the_equation_position_by_position(
    ny: int, nx: int, kernel: tuple[int, int], coils: int, seed: int
) -> None:
    """Windows, picking, padding and grouping, against loops over positions in NumPy; odd and even sizes."""
    height, width = kernel
    full = complex_normal((coils, ny, nx), seed)
    calibration = complex_normal((coils, 8, 9), seed + 20)
    mask = torch.rand((ny, nx), generator=torch.Generator().manual_seed(seed)) < 0.5
    mask[ny // 2, nx // 2] = True
    found = grappa_kspace(full * mask, mask, kernel=kernel, regularisation=0.01, noise=0.0, calibration=calibration)
    before = height // 2, width // 2
    k = np.pad((full * mask).numpy(), ((0, 0), (before[0], height), (before[1], width)))
    m = np.pad(mask.numpy(), ((before[0], height), (before[1], width)))
    rows = [
        calibration[:, y : y + height, x : x + width].numpy()
        for y in range(8 - height + 1)
        for x in range(9 - width + 1)
    ]
    for y in range(ny):
        for x in range(nx):
            near = m[y : y + height, x : x + width]
            if mask[y, x] or not near.any():
                expected = (full * mask)[:, y, x].numpy()
            else:
                a = np.stack([r[:, near].ravel() for r in rows])
                b = np.stack([r[:, before[0], before[1]] for r in rows])
                gram = a.conj().T @ a
                ridge = 0.01 * np.trace(gram).real / len(gram)
                weights = np.linalg.solve(gram + ridge * np.eye(len(gram)), a.conj().T @ b)
                expected = k[:, y : y + height, x : x + width][:, near].ravel() @ weights
            np.testing.assert_allclose(found[:, y, x].numpy(), expected, rtol=1e-8, atol=1e-8)


def test_the_noise_term_is_near_the_best_regularisation(phantom: tuple[torch.Tensor, torch.Tensor]) -> None:
    truth, mask = phantom[0], lines()
    for level in (0.005, 0.02):
        y = (truth + level * complex_normal(truth.shape, dtype=torch.complex64)) * mask
        tried = [
            missing_error(grappa_kspace(y, mask, regularisation=r, noise=0.0), truth) for r in np.logspace(-5, 0, 6)
        ]
        assert missing_error(grappa_kspace(y, mask, noise=level), truth) < 1.3 * min(tried)
        assert tried[0] > 1.1 * min(tried)  # so that the choice matters here


def test_images_are_combined_by_maps_or_root_sum_of_squares(
    kspace: torch.Tensor, phantom: tuple[torch.Tensor, torch.Tensor]
) -> None:
    mask, maps = lines(), phantom[1][None]
    filled = grappa_kspace(kspace * mask, mask)
    by_rss, by_maps = grappa(kspace * mask, mask), grappa(kspace * mask, mask, maps)
    torch.testing.assert_close(by_rss.image, root_sum_of_squares(ifft2c(filled)))
    torch.testing.assert_close(by_maps.image, combine(ifft2c(filled), maps)[0])
    assert by_maps.reason == "direct"
    assert by_maps.settings["kernel"] == (5, 7)
    two = torch.stack([phantom[1], phantom[1].roll(3, -1)])
    assert grappa(kspace * mask, mask, two).image.shape == (2, *GRID)


@pytest.mark.parametrize("factor", [1e13, 1e-13])
def test_units_and_the_rest_of_the_batch_do_not_matter(kspace: torch.Tensor, factor: float) -> None:
    mask = grid(2, 2)
    y = kspace * mask
    alone = grappa_kspace(y, mask)
    batch = torch.stack([factor * y, torch.zeros_like(y), y.flip(0)])[:, None]
    together = grappa_kspace(batch, mask)
    torch.testing.assert_close(together[0, 0] / factor, alone, rtol=1e-4, atol=1e-5)
    assert not together[1].any()
    torch.testing.assert_close(together[2, 0], grappa_kspace(y.flip(0), mask), rtol=1e-4, atol=1e-5)


def test_each_slice_may_have_its_own_pattern(kspace: torch.Tensor) -> None:
    masks = torch.stack([grid(2, 2), grid(1, 3), grid(2, 2)])[:, None]
    together = grappa_kspace(kspace * masks, masks, kernel=(5, 5))
    for number in range(3):
        alone = grappa_kspace(kspace * masks[number], masks[number], kernel=(5, 5))
        torch.testing.assert_close(together[number], alone)


def test_double_precision_and_one_coil_work(kspace: torch.Tensor) -> None:
    mask = grid(2, 2)
    y = kspace * mask
    double = grappa_kspace(y.to(torch.complex128), mask)
    assert double.dtype == torch.complex128
    torch.testing.assert_close(double.to(torch.complex64), grappa_kspace(y, mask), rtol=1e-3, atol=1e-3)
    assert torch.isfinite(torch.view_as_real(grappa_kspace(y[:1], mask))).all()


def test_pieces_do_not_change_the_result(kspace: torch.Tensor, monkeypatch: pytest.MonkeyPatch) -> None:
    mask = grid(2, 2)
    whole = grappa_kspace(kspace * mask, mask)
    monkeypatch.setattr(import_module("mri_recon.classical.grappa"), "BLOCK_BYTES", 200_000)
    monkeypatch.setattr("mri_recon.classical.kernels.BLOCK_BYTES", 200_000)
    torch.testing.assert_close(grappa_kspace(kspace * mask, mask), whole, rtol=1e-4, atol=1e-4)


def test_where_no_sample_is_near_it_stays_zero(kspace: torch.Tensor) -> None:
    mask = lines().clone()
    mask[:, : GRID[1] // 4] = 0
    filled = grappa_kspace(kspace * mask, mask, kernel=(5, 7))
    assert not filled[..., : GRID[1] // 4 - 3].any()
    assert filled[..., GRID[1] // 4 + 3 :].abs().amin() > 0


def test_the_automatic_kernel_follows_the_pattern(kspace: torch.Tensor) -> None:
    assert automatic_kernel(kspace, lines(4, 0.5)) == (5, 9)
    assert automatic_kernel(kspace, lines(2, 0.5)) == (5, 7)
    assert automatic_kernel(kspace, lines(4, 0.2)) == (5, 5)
    assert automatic_kernel(kspace, PATTERNS["rows"]) == (7, 5)
    assert automatic_kernel(kspace, grid(2, 2)) == (7, 7)
    assert automatic_kernel(kspace, grid(2, 2, centre=12)) == (5, 5)
    assert automatic_kernel(kspace, scattered()) == (5, 5)
    assert automatic_kernel(kspace, torch.ones(1, 1)) == (5, 5)
    assert GrappaConfig().model_dump() == {"kernel": None, "regularisation": 1e-4, "noise": None}


def test_bad_input_is_refused_with_what_to_do(kspace: torch.Tensor) -> None:
    mask = lines(3, 0.03)
    with pytest.raises(ConfigError, match=r"5 x 5 fully sampled central positions.*Use a smaller kernel"):
        grappa_kspace(kspace * mask, mask)
    with pytest.raises(ConfigError, match="samples nothing"):
        grappa_kspace(kspace, torch.zeros(1, 72))
    broken = kspace.clone()
    broken[0, 3, 4] = torch.nan
    with pytest.raises(ConfigError, match="not finite"):
        grappa_kspace(broken, lines())
    with pytest.raises(ShapeError, match="mask that broadcasts"):
        grappa_kspace(kspace, torch.ones(1, 50))
    with pytest.raises(ShapeError, match="calibration"):
        grappa_kspace(kspace * lines(), lines(), calibration=kspace[:2])
    with pytest.raises(ConfigError, match="kernel of at least"):
        grappa_kspace(kspace * lines(), lines(), kernel=(0, 5))


def test_error_is_at_most_that_of_pygrappa(kspace: torch.Tensor, phantom: tuple[torch.Tensor, torch.Tensor]) -> None:
    pygrappa = pytest.importorskip("pygrappa")
    for mask in (lines(), grid(2, 2)):
        y = kspace * mask
        theirs = torch.from_numpy(pygrappa.mdgrappa(y.numpy(), kernel_size=(5, 5), coil_axis=0))
        ours = grappa_kspace(y, mask, kernel=(5, 5))
        assert missing_error(ours, phantom[0]) <= missing_error(theirs, phantom[0])
