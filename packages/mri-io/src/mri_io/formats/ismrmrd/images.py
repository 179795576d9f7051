"""Images in ISMRMRD files: stacks of slices with their affine."""

import re
from collections.abc import Iterable, Iterator
from pathlib import Path

import h5py
import ismrmrd
import numpy as np

from mri_io.errors import FormatError, expected_got
from mri_io.formats.base import RawElement
from mri_io.formats.hdf5 import open_hdf5, stored_array
from mri_io.formats.ismrmrd.geometry import affine_of

__all__ = ["holds_images", "image_elements"]

_PLAIN = re.compile(r"image_?[0-9]{1,6}")
_SERIES = (("set", "set"), ("repetition", "frame"), ("phase", "frame"), ("contrast", "echo"))
_KINDS = {0: "magnitude", ismrmrd.IMTYPE_MAGNITUDE: "magnitude", ismrmrd.IMTYPE_COMPLEX: "complex"}


def holds_images(names: Iterable[str]) -> bool:
    """Whether a group with members of these names holds ISMRMRD images."""
    return {"header", "attributes", "data"} <= set(names)


def image_elements(path: Path, group: str, kind: str) -> tuple[list[RawElement], dict[str, str]]:
    """Return the plain images of a data set as elements, and why others are left out, by their groups.

    Parameters
    ----------
    path, group
        The file and the data set's group.
    kind
        ``recon`` or ``image``: what they become.
    """
    elements, left_out = [], {}
    with open_hdf5(path) as file:
        place = file.get(group, {})
        names = sorted(name for name in place if isinstance(place[name], h5py.Group) and holds_images(place[name]))
        for number, name in enumerate(names):
            stored = name.replace("_", "-") if _PLAIN.fullmatch(name) else f"other-{number}"
            found = _element(file, path, f"{group}/{name}", f"{kind}/{stored}")
            if isinstance(found, str):
                left_out[stored] = found
            else:
                elements.append(found)
    return elements, left_out


def _element(file: h5py.File, path: Path, where: str, target: str) -> RawElement | str:
    """Return the element of a group of images, or why it is none."""
    header, data = file[where]["header"], stored_array(file, f"{where}/data", pairs=True)
    fields = getattr(header.dtype, "names", None) or ()
    lacking = {"slice", "image_type", "position", "read_dir", "field_of_view"} - set(fields)
    if lacking or data.ndim != 5 or len(data) != len(header) or 0 in data.shape:
        got = f"{len(header)} headers, data {data.shape}, headers without {sorted(lacking)}"
        raise FormatError(expected_got(where, expected="as many headers as images (n, channel, z, y, x)", got=got))
    heads = header[()]
    kinds = np.unique(heads["image_type"]).tolist()
    if len(kinds) > 1 or kinds[0] not in _KINDS:
        return f"image type {kinds}"
    if data.shape[1] > 1:
        return f"{data.shape[1]} channels"
    stored = np.dtype(np.complex64 if data.dtype.names or data.dtype.kind == "c" else np.float32)
    if stored.kind == "c" and target.startswith("image/"):
        target = target.replace("image/", "recon/", 1)
    layout = _layout(heads, data.shape)
    if layout is None:
        return "slices that do not form one stack"
    dims, shape, order = layout

    def blocks() -> Iterator[np.ndarray]:
        with open_hdf5(path) as file:
            for number in order:
                plane = file[where]["data"][number, 0]
                if plane.dtype.names:
                    real, imaginary = plane.dtype.names[:2]
                    plane = plane[real] + 1j * plane[imaginary]
                yield plane.astype(stored)

    return RawElement(target, shape, stored, blocks, dims=dims, affine=_affine(heads, order, data.shape))


def _layout(heads: np.ndarray, shape: tuple[int, ...]) -> tuple[tuple[str, ...], tuple[int, ...], np.ndarray] | None:
    """Return dimensions, shape and the order of images, None unless there is one for each place."""
    columns: dict[str, tuple[np.ndarray, int]] = {}
    for counter, dim in (*_SERIES, ("slice", "slice")):
        values, places = np.unique(heads[counter], return_inverse=True)
        before = columns.get(dim, (np.zeros(len(heads), np.int64), 1))
        columns[dim] = before[0] * len(values) + places.ravel(), before[1] * len(values)
    volume = shape[2] > 1
    if volume and columns["slice"][1] > 1:
        return None
    front = tuple(name for name in ("set", "frame", "echo") if columns[name][1] > 1)
    dims = (*front, "slice")
    sizes = tuple(columns[name][1] for name in dims)
    flat = np.ravel_multi_index([columns[name][0] for name in dims], sizes)
    if not np.array_equal(np.sort(flat), np.arange(int(np.prod(sizes)))):
        return None
    stack = ("z", "y", "x") if volume else ("slice", "y", "x")
    through = shape[2] if volume else sizes[-1]
    return (*front, *stack), (*sizes[:-1], through, *shape[3:]), np.argsort(flat)


def _affine(heads: np.ndarray, order: np.ndarray, shape: tuple[int, ...]) -> np.ndarray | None:
    slices = np.unique(heads["slice"][order], return_index=True)[1]
    chosen = heads[order[slices]]
    directions = [chosen[name] for name in ("read_dir", "phase_dir", "slice_dir")]
    if any(np.abs(values - values[:1]).max() > 1e-3 for values in directions):
        return None
    field, matrix = chosen["field_of_view"][0], (shape[4], shape[3], shape[2])
    voxel = tuple(float(length) / n for length, n in zip(field, matrix, strict=True))
    if min(voxel) <= 0 or not np.isfinite(voxel).all():
        return None
    read, phase, through = (values[0] for values in directions)
    return affine_of(chosen["position"], read, phase, through, matrix=matrix, voxel_mm=(voxel[0], voxel[1], voxel[2]))
