"""Embeddings in int8: the error of quantisation, reading parts, and what the schema asks of the scales."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays

from mri_io import open_volume, verify
from mri_io.errors import CorruptElementError, NonFiniteError, SchemaError, ShapeError
from mri_io.store import quantise, read_embedding
from mri_io.testing import flip_bit

SHAPE = (3, 4, 5, 6)


@pytest.fixture
def embedding(rng):
    """Channels whose magnitudes differ by orders; one of zeros."""
    found = rng.standard_normal(SHAPE) * 10.0 ** rng.integers(-4, 4, (3, 4, 1, 1))
    found[1, 2] = 0
    return found.astype(np.float32)


@given(arrays(np.float32, (2, 3, 2, 2), elements=st.floats(-(2.0**100), 2.0**100, width=32)))
def test_no_value_is_off_by_more_than_half_a_step(values):
    found = quantise(values)
    assert (found["data"].dtype, found["scales"].dtype) == (np.int8, np.float32)
    assert found["scales"].shape == (2, 3)
    assert found["data"].min() >= -127
    restored = found["data"].astype(np.float64) * found["scales"].astype(np.float64)[..., None, None]
    largest = np.abs(values.astype(np.float64)).max(axis=(2, 3), keepdims=True)
    # Half a step, and what float32 adds to the scale and to the quotient.
    assert (np.abs(restored - values) <= largest / 254 * (1 + 1e-4) + 127 * np.finfo(np.float32).tiny).all()


def test_the_bound_is_reached_and_the_largest_is_exact():
    values = np.array([127.0, 63.5, -127.0, 0.49], np.float32).reshape(1, 1, 2, 2)
    found = quantise(values)
    assert found["scales"].tolist() == [[1.0]]
    assert found["data"].ravel().tolist() == [127, 64, -127, 0]


@pytest.mark.parametrize("dtype", [np.float16, np.float64, np.int16])
def test_other_dtypes_are_quantised_alike(rng, dtype):
    values = (rng.standard_normal(SHAPE) * 100).astype(dtype)
    found = quantise(values)
    restored = found["data"] * found["scales"][..., None, None]
    assert (np.abs(restored - values) <= np.abs(values).max(axis=(2, 3), keepdims=True) / 253).all()


def test_channels_of_zeros_stay_zero():
    found = quantise(np.zeros(SHAPE, np.float32))
    assert not found["data"].any()
    assert not found["scales"].any()


@pytest.mark.parametrize("bad", [np.nan, np.inf, -np.inf, 1e300])
def test_what_is_not_finite_is_refused(bad):
    values = np.zeros(SHAPE)
    values[1, 2, 3, 4] = bad
    with pytest.raises(NonFiniteError, match="embedding: expected finite values, got NaN or infinity"):
        quantise(values)


@pytest.mark.parametrize("shape", [(4, 5, 6), (1, 3, 4, 5, 6), ()])
def test_other_dimensions_are_refused(shape):
    with pytest.raises(ShapeError, match=r"embedding: expected \(slice, channel, ey, ex\), got"):
        quantise(np.zeros(shape, np.float32))


INDICES = [..., 0, -1, slice(None), slice(1, None), slice(None, None, -1), (1, 2), (slice(None), 1), (0, ...), ()]
INDICES += [(slice(1), slice(None, None, 2), ...), np.int64(1)]


@pytest.mark.parametrize("index", INDICES, ids=str)
def test_parts_are_read_as_numpy_would(volume, made, embedding, index):
    volume.write("emb/vit/half", embedding.astype(np.float16), provenance=made)
    volume.write("emb/vit/byte", quantise(embedding), provenance=made)
    stored = open_volume(volume.path)
    half = read_embedding(stored["emb/vit/half"], index)
    byte = read_embedding(stored["emb/vit/byte"], index)
    assert (half.dtype, byte.dtype) == (np.float16, np.float32)
    np.testing.assert_array_equal(half, embedding.astype(np.float16)[index])
    whole = read_embedding(stored["emb/vit/byte"])
    np.testing.assert_array_equal(byte, whole[index])
    tolerance = np.broadcast_to(np.abs(embedding).max(axis=(2, 3), keepdims=True) / 253, SHAPE)
    assert (np.abs(whole - embedding) <= tolerance).all()
    assert verify(volume).problems == []


@pytest.mark.parametrize("index", [(0, 0, 0), (..., 0), (slice(None), ..., 1), (0, 0, slice(2), slice(2))], ids=str)
def test_parts_of_channels_are_refused(volume, made, embedding, index):
    """Of ``(..., 0)`` numpy would take other scales than those of its channels."""
    element = volume.write("emb/vit/byte", quantise(embedding), provenance=made)
    with pytest.raises(ShapeError, match="index of a quantised embedding: expected slices and channels, got"):
        read_embedding(element, index)


def test_half_the_bytes_of_float16(volume, made, rng):
    values = rng.standard_normal((2, 16, 32, 32)).astype(np.float32)
    half = volume.write("emb/vit/half", values.astype(np.float16), provenance=made)
    byte = volume.write("emb/vit/byte", quantise(values), provenance=made)
    assert byte.nbytes < 0.51 * half.nbytes


def test_int8_needs_scales_and_float16_has_none(volume, made, embedding):
    found = quantise(embedding)
    for given_arrays in ({"data": found["data"]}, {**found, "data": embedding.astype(np.float16)}):
        with pytest.raises(SchemaError, match="expected 'scales' beside data of dtype int8, and only there, got"):
            volume.write("emb/vit/a", given_arrays, provenance=made)
    with pytest.raises(SchemaError, match="dtype: expected float16, int8, got float32"):
        volume.write("emb/vit/a", embedding, provenance=made)
    with pytest.raises(SchemaError, match="dtype: expected float32, got float64"):
        volume.write("emb/vit/a", {**found, "scales": found["scales"].astype(np.float64)}, provenance=made)
    assert volume.elements() == {}


def test_scales_are_verified_as_the_data_are(volume, made, embedding):
    element = volume.write("emb/vit/byte", quantise(embedding), provenance=made)
    file = next(path for path in (element.folder / "scales" / "c").rglob("*") if path.is_file())
    flip_bit(file, file.stat().st_size // 2)
    assert [problem.element for problem in verify(volume).problems] == ["emb/vit/byte"]
    with pytest.raises(CorruptElementError):
        read_embedding(open_volume(volume.path)["emb/vit/byte"])
