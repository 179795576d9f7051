"""One committed element of a volume: metadata at once, data on request."""

from collections.abc import Mapping
from functools import cached_property
from typing import TYPE_CHECKING, Any

import numpy as np

from mri_io.errors import ElementNotFoundError, ShapeError, StoreError, expected_got
from mri_io.schema.elements import DATA
from mri_io.schema.readers import read_current
from mri_io.store.arrays import StoredArray
from mri_io.store.damage import DamageError
from mri_io.store.metadata import Node, file_identity, read_node
from mri_io.store.remote.paths import AnyPath, file_size, listed

if TYPE_CHECKING:
    import xarray

__all__ = ["Element", "mask_array"]

_LISTING = "slice"
"""Array that gives the slice of every item of an element with several arrays."""


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
    node
        Its metadata, when they have been read.

    Raises
    ------
    ElementNotFoundError
        When there is no committed element.
    VersionError
        When it is of a newer version, or of a type that this release does not know.
    CorruptElementError
        When its metadata are damaged.
    """

    def __init__(self, folder: AnyPath, path: str, volume_id: str, node: Node | None = None) -> None:
        self.folder, self.path, self.volume_id = folder, path, volume_id
        found = node if node is not None else read_node(folder)
        if found is None or found.mri is None:
            raise ElementNotFoundError(f"{folder}: there is no committed element {path!r}.")
        self.attributes: dict[str, Any] = read_current(found.mri, folder)
        self._node = found

    @property
    def type(self) -> str:
        """The element type, e.g. ``"recon"``."""
        return str(self.attributes["type"])

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
        """The element's arrays by name; each has `shape`, `dtype`, `dims` and indexing."""
        return {
            name: StoredArray(self.folder / name, metadata, self._check_present, self._node.identity)
            for name, metadata in self._node.arrays.items()
        }

    def array(self, name: str) -> np.ndarray:
        """Read one named array of an element that has several, e.g. ``"boxes"``."""
        if name not in self.arrays:
            raise ElementNotFoundError(
                expected_got("array", expected=tuple(self.arrays), got=repr(name), where=self.folder)
            )
        return self.arrays[name][...]

    @cached_property
    def _data(self) -> StoredArray:
        data = self.arrays.get(DATA)
        if data is None and self.arrays:
            names = ", ".join(self.arrays)
            raise ShapeError(f"{self.folder}: the element has several arrays: name one of {names} in .array(name).")
        if data is None:
            raise DamageError(f"{self.folder / DATA}/zarr.json: expected an array, found no file.", "missing")
        return data

    @property
    def _outline(self) -> StoredArray:
        return self.arrays[_LISTING] if DATA not in self.arrays and _LISTING in self.arrays else self._data

    @property
    def shape(self) -> tuple[int, ...]:
        """Shape of the data; of an element with several arrays, that of the array ``slice`` of its items."""
        return self._outline.shape

    @property
    def dtype(self) -> np.dtype[Any]:
        """Dtype of the data, or of the array ``slice``."""
        return self._outline.dtype

    @property
    def dims(self) -> tuple[str, ...]:
        """Names of the dimensions of the data, or of the array ``slice``."""
        return self._outline.dims

    @property
    def nbytes(self) -> int:
        """Bytes of the data in memory."""
        return sum(array.nbytes for array in self.arrays.values())

    @property
    def stored_bytes(self) -> int:
        """Bytes of all files of the element."""
        return sum(file_size(file) for file in listed(self.folder).rglob("*") if file.is_file())

    def __getitem__(self, index: Any) -> np.ndarray:
        """Read by numpy's basic indexing into a writable array; checksums are verified.

        Raises
        ------
        CorruptElementError
            When stored bytes do not match their checksum; the message names file and chunk.
        StoreError
            When the element has been replaced or removed since it was opened.
        """
        return self._data[index]

    def view(self, index: Any) -> np.ndarray:
        """Read like indexing does, but read-only: one slice of uncompressed data, k-space say, is not copied.

        The array is a window of the file, checksums verified, for as long as it is kept.
        """
        return self._data.view(index)

    def __len__(self) -> int:
        """Return the length of the first dimension."""
        return self.shape[0]

    def numpy(self) -> np.ndarray:
        """Read all data."""
        return self._data[...]

    def xarray(self) -> "xarray.DataArray":
        """Return a lazy view with named dimensions, attributes and one dask chunk per stored chunk."""
        from mri_io.store.views import element_view

        return element_view(self)

    def _check_present(self) -> None:
        """Raise StoreError when another element, or none, has taken the place of the one that was opened."""
        if file_identity(self.folder / "zarr.json") != self._node.identity:
            raise StoreError(
                f"{self.folder}: the element was replaced or removed after it was opened (commit {self.commit}). "
                "Open it again."
            )

    def __getstate__(self) -> Mapping[str, Any]:
        """Leave open files behind: every process opens its own."""
        return {key: value for key, value in self.__dict__.items() if key not in ("arrays", "_data")}

    def __repr__(self) -> str:
        """Return path, dimensions and dtype."""
        arrays = []
        for name, array in self.arrays.items():
            sizes = ", ".join(f"{dim}: {size}" for dim, size in zip(array.dims, array.shape, strict=True))
            arrays.append(f"{'' if name == DATA else name + ' '}({sizes}) {array.dtype}")
        return f"<Element {self.volume_id}/{self.path} {', '.join(arrays)}>"


def mask_array(element: Element) -> np.ndarray:
    """Return a sampling mask so that it broadcasts against ``(..., ky, kx)``.

    Parameters
    ----------
    element
        A mask element, of lines along ``ky`` or ``kx`` or of points of both, perhaps one for each slice or frame.

    Returns
    -------
    numpy.ndarray
        uint8, shape (1, kx), (ky, 1) or (ky, kx), behind the mask's further dimensions.
    """
    if element.type != "mask":
        raise ShapeError(expected_got("element type", expected="mask", got=element.type, where=element.folder))
    mask = element.numpy()
    if element.dims[-1] == "ky":
        return mask[..., None]
    return mask[..., None, :] if "ky" not in element.dims else mask
