"""The element types of specification 1.0, one table: dimensions, dtypes, chunking and codecs.

The page ``docs/store-format.md`` states the same for people who write their own reader.
"""

from dataclasses import dataclass
from typing import Any, Literal

import numpy as np

from mri_io.errors import SchemaError, ShapeError, expected_got

__all__ = ["ELEMENT_TYPES", "SCHEMA_VERSION", "SHARD_BYTES", "ElementType", "element_type"]

SCHEMA_VERSION = "1.0"
SHARD_BYTES = 512 * 2**20
"""Upper bound of one shard, as the number of bytes of its chunks before compression."""

Codec = Literal["raw", "blosc", "zstd"]


@dataclass(frozen=True)
class ElementType:
    """What one type of element looks like on disk.

    Parameters
    ----------
    name
        First component of the element's path: ``"recon"`` of ``"recon/cg-sense"``.
    version
        Version of this type's layout, independent of the store's.
    dims
        The admissible tuples of dimension names.
    dtypes
        The admissible numpy dtypes.
    codec
        ``raw``: bytes + crc32c, readable by memory mapping. ``blosc``: zstd with bitshuffle, then crc32c.
        ``zstd``: zstd with its own checksum.
    named
        Whether a path has a second component.
    image_like
        Whether elements carry an affine.
    labelled
        Whether elements declare label ids.
    whole
        Whether the array is one chunk; otherwise a chunk is one index of the first dimension.
    finite
        Whether NaN and infinity are refused.
    """

    name: str
    version: int
    dims: tuple[tuple[str, ...], ...]
    dtypes: tuple[str, ...]
    codec: Codec
    named: bool = True
    image_like: bool = False
    labelled: bool = False
    whole: bool = False
    finite: bool = True

    def check_array(
        self, shape: tuple[int, ...], dtype: np.dtype[Any], dims: tuple[str, ...] | None, where: str
    ) -> tuple[str, ...]:
        """Return the dimension names of an array, or raise ShapeError or SchemaError."""
        if dims is None:
            fitting = [names for names in self.dims if len(names) == len(shape)]
            if len(fitting) != 1 and not (fitting and self.image_like):
                what = "dimensions" if not fitting else "dimension names (several fit: pass dims=)"
                options = " or ".join(str(names) for names in self.dims)
                raise ShapeError(expected_got(what, expected=options, got=f"shape {shape}", where=where))
            dims = fitting[0]
        if dims not in self.dims or len(dims) != len(shape):
            options = " or ".join(str(names) for names in self.dims)
            raise ShapeError(expected_got("dimensions", expected=options, got=f"{dims} {shape}", where=where))
        if 0 in shape:
            raise ShapeError(expected_got("size", expected="no empty dimension", got=shape, where=where))
        if str(dtype) not in self.dtypes:
            raise SchemaError(
                expected_got(
                    "dtype",
                    expected=self.dtypes,
                    got=dtype,
                    where=where,
                    fix="Convert the array before writing it.",
                )
            )
        return dims

    def chunks(self, shape: tuple[int, ...]) -> tuple[int, ...]:
        """Return the shape of one inner chunk."""
        return shape if self.whole else (1, *shape[1:])

    def shards(self, shape: tuple[int, ...], itemsize: int) -> tuple[int, ...]:
        """Return the shape of one shard: as many slices as stay under `SHARD_BYTES`, at least one."""
        if self.whole:
            return shape
        slice_bytes = int(np.prod(shape[1:], dtype=np.int64)) * itemsize
        return (min(shape[0], max(1, SHARD_BYTES // slice_bytes)), *shape[1:])


_SLICES = (("slice", "y", "x"), ("z", "y", "x"))

ELEMENT_TYPES: dict[str, ElementType] = {
    t.name: t
    for t in (
        ElementType("kspace", 1, (("slice", "coil", "ky", "kx"),), ("complex64",), "raw", named=False),
        ElementType(
            "mask", 1, (("ky",), ("kx",), ("ky", "kx"), ("slice", "ky", "kx")), ("uint8",), "zstd", whole=True
        ),
        ElementType("sens", 1, (("slice", "map", "coil", "y", "x"),), ("complex64",), "raw"),
        ElementType("recon", 1, _SLICES, ("float32", "complex64"), "blosc", image_like=True),
        ElementType("image", 1, _SLICES, ("float32", "int16"), "blosc", image_like=True),
        ElementType("seg", 1, _SLICES, ("uint8", "uint16"), "zstd", image_like=True, labelled=True),
    )
}


def element_type(path: str) -> ElementType:
    """Return the type of an element path.

    Raises
    ------
    SchemaError
        When the path is not ``kspace`` or ``<type>/<name>`` with a known type and a plain name.

    Examples
    --------
    >>> element_type("recon/cg-sense-r4").name
    'recon'
    """
    kind, _, name = path.partition("/")
    found = ELEMENT_TYPES.get(kind)
    if found is None:
        raise SchemaError(expected_got("element type", expected=tuple(ELEMENT_TYPES), got=repr(kind), where=path))
    plain = all(part and not part.startswith((".", "_")) for part in name.split("/")) and all(
        c.isalnum() or c in "-_./" for c in name
    )
    if found.named != bool(name) or (name and not plain):
        form = f"{kind}/<name>, a name of letters, digits, '-', '_' and '.'" if found.named else kind
        raise SchemaError(expected_got("element path", expected=form, got=repr(path)))
    return found
