"""Pixels of stacks: read file by file, scaled, in blocks of a few slices."""

from collections.abc import Iterator, Sequence
from itertools import groupby
from pathlib import Path
from typing import Any

import numpy as np

from mri_io.errors import FormatError, MissingPackageError
from mri_io.formats.base import import_extra
from mri_io.formats.dicom.planes import Plane
from mri_io.formats.dicom.quiet import EXTRA, quietly
from mri_io.formats.dicom.stacks import Stack

__all__ = ["BLOCK_BYTES", "stack_blocks", "stack_dtype"]

BLOCK_BYTES = 2**24
_INT16 = np.iinfo(np.int16)


def stack_dtype(planes: Sequence[Plane]) -> np.dtype[Any]:
    """Return int16 where scaling is by whole numbers and all values that the pixels can have fit, else float32."""
    for (slope, intercept), limits in {(plane.scale, plane.limits) for plane in planes}:
        ends = [slope * limit + intercept for limit in limits]
        if slope % 1 or intercept % 1 or min(ends) < _INT16.min or max(ends) > _INT16.max:
            return np.dtype(np.float32)
    return np.dtype(np.int16)


def stack_blocks(stack: Stack, syntaxes: dict[Path, str]) -> Iterator[np.ndarray]:
    """Yield blocks (slice, y, x) of a stack, the slices of one set, frame and echo after the other.

    Parameters
    ----------
    stack
        What to read.
    syntaxes
        Transfer syntax of every file.

    Raises
    ------
    FormatError
        When the pixels of a file are truncated, or cannot be decoded.
    """
    dtype, n_slice = stack_dtype(stack.planes), stack.counts[-1]
    rows, columns = stack.planes[0].size
    step = max(1, BLOCK_BYTES // (rows * columns * dtype.itemsize))
    pixels = _pixels(stack.planes, syntaxes)
    for start in range(0, len(stack.planes), n_slice):
        for first in range(start, start + n_slice, step):
            planes = stack.planes[first : min(first + step, start + n_slice)]
            block = np.empty((len(planes), rows, columns), dtype)
            for index in range(len(planes)):
                block[index] = next(pixels)
            yield block


def _pixels(planes: Sequence[Plane], syntaxes: dict[Path, str]) -> Iterator[np.ndarray]:
    """Yield the scaled values of planes; files are opened once for the planes of theirs that follow one another."""
    for file, members in groupby(planes, key=lambda plane: plane.file):
        run = list(members)
        frames = _frames(file, list(dict.fromkeys(plane.frame for plane in run)), syntaxes[file])
        number, frame = -1, np.empty(0)
        for plane in run:
            if plane.frame != number:
                number, frame = plane.frame, next(frames)
            yield _scaled(frame, plane)


def _scaled(frame: np.ndarray, plane: Plane) -> np.ndarray:
    rows, columns = plane.size
    if plane.tile is not None:
        row, column = plane.tile
        frame = frame[row * rows : (row + 1) * rows, column * columns : (column + 1) * columns]
    if frame.shape != plane.size:
        raise FormatError(f"{plane.file}: expected {rows} x {columns} pixels, got {frame.shape}. The file is damaged.")
    slope, intercept = plane.scale
    return frame if (slope, intercept) == (1, 0) else frame * slope + intercept


def _frames(file: Path, frames: list[int], syntax: str) -> Iterator[np.ndarray]:
    """Yield decoded frames of a file, with one look at its header."""
    pydicom = import_extra("pydicom", EXTRA)
    pixels = import_extra("pydicom.pixels", EXTRA)
    # Without indices pydicom goes through compressed frames in one pass.
    indices = None if frames == list(range(len(frames))) else frames
    try:
        with quietly():
            options = {"indices": indices, "raw": True}
            if syntax == pydicom.uid.DeflatedExplicitVRLittleEndian:  # has to be unpacked as a whole
                decoded = pixels.iter_pixels(pydicom.dcmread(file), **options)
            else:
                decoded = pixels.iter_pixels(file, transfer_syntax_uid=pydicom.uid.UID(syntax), **options)
        for _ in frames:
            with quietly():
                frame = next(decoded)
            yield frame
    except (FormatError, OSError):
        raise
    except Exception as error:  # pydicom and every decoder have their own
        text = f"{type(error).__name__}: {error}"
        if "missing required dependencies" in text or "missing dependencies" in text:
            name = pydicom.uid.UID(syntax).name
            raise MissingPackageError(
                f"{file}: no decoder of {name} is installed. Install them: pip install 'mri-io[{EXTRA}]'"
            ) from error
        raise FormatError(f"{file}: the pixels cannot be read: {text}. The file is truncated or damaged.") from None
