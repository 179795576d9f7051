"""Lazy xarray views of elements and volumes, on the fast reader."""

from typing import TYPE_CHECKING

import dask.array
import xarray

from mri_io.schema.elements import DATA

if TYPE_CHECKING:
    from mri_io.store.element import Element
    from mri_io.store.volume import Volume

__all__ = ["element_view", "volume_view"]


def _variable(element: "Element", name: str) -> xarray.Variable:
    """Return a lazy variable with one dask chunk per stored chunk."""
    array = element.arrays[name]
    chunks = array.shape if array.layout is None else array.layout.chunk
    token = f"{element.volume_id}-{element.path}-{name}-{element.commit}"
    return xarray.Variable(array.dims, dask.array.from_array(array, chunks=chunks, name=token))


def element_view(element: "Element") -> xarray.DataArray:
    """Return a lazy DataArray of the element's data; nothing is read until it is computed."""
    return xarray.DataArray(_variable(element, DATA), name=element.path, attrs={"mri": element.attributes})


def volume_view(volume: "Volume") -> xarray.DataTree:
    """Return a lazy DataTree, one node per element with its arrays, as `xarray.open_datatree` makes of a volume."""
    nodes = {
        path: xarray.Dataset(
            {name: _variable(element, name) for name in element.arrays}, attrs={"mri": element.attributes}
        )
        for path, element in volume.elements().items()
    }
    root = xarray.Dataset(attrs={"mri": volume.attributes})
    return xarray.DataTree.from_dict({"/": root, **nodes}, name=volume.id)
