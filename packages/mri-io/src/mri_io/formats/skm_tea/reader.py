"""The SKM-TEA data set of knees, its raw-data track (Desai et al. 2021, arXiv:2203.06823; DATASET.md of the set).

A folder with ``files_recon_calib-24/MTR_XXX.h5``, ``segmentation_masks/raw-data-track/MTR_XXX.nii.gz`` and
``annotations/<version>/{train,val,test}.json``. The readout is transformed: its axis x is that of the slices, and
(ky, kz) are rows and columns. Label maps of the raw-data track lie on that grid, (x, y, z) without turns or flips;
those of the DICOM track do not, and are not read.
"""

import re
import zlib
from collections.abc import Callable, Iterator, Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

import h5py
import nibabel
import numpy as np
from nibabel.filebasedimages import ImageFileError

from mri_io.errors import FormatError, expected_got
from mri_io.formats.base import Identity, RawElement, RawVolume, SourceItem, identify
from mri_io.formats.hdf5 import Hdf5Based, hdf5_layout, open_hdf5, rows_at_once, stored_array
from mri_io.formats.skm_tea.annotations import Scan, read_scans
from mri_io.schema.attributes import Header

__all__ = ["TISSUES", "SkmTeaFormat"]

_FILES = "files_recon_calib-24"
_LABELS = Path("segmentation_masks", "raw-data-track")
_LOOKED_AT = 8
"""Slices in which unsampled points are looked for: reading all of 10 GB for that would take as long as converting."""
_MASK_NAME = re.compile(r"poisson_(?P<factor>\d+(?:\.\d+)?)x")

TISSUES: Mapping[int, str] = {
    1: "patellar cartilage",
    2: "femoral cartilage",
    3: "tibial cartilage, medial",
    4: "tibial cartilage, lateral",
    5: "meniscus, medial",
    6: "meniscus, lateral",
}
"""Label ids of the set, in the order of its DATASET.md."""


class SkmTeaFormat(Hdf5Based):
    """Scans of SKM-TEA: k-space, coil maps, target images, masks, tissues, and the set's own split ``skm-tea``."""

    name = "skm-tea"
    summary = "SKM-TEA: folder with files_recon_calib-24/*.h5, tissues and splits, or one such file"

    def sniff(self, path: Path) -> bool:
        """Whether it is the folder of the set, or HDF5 with ``kspace`` of five dimensions, ``maps`` and ``target``."""
        return (path / _FILES).is_dir() if path.is_dir() else hdf5_layout(path) == self.name

    def find(self, path: Path) -> list[SourceItem]:
        """Return the scans of the set or of a file, each with its tissues and what the annotations say of it."""
        files = sorted((path / _FILES).glob("*.h5")) if path.is_dir() else [path]
        root = path if path.is_dir() else path.parent.parent
        within = path.is_dir() or path.parent.name == _FILES
        problem, scans = "", {}
        try:
            scans = read_scans(root) if within else {}
        except FormatError as error:
            problem = str(error)
        items = []
        for file in files:
            labels = root / _LABELS / f"{file.stem}.nii.gz"
            parts = (file, labels) if within and labels.is_file() else (file,)
            options = {"scan": scans[file.stem]} if file.stem in scans else {}
            items.append(SourceItem(self.name, file, parts, file.name, options, problem=problem))
        return items

    def identify(self, item: SourceItem) -> Identity:
        """Return the identity: the annotations' subject and time point, else every file is a subject of its own."""
        with open_hdf5(item.path) as file:
            _arrays(file)
        scan: Scan | None = item.options.get("scan")
        if scan is None:
            return identify(item.path, item.path.stem, "qdess")
        found = identify(item.path, item.path.stem, "qdess", f"SKM-TEA {scan.subject}")
        return found if scan.timepoint is None else Identity(found.subject, "qdess", str(scan.timepoint), found.patient)

    def split_of(self, item: SourceItem) -> Mapping[str, str] | None:
        """Return the part that the annotations put a scan in."""
        scan: Scan | None = item.options.get("scan")
        return None if scan is None else {self.name: scan.part}

    def memory(self, item: SourceItem) -> int:
        """Return the most that reading holds: a block of slices of all echoes, moved and written; or the label map."""
        try:
            with open_hdf5(item.path) as file:
                arrays = _arrays(file)
                block = max(rows_at_once(array) * array.nbytes // array.shape[0] for array in arrays)
                looked_at = 2 * arrays[0].nbytes // arrays[0].shape[0]
                grid = int(np.prod(arrays[0].shape[:3]))
        except FormatError:  # reading says so
            return super().memory(item)
        labels = 0 if len(item.files) == 1 else grid * (2 * _nifti(item.files[1]).get_data_dtype().itemsize + 3)
        return max(6 * block, looked_at, labels) + 2**27

    def read(self, item: SourceItem) -> RawVolume:
        """Read what is small; k-space, maps and images in blocks of slices, one echo after the other."""
        path = item.path
        scan: Scan | None = item.options.get("scan")
        affine, source = _affine(scan, item.files[1:])
        with open_hdf5(path) as file:
            kspace, maps, target = _arrays(file)
            grid = kspace.shape[:3]
            sampled = _sampled(kspace)
            masks = [_mask(group, name, grid[1:], n) for n, (group, name) in enumerate(_mask_names(file))]
            elements = [_kspace_element(kspace, path), _maps_element(maps, path), _target_element(target, path)]
        if affine is not None:
            elements[2] = _with_affine(elements[2], affine, source)
        found = {"found": f"from zeros in {_LOOKED_AT} slices"}
        elements.append(RawElement.of("mask/acquired", sampled.astype(np.uint8), dims=("ky", "kx"), attributes=found))
        elements += masks
        for labels in item.files[1:]:
            tissues = _tissues_element(labels, grid)
            elements.append(tissues if affine is None else _with_affine(tissues, affine, source))
        return RawVolume(tuple(elements), _header(grid, sampled, scan), {"readout": "transformed, along slice"})


def _arrays(file: h5py.File) -> tuple[h5py.Dataset, h5py.Dataset, h5py.Dataset]:
    """Return k-space, maps and target; FormatError unless their shapes belong together."""
    kspace, maps, target = (stored_array(file, name) for name in ("kspace", "maps", "target"))
    fits = kspace.ndim == maps.ndim == target.ndim == 5 and 0 not in kspace.shape
    fits = fits and maps.shape[:4] == (*kspace.shape[:3], kspace.shape[4]) and maps.shape[4] > 0
    fits = fits and target.shape == (*kspace.shape[:4], maps.shape[4])
    if not fits or any(array.dtype.kind != "c" for array in (kspace, maps, target)):
        raise FormatError(
            expected_got(
                "kspace, maps, target",
                expected="complex (x, ky, kz, echo, coil), (x, ky, kz, coil, map), (x, ky, kz, echo, map)",
                got=", ".join(f"{array.dtype} {array.shape}" for array in (kspace, maps, target)),
                where=file.filename,
            )
        )
    return kspace, maps, target


def _echo(array: h5py.Dataset, start: int, stop: int, echo: int) -> np.ndarray:
    """Return slices of one echo, (slice, ky, kz, coil or map).

    Echoes lie interleaved in the file: unless they are chunks of their own, the slices of all are read, since picking
    one from the file goes by runs of a hundred bytes.
    """
    if array.chunks and array.chunks[3] == 1:
        return np.asarray(array[start:stop, :, :, echo])
    return np.asarray(array[start:stop])[:, :, :, echo]


def _by_echo(path: Path, name: str, arrange: Callable[[np.ndarray], np.ndarray]) -> Iterator[np.ndarray]:
    """Yield an array of the file echo by echo in blocks of slices, each as `arrange` makes it of (x, ky, kz, ...)."""
    with open_hdf5(path) as file:
        array = stored_array(file, name)
        step = rows_at_once(array)
        for echo in range(array.shape[3]):
            for start in range(0, array.shape[0], step):
                found = arrange(_echo(array, start, start + step, echo))
                yield np.ascontiguousarray(found, dtype=np.complex64)


def _kspace_element(kspace: h5py.Dataset, path: Path) -> RawElement:
    slices, rows, columns, echoes, coils = kspace.shape

    def blocks() -> Iterator[np.ndarray]:
        return _by_echo(path, "kspace", lambda found: found.transpose(0, 3, 1, 2))

    dims, shape = ("echo", "slice", "coil", "ky", "kx"), (echoes, slices, coils, rows, columns)
    return RawElement("kspace", shape, np.dtype(np.complex64), blocks, dims)


def _maps_element(maps: h5py.Dataset, path: Path) -> RawElement:
    slices, rows, columns, coils, sets = maps.shape
    step = rows_at_once(maps)

    def blocks() -> Iterator[np.ndarray]:
        with open_hdf5(path) as file:
            array = stored_array(file, "maps")
            for start in range(0, slices, step):
                found = np.asarray(array[start : start + step]).transpose(0, 4, 3, 1, 2)
                yield np.ascontiguousarray(found, dtype=np.complex64)

    dims, shape = ("slice", "map", "coil", "y", "x"), (slices, sets, coils, rows, columns)
    made = {"estimated_by": "JSENSE, 24 x 24 calibration region, by the authors of the data set"}
    return RawElement("sens/jsense", shape, np.dtype(np.complex64), blocks, dims, attributes=made)


def _target_element(target: h5py.Dataset, path: Path) -> RawElement:
    slices, rows, columns, echoes, sets = target.shape

    def blocks() -> Iterator[np.ndarray]:
        return _by_echo(path, "target", lambda found: found[..., 0])

    dims, shape = ("echo", "slice", "y", "x"), (echoes, slices, rows, columns)
    stated: dict[str, Any] = {} if sets == 1 else {"map": 0, "maps_in_file": sets}
    return RawElement("recon/target", shape, np.dtype(np.complex64), blocks, dims, attributes=stated)


def _with_affine(element: RawElement, affine: np.ndarray, source: str) -> RawElement:
    return replace(element, affine=affine, attributes={**element.attributes, "affine_from": source})


def _sampled(kspace: h5py.Dataset) -> np.ndarray:
    """Return where any coil of any echo is not zero in slices spread over the volume, bool (ky, kz)."""
    slices = kspace.shape[0]
    found = np.zeros(kspace.shape[1:3], dtype=bool)
    for number in np.unique(np.linspace(0, slices - 1, _LOOKED_AT + 2).astype(int)[1:-1]):
        found |= np.asarray(kspace[int(number)]).any(axis=(-2, -1))
    if not found.any():
        raise FormatError(expected_got("kspace", expected="signal", got="zeros", where=kspace.file.filename))
    return found


def _mask_names(file: h5py.File) -> list[tuple[h5py.Group, str]]:
    group = file.get("masks")
    return [(group, name) for name in sorted(group)] if isinstance(group, h5py.Group) else []


def _mask(group: h5py.Group, name: str, grid: tuple[int, ...], number: int) -> RawElement:
    """Return a mask on the grid of k-space, named after its factor, else by its number.

    The set's masks cover the acquired matrix, 416 x 80, which lies in the middle of the zero-filled one, 512 x 160.
    """
    array = stored_array(group.file, f"{group.name}/{name}")
    stored = np.asarray(array).reshape([n for n in array.shape if n != 1])
    if stored.ndim != 2 or any(small > large for small, large in zip(stored.shape, grid, strict=True)):
        expected = f"(ky, kz), at most {tuple(grid)}"
        raise FormatError(expected_got(f"masks/{name}", expected=expected, got=array.shape, where=group.file.filename))
    starts = [large // 2 - small // 2 for small, large in zip(stored.shape, grid, strict=True)]
    mask = np.zeros(grid, np.uint8)
    mask[starts[0] : starts[0] + stored.shape[0], starts[1] : starts[1] + stored.shape[1]] = stored != 0
    found = _MASK_NAME.fullmatch(name)
    stem = f"poisson-{float(found['factor']):g}x" if found else f"other-{number}"
    # The factor is that of the acquired matrix: the rest of the grid is zero-filled, not accelerated.
    stated = {"acceleration": float(stored.size / max(1, int((stored != 0).sum()))), "matrix": list(stored.shape)}
    return RawElement.of(f"mask/{stem}", mask, dims=("ky", "kx"), attributes=stated)


def _header(grid: tuple[int, ...], sampled: np.ndarray, scan: Scan | None) -> Header:
    """Return the matrices: what was acquired, and the zero-filled one; their field of view is the same."""
    slices, rows, columns = grid
    rows_sampled, columns_sampled = (np.flatnonzero(sampled.any(axis=axis)) for axis in (1, 0))
    acquired = [int(lines[-1] - lines[0]) + 1 for lines in (columns_sampled, rows_sampled)]
    fov = None
    if scan is not None and scan.spacing_mm is not None:
        x, y, z = (n * mm / 1000 for n, mm in zip(grid, scan.spacing_mm, strict=True))
        fov = (z, y, x)
    return Header(
        encoded_matrix=(acquired[0], acquired[1], slices),
        recon_matrix=(columns, rows, slices),
        encoded_fov_m=fov,
        recon_fov_m=fov,
        trajectory="cartesian",
        padding_left=int(columns_sampled[0]),
        padding_right=int(columns_sampled[-1]) + 1,
    )


def _nifti(path: Path) -> Any:
    try:
        return nibabel.load(path)
    except (ImageFileError, OSError, EOFError, ValueError, zlib.error) as error:
        raise FormatError(_unreadable(path, error)) from error


def _unreadable(path: Path, error: Exception) -> str:
    fix = "The file is truncated or damaged: copy it again from its source."
    return expected_got("label map", expected="a readable NIfTI image", got=f"an error: {error}", where=path, fix=fix)


def _tissues_element(path: Path, grid: tuple[int, ...]) -> RawElement:
    shape = _nifti(path).shape
    if shape != grid:
        fix = "Label maps of the raw-data track lie on the grid of the target; those of the DICOM track do not."
        raise FormatError(expected_got("label grid", expected=f"(x, y, z) {grid}", got=shape, where=path, fix=fix))
    dtype, dims = np.dtype(np.uint8), ("slice", "y", "x")
    return RawElement("seg/tissues", grid, dtype, lambda: _tissues(path), dims, labels=TISSUES)


def _tissues(path: Path) -> Iterator[np.ndarray]:
    try:
        values = np.asanyarray(_nifti(path).dataobj)
    except (OSError, EOFError, ValueError, zlib.error) as error:
        if isinstance(error, FormatError):
            raise
        raise FormatError(_unreadable(path, error)) from error
    rounded = np.rint(values) if values.dtype.kind == "f" else values
    if not np.array_equal(rounded, values) or rounded.min() < 0 or rounded.max() > max(TISSUES):
        expected = f"whole numbers from 0 to {max(TISSUES)}"
        raise FormatError(expected_got("labels", expected=expected, got="others", where=path))
    yield np.ascontiguousarray(rounded, dtype=np.uint8)


def _affine(scan: Scan | None, labels: tuple[Path, ...]) -> tuple[np.ndarray | None, str]:
    """Return the affine of voxel (x, y, slice) = (kz, ky, x) to RAS+ mm, and where it comes from.

    The annotations state the directions and sizes of the axes of the arrays. The label map's affine has the place,
    too, and is taken where it agrees with them, or alone. Without it the place is unknown, and the first voxel is put
    at the origin, as the set's own tools do.
    """
    stated = scan.affine() if scan is not None else None
    known = _nifti(labels[0]).affine if labels else None
    if known is not None and not (np.isfinite(known).all() and abs(np.linalg.det(known[:3, :3])) > 0):
        known = None
    if known is not None and (stated is None or np.allclose(known[:3, :3], stated[:3, :3], atol=1e-3)):
        return known[:, [2, 1, 0, 3]], "label map"
    if stated is not None:
        return stated[:, [2, 1, 0, 3]], "annotations, without place"
    return None, ""
