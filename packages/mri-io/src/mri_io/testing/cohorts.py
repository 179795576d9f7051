"""Tiny complete cohorts: every element of the main job, made in a fraction of a second."""

from pathlib import Path

import numpy as np

from mri_io.schema.attributes import Header, Provenance
from mri_io.store.cohort import Cohort, create_cohort
from mri_io.store.splits import Split

__all__ = ["tiny_cohort"]


def _fft2c(image: np.ndarray) -> np.ndarray:
    shifted = np.fft.ifftshift(image, axes=(-2, -1))
    return np.fft.fftshift(np.fft.fft2(shifted, norm="ortho"), axes=(-2, -1))


def tiny_cohort(
    path: str | Path,
    *,
    subjects: int = 4,
    slices: int = 2,
    coils: int = 4,
    matrix: tuple[int, int] = (32, 24),
    noise: float = 0.005,
    seed: int = 0,
) -> Cohort:
    """Make a cohort of ellipses with smooth coil maps.

    Each volume has ``kspace`` (slice, coil, ky, kx), ``sens/espirit`` (slice, 1, coil, y, x; the true maps,
    normalised and cropped to the object), ``recon/reference`` (slice, y, x) complex64, its magnitude ``image/t1`` and
    ``seg/tissue`` with labels 1 and 2. The split ``default`` has the last subject for testing and the one
    before for validation.

    Parameters
    ----------
    path
        A new folder.
    subjects, slices, coils, matrix
        Sizes; `matrix` is (y, x).
    noise
        Standard deviation of the complex k-space noise, relative to an object of intensity about one.
    seed
        Of shapes and noise.
    """
    cohort = create_cohort(path, name="tiny")
    rng = np.random.default_rng(seed)
    ny, nx = matrix
    y, x = np.meshgrid(np.linspace(-1, 1, ny), np.linspace(-1, 1, nx), indexing="ij")
    angles = np.linspace(0, 2 * np.pi, coils, endpoint=False)
    weights = [np.exp(-((y - np.sin(a)) ** 2 + (x - np.cos(a)) ** 2) / 1.5 + 1j * (a + 0.5 * x)) for a in angles]
    maps = np.stack(weights) / np.sqrt(np.sum(np.abs(np.stack(weights)) ** 2, axis=0))
    affine = np.diag([2.0, 2.0, 5.0, 1.0])
    ids = [f"sub-{n:02d}" for n in range(1, subjects + 1)]
    for subject in ids:
        shape = (slices, ny, nx)
        image, labels = np.zeros(shape, np.complex64), np.zeros(shape, np.uint8)
        for s in range(slices):
            cy, cx = rng.uniform(-0.15, 0.15, 2)
            outer = ((y - cy) / 0.75) ** 2 + ((x - cx) / 0.7) ** 2 < 1
            inner = ((y - cy) / rng.uniform(0.3, 0.5)) ** 2 + ((x - cx) / rng.uniform(0.3, 0.5)) ** 2 < 1
            labels[s] = np.where(inner, 2, np.where(outer, 1, 0))
            image[s] = np.array([0, 0.5, 1.0])[labels[s]] * np.exp(1j * 0.3 * y)
        kspace = _fft2c(image[:, None] * maps)
        kspace += noise * (rng.standard_normal(kspace.shape) + 1j * rng.standard_normal(kspace.shape))
        sens = np.broadcast_to(maps, (slices, 1, *maps.shape)) * (labels > 0)[:, None, None]
        made = Provenance.of("mri-io", "tiny_cohort", {"seed": seed})
        with cohort.create_volume(
            f"{subject}_acq-tiny_run-1", subject_id=subject, header=Header(recon_matrix=(nx, ny, 1))
        ) as volume:
            volume.write("kspace", kspace.astype(np.complex64), provenance=made)
            volume.write("sens/espirit", sens.astype(np.complex64), provenance=made)
            volume.write("recon/reference", image, provenance=made, affine=affine)
            volume.write("image/t1", np.abs(image), provenance=made, affine=affine)
            volume.write("seg/tissue", labels, provenance=made, affine=affine, labels={1: "outer", 2: "inner"})
    cohort.write_split(
        Split(name="default", seed=seed, train=tuple(ids[:-2]), val=tuple(ids[-2:-1]), test=tuple(ids[-1:]))
    )
    return cohort
