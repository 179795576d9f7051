"""Fourier, coil, sampling and SENSE operators over drawn shapes: adjoints, gradients, peers, the reduced problem."""

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from mri_io.errors import NonFiniteError
from mri_recon.classical import cg_sense
from mri_recon.errors import ConfigError, ShapeError
from mri_recon.physics import (
    CoilOperator,
    FourierOperator,
    SamplingOperator,
    SenseOperator,
    fftc,
    ifftc,
)
from mri_recon.physics.operators import power_iteration
from mri_recon.testing import assert_adjoint, assert_linear, complex_normal

sizes = st.integers(min_value=1, max_value=7)
draws = settings(max_examples=12, deadline=None)


def pattern(*shape: int, seed: int = 0) -> torch.Tensor:
    mask = (torch.rand(shape, generator=torch.Generator().manual_seed(seed)) > 0.5).double()
    mask.view(-1)[0] = 1
    return mask


@draws
@given(shape=st.lists(sizes, min_size=1, max_size=4), data=st.data())
def test_fft_over_any_axes_is_numpys(shape: list[int], data: st.DataObject) -> None:
    dims = data.draw(st.lists(st.integers(-len(shape), -1), unique=True))
    x = complex_normal(shape)
    expected = x.numpy()
    if dims:
        shifted = np.fft.ifftshift(expected, axes=dims)
        expected = np.fft.fftshift(np.fft.fftn(shifted, axes=dims, norm="ortho"), axes=dims)
    torch.testing.assert_close(fftc(x, dims), torch.from_numpy(np.ascontiguousarray(expected)))
    torch.testing.assert_close(ifftc(fftc(x, dims), dims), x)
    operator = FourierOperator(tuple(dims))
    assert_adjoint(operator.forward, operator.adjoint, shape)
    torch.testing.assert_close(operator.normal(x), operator.adjoint(operator.forward(x)))


def test_fft_agrees_with_sigpy() -> None:
    sigpy = pytest.importorskip("sigpy")
    x = complex_normal((2, 5, 8, 9))
    for dims in ((-1,), (-3, -1), (-3, -2, -1)):
        torch.testing.assert_close(fftc(x, dims), torch.from_numpy(sigpy.fft(x.numpy(), axes=dims)))


@draws
@given(grid=st.lists(sizes, min_size=2, max_size=3), sets=st.integers(1, 2), coils=st.integers(1, 3), data=st.data())
def test_sense_in_two_and_three_dimensions(grid: list[int], sets: int, coils: int, data: st.DataObject) -> None:
    spatial = len(grid)
    full = data.draw(st.lists(st.booleans(), min_size=spatial, max_size=spatial))
    mask = pattern(2, 1, *(1 if whole else n for whole, n in zip(full, grid, strict=True)))
    if data.draw(st.booleans()):
        mask = mask.expand(2, 1, *grid)
    maps = complex_normal((sets, coils, *grid))
    operator = SenseOperator(maps, mask, spatial=spatial)
    x = complex_normal((2, sets, *grid), seed=1)
    assert_adjoint(operator.forward, operator.adjoint, x.shape)
    assert_linear(operator.normal, x.shape)
    y = complex_normal(operator.forward(x).shape, seed=2)
    reduced, measured = operator.reduced(y)
    assert_adjoint(reduced.forward, reduced.adjoint, x.shape)
    expected = operator.adjoint(operator.forward(x))
    for found in (operator.normal(x), reduced.normal(x), reduced.adjoint(reduced.forward(x))):
        torch.testing.assert_close(found, expected)
    torch.testing.assert_close(operator.normal(x.clone().requires_grad_()).detach(), expected)
    torch.testing.assert_close(reduced.adjoint(measured), operator.adjoint(y))
    left, right = (reduced.forward(x) - measured).norm(), (operator.forward(x) - mask * y).norm()
    torch.testing.assert_close(left, right)
    composed = SamplingOperator(mask) @ FourierOperator(operator.dims) @ CoilOperator(maps, spatial=spatial)
    torch.testing.assert_close(composed(x), operator(x))
    torch.testing.assert_close(composed.H(y), operator.adjoint(y))
    torch.testing.assert_close(composed.normal(x), expected)


def test_lines_given_in_full_are_recognised() -> None:
    maps = complex_normal((1, 2, 6, 5))
    lines = torch.tensor([1.0, 0, 1, 1, 0])
    assert SenseOperator(maps, lines.expand(6, 5)).full_dims == (-2,)
    assert SenseOperator(maps, lines[None]).reduced(complex_normal((2, 6, 5)))[0].dims == (-1,)
    assert SenseOperator(maps, torch.ones(6, 5)).full_dims == (-2, -1)
    assert SenseOperator(maps, pattern(6, 5)).full_dims == ()
    nothing = SenseOperator(maps, torch.zeros(6, 5))
    assert float(nothing.norm()) == 0
    assert float(nothing.normal(complex_normal((1, 6, 5))).abs().max()) == 0


def test_static_maps_serve_frames_and_a_frame_does_not_see_the_others() -> None:
    maps, mask = complex_normal((1, 3, 6, 5)), pattern(4, 1, 1, 5)
    x = complex_normal((4, 1, 6, 5), seed=1)
    operator = SenseOperator(maps, mask)
    assert operator(x).shape == (4, 3, 6, 5)
    assert operator.norm().shape == (4, 1, 1, 1)
    for frame in range(4):
        alone = SenseOperator(maps, mask[frame])
        torch.testing.assert_close(operator.normal(x)[frame], alone.normal(x[frame]))
    # One image for all frames: the mask alone has the batch.
    torch.testing.assert_close(operator.normal(x[0]), operator.adjoint(operator(x[0])))
    torch.testing.assert_close(operator.normal(x[0]).shape, operator.normal(x).shape)


def test_gradients_through_forward_adjoint_and_maps() -> None:
    mask = pattern(1, 1, 3)
    maps = complex_normal((2, 2, 2, 1, 3)).requires_grad_()
    image = complex_normal((2, 2, 1, 3), seed=1).requires_grad_()
    kspace = complex_normal((2, 2, 1, 3), seed=2).requires_grad_()

    def all_of(maps: torch.Tensor, image: torch.Tensor, kspace: torch.Tensor) -> tuple[torch.Tensor, ...]:
        operator = SenseOperator(maps[0], mask, spatial=2)
        reduced, data = operator.reduced(kspace)
        return operator(image), operator.adjoint(kspace), operator.normal(image), reduced.adjoint(data)

    assert torch.autograd.gradcheck(all_of, (maps[None, 0], image, kspace))


def test_sums_multiples_and_adjoints_are_operators() -> None:
    a, b = FourierOperator((-1,)), SamplingOperator(pattern(3, 4))
    combined = (2 - 1j) * (a @ b + a.H)
    assert_adjoint(combined.forward, combined.adjoint, (2, 3, 4))
    assert_linear(combined.forward, (2, 3, 4))
    x = complex_normal((2, 3, 4))
    torch.testing.assert_close(combined(x), (2 - 1j) * (fftc(b(x), (-1,)) + ifftc(x, (-1,))))
    torch.testing.assert_close(combined.H.H(x), combined(x))


def test_power_iteration_has_a_value_per_batch_element() -> None:
    factors = torch.tensor([1.0, 3.0]).double().view(2, 1, 1)
    found = power_iteration(factors * FourierOperator((-1,)), complex_normal((2, 3, 4)), dims=(-2, -1))
    torch.testing.assert_close(found.flatten(), torch.tensor([1.0, 9.0]).double())
    with pytest.raises(ConfigError, match="iterations >= 1"):
        power_iteration(FourierOperator(), complex_normal((3, 4)), iterations=0)


def test_maps_of_too_few_dimensions_are_refused() -> None:
    with pytest.raises(ShapeError, match="map, coil, z, y, x"):
        CoilOperator(complex_normal((1, 2, 3, 4)), spatial=3)
    with pytest.raises(ShapeError, match="mask: expected"):
        SenseOperator(complex_normal((1, 2, 3, 4, 5)), torch.ones(3, 4, 4), spatial=3)


@pytest.mark.parametrize("units", [1e13, 1e-13])
def test_cg_sense_does_not_depend_on_units_nor_on_the_batch(units: float) -> None:
    maps = complex_normal((1, 4, 16, 15), dtype=torch.complex64)
    maps = maps / maps.abs().square().sum(dim=-3, keepdim=True).sqrt()
    mask = pattern(1, 15).float()
    y = mask * complex_normal((4, 16, 15), seed=1, dtype=torch.complex64)
    expected = cg_sense(y, mask, maps, iterations=8, tolerance=1e-9)
    batch = torch.stack([units * y, y, torch.zeros_like(y)])
    found = cg_sense(batch, mask, maps.expand(3, -1, -1, -1, -1), iterations=8, tolerance=1e-9)
    torch.testing.assert_close(found.image[0] / units, expected.image, rtol=1e-4, atol=1e-5)
    torch.testing.assert_close(found.image[1], expected.image, rtol=1e-4, atol=1e-5)
    assert float(found.image[2].abs().max()) == 0
    empty = cg_sense(torch.zeros_like(y), mask, maps)
    assert (empty.iterations, float(empty.image.abs().max())) == (0, 0.0)
    y[0, 0, 0] = float("nan")
    with pytest.raises(NonFiniteError, match="NaN"):
        cg_sense(y, mask, maps)


def test_an_operator_used_for_inference_serves_a_training_afterwards() -> None:
    maps, mask = complex_normal((1, 3, 8, 7)), torch.tensor([1.0, 0, 1, 1, 0, 1, 1])[None]
    operator, x = SenseOperator(maps, mask), complex_normal((1, 8, 7))
    with torch.inference_mode():
        operator.normal(x)
    torch.testing.assert_close(operator.normal(x), operator.adjoint(operator.forward(x)))
    operator.normal(x.clone().requires_grad_()).abs().sum().backward()


@pytest.mark.parametrize("shape", [(5, 8, 7), (1, 8, 9), (20, 8, 7)])
def test_the_normal_operator_refuses_what_the_forward_one_cannot_take(shape: tuple[int, ...]) -> None:
    operator = SenseOperator(complex_normal((1, 3, 8, 7)), torch.ones(1, 7))
    with pytest.raises(ShapeError, match=r"sense: expected \(..., 1, 8, 7\)"):
        operator.normal(complex_normal(shape))
    with pytest.raises(ShapeError, match=r"kspace: expected \(..., 3, 8, 7\)"):
        operator.reduced(complex_normal(shape))
    with pytest.raises(ShapeError, match="3 coils or 1"):
        SenseOperator(complex_normal((1, 3, 8, 7)), torch.ones(4, 8, 7))


def test_batch_axes_of_maps_masks_and_images_broadcast_in_the_normal_operator() -> None:
    maps, mask = complex_normal((2, 1, 2, 3, 6, 5)), (torch.arange(4 * 5).reshape(1, 4, 1, 1, 5) % 3 > 0).float()
    operator, x = SenseOperator(maps, mask), complex_normal((1, 1, 2, 6, 5))
    found = operator.normal(x)
    assert found.shape == (2, 4, 2, 6, 5)
    torch.testing.assert_close(found, operator.adjoint(operator.forward(x)))
