"""Networks beyond parity: gradients, independence within a batch, use of every input, odd sizes, learning."""

import numpy as np
import pytest
import torch

from mri_io.simulate import ellipse_phantom, shepp_logan
from mri_recon.classical import cg_sense
from mri_recon.config import RunConfig, VarNetConfig
from mri_recon.cropping import center_crop
from mri_recon.data import ExampleTransform, masks_of_batch
from mri_recon.errors import ShapeError
from mri_recon.inference import apply_network
from mri_recon.losses import LOSSES
from mri_recon.networks import VarNet, build_network
from mri_recon.physics import combine, equispaced_mask, expand, fft2c, ifft2c
from mri_recon.testing import complex_normal
from mri_recon.training import HIGHEST_PSNR, mean_psnr

LINES = torch.tensor([1.0, 0, 1, 0, 0, 1, 1, 1, 1, 1, 1, 0, 0, 1, 0, 1, 0, 0]).view(1, 1, 1, 18)


def example(batch: int = 2, rows: int = 21, seed: int = 0) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
    """Return k-space of lines, their mask, and normalised coil maps."""
    kspace = complex_normal((batch, 3, rows, 18), seed, torch.complex64) * LINES
    maps = complex_normal((batch, 1, 3, rows, 18), seed + 1, torch.complex64)
    return kspace, LINES.expand(batch, -1, -1, -1), maps / maps.abs().square().sum(dim=2, keepdim=True).sqrt()


def network(combination: str = "sense", sens_channels: int = 2) -> VarNet:
    torch.manual_seed(0)
    return VarNet(cascades=2, channels=3, pools=2, sens_channels=sens_channels, sens_pools=2, combination=combination)


@pytest.mark.parametrize("combination", ["sense", "rss"])
def test_every_parameter_but_the_first_data_weight_gets_a_gradient(combination: str) -> None:
    kspace, mask, _ = example()
    net = network(combination)
    image = net(kspace, mask).image
    # Against random numbers: a plain sum of an instance-normalised network has zero gradient by construction.
    (image.abs() - torch.rand(image.shape, generator=torch.Generator().manual_seed(3))).square().sum().backward()
    assert all(p.grad is not None for p in net.parameters())
    without = [name for name, p in net.named_parameters() if not torch.any(p.grad)]
    # The published model starts at k = y, so the first data term M (k - y) is zero whatever its weight.
    assert without == ["cascades.0.dc_weight"]


def test_cascades_share_no_weights() -> None:
    net = network(sens_channels=0)
    block = sum(p.numel() for p in net.cascades[0].parameters())
    assert sum(p.numel() for p in net.parameters()) == 2 * block
    assert net.cascades[0].model is not net.cascades[1].model


@pytest.mark.parametrize("stored", [True, False])
def test_the_output_does_not_depend_on_the_rest_of_the_batch(stored: bool) -> None:
    kspace, mask, maps = example()
    net = network().eval()
    with torch.inference_mode():
        both = net(kspace * torch.tensor([1.0, 40.0]).view(2, 1, 1, 1), mask, maps if stored else None).image
        alone = net(kspace[:1], mask[:1], maps[:1] if stored else None).image
    torch.testing.assert_close(both[:1], alone, rtol=1e-4, atol=1e-5)


def test_k_space_mask_and_maps_all_matter() -> None:
    kspace, mask, maps = example(1)
    net = network(sens_channels=0).eval()
    with torch.inference_mode():
        first = net(kspace, mask, maps).image
        for changed in (
            (kspace.flip(1), mask, maps),
            (kspace, torch.ones_like(mask), maps),
            (kspace, mask, maps.flip(2)),
        ):
            other = net(*changed).image
            assert float((other - first).abs().max()) > 1e-3 * float(first.abs().max())


def test_without_refinement_a_cascade_is_hard_data_consistency() -> None:
    kspace, mask, maps = example(1)
    net = network(sens_channels=0).eval()
    for cascade in net.cascades:
        cascade.model.forward = torch.zeros_like  # type: ignore[method-assign]
    with torch.inference_mode():
        image = net(kspace, mask, maps).image
    torch.testing.assert_close(image, combine(ifft2c(kspace), maps)[:, 0])


def test_masks_of_rows_are_those_of_columns_transposed() -> None:
    """The sensitivity network finds the central lines along either axis."""
    from mri_recon.networks.varnet import central_lines

    columns = central_lines(LINES)
    torch.testing.assert_close(central_lines(LINES.transpose(-1, -2)), columns.transpose(-1, -2))
    assert columns.flatten().nonzero().flatten().tolist() == [7, 8, 9, 10]


def test_maps_are_not_estimated_from_a_mask_of_points() -> None:
    kspace, mask, maps = example()
    points = mask.expand(-1, -1, 21, -1)
    with pytest.raises(ShapeError, match=r"mask: expected lines.*got \(2, 1, 21, 18\)\. .*model\.coil_maps: stored"):
        network()(kspace, points, None)
    with torch.inference_mode():
        torch.testing.assert_close(network()(kspace, points, maps).image, network()(kspace, mask, maps).image)


@pytest.mark.parametrize("name", sorted(LOSSES))
def test_losses_are_zero_at_the_target_and_scale_free(name: str) -> None:
    loss, target = LOSSES[name](), complex_normal((2, 16, 16), 0, torch.complex64)
    other, peak = complex_normal((2, 16, 16), 1, torch.complex64), target.abs().amax(dim=(-2, -1))
    assert float(loss(target, target, peak)) == pytest.approx(0, abs=1e-5)
    assert float(loss(other, target, peak)) > 0.1
    assert float(loss(7 * other, 7 * target, 7 * peak)) == pytest.approx(float(loss(other, target, peak)), rel=1e-4)


@pytest.mark.parametrize("name", sorted(LOSSES))
def test_targets_of_zeros_do_not_count_in_a_loss(name: str) -> None:
    loss, target = LOSSES[name](), complex_normal((3, 16, 16), 0, torch.complex64)
    target[1] = 0
    image = complex_normal((3, 16, 16), 1, torch.complex64).requires_grad_()
    peak = target.abs().amax(dim=(-2, -1))
    value = loss(image, target, peak)
    assert value.item() == pytest.approx(loss(image[::2], target[::2], peak[::2]).item(), rel=1e-5)
    value.backward()
    assert image.grad is not None
    assert torch.isfinite(torch.view_as_real(image.grad)).all()
    assert [bool(torch.any(image.grad[n])) for n in range(3)] == [True, False, True]
    empty = loss(image[1:2], target[1:2], peak[1:2])
    assert (empty.item(), empty.requires_grad) == (0, True)


def test_the_psnr_of_a_perfect_slice_is_finite() -> None:
    target = torch.rand(2, 16, 16, generator=torch.Generator().manual_seed(0))
    peak = target.amax(dim=(-2, -1))
    assert float(mean_psnr(target, target, peak)) == pytest.approx(HIGHEST_PSNR)
    assert float(mean_psnr(target + 0.1 * peak[:, None, None], target, peak)) == pytest.approx(20, abs=1e-3)


@pytest.mark.parametrize(("full", "part"), [((9, 8), (4, 4)), ((6, 7), (3, 7)), ((5, 5), (5, 4))])
def test_the_central_part_is_fastmris(full: tuple[int, int], part: tuple[int, int]) -> None:
    image = np.arange(2 * full[0] * full[1]).reshape(2, *full)
    top, left = int((full[0] - part[0]) / 2), int((full[1] - part[1]) / 2)
    np.testing.assert_array_equal(center_crop(image, part), image[:, top : top + part[0], left : left + part[1]])
    with pytest.raises(ShapeError, match="target: expected a grid no larger than that of the reconstruction, "):
        center_crop(image, (full[0] + 1, 1))


def test_masks_of_lines_and_of_points_are_one_batch() -> None:
    """Volumes of one batch may have acquired other patterns."""
    points = (torch.rand(1, 21, 18, generator=torch.Generator().manual_seed(0)) > 0.5).float()
    masks = masks_of_batch([LINES[0], points])
    assert masks.shape == (2, 1, 21, 18)
    assert torch.equal(masks[0], LINES[0].expand(1, 21, 18))
    assert torch.equal(masks[1], points)


def slice_of_phantom(matrix: tuple[int, int] = (64, 56)) -> dict[str, np.ndarray]:
    """Return what `SliceDataset` gives for one slice: k-space, normalised maps and the coil-combined reference."""
    scan = ellipse_phantom(shepp_logan(), matrix, coils=4)
    maps = torch.from_numpy(scan.sensitivities).to(torch.complex64)[None]
    maps = maps / maps.abs().square().sum(dim=1, keepdim=True).sqrt()
    kspace = torch.from_numpy(scan.kspace).to(torch.complex64)
    reference = combine(ifft2c(kspace), maps)[0]
    return {"kspace": kspace.numpy(), "sens/espirit": maps.numpy(), "recon/reference": reference.numpy()}


def test_the_scaling_of_the_input_is_undone_on_the_output() -> None:
    config = RunConfig(model=VarNetConfig(coil_maps="stored"))
    transform = ExampleTransform(config.data, with_maps=True)
    sample = slice_of_phantom()
    mask = torch.from_numpy(equispaced_mask(56, 4, 0.1, seed=0)).float()[None, None]
    one = transform.example({**sample, "volume_id": "v"}, mask)
    louder = {key: value * (1e-6 if key != "sens/espirit" else 1) for key, value in sample.items()}
    two = transform.example({**louder, "volume_id": "v"}, mask)
    torch.testing.assert_close(one["kspace"], two["kspace"], rtol=1e-4, atol=1e-6)
    torch.testing.assert_close(one["target"], two["target"], rtol=1e-4, atol=1e-6)
    assert not torch.any(one["kspace"] * (1 - mask))
    torch.testing.assert_close(one["target"] * one["scale"][0, 0, 0], torch.from_numpy(sample["recon/reference"]))


def test_a_trained_network_answers_in_the_units_of_each_slice() -> None:
    model = network().eval()
    kspace, mask, maps = example(batch=2)
    units = torch.tensor([1.0, 1e-5])[:, None, None, None]
    with torch.no_grad():
        one, two = apply_network(model, kspace, mask, maps), apply_network(model, kspace * units, mask, maps)
    torch.testing.assert_close(two, one * units[..., 0], rtol=1e-4, atol=1e-9)


def test_overfitting_one_slice_beats_zero_filling_by_ten_decibels() -> None:
    config = RunConfig(model=VarNetConfig(cascades=3, channels=8, pools=2, coil_maps="stored"))
    mask = torch.from_numpy(equispaced_mask(56, 4, 0.1, seed=0)).float()[None, None]
    sample = {**slice_of_phantom(), "volume_id": "v"}
    example = ExampleTransform(config.data, with_maps=True).example(sample, mask)
    kspace, maps, target = (example[key][None] for key in ("kspace", "maps", "target"))
    zero_filled = combine(ifft2c(kspace), maps)[:, 0]
    torch.manual_seed(0)
    net = build_network(config.model)
    optimizer = torch.optim.Adam(net.parameters(), lr=3e-3)
    for _ in range(150):
        optimizer.zero_grad()
        loss = (net(kspace, mask[None], maps).image - target).abs().mean()
        loss.backward()
        optimizer.step()
    with torch.inference_mode():
        image = net(kspace, mask[None], maps).image
    gain = 10 * torch.log10((zero_filled - target).abs().square().mean() / (image - target).abs().square().mean())
    assert float(gain) >= 10


def test_an_untrained_residual_network_hardly_changes_its_start() -> None:
    kspace, mask, maps = example()
    torch.manual_seed(0)
    options = {"cascades": 1, "channels": 3, "pools": 2, "sens_channels": 0, "combination": "sense"}
    start = combine(ifft2c(kspace), maps)[:, 0]
    with torch.inference_mode():
        quiet = VarNet(**options, residual=True)(kspace, mask, maps).image
        published = VarNet(**options)(kspace, mask, maps).image
    assert torch.linalg.norm(quiet - start) < 0.01 * torch.linalg.norm(start)
    assert torch.linalg.norm(published - start) > 0.1 * torch.linalg.norm(start)


def test_the_cg_sense_start_fills_in_what_was_not_measured_and_keeps_what_was() -> None:
    kspace, mask, maps = example()
    start = VarNet(cascades=1, channels=3, pools=2, sens_channels=0, start_iterations=40)._start(kspace, mask, maps)
    torch.testing.assert_close(start * mask, kspace, rtol=0, atol=0)
    solution = cg_sense(kspace, mask, maps, iterations=40).image
    predicted = fft2c(expand(solution[:, None], maps))
    torch.testing.assert_close(start * (1 - mask), predicted * (1 - mask), rtol=1e-4, atol=1e-5)
    assert torch.any(start * (1 - mask))
