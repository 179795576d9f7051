"""Where the chunks of an array are, and which of them an index touches."""

import math
import operator
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from mri_io.schema.elements import Codec

__all__ = ["Layout", "Selection"]

_PIPELINES: dict[tuple[str, ...], Codec] = {
    ("bytes", "crc32c"): "raw",
    ("bytes", "blosc", "crc32c"): "blosc",
    ("bytes", "zstd"): "zstd",
}


class Layout:
    """Files and positions of chunks, for the layouts that the specification knows.

    Attributes
    ----------
    codec
        How chunks are encoded.
    leading
        Number of leading dimensions that are divided into chunks of length one.
    chunk, shard
        Shapes of a chunk and of the part of the array in one file.
    chunks_per_shard
        Number of chunks in a full shard; None when a file is one chunk without an index.
    """

    def __init__(self, shape: tuple[int, ...], chunk: tuple[int, ...], shard: tuple[int, ...], codec: Codec) -> None:
        self.shape, self.chunk, self.shard, self.codec = shape, chunk, shard, codec
        self.leading = 0
        self.chunks_per_shard: int | None = None
        self._zeros = "/0" * len(shape)

    @classmethod
    def of(cls, metadata: Mapping[str, Any]) -> "Layout | None":
        """Return the layout of an array, None when only zarr knows how to read it."""
        shape = tuple(int(n) for n in metadata["shape"])
        if min(shape, default=0) < 0:
            raise ValueError(f"negative length in shape {shape}")
        shard = tuple(int(n) for n in metadata["chunk_grid"]["configuration"]["chunk_shape"])
        codecs, chunk, sharded = metadata["codecs"], shard, False
        if codecs and codecs[0]["name"] == "sharding_indexed":
            inner = codecs[0]["configuration"]
            sharded = len(codecs) == 1 and _is_raw(inner["index_codecs"])
            if not sharded or inner.get("index_location", "end") != "end":
                return None
            codecs, chunk = inner["codecs"], tuple(int(n) for n in inner["chunk_shape"])
        codec = _PIPELINES.get(tuple(step["name"] for step in codecs))
        keys = {"name": "default", "configuration": {"separator": "/"}}
        regular = metadata["chunk_grid"]["name"] == "regular" and metadata["chunk_key_encoding"] == keys
        if codec is None or not regular or not _is_little(codecs[0]):
            return None
        layout = cls(shape, chunk, shard, codec)
        if sharded:
            ones = (axis for axis, size in enumerate(chunk) if size != 1)
            layout.leading = next(ones, len(chunk))
            layout.chunks_per_shard = math.prod(shard[: layout.leading])
        n = layout.leading
        layout._zeros = "/0" * (len(shape) - n)
        return layout if chunk[n:] == shape[n:] == shard[n:] else None

    def locate(self, position: Sequence[int]) -> tuple[str, int]:
        """Return the file of a chunk, relative to the array, and the chunk's number in it."""
        path, number = "c", 0
        for place, size in zip(position, self.shard, strict=False):
            file, inside = divmod(place, size)
            path += f"/{file}"
            number = number * size + inside
        return path + self._zeros, number


def _is_little(step: Mapping[str, Any]) -> bool:
    return step.get("configuration", {"endian": "little"}).get("endian", "little") == "little"


def _is_raw(steps: Sequence[Mapping[str, Any]]) -> bool:
    return [step["name"] for step in steps] == ["bytes", "crc32c"] and _is_little(steps[0])


class Selection:
    """What a numpy index selects: positions of the leading dimensions, and an index into each chunk.

    Parameters
    ----------
    index
        Integers, slices and at most one Ellipsis.
    shape
        Of the array.
    leading
        How many dimensions are divided into chunks.

    Attributes
    ----------
    positions
        Per leading dimension, the positions chosen.
    inner
        Index into a chunk's remaining dimensions.
    squeeze
        Index that drops the leading dimensions chosen by an integer.
    single
        The position, when every leading dimension is chosen by an integer.

    Raises
    ------
    IndexError
        When the index is out of range or not a basic one.
    """

    def __init__(self, index: Any, shape: tuple[int, ...], leading: int) -> None:
        parts = list(index) if isinstance(index, tuple) else [index]
        dots = [n for n, part in enumerate(parts) if part is Ellipsis]
        if len(dots) > 1 or len(parts) - len(dots) > len(shape):
            raise IndexError(f"expected at most {len(shape)} indices and one Ellipsis, got {index!r}")
        start = dots[0] if dots else len(parts)
        parts[start : start + 1] = [slice(None)] * (len(shape) - len(parts) + len(dots))
        for axis, part in enumerate(parts):
            if not isinstance(part, slice):
                parts[axis] = _integer(part, shape[axis], axis)
        head = parts[:leading]
        # A chunk has length one in the leading dimensions.
        self.inner: tuple[Any, ...] = (0,) * leading + tuple(parts[leading:])
        self.single = tuple(head) if all(isinstance(part, int) for part in head) else None
        self.positions: list[Sequence[int]] = [
            range(*part.indices(size)) if isinstance(part, slice) else (part,)
            for part, size in zip(head, shape, strict=False)
        ]
        self.squeeze = tuple(slice(None) if isinstance(part, slice) else 0 for part in head)
        self._leading = leading

    def shape(self, inner_shape: tuple[int, ...]) -> tuple[int, ...]:
        """Return the shape of the result before `squeeze`, for chunks of this shape in the inner dimensions."""
        inner = np.broadcast_to(np.empty((), np.uint8), inner_shape)[self.inner[self._leading :]]
        return (*map(len, self.positions), *inner.shape)


def _integer(part: Any, size: int, axis: int) -> int:
    try:
        number = operator.index(part) if not isinstance(part, bool | np.bool_) else None
    except TypeError:
        number = None
    if number is None:
        raise IndexError(f"axis {axis}: expected an integer or a slice (basic indexing), got {type(part).__name__}")
    if not -size <= number < size:
        raise IndexError(f"axis {axis}: index {number} is out of range for size {size}")
    return number % size
