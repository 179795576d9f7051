"""What an array is, by the names of its axes: k-space, coil maps or images; and its parts in the order of the store."""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from mri_io.errors import FormatError, expected_got
from mri_io.formats.array_files.sources import ArraySource, joined
from mri_io.formats.base import RawElement
from mri_io.formats.kspace.sampling import mask_from_zeros
from mri_io.schema.elements import SERIES

__all__ = ["AXES", "DROPPED", "elements_of"]

COMPLEX, DROPPED = "complex", ("-", "_")
AXES = (*SERIES, "slice", "kz", "z", "map", "coil", "ky", "kx", "y", "x", "shot", "sample", COMPLEX)
"""Names of axes; those of `DROPPED` stand for axes of length one."""
BLOCK_BYTES = 1 << 26


@dataclass(frozen=True)
class Layout:
    """An element's dimensions: those that may be absent from the array have length one, of `either` the first."""

    inner: tuple[str, ...]
    either: tuple[str, ...]
    series: bool

    def dims(self, names: Sequence[str]) -> tuple[str, ...] | None:
        """Return the element's dimensions for an array with these axes, None when an axis has no place."""
        front = [name for name in SERIES if name in names] if self.series else []
        between = [name for name in self.either if name in names] or [self.either[0]]
        dims = (*front, *between, *self.inner)
        return dims if set(names) <= set(dims) else None


_GRID = Layout(("coil", "ky", "kx"), ("slice", "kz"), series=True)
_SHOTS = Layout(("coil", "shot", "sample"), ("slice", "kz"), series=True)
_MAPS = Layout(("map", "coil", "y", "x"), ("slice", "z"), series=False)
_IMAGE = Layout(("y", "x"), ("slice", "z"), series=True)


def elements_of(source: ArraySource, axes: Sequence[str], name: str | None) -> tuple[RawElement, ...]:
    """Return the elements that an array gives: with k-space on a grid, ``mask/acquired`` found from zeros.

    Arrays with the axes ky and kx, or shot and sample, are k-space, centred and orthonormal; y and x with coil are coil
    maps, others images: complex ones reconstructions.

    Parameters
    ----------
    source
        The array.
    axes
        Names of its axes, first to last, of `AXES`; ``-`` or ``_`` for axes of length one that mean nothing, and
        ``complex`` for one of length two that holds real and imaginary parts.
    name
        Name of the element of a map or image, None for the usual one.

    Raises
    ------
    FormatError
        When the names do not fit the array, or are those of nothing that the store holds.
    """
    _check(source, axes)
    names = [axis for axis in axes if axis not in (*DROPPED, COMPLEX)]
    given, is_complex = set(names), source.dtype.kind == "c" or COMPLEX in axes
    sizes = dict(zip(axes, source.shape, strict=True))
    kinds = (
        ({"ky", "kx"}, _GRID, "kspace"),
        ({"shot", "sample"}, _SHOTS, "kspace"),
        ({"coil", "y", "x"}, _MAPS, f"sens/{name or 'maps'}"),
        ({"y", "x"}, _IMAGE, f"recon/{name or 'image'}" if is_complex else f"image/{name or 'image'}"),
    )
    for needed, layout, path in kinds:
        dims = layout.dims(names) if needed <= given else None
        if dims is None or (path.startswith(("sens", "image", "recon")) and {"slice", "z"} <= given):
            continue
        if path.startswith(("kspace", "sens")) and not is_complex:
            raise _not_complex(source, path)
        shape = tuple(int(sizes.get(dim, 1)) for dim in dims)
        parts = _Parts(source, tuple(axes), dims, shape, len(layout.inner), _stored_dtype(source.dtype, is_complex))
        elements = [RawElement(path, shape, parts.dtype, parts.blocks, dims)]
        if layout is _GRID and (mask := mask_from_zeros(parts.blocks(), dict(zip(dims, shape, strict=True)))):
            elements.append(mask)
        return tuple(elements)
    raise FormatError(
        expected_got(
            "--axes",
            expected="k-space (.. coil, ky, kx), coil maps (.. map, coil, y, x) or images (.. y, x), .. being any of "
            f"{', '.join(SERIES)} and one of slice, kz (k-space) or z",
            got=",".join(axes),
            where=source.path,
        )
    )


def _check(source: ArraySource, axes: Sequence[str]) -> None:
    problem = next(_problems(source, axes), None)
    if problem is not None:
        raise FormatError(expected_got("--axes", expected=problem[0], got=problem[1], where=source.path))


def _problems(source: ArraySource, axes: Sequence[str]) -> Iterator[tuple[object, object]]:
    """Yield what was expected of the names of axes and what they are."""
    shape = source.shape
    unknown = [axis for axis in axes if axis not in (*AXES, *DROPPED)]
    twice = sorted({axis for axis in axes if axis not in DROPPED and list(axes).count(axis) > 1})
    if unknown:
        yield (*AXES, "-"), ", ".join(unknown)
    if twice:
        yield "each name once", f"{', '.join(twice)} twice"
    if len(axes) != len(shape):
        yield f"{len(shape)} names for {source.dtype} {shape}", f"{len(axes)}: {','.join(axes)}"
    if 0 in shape:
        yield "an array with content", str(shape)
    for axis, length in zip(axes, shape, strict=False):
        if axis in DROPPED and length != 1:
            yield f"length 1 of the axis {axis!r}", f"{length} in {shape}"
        if axis == COMPLEX and (length != 2 or source.dtype.kind == "c"):
            yield f"real numbers and length 2 of the axis {COMPLEX!r}", f"{source.dtype} {shape}"


def _not_complex(source: ArraySource, path: str) -> FormatError:
    if source.dtype.kind in "bu" and path == "kspace":
        fix = "Masks belong to k-space: zeros in k-space give its mask. Leave this file out."
        got = f"a mask ({source.dtype})"
    else:
        got, fix = f"{source.dtype}", "Name the axis of real and imaginary parts 'complex', or choose other names."
    return FormatError(expected_got(path, expected="complex numbers", got=got, where=source.path, fix=fix))


def _stored_dtype(dtype: np.dtype[Any], is_complex: bool) -> np.dtype[Any]:
    if is_complex:
        return np.dtype(np.complex64)
    small = dtype.kind == "b" or (dtype.kind in "iu" and np.can_cast(dtype, np.int16))
    return np.dtype(np.int16 if small else np.float32)


@dataclass(frozen=True)
class _Parts:
    """An array as an element of dimensions `dims`, of which the last `inner` are whole in a block."""

    source: ArraySource
    axes: tuple[str, ...]
    dims: tuple[str, ...]
    shape: tuple[int, ...]
    inner: int
    dtype: np.dtype[Any]

    def blocks(self) -> Iterator[np.ndarray]:
        """Yield blocks (n, ...) along the last dimension in front of the inner ones, in C order."""
        front, length = self.shape[: -self.inner - 1], self.shape[-self.inner - 1]
        row = int(np.prod(self.shape[-self.inner :])) * self.dtype.itemsize
        step = max(1, BLOCK_BYTES // row)
        for position in np.ndindex(*front):
            for first in range(0, length, step):
                yield self._read((*position, slice(first, min(first + step, length))))

    def _read(self, position: tuple[int | slice, ...]) -> np.ndarray:
        at = dict(zip(self.dims, position, strict=False))
        index = tuple(0 if axis in DROPPED else at.get(axis, slice(None)) for axis in self.axes)
        part = self.source.read(index)
        left = [axis for axis, item in zip(self.axes, index, strict=True) if isinstance(item, slice)]
        if COMPLEX in left:
            part = np.moveaxis(part, left.index(COMPLEX), 0)
            part = joined(part[0], part[1])
            left.remove(COMPLEX)
        part = part.transpose([left.index(dim) for dim in self.dims if dim in left])
        rows = position[-1]
        count = rows.stop - rows.start if isinstance(rows, slice) else 1
        with np.errstate(over="ignore", invalid="ignore"):  # the store refuses NaN and infinity
            return np.ascontiguousarray(part.reshape(count, *self.shape[-self.inner :]), dtype=self.dtype)
