"""The element types of the specification in one table: dimensions, dtypes, chunks, codecs, attributes.

The page ``docs/store-format.md`` states the same for people who write their own reader.
"""

import math
import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any, Literal

import numpy as np

from mri_io.errors import SchemaError, ShapeError, expected_got
from mri_io.plugins import plugin_instance, plugin_names

__all__ = [
    "DATA",
    "ELEMENT_TYPES",
    "SCHEMA_VERSION",
    "SERIES",
    "SHARD_BYTES",
    "ArrayType",
    "ElementType",
    "element_type",
    "is_path",
    "known_type",
    "type_names",
]

SCHEMA_VERSION = "1.1"
SHARD_BYTES = 512 * 2**20
"""Upper bound of one shard, as the number of bytes of its chunks before compression."""
DATA = "data"
"""Name of the array of an element that has a single one."""

SERIES = ("set", "frame", "echo")
"""Dimensions that may stand in front, in this order, of elements that admit a series: sets are contrasts that are none
of the following, e.g. velocity encodings or b-values; frames follow one another in time; echoes in one repetition."""
PLUGINS = "mri_io.element_types"
"""Entry-point group through which other packages register types."""

Codec = Literal["raw", "blosc", "zstd"]
_NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]*(/[A-Za-z0-9][A-Za-z0-9._-]*)*")


@dataclass(frozen=True)
class ArrayType:
    """What one array of an element looks like on disk.

    Parameters
    ----------
    dims
        The admissible tuples of dimension names; the first that fits is the default.
    dtypes
        The admissible numpy dtypes.
    codec
        ``raw``: bytes + crc32c, readable by memory mapping. ``blosc``: zstd with bitshuffle, then crc32c.
        ``zstd``: zstd with its own checksum.
    inner
        How many trailing dimensions are whole in an inner chunk, the leading ones having length one there; None
        for an array that is one chunk and has no shards.
    optional
        Whether an element may lack this array.
    explicit
        Whether dimension names must be given where several fit.
    series
        Whether any of `SERIES` may stand in front; their names must then be given.
    """

    dims: tuple[tuple[str, ...], ...]
    dtypes: tuple[str, ...]
    codec: Codec
    inner: int | None
    optional: bool = False
    explicit: bool = False
    series: bool = False

    def check(
        self, shape: tuple[int, ...], dtype: np.dtype[Any], dims: tuple[str, ...] | None, where: str
    ) -> tuple[str, ...]:
        """Return the dimension names of an array, or raise ShapeError or SchemaError."""
        options = " or ".join(f"({', '.join(names)})" for names in self.dims)
        if self.series:
            options += f", behind any of {', '.join(SERIES)} in this order"
        front = self._series(dims)
        rest = None if dims is None else dims[len(front) :]
        fitting = [names for names in self.dims if len(names) == len(shape) - len(front) and rest in (None, names)]
        if dims is None and self.series and not self.explicit and len(shape) > min(map(len, self.dims)):
            fitting = []  # it may be a series of anything
        if not fitting or 0 in shape:
            got = f"shape {shape}" if dims is None else f"({', '.join(dims)}) of shape {shape}"
            fix = "No dimension may be empty." if fitting else ""
            if not fitting and dims is None and self.series and len(shape) > min(map(len, self.dims)):
                fix = "Name the dimensions of a series: dims=."
            raise ShapeError(expected_got("dimensions", expected=options, got=got, where=where, fix=fix))
        if len(fitting) > 1 and self.explicit:
            fix = f"Pass one of {options} as dims=."
            raise ShapeError(expected_got("dims", expected="dimension names", got="none", where=where, fix=fix))
        if dtype.name not in self.dtypes:
            fix = "Convert the array before writing it."
            raise SchemaError(expected_got("dtype", expected=self.dtypes, got=dtype, where=where, fix=fix))
        return front + fitting[0]

    def _series(self, dims: tuple[str, ...] | None) -> tuple[str, ...]:
        """Return the dimensions of a series that stand in front of others, in the order of `SERIES`."""
        front: list[str] = []
        left = list(SERIES if self.series else ())
        for name in dims or ():
            if name not in left:
                break
            front.append(name)
            left = left[left.index(name) + 1 :]
        return tuple(front)

    def leading(self, ndim: int) -> int:
        """Return how many leading dimensions are divided into chunks."""
        return 0 if self.inner is None else max(ndim - self.inner, 0)

    def chunk_shape(self, shape: tuple[int, ...]) -> tuple[int, ...]:
        """Return the shape of one inner chunk."""
        n = self.leading(len(shape))
        return (1,) * n + shape[n:]

    def shard_shape(self, shape: tuple[int, ...], itemsize: int) -> tuple[int, ...]:
        """Return the shape of one shard: as many chunks as stay under `SHARD_BYTES`, at least one.

        Chunks are gathered from the last leading dimension to the first, a further dimension only when the one
        after it is whole, so that the chunks of an array in C order fill one shard after the other.
        """
        shard = list(self.chunk_shape(shape))
        for axis in reversed(range(self.leading(len(shape)))):
            room = SHARD_BYTES // (math.prod(shard) * itemsize)
            shard[axis] = min(shape[axis], max(1, room))
            if shard[axis] < shape[axis]:
                break
        return tuple(shard)


@dataclass(frozen=True)
class ElementType:
    """One type of element.

    Parameters
    ----------
    name
        First component of the element's path: ``"recon"`` of ``"recon/cg-sense"``.
    version
        Version of this type's layout, independent of the store's.
    arrays
        Its arrays by name; nearly all types have the single array ``"data"``.
    names
        What follows the type in a path: ``("name",)`` of ``recon/<name>``; no element lies within another.
    image_like
        Whether elements may carry an affine.
    labelled
        Whether elements declare label ids.
    finite
        Whether NaN and infinity are refused.
    maximum
        The largest admissible value, for masks.
    attributes
        Attributes that every element of the type carries with these values.
    required
        Attributes that the writer must give.
    steps
        For types of other packages: version to a pure function from stored attributes to those of the next version.
    needs
        Dtype of ``data`` to the array that must be there with it, and only with it.
    """

    name: str
    version: int
    arrays: Mapping[str, ArrayType]
    names: tuple[str, ...] = ("name",)
    image_like: bool = False
    labelled: bool = False
    finite: bool = True
    maximum: int | None = None
    attributes: Mapping[str, Any] = field(default_factory=dict)
    required: tuple[str, ...] = ()
    needs: Mapping[str, str] = field(default_factory=dict)
    steps: Mapping[int, Callable[[Mapping[str, Any]], dict[str, Any]]] = field(default_factory=dict)

    @property
    def single(self) -> bool:
        """Whether the type has the single array ``"data"``."""
        return set(self.arrays) == {DATA}


def _one(*dims: tuple[str, ...], dtypes: tuple[str, ...], codec: Codec, inner: int | None, **more: Any) -> Any:
    return {DATA: ArrayType(dims, dtypes, codec, inner, **more)}


def _column(*names: str, dtypes: tuple[str, ...], optional: bool = False) -> ArrayType:
    return ArrayType((("prompt", *names),), dtypes, "zstd", None, optional=optional)


_LINES = ("coil", "ky", "kx")
_SHOTS = ("coil", "shot", "sample")
_SLICES = (("slice", "y", "x"), ("z", "y", "x"))
_INTEGERS = ("int32", "int64")

ELEMENT_TYPES: dict[str, ElementType] = {
    kind.name: kind
    for kind in (
        ElementType(
            "kspace",
            1,
            _one(
                ("slice", *_LINES),
                ("kz", *_LINES),
                ("slice", "kz", *_LINES),
                ("slice", *_SHOTS),
                ("kz", *_SHOTS),
                dtypes=("complex64",),
                codec="raw",
                inner=3,
                series=True,
            ),
            names=(),
            attributes={"centred": True, "norm": "ortho"},
        ),
        ElementType("noise", 1, _one(("coil", "sample"), dtypes=("complex64",), codec="raw", inner=None), names=()),
        ElementType(
            "trajectory",
            1,
            _one(
                ("shot", "sample", "axis"),
                ("slice", "shot", "sample", "axis"),
                ("kz", "shot", "sample", "axis"),
                dtypes=("float32",),
                codec="raw",
                inner=3,
                series=True,
            ),
            names=(),
            required=("unit",),
        ),
        ElementType(
            "mask",
            1,
            _one(
                ("ky",),
                ("kx",),
                ("ky", "kx"),
                ("slice", "ky", "kx"),
                ("kz", "ky", "kx"),
                ("slice", "kz", "ky", "kx"),
                dtypes=("uint8",),
                codec="zstd",
                inner=None,
                explicit=True,
                series=True,
            ),
            maximum=1,
        ),
        ElementType(
            "sens",
            1,
            _one(
                ("slice", "map", "coil", "y", "x"),
                ("z", "map", "coil", "y", "x"),
                dtypes=("complex64",),
                codec="raw",
                inner=4,
            ),
        ),
        ElementType(
            "recon",
            1,
            _one(*_SLICES, dtypes=("float32", "complex64"), codec="blosc", inner=2, series=True),
            image_like=True,
        ),
        ElementType(
            "image",
            1,
            _one(*_SLICES, dtypes=("float32", "int16"), codec="blosc", inner=2, series=True),
            image_like=True,
        ),
        ElementType(
            "seg",
            1,
            _one(*_SLICES, dtypes=("uint8", "uint16"), codec="zstd", inner=2, series=True),
            image_like=True,
            labelled=True,
        ),
        ElementType(
            "qmap",
            1,
            _one(*_SLICES, dtypes=("float32",), codec="blosc", inner=2),
            image_like=True,
            # A fit that did not converge in a voxel has no value there.
            finite=False,
            required=("unit",),
        ),
        ElementType(
            "emb",
            2,
            {
                **_one(("slice", "channel", "ey", "ex"), dtypes=("float16", "int8"), codec="raw", inner=3),
                # int8 times its channel's scale is the value.
                "scales": ArrayType((("slice", "channel"),), ("float32",), "zstd", None, optional=True),
            },
            names=("model", "layer"),
            needs={"int8": "scales"},
        ),
        ElementType(
            "prompts",
            1,
            {
                "slice": _column(dtypes=_INTEGERS),
                "label": _column(dtypes=_INTEGERS),
                "boxes": _column("corner", dtypes=("float32",), optional=True),
                "points": _column("xy", dtypes=("float32",), optional=True),
                "point_label": _column(dtypes=_INTEGERS, optional=True),
            },
        ),
    )
}
"""The types of the specification; `known_type` finds those of other packages, too."""


def type_names() -> tuple[str, ...]:
    """Return the names of all element types, those that other packages register last."""
    return tuple(dict.fromkeys((*ELEMENT_TYPES, *plugin_names(PLUGINS))))


def known_type(name: object) -> ElementType | None:
    """Return an element type by name, None when neither the specification nor an installed package has it.

    A package registers an `ElementType`, or a function that returns one, under the type's name in the entry-point group
    ``mri_io.element_types``. Readers without that package leave its elements out.

    Raises
    ------
    ConfigError
        When what a package registers cannot be loaded or is no element type of that name.
    """
    if not isinstance(name, str):
        return None
    if name in ELEMENT_TYPES or name not in plugin_names(PLUGINS):
        return ELEMENT_TYPES.get(name)
    return plugin_instance(PLUGINS, name, ElementType)


def is_path(path: object) -> bool:
    """Whether this may be an element's path, of this release or a later one: plain names joined by ``/``."""
    return isinstance(path, str) and _NAME.fullmatch(path) is not None and DATA not in path.split("/")


def element_type(path: str) -> ElementType:
    """Return the type of an element path.

    Raises
    ------
    SchemaError
        When the path is not ``kspace``, ``<type>/<name>`` or ``emb/<model>/<layer>`` with a known type and plain names.

    Examples
    --------
    >>> element_type("recon/cg-sense-r4").name
    'recon'
    """
    kind, *names = path.split("/")
    found = known_type(kind)
    if found is None:
        raise SchemaError(expected_got("element type", expected=type_names(), got=repr(kind), where=path))
    if len(names) != len(found.names) or not is_path(path):
        form = "/".join((kind, *(f"<{name}>" for name in found.names)))
        form += ", names of letters, digits, '-', '_' and '.'" if found.names else ""
        raise SchemaError(expected_got("element path", expected=form, got=repr(path)))
    return found
