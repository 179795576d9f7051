"""HDF5 files in the layouts of public data sets, written with h5py and nibabel as their makers describe them."""

import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import h5py
import nibabel
import numpy as np

from mri_io.testing.raw_files import xml_header

__all__ = ["blob", "coil_images", "skm_tea_scan", "write_cc359", "write_fastmri_file", "write_skm_tea"]


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


def skm_tea_scan(
    matrix: Sequence[int] = (6, 24, 16), acquired: Sequence[int] = (18, 8), coils: int = 3, maps: int = 1, seed: int = 0
) -> dict[str, np.ndarray]:
    """Return a scan as SKM-TEA has it: k-space acquired in the middle of a larger matrix, maps and their images.

    ``kspace`` (x, ky, kz, echo, coil), ``maps`` (x, ky, kz, coil, map), ``target`` (x, ky, kz, echo, map) are such that
    the target is what the maps combine of the images of the coils. ``tissues`` (x, ky, kz) holds 0 to 6.
    """
    rows, columns = matrix[1:]
    echoes = np.stack([coil_images(matrix, coils, seed), 0.6 * coil_images(matrix, coils, seed + 1)])
    axes = (-2, -1)
    kspace = np.fft.fftshift(np.fft.fft2(np.fft.ifftshift(echoes, axes=axes), norm="ortho"), axes=axes)
    inside = np.zeros((rows, columns), bool)
    first = [rows // 2 - acquired[0] // 2, columns // 2 - acquired[1] // 2]
    inside[first[0] : first[0] + acquired[0], first[1] : first[1] + acquired[1]] = True
    kspace = (kspace * inside).astype(np.complex64)
    images = np.fft.fftshift(np.fft.ifft2(np.fft.ifftshift(kspace, axes=axes), norm="ortho"), axes=axes)
    weights = coil_images(matrix, coils, seed) / blob(matrix, seed)[:, None]
    sens = np.stack([weights / np.linalg.norm(weights, axis=1, keepdims=True) * 1j**n for n in range(maps)], axis=1)
    target = np.einsum("xmcyz,excyz->exmyz", sens.conj(), images)
    rng = np.random.default_rng(seed)
    return {
        "kspace": np.ascontiguousarray(kspace.transpose(1, 3, 4, 0, 2)),
        "maps": np.ascontiguousarray(sens.transpose(0, 3, 4, 2, 1)).astype(np.complex64),
        "target": np.ascontiguousarray(target.transpose(1, 3, 4, 0, 2)).astype(np.complex64),
        "masks/poisson_4.0x": rng.random(acquired) < 0.25,
        "masks/poisson_6.0x": rng.random(acquired) < 1 / 6,
        "tissues": rng.integers(0, 7, matrix).astype(np.uint8),
    }


def write_skm_tea(
    root: Path,
    scans: Mapping[str, Mapping[str, np.ndarray]],
    parts: Mapping[str, Sequence[Mapping[str, Any]]] | None = None,
    *,
    affine: np.ndarray | None = None,
    version: str = "v1.0.0",
    **options: Any,
) -> Path:
    """Write the folder of the data set: `scans` by their ids, `parts` as rows of the annotations of each part.

    `affine` is that of the label maps, by default SI, AP, LR with voxels of 0.3125 x 0.3125 x 0.8 mm.
    """
    folders = {name: root / name for name in ("files_recon_calib-24", "segmentation_masks/raw-data-track")}
    for folder in folders.values():
        folder.mkdir(parents=True, exist_ok=True)
    if affine is None:
        affine = np.array([[0, 0, 0.8, -60], [0, -0.3125, 0, 70], [-0.3125, 0, 0, 80], [0, 0, 0, 1]])
    for name, scan in scans.items():
        with h5py.File(folders["files_recon_calib-24"] / f"{name}.h5", "w") as file:
            for key, array in scan.items():
                if key != "tissues":
                    file.create_dataset(key, data=array, **(options if array.ndim == 5 else {}))
        if "tissues" in scan:
            image = nibabel.Nifti1Image(scan["tissues"], affine)
            nibabel.save(image, folders["segmentation_masks/raw-data-track"] / f"{name}.nii.gz")
    for part, rows in (parts or {}).items():
        path = root / "annotations" / version / f"{part}.json"
        path.parent.mkdir(parents=True, exist_ok=True)
        content = {"info": {"version": version}, "categories": [], "images": list(rows), "annotations": []}
        path.write_text(json.dumps(content))
    return root
