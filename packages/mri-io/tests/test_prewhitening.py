"""Pre-whitening: white noise of unit variance results, in data of another bandwidth too; singular noise is refused."""

import numpy as np
import pytest

from mri_io.errors import FormatError, NonFiniteError, ShapeError
from mri_io.formats.kspace.prewhitening import noise_whitener, whitened

COILS = 5


def mixing(rng):
    """Return a coupling of the coils, of quite different gains."""
    gains = np.diag(10.0 ** np.arange(COILS) * 1e-6)
    return gains @ (
        np.eye(COILS) + 0.3 * (rng.standard_normal((COILS, COILS)) + 1j * rng.standard_normal((COILS,) * 2))
    )


def white(rng, *shape):
    return (rng.standard_normal(shape) + 1j * rng.standard_normal(shape)) / np.sqrt(2)


@pytest.mark.parametrize("ratio", [1.0, 0.25, 3.0])
def test_noise_of_the_data_becomes_white(rng, ratio):
    coupling = mixing(rng)
    whitener = noise_whitener((coupling @ white(rng, COILS, 200_000)).astype(np.complex64), ratio)
    # Another realisation, in data whose bandwidth is that of the noise scan over the ratio.
    kspace = np.tensordot(coupling, white(rng, COILS, 300, 300), 1) / np.sqrt(ratio)
    kspace = np.stack([kspace, 2 * kspace]).astype(np.complex64)
    result = whitened(kspace, whitener)
    assert (result.shape, result.dtype) == (kspace.shape, np.complex64)
    for factor, slice_ in zip((1, 2), result, strict=True):
        flat = slice_.reshape(COILS, -1)
        covariance = flat @ flat.conj().T / flat.shape[1]
        np.testing.assert_allclose(covariance, factor**2 * np.eye(COILS), atol=0.02 * factor**2)


def test_the_matrix_is_the_inverse_cholesky_factor(rng):
    noise = mixing(rng) @ white(rng, COILS, 4000)
    whitener = noise_whitener(noise)
    flat = whitener @ noise
    np.testing.assert_allclose(flat @ flat.conj().T / 4000, np.eye(COILS), atol=1e-9)
    np.testing.assert_array_equal(whitener, np.tril(whitener))
    assert (np.diag(whitener).real > 0).all()


def _dead(noise):
    noise[2] = 0
    return noise


def _copied(noise):
    noise[3] = 2j * noise[1]
    return noise


def _summed(noise):
    noise[4] = noise[0] + noise[1]
    return noise


@pytest.mark.parametrize(
    ("spoil", "got"),
    [
        (_dead, "no noise in coils 2"),
        (_copied, "coils that depend on each other"),
        (_summed, "coils that depend on each other"),
        (lambda noise: noise[:, :4], "4 samples of 5 coils"),
    ],
)
def test_a_singular_covariance_is_refused(rng, spoil, got):
    noise = spoil(white(rng, COILS, 1000).astype(np.complex64))
    with pytest.raises(FormatError, match=rf"scan\.dat: noise: expected a regular covariance, got {got}.*--noise keep"):
        noise_whitener(noise, where="scan.dat")


def test_wrong_arguments_are_refused(rng):
    noise = white(rng, COILS, 100)
    with pytest.raises(ShapeError, match=r"noise: expected \(coil, sample\), got \(5, 10, 10\)"):
        noise_whitener(noise.reshape(5, 10, 10))
    with pytest.raises(ShapeError, match="bandwidth ratio: expected > 0, got 0"):
        noise_whitener(noise, 0.0)
    noise[1, 1] = np.nan
    with pytest.raises(NonFiniteError, match="noise: expected finite numbers"):
        noise_whitener(noise)
