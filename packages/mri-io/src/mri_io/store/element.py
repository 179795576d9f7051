"""One committed element of a volume: metadata at once, data on request."""

import json
from collections.abc import Mapping
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from mri_io.errors import CorruptElementError, ElementNotFoundError, ShapeError, VersionError, expected_got
from mri_io.schema.elements import ELEMENT_TYPES
from mri_io.store.arrays import StoredArray

if TYPE_CHECKING:
    import xarray

__all__ = ["DATA", "Element", "mask_array", "read_attributes"]

DATA = "data"
"""Name of the array of an element that has one array."""


def read_attributes(folder: Path) -> dict[str, Any] | None:
    """Return the ``mri`` attributes of a group, None when it is not committed or not ours."""
    path = folder / "zarr.json"
    try:
        content = json.loads(path.read_bytes())
        if content.get("node_type") != "group":
            return None
        attributes = content.get("attributes", {}).get("mri")
    except FileNotFoundError:
        return None
    except (ValueError, AttributeError) as error:
        raise CorruptElementError(f"{path}: the metadata cannot be read: {error}.") from None
    return attributes if isinstance(attributes, dict) else None


class Element:
    """A committed, immutable element.

    Indexing reads data: ``element[3]`` is slice 3, a writable numpy array.

    Parameters
    ----------
    folder
        The element's folder in a volume.
    path
        Its path in the volume, e.g. ``"recon/cg-sense-r4"``.
    volume_id
        The volume it belongs to.
    attributes
        Its ``mri`` attributes, when they have been read.
    """

    def __init__(self, folder: Path, path: str, volume_id: str, attributes: Mapping[str, Any] | None = None) -> None:
        self.folder = folder
        self.path = path
        self.volume_id = volume_id
        found = attributes if attributes is not None else read_attributes(folder)
        if found is None:
            raise ElementNotFoundError(f"{folder}: there is no committed element {path!r}.")
        self.attributes: dict[str, Any] = dict(found)
        kind = ELEMENT_TYPES.get(self.type)
        if kind is not None and int(self.attributes.get("type_version", 1)) > kind.version:
            raise VersionError(
                f"{folder}: type {self.type!r} version {self.attributes['type_version']} is newer than version "
                f"{kind.version}, which this release of mri-io reads. Upgrade mri-io."
            )

    @property
    def type(self) -> str:
        """The element type, e.g. ``"recon"``."""
        return str(self.attributes.get("type", self.path.partition("/")[0]))

    @property
    def name(self) -> str:
        """The element's name within its type, e.g. ``"cg-sense-r4"``; the type where it has none."""
        return self.path.partition("/")[2] or self.path

    @property
    def commit(self) -> str:
        """Unique identifier of this commit."""
        return str(self.attributes.get("commit", ""))

    @property
    def provenance(self) -> dict[str, Any]:
        """How the element came about."""
        return dict(self.attributes.get("provenance", {}))

    @property
    def affine(self) -> np.ndarray | None:
        """Voxel (x, y, slice) to RAS+ millimetres, (4, 4) float64, or None when it is unknown."""
        affine = self.attributes.get("affine")
        return None if affine is None else np.array(affine, dtype=np.float64).reshape(4, 4)

    @property
    def labels(self) -> dict[int, dict[str, Any]]:
        """Declared label ids with their names and codes; empty for other types."""
        return {int(key): dict(value) for key, value in self.attributes.get("labels", {}).items()}

    @cached_property
    def arrays(self) -> dict[str, StoredArray]:
        """The element's arrays by name."""
        folders = sorted(child for child in self.folder.iterdir() if (child / "zarr.json").is_file())
        return {folder.name: StoredArray(folder) for folder in folders}

    def array(self, name: str) -> np.ndarray:
        """Return one named array of an element that has several, e.g. ``"boxes"``."""
        if name not in self.arrays:
            raise ElementNotFoundError(
                expected_got("array", expected=tuple(self.arrays), got=repr(name), where=self.folder)
            )
        return self.arrays[name][...]

    @cached_property
    def _data(self) -> StoredArray:
        return StoredArray(self.folder / DATA)

    @property
    def shape(self) -> tuple[int, ...]:
        """Shape of the data."""
        return self._data.shape

    @property
    def dtype(self) -> np.dtype[Any]:
        """Dtype of the data."""
        return self._data.dtype

    @property
    def dims(self) -> tuple[str, ...]:
        """Names of the dimensions."""
        return self._data.dims

    @property
    def nbytes(self) -> int:
        """Bytes of the data in memory."""
        return int(np.prod(self.shape, dtype=np.int64)) * self.dtype.itemsize

    @property
    def stored_bytes(self) -> int:
        """Bytes of all files of the element."""
        return sum(file.stat().st_size for file in self.folder.rglob("*") if file.is_file())

    def __getitem__(self, index: Any) -> np.ndarray:
        """Read by numpy's basic indexing into a writable array; checksums are verified."""
        return self._data[index]

    def __len__(self) -> int:
        """Return the length of the first dimension."""
        return self.shape[0]

    def numpy(self) -> np.ndarray:
        """Read all data."""
        return self._data[...] if not self._data.is_mapped else self._data[:]

    def xarray(self) -> "xarray.DataArray":
        """Return a lazy view with named dimensions, attributes and one dask chunk per stored chunk."""
        from mri_io.store.views import element_view

        return element_view(self)

    def __repr__(self) -> str:
        """Return type, path, dimensions and dtype."""
        sizes = ", ".join(f"{name}: {size}" for name, size in zip(self.dims, self.shape, strict=True))
        return f"<Element {self.volume_id}/{self.path} ({sizes}) {self.dtype}>"


def mask_array(element: Element) -> np.ndarray:
    """Return a sampling mask so that it broadcasts against ``(..., ky, kx)``.

    Parameters
    ----------
    element
        A mask element with dimensions ``("kx",)``, ``("ky",)``, ``("ky", "kx")`` or ``("slice", "ky", "kx")``.

    Returns
    -------
    numpy.ndarray
        uint8, shape (1, kx), (ky, 1), (ky, kx) or (slice, ky, kx).
    """
    mask = element.numpy()
    shapes = {("kx",): (1, -1), ("ky",): (-1, 1)}
    if element.type != "mask":
        raise ShapeError(expected_got("element type", expected="mask", got=element.type, where=element.folder))
    return mask.reshape(shapes[element.dims]) if element.dims in shapes else mask
