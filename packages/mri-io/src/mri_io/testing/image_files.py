"""Image files and data sets of them, written with nibabel, pynrrd and SimpleITK, with names planted in free text."""

import shutil
import warnings
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import nibabel
import numpy as np
import pytest

from mri_io.formats import find_items, get_format
from mri_io.formats.base import RawElement, RawVolume, SourceItem
from mri_io.store import Volume, open_cohort
from mri_io.testing.raw_files import NAME

__all__ = [
    "AFFINES",
    "box",
    "image",
    "nibabel_data",
    "read_one",
    "values",
    "volumes",
    "write_analyze",
    "write_metaimage",
    "write_nrrd",
    "write_parrec",
]

LPS = np.diag([-1.0, -1.0, 1.0, 1.0])


def _rotation(a: float, b: float, c: float) -> np.ndarray:
    ca, sa, cb, sb, cc, sc = np.cos(a), np.sin(a), np.cos(b), np.sin(b), np.cos(c), np.sin(c)
    return np.asarray(
        np.array([[1, 0, 0], [0, ca, -sa], [0, sa, ca]])
        @ np.array([[cb, 0, sb], [0, 1, 0], [-sb, 0, cb]])
        @ np.array([[cc, -sc, 0], [sc, cc, 0], [0, 0, 1]])
    )


def _affine(matrix: np.ndarray, offset: Sequence[float]) -> np.ndarray:
    full = np.eye(4)
    full[:3, :3], full[:3, 3] = matrix, offset
    return full.astype(np.float32).astype(np.float64)  # NIfTI holds float32


AFFINES = {
    "axial": _affine(np.diag([1.5, 1.5, 4]), (-90, -126, -72)),
    "flipped": _affine(np.diag([-1.5, 1.5, 4]), (90, -126, -72)),
    "sagittal": _affine(np.array([[0, 0, 4], [1, 0, 0], [0, -1, 0]]), (1, 2, 3)),
    "oblique": _affine(_rotation(0.3, -0.2, 0.7) @ np.diag([0.8, 1.1, 5]), (12.5, -30.25, 7)),
    "oblique and flipped": _affine(_rotation(2.1, 0.4, -1.2) @ np.diag([0.8, -1.1, 5]), (-1, 0.5, 100)),
}
"""Voxel (x, y, z) to RAS+ mm."""


def image(shape: Sequence[int] = (7, 6, 5), dtype: Any = np.float32, seed: int = 0) -> np.ndarray:
    """Return noise, in Fortran order as files have it: (x, y, z[, t])."""
    rng = np.random.default_rng(seed)
    if np.dtype(dtype).kind == "f":
        return rng.normal(size=shape).astype(dtype)
    return rng.integers(0, 100, shape).astype(dtype)


def box(shape: Sequence[int] = (7, 6, 5), dtype: Any = np.uint8, ids: Sequence[int] = (1,)) -> np.ndarray:
    """Return a label map: a box for each id, side by side along x."""
    labels = np.zeros(shape, dtype)
    for number, value in enumerate(ids):
        labels[1 + number, 1:4, 1:3] = value
    return labels


def read_one(path: Path, format: str = "auto") -> tuple[SourceItem, RawVolume]:
    """Find the one volume in a file or folder, and read it."""
    (item,) = find_items([path], format)
    return item, get_format(item.format).read(item)


def values(element: RawElement) -> np.ndarray:
    """Return the whole array of an element."""
    return np.concatenate([np.asarray(block).reshape(-1) for block in element.blocks()]).reshape(element.shape)


def volumes(cohort: Path) -> list[Volume]:
    """Return the volumes of a cohort."""
    opened = open_cohort(cohort)
    return [opened[volume_id] for volume_id in opened.volume_ids()]


def nibabel_data(name: str) -> Path:
    """Return a file of nibabel's own tests, or skip the test where nibabel was installed without them."""
    path = Path(nibabel.__file__).parent / "tests" / "data" / name
    if not path.is_file():
        pytest.skip(f"nibabel was installed without {name}")
    return path


def write_nrrd(
    path: Path, array: np.ndarray, affine: np.ndarray | None = None, *, data: Path | None = None, **header: Any
) -> Path:
    """Write an (x, y, z) array in the space LPS; with `data` the header alone lies in `path`."""
    import nrrd

    full = {"content": NAME, "Patient_Name": NAME}
    if affine is not None:
        lps = LPS @ affine
        full |= {"space": "left-posterior-superior", "space directions": lps[:3, :3].T, "space origin": lps[:3, 3]}
    full |= header
    nrrd.write(str(path), array, full, detached_header=str(data) if data is not None else False)
    return path


def write_metaimage(path: Path, array: np.ndarray, affine: np.ndarray | None = None, *, compress: bool = False) -> Path:
    """Write an (x, y, z[, t]) array in ITK's axes, LPS."""
    import SimpleITK

    written = SimpleITK.GetImageFromArray(np.ascontiguousarray(array.T), isVector=False)
    if affine is not None:
        lps, ndim = LPS @ affine, array.ndim
        spacing = np.linalg.norm(lps[:3, :3], axis=0)
        direction, origin, steps = np.eye(ndim), np.zeros(ndim), np.ones(ndim)
        direction[:3, :3], origin[:3], steps[:3] = lps[:3, :3] / spacing, lps[:3, 3], spacing
        written.SetSpacing(steps.tolist())
        written.SetDirection(direction.ravel().tolist())
        written.SetOrigin(origin.tolist())
    SimpleITK.WriteImage(written, str(path), useCompression=compress)
    return path


def write_analyze(stem: Path, array: np.ndarray, voxel_mm: Sequence[float] = (1.5, 2, 3)) -> Path:
    """Write an Analyze 7.5 pair; return its header."""
    written = nibabel.AnalyzeImage(array, None)
    written.header.set_zooms((*voxel_mm, *[1.0] * (array.ndim - 3)))
    written.header["descrip"] = NAME.encode()
    written.to_filename(stem.with_suffix(".img"))
    return stem.with_suffix(".hdr")


def write_parrec(folder: Path, header: Path, seed: int = 0, replacements: Mapping[str, str] | None = None) -> Path:
    """Copy a PAR header with a patient's name in it, and write a REC of noise that fits; return the header."""
    path = folder / header.name
    text = header.read_text(encoding="latin-1")
    for old, new in (replacements or {}).items():
        text = text.replace(old, new)
    path.write_text(text, encoding="latin-1")
    with path.open(encoding="latin-1") as file, warnings.catch_warnings():
        warnings.simplefilter("ignore")  # some of the headers are meant to be wrong
        read = nibabel.parrec.PARRECHeader.from_fileobj(file, permit_truncated=True, strict_sort=True)
    rec = path.with_suffix(".REC" if path.suffix.isupper() else ".rec")
    if header.with_suffix(".REC").is_file():
        shutil.copyfile(header.with_suffix(".REC"), rec)
        rec.chmod(0o644)
    else:
        pixels = np.random.default_rng(seed).integers(0, 4096, read.get_rec_shape())
        pixels.astype(read.get_data_dtype()).ravel(order="F").tofile(rec)
    return path
