"""Reconstructions as the fastMRI leaderboard and its evaluation take them (github.com/facebookresearch/fastMRI)."""

import math
from collections.abc import Sequence
from pathlib import Path, PurePosixPath, PureWindowsPath

import numpy as np

from mri_io.errors import ConfigError, expected_got
from mri_io.export.base import ElementExporter, ExportItem
from mri_io.export.hdf5 import hdf5_file
from mri_io.export.names import require_image

__all__ = ["FastMriExporter"]

_REFERENCES = ("recon/rss", "recon/esc")
_HIDDEN = "name-"
"""How stored names begin that stand for another one."""


class FastMriExporter(ElementExporter):
    """One ``.h5`` per volume with ``reconstruction`` (slices, rows, columns), magnitudes in float32, cropped.

    Images are cropped about their centre to the size of the reference that the data set gives with a volume,
    ``recon/rss`` or ``recon/esc``; without one, as in test files, to the matrix of the reconstruction in the header. As
    in the data set's own code an image with fewer columns than that is made square. Files have the names of those that
    the volumes were converted from, by which the evaluation finds them; where that name was not kept, the volume's id.
    The files of an element are in a folder of its own, ``recon-<name>``: those of another would have the same names.
    """

    name = "fastmri"
    summary = "fastMRI leaderboard HDF5 of reconstructions: 'reconstruction' (slices, 320, 320), magnitude"
    parts = ("magnitude",)

    def names(self, item: ExportItem) -> list[str]:
        """Return the name of the file in the folder of the element."""
        require_image(item.element, self.name, series=False)
        _require_of_data_set(item)
        _crop(item)
        source = item.volume.source
        name = source.uri if source is not None else ""
        folder = item.element.path.replace("/", "-")
        return [f"{folder}/{name if _is_of_data_set(name) else f'{item.volume.id}.h5'}"]

    def write(self, item: ExportItem, targets: Sequence[Path]) -> None:
        """Write the file, a block of slices at a time."""
        rows, columns = _crop(item)
        shape = (item.element.shape[0], rows.stop - rows.start, columns.stop - columns.start)
        with hdf5_file(targets[0], 4 * math.prod(shape)) as file:
            stored = file.create_dataset("reconstruction", shape, np.float32)
            start = 0
            for block in self.blocks(item.element):
                stored[start : start + len(block)] = block[:, rows, columns].astype(np.float32, copy=False)
                start += len(block)


def _require_of_data_set(item: ExportItem) -> None:
    """Raise ConfigError unless it is a reconstruction of a volume of the data set."""
    element, source = item.element, item.volume.source
    fix = "That is what can be handed in; choose another format, nifti say."
    if element.type != "recon":
        expected = "a reconstruction, recon/NAME"
        raise ConfigError(
            expected_got("element for fastmri", expected=expected, got=element.path, where=element.folder, fix=fix)
        )
    if source is None or source.format != "fastmri":
        raise ConfigError(
            expected_got(
                "volume for fastmri",
                expected="one converted from a file of the fastMRI data set",
                got="no source" if source is None else f"one of the format {source.format}",
                where=element.folder,
                fix=fix,
            )
        )


def _is_of_data_set(name: str) -> bool:
    """Whether a stored name is that of a file of the data set; a path, which may lead out of the folder, is none."""
    plain = all(flavour(name).name == name for flavour in (PurePosixPath, PureWindowsPath))
    return plain and name.endswith(".h5") and not name.startswith((_HIDDEN, "."))


def _crop(item: ExportItem) -> tuple[slice, slice]:
    """Return which rows and columns are written; ConfigError when the size is unknown or larger than the image."""
    element, volume = item.element, item.volume
    image = (int(element.shape[-2]), int(element.shape[-1]))
    reference = next((volume[path] for path in _REFERENCES if path in volume), None)
    if reference is not None:
        size = (int(reference.shape[-2]), int(reference.shape[-1]))
    elif volume.header.recon_matrix is not None:
        columns, rows, _ = volume.header.recon_matrix
        # Some scans are narrower than the matrix that their header names.
        size = (rows, columns) if columns <= image[1] else (image[1], image[1])
    else:
        raise ConfigError(
            expected_got(
                "size of the reconstruction",
                expected="recon/rss or recon/esc in the volume, or a recon_matrix in its header",
                got="neither",
                where=element.folder,
            )
        )
    if any(wanted > there for wanted, there in zip(size, image, strict=True)):
        raise ConfigError(
            expected_got("size of the reconstruction", expected=f"at least {size}", got=image, where=element.folder)
        )
    first = [(there - wanted) // 2 for wanted, there in zip(size, image, strict=True)]
    return slice(first[0], first[0] + size[0]), slice(first[1], first[1] + size[1])
