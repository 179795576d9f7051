"""NIfTI: the array transposed back to (x, y, slice), the affine exactly as stored."""

import gzip
import json
from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path
from typing import Any

import nibabel
import numpy as np

from mri_io.export.base import ElementExporter, ExportItem
from mri_io.export.names import require_image, series_of
from mri_io.export.sidecar import bids_sidecar
from mri_io.store.element import Element

__all__ = ["NiftiExporter", "nifti_header", "write_nifti"]

LEVEL = 1
"""Of compression, that of nibabel: higher ones are slower and gain little on images."""


class NiftiExporter(ElementExporter):
    """A ``.nii.gz``, and beside it a BIDS ``.json`` where there is something to say that NIfTI cannot.

    A series becomes a 4-D image, as most tools take them: frames are the fourth dimension, or echoes or sets where
    there are none of those before. Further dimensions of a series make one file per member, ``_echo-1``, ``_set-2``.
    Without an affine the voxels are taken as 1 mm and the header says 'unknown'.
    """

    name = "nifti"
    summary = "NIfTI .nii.gz of images, maps and labels, with their affine, and BIDS .json beside it"

    def names(self, item: ExportItem) -> list[str]:
        """Return the names of the images, each followed by that of its sidecar."""
        require_image(item.element, self.name)
        found = []
        for member in _members(item.element):
            stem = self.stem(item) + "".join(f"_{name}-{number + 1}" for name, number in member.items())
            found += [stem + ending for ending in (".nii.gz", ".json")[: 1 + bool(self._sidecar(item, member))]]
        return found

    def write(self, item: ExportItem, targets: Sequence[Path]) -> None:
        """Write the files, slice after slice."""
        left = iter(targets)
        for member in _members(item.element):
            self._write_image(item.element, member, next(left))
            content = self._sidecar(item, member)
            if content:
                next(left).write_text(json.dumps(content, indent=1) + "\n", encoding="utf-8")

    def _sidecar(self, item: ExportItem, member: dict[str, int]) -> dict[str, Any]:
        return bids_sidecar(item.element, item.volume.header, self.part_of(item.element), member)

    def _write_image(self, element: Element, member: dict[str, int], file: Path) -> None:
        series = series_of(element)
        whole = [size for name, size in series.items() if name not in member]
        dtype = self.converted(element, np.zeros(1, element.dtype)).dtype
        header = nifti_header((*element.shape[:-4:-1], *whole), dtype, element.affine)
        # No name and no time within: the same data give the same bytes. The level is nibabel's.
        indices = (self._index(series, member, position) for position in np.ndindex(*whole))
        write_nifti(file, header, (block for index in indices for block in self.blocks(element, index)))

    def _index(self, series: dict[str, int], member: dict[str, int], position: tuple[int, ...]) -> tuple[int, ...]:
        """Return the index of a volume of a series, by the member written and the position along the fourth axis."""
        last = iter(position)
        return tuple(member[name] if name in member else next(last) for name in series)


def _members(element: Element) -> Iterator[dict[str, int]]:
    """Yield, for each file, the members of those dimensions of a series that make files of their own."""
    series = series_of(element)
    fourth = "frame" if "frame" in series else next(reversed(series), None)
    others = {name: size for name, size in series.items() if name != fourth}
    for position in np.ndindex(*others.values()):
        yield dict(zip(others, position, strict=True))


def write_nifti(file: Path, header: Any, blocks: Iterable[np.ndarray]) -> None:
    """Write a ``.nii.gz`` from blocks in C order of (t, slice, y, x): x is fastest in both.

    The same data give the same bytes: neither a name nor a time is in the packed stream.
    """
    dtype = header.get_data_dtype()
    with file.open("wb") as raw, gzip.GzipFile("", "wb", compresslevel=LEVEL, fileobj=raw, mtime=0) as packed:
        header.write_to(packed)
        for block in blocks:
            packed.write(np.ascontiguousarray(block, dtype).data)


def nifti_header(shape: tuple[int, ...], dtype: np.dtype[Any], affine: np.ndarray | None) -> Any:
    """Return the header of a single-file NIfTI image, version 2 where version 1 cannot hold the size.

    Parameters
    ----------
    shape
        (x, y, slice) or (x, y, slice, t).
    dtype
        Of the values as they lie in the file, not scaled.
    affine
        Voxel (x, y, slice) to RAS+ mm. None: voxels of 1 mm, and the codes say 'unknown'.
    """
    header = (nibabel.Nifti1Header if max(shape) < 2**15 else nibabel.Nifti2Header)(endianness="<")
    header.set_data_shape(shape)
    header.set_data_dtype(dtype)
    known = affine is not None
    matrix = affine if affine is not None else np.eye(4)
    # A quaternion cannot hold a sheared affine; the sform can, and readers prefer it.
    header.set_qform(matrix, code=1 if known else 0)
    header.set_sform(matrix, code=1 if known else 0)
    header.set_slope_inter(1, 0)
    header.set_xyzt_units("mm")
    return header
