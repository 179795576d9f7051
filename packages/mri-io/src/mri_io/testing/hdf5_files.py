"""HDF5 files in the layouts of public data sets, written with h5py and nibabel as their makers describe them."""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import h5py
import numpy as np

from mri_io.testing.raw_files import xml_header

__all__ = ["blob", "coil_images", "write_cc359", "write_fastmri_file"]


def blob(shape: Sequence[int], seed: int = 0) -> np.ndarray:
    """Return smooth positive images that are largest off the middle by a few pixels, with a little noise; float64."""
    rng = np.random.default_rng(seed)
    axes = [np.arange(n) - n // 2 - shift for n, shift in zip(shape[-2:], (1, -1), strict=True)]
    rows, columns = np.meshgrid(*axes, indexing="ij")
    width = min(shape[-2:]) / 4
    image = np.exp(-(rows**2 + columns**2) / (2 * width**2)) * (1 + 0.3 * np.cos(rows / 2))
    return image * (1 + 0.1 * rng.random(shape))


def coil_images(shape: Sequence[int], coils: int, seed: int = 0) -> np.ndarray:
    """Return images of coils with smooth sensitivities and phases, (*shape[:-2], coil, *shape[-2:]), complex128."""
    rng = np.random.default_rng(seed)
    rows, columns = np.meshgrid(*(np.linspace(-1, 1, n) for n in shape[-2:]), indexing="ij")
    angles = 2 * np.pi * np.arange(coils) / coils
    maps = np.stack([np.exp(0.5 * (np.cos(a) * rows + np.sin(a) * columns) + 1j * a) for a in angles])
    image = blob(shape, seed)[..., None, :, :] * maps
    return image + 1e-3 * (rng.standard_normal(image.shape) + 1j * rng.standard_normal(image.shape))


def write_fastmri_file(
    path: Path,
    kspace: np.ndarray,
    *,
    attributes: Mapping[str, Any] | None = None,
    xml: str | None = None,
    **arrays: Any,
) -> Path:
    """Write ``kspace`` and other arrays as the fastMRI data set has them; ``(array, options)`` chooses filters."""
    with h5py.File(path, "w") as file:
        file["ismrmrd_header"] = xml or xml_header(kspace.shape[-2], kspace.shape[-1])
        for name, array in {"kspace": kspace, **arrays}.items():
            data, options = array if isinstance(array, tuple) else (array, {})
            file.create_dataset(name, data=data, **options)
        file.attrs.update({"acquisition": "CORPD_FBK", "patient_id": "0" * 64, **(attributes or {})})
    return path


def write_cc359(path: Path, kspace: np.ndarray, **options: Any) -> Path:
    """Write k-space (slice, coil, ky, kx) as the Calgary-Campinas set has it, real and imaginary parts in turn."""
    last = kspace.transpose(0, 2, 3, 1)
    array = np.empty((*last.shape[:-1], 2 * last.shape[-1]), np.float32)
    array[..., ::2], array[..., 1::2] = last.real, last.imag
    with h5py.File(path, "w") as file:
        file.create_dataset("kspace", data=array, **options)
    return path
