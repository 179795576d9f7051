"""The Calgary-Campinas multi-channel data set (Souza et al. 2018, doi:10.1016/j.neuroimage.2017.08.021).

One ``.h5`` file per volume with ``kspace`` (slice, ky, kx, 2 x coil) of float32: the readout is transformed, its axis
that of the slices; the last axis holds the real and imaginary parts of the coils in turn. The masks of its
reconstruction challenge lie beside the files or in a folder ``poisson_sampling``, ``R5_218x170.npy``.
"""

import re
from collections.abc import Iterator
from pathlib import Path

import h5py
import numpy as np

from mri_io.errors import FormatError, expected_got
from mri_io.formats.base import Identity, RawElement, RawVolume, SourceItem, identify
from mri_io.formats.hdf5 import Hdf5Based, hdf5_layout, open_hdf5, rows_at_once, stored_array
from mri_io.formats.kspace.centring import Centring
from mri_io.schema.attributes import Header

__all__ = ["Cc359Format"]

_MASKS = re.compile(r"R(?P<factor>\d+)_(?P<rows>\d+)x(?P<columns>\d+)\.npy")
_MASK_FOLDER = "poisson_sampling"
_LOOKED_AT = 5
"""Slices from which the convention of k-space is found."""


class Cc359Format(Hdf5Based):
    """Volumes of the Calgary-Campinas set, 12 or 32 coils, fully sampled or undersampled, with the set's masks."""

    name = "cc359"
    summary = "Calgary-Campinas HDF5: kspace (slice, ky, kx, real and imaginary parts of coils) and R5_*.npy masks"

    def sniff(self, path: Path) -> bool:
        """Whether it is HDF5 with real ``kspace`` of four dimensions, or a file of masks of the set by its name."""
        return hdf5_layout(path) == self.name or (_MASKS.fullmatch(path.name) is not None and path.is_file())

    def find(self, path: Path) -> list[SourceItem]:
        """Return the one volume of a file, with the files of masks on its grid; none for a file of masks."""
        if _MASKS.fullmatch(path.name):
            return []
        return [SourceItem(self.name, path, (path, *_masks_for(path)), path.name)]

    def identify(self, item: SourceItem) -> Identity:
        """Return the identity after the file's name, which is all there is: one volume, one subject."""
        with open_hdf5(item.path) as file:
            _kspace(file)
        return identify(item.path, item.path.stem, "t1w")

    def memory(self, item: SourceItem) -> int:
        """Return the most that reading holds: a block as it is read, moved and written, and which samples are zero."""
        try:
            with open_hdf5(item.path) as file:
                kspace = _kspace(file)
                block = rows_at_once(kspace) * kspace.nbytes // kspace.shape[0]
                pattern = int(np.prod(kspace.shape[:3]))
        except FormatError:  # reading says so
            return super().memory(item)
        return 7 * block + 2 * pattern + 2**27

    def read(self, item: SourceItem) -> RawVolume:
        """Read which samples are zero and how k-space is centred; k-space itself in blocks when it is asked for."""
        path = item.path
        with open_hdf5(path) as file:
            kspace = _kspace(file)
            slices, rows, columns, parts = kspace.shape
            step = max(1, slices // (3 * _LOOKED_AT))
            middle = [slices // 2 + step * offset for offset in range(-(_LOOKED_AT // 2), _LOOKED_AT // 2 + 1)]
            looked_at = [_complex(kspace[n : n + 1]) for n in middle if 0 <= n < slices]
            centring = Centring.of(np.concatenate(looked_at), path)
            sampled = _sampled(kspace, centring)
        elements = [
            RawElement(
                "kspace",
                (slices, parts // 2, rows, columns),
                np.dtype(np.complex64),
                lambda: _blocks(path, centring),
                ("slice", "coil", "ky", "kx"),
                # The set's own images are those of numpy's inverse transform, which divides by the number of samples.
                attributes={**centring.described(), "scale_to_file_images": (rows * columns) ** -0.5},
            ),
            _acquired(sampled),
        ]
        elements += [_mask_set(file) for file in item.files[1:]]
        lines = np.flatnonzero(sampled.any(axis=(0, 1)))
        header = Header(
            encoded_matrix=(columns, rows, slices),
            recon_matrix=(columns, rows, slices),
            trajectory="cartesian",
            padding_left=int(lines[0]),
            padding_right=int(lines[-1]) + 1,
        )
        return RawVolume(tuple(elements), header, {"readout": "transformed, along slice"})


def _kspace(file: h5py.File) -> h5py.Dataset:
    kspace = stored_array(file, "kspace")
    shape = kspace.shape
    if kspace.dtype != np.float32 or len(shape) != 4 or shape[-1] % 2 or 0 in shape:
        raise FormatError(
            expected_got(
                "kspace",
                expected="float32 (slices, rows, columns, 2 x coils), real and imaginary parts in turn",
                got=f"{kspace.dtype} {shape}",
                where=file.filename,
            )
        )
    return kspace


def _complex(block: np.ndarray) -> np.ndarray:
    """Return real and imaginary parts in turn (slice, ky, kx, 2 x coil) as complex64 (slice, coil, ky, kx)."""
    return np.ascontiguousarray(block, dtype=np.float32).view(np.complex64).transpose(0, 3, 1, 2)


def _blocks(path: Path, centring: Centring) -> Iterator[np.ndarray]:
    with open_hdf5(path) as file:
        kspace = _kspace(file)
        for start in range(0, kspace.shape[0], step := rows_at_once(kspace)):
            yield centring.apply(_complex(kspace[start : start + step]))


def _sampled(kspace: h5py.Dataset, centring: Centring) -> np.ndarray:
    """Return where any coil is not zero, bool (slice, ky, kx), zero frequency in the middle."""
    found = np.zeros(kspace.shape[:3], dtype=bool)
    for start in range(0, kspace.shape[0], step := rows_at_once(kspace)):
        found[start : start + step] = kspace[start : start + step].any(axis=-1)
    axes = [axis for axis, corner in zip((1, 2), centring.corner, strict=True) if corner]
    return np.fft.fftshift(found, axes=axes)


def _acquired(sampled: np.ndarray) -> RawElement:
    """Return the points that were acquired, one pattern where all slices that are not empty have the same."""
    filled = sampled[sampled.any(axis=(1, 2))]
    same = bool((filled == filled[0]).all())
    mask = (filled[0] if same else sampled).astype(np.uint8)
    found = {"found": "from zeros in k-space", "acceleration": float(mask.size / mask.sum())}
    dims = ("ky", "kx") if same else ("slice", "ky", "kx")
    return RawElement.of("mask/acquired", mask, dims=dims, attributes=found)


def _masks_for(path: Path) -> tuple[Path, ...]:
    """Return the files of masks for the grid of a volume, beside it or in the set's folder of masks."""
    try:
        with open_hdf5(path) as file:
            rows, columns = (str(n) for n in _kspace(file).shape[1:3])
    except FormatError:  # reading says so
        return ()
    folders = (path.parent, path.parent / _MASK_FOLDER, path.parent.parent / _MASK_FOLDER)
    files: dict[str, Path] = {}
    for folder in folders:
        for candidate in sorted(folder.glob("R*.npy")) if folder.is_dir() else ():
            found = _MASKS.fullmatch(candidate.name)
            if found and (found["rows"], found["columns"]) == (rows, columns):
                files.setdefault(candidate.name, candidate)
    return tuple(files.values())


def _mask_set(path: Path) -> RawElement:
    """Return the patterns of one file, (set, ky, kx), or the only one, (ky, kx); zero frequency in the middle."""
    found = _MASKS.fullmatch(path.name)
    assert found is not None
    shape = (int(found["rows"]), int(found["columns"]))
    try:
        masks = np.load(path, mmap_mode="r", allow_pickle=False)
    except (OSError, ValueError, EOFError) as error:
        fix = "The file is truncated or damaged: copy it again from its source."
        raise FormatError(
            expected_got("masks", expected="a numpy array", got=f"an error: {error}", where=path, fix=fix)
        ) from error
    if masks.ndim not in (2, 3) or masks.shape[-2:] != shape or 0 in masks.shape or masks.dtype.kind not in "biuf":
        expected = f"an array (patterns, {shape[0]}, {shape[1]}), as its name says"
        raise FormatError(expected_got("masks", expected=expected, got=f"{masks.dtype} {masks.shape}", where=path))
    sampled = np.asarray(masks) != 0
    density = sampled.reshape(-1, *shape).mean(axis=0)
    if density[0, 0] > density[shape[0] // 2, shape[1] // 2]:
        sampled = np.fft.fftshift(sampled, axes=(-2, -1))
    return RawElement.of(
        f"mask/poisson-{found['factor']}x",
        sampled.astype(np.uint8),
        dims=("set", "ky", "kx")[-masks.ndim :],
        attributes={"acceleration": float(sampled.size / max(1, int(sampled.sum())))},
    )
