"""Sampling patterns as masks of the fewest dimensions that hold them."""

from collections.abc import Iterable, Sequence
from typing import Any

import numpy as np

from mri_io.formats.base import RawElement

__all__ = ["mask_from_zeros", "mask_of_pattern"]


def mask_of_pattern(pattern: np.ndarray, dims: Sequence[str], **attributes: Any) -> RawElement | None:
    """Return the element ``mask/acquired`` of a sampling pattern, None when every position was acquired, or none was.

    Parameters
    ----------
    pattern
        (..., ky, kx) bool; dimensions in front along which it does not change are left out, and of patterns of lines
        the other in-plane one, unless slices or partitions differ.
    dims
        Names of the dimensions of `pattern`.
    attributes
        Further attributes, beside ``acceleration``, positions per acquired position.
    """
    if pattern.all() or not pattern.any():
        return None
    names = list(dims)
    for axis in reversed(range(len(names) - 2)):
        first = pattern.take([0], axis)
        if (pattern == first).all():
            pattern, names = first.squeeze(axis), names[:axis] + names[axis + 1 :]
    found = {"acceleration": float(pattern.size / pattern.sum()), **attributes}
    for axis, dim in ((-2, "kx"), (-1, "ky")) if not {"slice", "kz"} & set(names) else ():
        line = pattern.take([0], axis)
        if (pattern == line).all():
            pattern, names = line.squeeze(axis), [*names[:-2], dim]
            break
    return RawElement.of("mask/acquired", pattern.astype(np.uint8), dims=tuple(names), attributes=found)


def mask_from_zeros(blocks: Iterable[np.ndarray], sizes: dict[str, int]) -> RawElement | None:
    """Return the mask of k-space that holds zeros where nothing was acquired.

    A position is acquired when any coil of any slice is not zero there; series and partitions have their own.

    Parameters
    ----------
    blocks
        (n, coil, ky, kx), in C order of the dimensions in front of the coils.
    sizes
        Dimensions of k-space by name, in order.
    """
    leading = {name: size for name, size in sizes.items() if name not in ("coil", "ky", "kx")}
    plane = (sizes["ky"], sizes["kx"])
    kept = {name: size for name, size in leading.items() if name != "slice"}
    pattern = np.zeros((*kept.values(), *plane), bool)
    position = 0
    for block in blocks:
        for row in block:
            at = dict(zip(leading, np.unravel_index(position, tuple(leading.values())), strict=True))
            with np.errstate(invalid="ignore"):  # the store refuses NaN
                pattern[tuple(at[name] for name in kept)] |= (row != 0).any(axis=0)
            position += 1
    return mask_of_pattern(pattern, (*kept, "ky", "kx"), found_from_data=True)
