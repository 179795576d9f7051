"""Writing one element: checked block by block, streamed into a staging directory, committed at the end."""

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
        """Append rows of the first dimension in order, shape ``(n, *shape[1:])``.

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
        shape, first = self._plan.shape, self._writer.written
        whole = self._plan.kind.inner is None
        if block.shape[1:] != shape[1:] or block.ndim != len(shape) or first + len(block) > shape[0]:
            fits = f"at most {shape[0] - first} rows of shape {shape[1:]}"
            raise ShapeError(expected_got("block", expected=fits, got=block.shape, where=self._where))
        if whole and len(block) != shape[0]:
            raise ShapeError(
                expected_got("block", expected=f"the whole array {shape}", got=block.shape, where=self._where)
            )
        given = np.dtype(np.uint8) if block.dtype == np.bool_ else block.dtype
        if given.newbyteorder("=") != self._plan.dtype.newbyteorder("="):
            raise SchemaError(expected_got("dtype", expected=self._plan.dtype, got=block.dtype, where=self._where))
        row_bytes = max(1, block.nbytes // max(1, len(block)))
        step = len(block) if whole else max(1, _BLOCK_BYTES // row_bytes)
        for start in range(0, len(block), step):  # bounds the temporaries of the checks
            rows = block[start : start + step]
            self._check_values(rows, first + start)
            with storage_errors(self._where):
                self._writer.append(rows)

    def _check_values(self, rows: np.ndarray, first: int) -> None:
        kind = self._kind
        if kind.finite and rows.dtype.kind in "fc" and not np.isfinite(rows).all():
            bad = np.argwhere(~np.isfinite(rows))
            position = (first + int(bad[0][0]), *(int(n) for n in bad[0][1:]))
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
        plan, written = self._plan, self._writer.written
        if written != plan.shape[0]:
            self.abort()
            raise ShapeError(expected_got("rows", expected=plan.shape[0], got=written, where=self._where))
        with storage_errors(self._where):
            self._writer.close()
            write_array_metadata(self._folder, array_metadata(plan.kind, plan.shape, plan.dtype, plan.dims))

    def abort(self) -> None:
        """Close open files after an error."""
        self._writer.abort()
