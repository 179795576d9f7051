"""Embeddings as float16, or as int8 with one scale per slice and channel at half the bytes."""

from typing import Any

import numpy as np

from mri_io.errors import NonFiniteError, ShapeError, expected_got
from mri_io.schema.elements import DATA
from mri_io.store.element import Element

__all__ = ["quantise", "read_embedding"]

_LARGEST = 127


def quantise(embedding: np.ndarray) -> dict[str, np.ndarray]:
    """Return the arrays of an ``emb`` element in int8: ``data`` and ``scales``, value = data * scale.

    The largest magnitude of every slice and channel becomes 127, so that no value is off by more than 1/254 of it.

    Parameters
    ----------
    embedding
        (slice, channel, ey, ex), real and finite.

    Raises
    ------
    ShapeError
        When it has other dimensions.
    NonFiniteError
        When it holds NaN, infinity, or numbers too large for float32.
    """
    if embedding.ndim != 4:
        raise ShapeError(expected_got("embedding", expected="(slice, channel, ey, ex)", got=embedding.shape))
    with np.errstate(over="ignore"):
        scales = np.abs(embedding).max(axis=(2, 3)).astype(np.float32) / _LARGEST
    if not np.isfinite(scales).all():
        raise NonFiniteError(expected_got("embedding", expected="finite values", got="NaN or infinity"))
    divisor = np.where(scales == 0, 1, scales)[..., None, None]
    data = np.clip(np.rint(embedding / divisor), -_LARGEST, _LARGEST).astype(np.int8)
    return {DATA: data, "scales": scales}


def read_embedding(element: Element, index: Any = ...) -> np.ndarray:
    """Return an embedding, or a part of it by numpy's basic indexing, as float16 or, where it was quantised, float32.

    Parameters
    ----------
    element
        An ``emb`` element.
    index
        Of (slice, channel, ey, ex); of quantised ones only slice and channel may be chosen.

    Raises
    ------
    ShapeError
        When more is chosen of a quantised embedding, whose scales are those of whole channels.
    """
    if "scales" not in element.arrays:
        return element[index]
    chosen = index if isinstance(index, tuple) else (index,)
    if chosen and chosen[-1] is Ellipsis:
        chosen = chosen[:-1]
    if len(chosen) > 2 or any(part is Ellipsis for part in chosen):
        raise ShapeError(
            expected_got(
                "index of a quantised embedding",
                expected="slices and channels",
                got=repr(index),
                where=element.folder,
                fix="Index what it returns.",
            )
        )
    return element[chosen] * element.arrays["scales"][chosen][..., None, None]
