"""Operators: adjointness, linearity, gradients, and agreement with numpy and the closed-form phantom."""

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from mri_recon.errors import ShapeError
from mri_recon.physics import (
    SenseOperator,
    combine,
    expand,
    fft1c,
    fft2c,
    fourier,
    ifft1c,
    ifft2c,
    root_sum_of_squares,
)
from mri_recon.testing import assert_adjoint, assert_linear, complex_normal

sizes = st.integers(min_value=1, max_value=13)


def numpy_fft2c(x: np.ndarray) -> np.ndarray:
    shifted = np.fft.ifftshift(x, axes=(-2, -1))
    return np.fft.fftshift(np.fft.fft2(shifted, norm="ortho"), axes=(-2, -1))


@settings(max_examples=40, deadline=None)
@given(ny=sizes, nx=sizes)
def test_fft_is_numpys_for_even_and_odd_sizes(ny: int, nx: int) -> None:
    x = complex_normal((2, ny, nx))
    torch.testing.assert_close(fft2c(x), torch.from_numpy(numpy_fft2c(x.numpy())), rtol=1e-12, atol=1e-12)
    torch.testing.assert_close(ifft2c(fft2c(x)), x, rtol=1e-12, atol=1e-12)
    torch.testing.assert_close(fft1c(fft1c(x, -1), -2), fft2c(x), rtol=1e-12, atol=1e-12)
    torch.testing.assert_close(ifft1c(fft1c(x, -2), -2), x, rtol=1e-12, atol=1e-12)


@settings(max_examples=40, deadline=None)
@given(ny=sizes, nx=sizes, coils=st.integers(1, 4), sets=st.integers(1, 2), kind=st.sampled_from(["row", "col", "2d"]))
def test_sense_operator_is_linear_with_its_adjoint_and_normal(
    ny: int, nx: int, coils: int, sets: int, kind: str
) -> None:
    shape = {"row": (1, nx), "col": (ny, 1), "2d": (ny, nx)}[kind]
    mask = (torch.rand(shape, generator=torch.Generator().manual_seed(1)) > 0.4).double()
    operator = SenseOperator(complex_normal((2, sets, coils, ny, nx), seed=2), mask)
    x = complex_normal((2, sets, ny, nx), seed=3)
    if bool(mask.any()):
        assert_adjoint(operator.forward, operator.adjoint, x.shape)
        assert_adjoint(operator.normal, operator.normal, x.shape)
    assert_linear(operator.forward, x.shape)
    torch.testing.assert_close(operator.normal(x), operator.adjoint(operator.forward(x)), rtol=1e-10, atol=1e-10)


def test_a_gradient_is_possible_after_a_transform_in_inference_mode() -> None:
    """What the transform keeps from a reconstruction must serve a training in the same process."""
    fourier._signs.cache_clear()
    with torch.inference_mode():
        fft2c(complex_normal((33, 24)))
    image = complex_normal((33, 24)).requires_grad_()
    fft2c(image).abs().square().sum().backward()
    torch.testing.assert_close(image.grad, 2 * image.detach())  # the transform keeps the energy


def test_single_precision_keeps_adjointness() -> None:
    operator = SenseOperator(complex_normal((1, 5, 31, 24), dtype=torch.complex64), torch.ones(1, 24))
    assert_adjoint(operator.forward, operator.adjoint, (1, 31, 24), dtype=torch.complex64, rtol=1e-4)


def test_gradients_of_operator_and_adjoint() -> None:
    operator = SenseOperator(complex_normal((1, 2, 4, 5)), torch.tensor([[1.0, 0, 1, 1, 0]]).double())
    x = complex_normal((1, 4, 5), seed=1).requires_grad_()
    y = complex_normal((2, 4, 5), seed=2).requires_grad_()
    for function, value in ((operator.forward, x), (operator.adjoint, y), (operator.normal, x)):
        assert torch.autograd.gradcheck(function, (value,))


def test_power_iteration_finds_the_largest_eigenvalue() -> None:
    operator = SenseOperator(complex_normal((1, 3, 4, 4)), torch.ones(1, 4).double())
    columns = [operator.normal(e.view(1, 4, 4)).flatten() for e in torch.eye(16, dtype=torch.complex128)]
    largest = torch.linalg.eigvalsh(torch.stack(columns, dim=1))[-1]
    assert float(operator.norm(200)) == pytest.approx(float(largest), rel=1e-6)


def test_coil_combination_inverts_expansion_for_normalised_maps() -> None:
    maps = complex_normal((1, 4, 6, 5))
    maps = maps / maps.abs().square().sum(dim=-3, keepdim=True).sqrt()
    image = complex_normal((1, 6, 5), seed=1)
    torch.testing.assert_close(combine(expand(image, maps), maps), image)
    torch.testing.assert_close(root_sum_of_squares(expand(image, maps)), image[0].abs())


def test_k_space_of_the_closed_form_phantom_transforms_to_its_image() -> None:
    from mri_io.simulate import ellipse_phantom, shepp_logan

    scan = ellipse_phantom(shepp_logan(), (128, 128), coils=4)
    images = ifft2c(torch.from_numpy(scan.kspace))
    maps = torch.from_numpy(scan.sensitivities)
    found = combine(images, maps[None])[0] / maps.abs().square().sum(dim=0)
    truth = torch.from_numpy(scan.image)
    # Truncating k-space rings at edges (Gibbs), about a tenth of an edge's height; away from edges they agree.
    error = (found - truth).abs()
    assert float(error.median()) < 0.01
    assert float(error.square().mean().sqrt()) < 0.06
    # Independent of any discretisation: the sum of k-space is the image at the centre times sqrt(N).
    assert float(error[64, 64]) < 0.03


def test_shapes_that_do_not_fit_are_refused() -> None:
    maps = complex_normal((1, 2, 4, 6))
    with pytest.raises(ShapeError, match="mask: expected"):
        SenseOperator(maps, torch.ones(4, 5))
    with pytest.raises(ShapeError, match="maps: expected"):
        SenseOperator(maps.real, torch.ones(1, 6))
