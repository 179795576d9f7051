"""The wavelet transform and finite differences: orthonormal, adjoint, and equal to PyWavelets."""

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from mri_recon.classical.transforms import FiniteDifferences, SymmetricDifferences, WaveletTransform, daubechies
from mri_recon.errors import ConfigError, ShapeError
from mri_recon.testing import assert_adjoint, assert_linear, complex_normal


def make(shape: tuple[int, int], **options: int) -> WaveletTransform:
    return WaveletTransform(shape, dtype=torch.complex128, **options)


@pytest.mark.parametrize("moments", range(1, 9))
def test_filters_are_those_of_pywavelets(moments: int) -> None:
    pywt = pytest.importorskip("pywt")
    np.testing.assert_allclose(daubechies(moments)[::-1], pywt.Wavelet(f"db{moments}").dec_lo, atol=1e-7)


@pytest.mark.parametrize("moments", [1, 2, 4])
def test_coefficients_are_those_of_pywavelets(moments: int) -> None:
    pywt = pytest.importorskip("pywt")
    image = complex_normal((32, 48))
    expected = pywt.wavedec2(image.numpy(), f"db{moments}", mode="periodization", level=2)
    found = make((32, 48), moments=moments, levels=2)(image).numpy()
    details = ((found[16:, :24], found[:16, 24:], found[16:, 24:]), (found[8:16, :12], found[:8, 12:24]))
    np.testing.assert_allclose(found[:8, :12], expected[0], atol=1e-8)
    for ours, theirs in zip(details[1], expected[1], strict=False):  # rows of high frequency first in both
        np.testing.assert_allclose(ours, theirs, atol=1e-8)
    for ours, theirs in zip(details[0], expected[2], strict=True):
        np.testing.assert_allclose(ours, theirs, atol=1e-8)


@settings(max_examples=25, deadline=None)
@given(ny=st.integers(4, 37), nx=st.integers(4, 37), moments=st.integers(1, 4), levels=st.integers(0, 2))
def test_the_transform_is_orthonormal_for_every_size(ny: int, nx: int, moments: int, levels: int) -> None:
    transform = make((ny, nx), moments=moments, levels=levels)
    x = complex_normal((2, ny, nx))
    y = transform(x)
    assert float(torch.linalg.vector_norm(y)) == pytest.approx(float(torch.linalg.vector_norm(x)), rel=1e-9)
    torch.testing.assert_close(transform.adjoint(y), x, rtol=1e-8, atol=1e-9)
    torch.testing.assert_close(transform(transform.adjoint(x)), x, rtol=1e-8, atol=1e-9)
    assert_adjoint(transform.forward, transform.adjoint, x.shape, rtol=1e-8)
    assert_linear(transform.forward, x.shape)


@pytest.mark.parametrize("shape", [(230, 180), (45, 37)])
def test_smooth_images_have_small_details_for_even_and_odd_sizes(shape: tuple[int, int]) -> None:
    """Rows that were made orthonormal at the seam of an odd length must stay wavelets elsewhere."""
    y, x = (torch.arange(n, dtype=torch.float64) - n / 2 for n in shape)
    image = torch.exp(-(y[:, None] ** 2 + x**2) / (2 * (shape[1] / 8) ** 2)).to(torch.complex128)
    transform = make(shape)
    details = transform(image)
    details[: transform.coarsest[0], : transform.coarsest[1]] = 0
    assert float(torch.linalg.vector_norm(details) / torch.linalg.vector_norm(image)) < 0.12


@pytest.mark.parametrize("shape", [(24, 32), (21, 35)])
def test_a_shift_moves_the_image_first_and_back(shape: tuple[int, int]) -> None:
    transform, x = make(shape, levels=2), complex_normal((2, *shape))
    shifted = transform.forward(x, (3, 2))
    torch.testing.assert_close(shifted, transform(x.roll((3, 2), (-2, -1))))
    torch.testing.assert_close(transform.adjoint(shifted, (3, 2)), x)


def test_levels_end_at_sixteen_pixels_and_too_many_are_refused() -> None:
    transform = make((230, 180))
    assert (transform.levels, transform.coarsest) == (3, (29, 23))
    assert make((20, 300)).levels == 0
    with pytest.raises(ConfigError, match="at most 3 levels"):
        make((8, 8), levels=4)
    with pytest.raises(ShapeError, match=r"\(8, 8\)"):
        make((8, 8), levels=1)(complex_normal((8, 9)))
    with pytest.raises(ConfigError, match="vanishing moments"):
        daubechies(11)


def test_gradients_flow_through_the_transforms() -> None:
    transform = make((6, 5), levels=2)
    x = complex_normal((6, 5)).requires_grad_()
    for function in (transform.forward, transform.adjoint):
        assert torch.autograd.gradcheck(function, (x,))


@settings(max_examples=20, deadline=None)
@given(ny=st.integers(1, 9), nx=st.integers(1, 9))
def test_differences_have_their_adjoints_and_norms(ny: int, nx: int) -> None:
    gradient, symmetric = FiniteDifferences(), SymmetricDifferences()
    if ny * nx > 1:
        assert_adjoint(gradient.forward, gradient.adjoint, (2, ny, nx))
        assert_adjoint(symmetric.forward, symmetric.adjoint, (3, 2, ny, nx))
    x = complex_normal((3, ny, nx))
    along_y, along_x = gradient(x).unbind(-3)
    torch.testing.assert_close(along_y[:, :-1], x[:, 1:] - x[:, :-1])
    torch.testing.assert_close(along_x[..., :-1], x[..., 1:] - x[..., :-1])
    assert not along_y[:, -1].any()
    for operator, value in ((gradient, x), (symmetric, gradient(x))):
        energy = float(torch.linalg.vector_norm(value)) ** 2
        assert float(torch.linalg.vector_norm(operator(value))) ** 2 <= operator.norm * energy * (1 + 1e-9)
