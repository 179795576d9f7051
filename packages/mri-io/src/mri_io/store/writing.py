"""Writing one element: checked block by block, streamed into a staging directory, committed at the end."""

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from mri_io.errors import NonFiniteError, SchemaError, ShapeError, expected_got
from mri_io.schema.elements import DATA, ArrayType, ElementType
from mri_io.store.arrays import ArrayWriter, array_metadata
from mri_io.store.checks import check_labels_declared
from mri_io.store.durable import storage_errors
from mri_io.store.metadata import write_array_metadata

__all__ = ["ArrayPlan", "ElementWriter", "plan_arrays"]

_BLOCK_BYTES = 64 * 2**20


@dataclass(frozen=True)
class ArrayPlan:
    """An array that is about to be written: its type, shape, dtype and dimension names."""

    name: str
    kind: ArrayType
    shape: tuple[int, ...]
    dtype: np.dtype[Any]
    dims: tuple[str, ...]


def plan_arrays(
    kind: ElementType,
    arrays: Mapping[str, tuple[Sequence[int], Any]],
    dims: Sequence[str] | None,
    where: str,
) -> dict[str, ArrayPlan]:
    """Check names, shapes and dtypes of the arrays of an element against its type.

    Raises
    ------
    SchemaError, ShapeError
        When they do not follow the specification.
    """
    required = {name for name, spec in kind.arrays.items() if not spec.optional}
    if not required <= arrays.keys() <= kind.arrays.keys():
        optional = kind.arrays.keys() - required
        wanted = ", ".join(sorted(required)) + (f" and perhaps {', '.join(sorted(optional))}" if optional else "")
        raise SchemaError(expected_got("arrays", expected=wanted, got=tuple(sorted(arrays)), where=where))
    for stored, needed in kind.needs.items():
        if (np.dtype(arrays[DATA][1]).name == stored) != (needed in arrays):
            got = f"{np.dtype(arrays[DATA][1]).name} and {', '.join(sorted(arrays))}"
            expected = f"{needed!r} beside data of dtype {stored}, and only there"
            raise SchemaError(expected_got("arrays", expected=expected, got=got, where=where))
    plans = {}
    for name, (shape, dtype) in arrays.items():
        spec, size, given = kind.arrays[name], tuple(int(n) for n in shape), np.dtype(dtype)
        if given == np.bool_ and "uint8" in spec.dtypes:
            given = np.dtype(np.uint8)
        place = where if kind.single else f"{where}: {name}"
        names = tuple(dims) if dims is not None and name == DATA else None
        plans[name] = ArrayPlan(name, spec, size, given, spec.check(size, given, names, place))
    return plans


class ElementWriter:
    """Append blocks to an array of an element; the element becomes visible when it is complete.

    Parameters
    ----------
    node
        The element's folder in the staging directory.
    kind
        Type of the element.
    plan
        The array.
    labels
        Declared label ids, as stored.
    where
        What messages call the element.
    """

    def __init__(self, node: Path, kind: ElementType, plan: ArrayPlan, labels: Mapping[str, Any], where: str) -> None:
        self._kind, self._plan, self._labels, self._where = kind, plan, labels, where
        self._folder = node / plan.name
        self._writer = ArrayWriter(self._folder, plan.kind, plan.shape, plan.dtype)

    def append(self, block: np.ndarray) -> None:
        """Append the next part of the array, in C order.

        Parameters
        ----------
        block
            Rows of the first dimension, shape ``(n, *shape[1:])``. Where a row itself consists of chunks, a block may
            be finer and lack leading dimensions: ``(n, *shape[k + 1:])`` are rows of dimension `k` at the present
            position of those before it. Of k-space (echo, slice, coil, ky, kx) that is ``(n, coil, ky, kx)``, some
            slices of one echo. Such a block ends where dimension `k` does, at the latest.

        Raises
        ------
        ShapeError
            When the block does not fit or there are too many rows.
        NonFiniteError
            When the block holds NaN or infinity.
        SchemaError
            When the dtype differs, or a label map holds an undeclared id.
        StoreError
            When the file system refuses, e.g. because it is full.
        """
        block = np.asarray(block)
        start = self._start_of(block)
        given = np.dtype(np.uint8) if block.dtype == np.bool_ else block.dtype
        if given.newbyteorder("=") != self._plan.dtype.newbyteorder("="):
            raise SchemaError(expected_got("dtype", expected=self._plan.dtype, got=block.dtype, where=self._where))
        row_bytes = max(1, block.nbytes // max(1, len(block)))
        step = len(block) if self._plan.kind.inner is None else max(1, _BLOCK_BYTES // row_bytes)
        for first in range(0, len(block), max(1, step)):  # bounds the temporaries of the checks
            rows = block[first : first + step]
            self._check_values(rows, (*start[:-1], start[-1] + first))
            with storage_errors(self._where):
                self._writer.append(rows)

    def _start_of(self, block: np.ndarray) -> tuple[int, ...]:
        """Return the index at which a block begins, up to its own first dimension; ShapeError when it does not fit."""
        shape, grid = self._plan.shape, self._writer.leading
        lacking = len(shape) - block.ndim if 0 < block.ndim < len(shape) else 0
        axis = lacking if lacking < len(grid) else 0
        chunks = math.prod(grid[axis + 1 :])  # of one row of the block
        done, inside = divmod(self._writer.written, chunks)
        complete = self._writer.written == self._writer.chunks
        room = 0 if complete else shape[axis] - done % shape[axis]
        fits = block.ndim == len(shape) - axis and block.shape[1:] == shape[axis + 1 :]
        if inside or not fits or len(block) > room:
            wanted = f"at most {room} rows of shape {shape[axis + 1 :]}"
            if inside:
                wanted = f"the rest of a row, {chunks - inside} chunks of shape {shape[len(grid) :]}"
            raise ShapeError(expected_got("block", expected=wanted, got=block.shape, where=self._where))
        if not grid and len(block) != shape[0]:
            raise ShapeError(
                expected_got("block", expected=f"the whole array {shape}", got=block.shape, where=self._where)
            )
        return tuple(int(n) for n in np.unravel_index(done, shape[: axis + 1])) if room else (shape[0],)

    def _check_values(self, rows: np.ndarray, start: tuple[int, ...]) -> None:
        kind = self._kind
        if kind.finite and rows.dtype.kind in "fc" and not _is_finite(rows):
            bad = np.argwhere(~np.isfinite(rows))
            position = (*start[:-1], start[-1] + int(bad[0][0]), *(int(n) for n in bad[0][1:]))
            raise NonFiniteError(
                expected_got(
                    "values",
                    expected="finite numbers",
                    got=f"{len(bad)} NaN or infinite, the first at index {position}",
                    where=self._where,
                    fix="Repair the source or leave it out.",
                )
            )
        if kind.labelled:
            check_labels_declared(rows, self._labels, self._where)
        if kind.maximum is not None and rows.size and int(rows.max()) > kind.maximum:
            raise SchemaError(
                expected_got("values", expected=f"0 to {kind.maximum}", got=int(rows.max()), where=self._where)
            )

    def close(self) -> None:
        """Finish the array and write its metadata; ShapeError when rows are missing."""
        plan, writer = self._plan, self._writer
        if writer.written != writer.chunks:
            self.abort()
            rows, rest = divmod(writer.written * plan.shape[0], writer.chunks)
            got = f"{rows} and a part of the next" if rest else rows
            raise ShapeError(expected_got("rows", expected=plan.shape[0], got=got, where=self._where))
        with storage_errors(self._where):
            writer.close()
            write_array_metadata(self._folder, array_metadata(plan.kind, plan.shape, plan.dtype, plan.dims))

    def abort(self) -> None:
        """Close open files after an error."""
        self._writer.abort()


def _is_finite(rows: np.ndarray) -> bool:
    """Whether all values are finite: a finite sum says so at once, any other may be an overflow."""
    with np.errstate(over="ignore", invalid="ignore"):
        return bool(np.isfinite(rows.sum())) or bool(np.isfinite(rows).all())
