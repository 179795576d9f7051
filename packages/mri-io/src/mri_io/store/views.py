"""Lazy xarray views of elements and volumes."""

from typing import TYPE_CHECKING, Any

import dask.array
import numpy as np
import xarray
from dask import delayed

if TYPE_CHECKING:
    from mri_io.store.element import Element
    from mri_io.store.volume import Volume

__all__ = ["element_view", "volume_view"]


def _slice(element: "Element", index: int) -> np.ndarray:
    return element[index : index + 1]


def _lazy(element: "Element") -> Any:
    """Return a dask array with one chunk per slice, or one in all for small whole-chunk types."""
    if element.dims[0] not in ("slice", "z"):
        whole = delayed(element.numpy, pure=True)()
        return dask.array.from_delayed(whole, element.shape, element.dtype)
    shape = (1, *element.shape[1:])
    read = delayed(_slice, pure=True)
    parts = [dask.array.from_delayed(read(element, i), shape, element.dtype) for i in range(element.shape[0])]
    return dask.array.concatenate(parts, axis=0)


def element_view(element: "Element") -> xarray.DataArray:
    """Return a lazy DataArray; nothing is read until it is computed."""
    return xarray.DataArray(_lazy(element), dims=element.dims, name=element.path, attrs={"mri": element.attributes})


def volume_view(volume: "Volume") -> xarray.DataTree:
    """Return a lazy DataTree, one node per element with its data under the name ``data``."""
    nodes = {
        path: xarray.Dataset({"data": element_view(element).rename("data")}, attrs={"mri": element.attributes})
        for path, element in volume.elements().items()
    }
    return xarray.DataTree.from_dict({"/": xarray.Dataset(attrs={"mri": volume.attributes}), **nodes}, name=volume.id)
