"""Simulated scans of real anatomy: the MNI152 head, varied per subject, through a ring of coils.

The slice is imaged on a grid twice as fine as the acquired matrix, multiplied there by sensitivities that follow from
the law of Biot and Savart, and k-space is cut out of its transform: reconstruction does not invert the discretisation
that the data were made with. What remains of the inverse crime: the anatomy has 1 mm voxels, and the forward model has
no relaxation during the readout, no motion and no eddy currents.
"""

from collections.abc import Callable
from pathlib import Path

import numpy as np
from scipy.interpolate import RectBivariateSpline

from mri_io.errors import ConfigError, expected_got
from mri_io.simulate.anatomy import load_anatomy
from mri_io.simulate.coils import loop_sensitivities, ring_of_loops
from mri_io.simulate.fourier import fft2c
from mri_io.simulate.heads import CENTRE_MM, Contrast, Deformation
from mri_io.simulate.raw_files import SimulatedScan, check_seed, write_scans

__all__ = ["LABELS", "simulate_brains", "simulate_head"]

LABELS = {1: "grey matter", 2: "white matter"}
FOV_MM = (230.0, 190.0)
"""Smallest field of view along y and x; a head with its scalp takes about 205 x 170 mm."""
FILLED = 0.93
"""Largest part of the field of view that a head may take."""
SPACING_MM = 8.0
THICKNESS_MM = 4.0
LOWEST_MM, HIGHEST_MM = 2.0, 50.0
"""Range of template heights (MNI z) from which slices are taken."""


def simulate_brains(
    out: str | Path,
    *,
    subjects: int = 12,
    slices: int = 6,
    matrix: tuple[int, int] = (192, 160),
    coils: int = 8,
    noise: float = 0.015,
    seed: int = 0,
    progress: Callable[[int, int], None] | None = None,
) -> list[Path]:
    """Write raw files of simulated head scans in the fastMRI layout, and their tissue label maps.

    Subjects differ by an affine and a smooth deformation, tissue contrast, receive bias, object phase, coil positions
    and noise.

    Parameters
    ----------
    out
        Folder for ``sub-01.h5`` ... and ``labels/sub-01_tissue.nii.gz`` (1 grey matter, 2 white matter).
    subjects, slices, coils
        Numbers.
    matrix
        Acquired matrix (ky, kx), even; y is front to back. The field of view is as large as the head needs.
    noise
        Standard deviation of the complex noise per coil and k-space sample, where white matter is about one and
        the sensitivities' root sum of squares has the mean one. The default makes CG-SENSE at 4x end near 28 dB.
    seed
        The files are a function of the parameters.
    progress
        Called with (done, subjects).

    Returns
    -------
    list of pathlib.Path
        The raw files. Those made before with the same parameters are kept as they are.

    Raises
    ------
    ConfigError
        When a size is not positive, the matrix is odd, or the seed negative.
    MissingPackageError
        Without nilearn.
    """
    check_seed(seed)
    if min(subjects, slices, coils) < 1 or min(matrix) < 2 or any(n % 2 for n in matrix) or not 0 <= noise < np.inf:
        raise ConfigError(
            expected_got(
                "simulation",
                expected="positive numbers, an even matrix, noise >= 0",
                got=f"subjects={subjects}, slices={slices}, coils={coils}, matrix={matrix}, noise={noise}",
            )
        )
    parameters = {
        "kind": "brains-1",
        "slices": slices,
        "matrix": list(matrix),
        "coils": coils,
        "noise": noise,
        "seed": seed,
    }

    def make(number: int) -> SimulatedScan:
        rng = np.random.default_rng([seed, number])
        return simulate_head(rng, slices=slices, matrix=matrix, coils=coils, noise=noise)

    return write_scans(
        out, make, parameters, subjects=subjects, label_set="tissue", label_names=LABELS, progress=progress
    )


def simulate_head(
    rng: np.random.Generator, *, slices: int, matrix: tuple[int, int], coils: int, noise: float
) -> SimulatedScan:
    """Simulate one subject; see `simulate_brains` for the parameters."""
    ny, nx = matrix
    voxel = max(FOV_MM[0] / ny, FOV_MM[1] / nx)
    start = rng.uniform(LOWEST_MM, LOWEST_MM + 6)
    step = min(SPACING_MM, (HIGHEST_MM - start) / max(slices - 1, 1))
    heights = start + step * np.arange(slices)
    warp, contrast = Deformation(rng, load_anatomy()), Contrast(rng)
    centre = _place(warp, contrast.thickness, heights, (voxel * ny, voxel * nx))
    centres, normals = ring_of_loops(coils, rng)
    kspace = np.empty((slices, coils, ny, nx), np.complex64)
    labels = np.empty((slices, ny, nx), np.uint8)
    for number, height in enumerate(heights):
        fine = _grid(2 * ny, 2 * nx, voxel / 2, np.array([height, *centre[1:]]))
        maps = warp.sample(fine, (-THICKNESS_MM / 3, 0, THICKNESS_MM / 3))
        labels[number] = _labels(maps[1], maps[2])
        image = contrast.image(maps, fine, centre)
        kspace[number] = _acquire(image * _sensitivities(centres, normals, fine - centre))
    noisy = kspace + noise / np.sqrt(2) * (
        rng.standard_normal(kspace.shape, np.float32) + 1j * rng.standard_normal(kspace.shape, np.float32)
    )
    return SimulatedScan(
        kspace=noisy.astype(np.complex64),
        labels=labels,
        affine=_affine(ny, nx, voxel, np.array([heights[0], *centre[1:]]), step if slices > 1 else THICKNESS_MM),
        te_ms=2.9,
        tr_ms=2300.0,
        flip_deg=9.0,
        acquisition="AXT1",
    )


def _place(warp: Deformation, thickness: float, heights: np.ndarray, field_of_view: tuple[float, float]) -> np.ndarray:
    """Return the head's centre (z, y, x) in the slices; shrink a head that nears the edge of the field of view."""
    grid = np.stack([_grid(60, 60, 4.5, np.array([height, *CENTRE_MM[1:]])) for height in heights])

    def box() -> tuple[np.ndarray, np.ndarray]:
        head = grid[warp.distance(grid) < thickness][:, 1:]
        return head.min(axis=0) - 2.25, head.max(axis=0) + 2.25

    low, high = box()
    excess = float(np.max((high - low) / (FILLED * np.array(field_of_view))))
    if excess > 1:
        warp.shrink(excess)
        low, high = box()
    return np.array([CENTRE_MM[0], *(low + high) / 2])


def _grid(ny: int, nx: int, voxel: float, centre: np.ndarray) -> np.ndarray:
    """Return MNI coordinates (z, y, x) in mm of pixel centres: rows front to back, columns right to left."""
    y = centre[1] - (np.arange(ny) - ny / 2 + 0.5) * voxel
    x = centre[2] - (np.arange(nx) - nx / 2 + 0.5) * voxel
    rows, columns = np.meshgrid(y, x, indexing="ij")
    return np.stack([np.full_like(rows, centre[0]), rows, columns], axis=-1)


def _affine(ny: int, nx: int, voxel: float, first: np.ndarray, step: float) -> np.ndarray:
    """Return voxel (x, y, slice) to RAS+ mm of the acquired grid of `_grid`; `first` is the first slice's centre."""
    affine = np.diag([-voxel, -voxel, step, 1.0])
    affine[:3, 3] = first[2] + (nx - 1) / 2 * voxel, first[1] + (ny - 1) / 2 * voxel, first[0]
    return affine


def _acquire(coil_images: np.ndarray) -> np.ndarray:
    """Return the acquired part of k-space of images on the fine grid, orthonormal on the acquired grid."""
    ny, nx = coil_images.shape[-2] // 2, coil_images.shape[-1] // 2
    spectrum = fft2c(coil_images)[..., ny // 2 : ny // 2 + ny, nx // 2 : nx // 2 + nx]
    # An acquired pixel is centred between two fine ones, half a fine pixel after the first.
    ramps = [np.exp(1j * np.pi * (np.arange(n) - n // 2) / (2 * n)) for n in (ny, nx)]
    return np.asarray(spectrum / 2 * ramps[0][:, None] * ramps[1])


def _labels(gm: np.ndarray, wm: np.ndarray) -> np.ndarray:
    """Average probabilities over the four fine pixels of each acquired one and take the largest."""
    ny, nx = gm.shape[0] // 2, gm.shape[1] // 2
    coarse = [p.reshape(ny, 2, nx, 2).mean(axis=(1, 3)) for p in (gm, wm)]
    rest = 1 - coarse[0] - coarse[1]
    return np.argmax(np.stack([rest, *coarse]), axis=0).astype(np.uint8)


def _sensitivities(centres: np.ndarray, normals: np.ndarray, points: np.ndarray) -> np.ndarray:
    """Return coil maps at points (y, x, 3) in mm about the ring's centre.

    They are smooth, so they are computed on 25 x 21 points and interpolated.
    """
    ny, nx = points.shape[:2]
    rows, columns = np.linspace(0, ny - 1, 25), np.linspace(0, nx - 1, 21)
    corner, far = points[0, 0], points[-1, -1]
    y = np.interp(rows, [0, ny - 1], [corner[1], far[1]])
    x = np.interp(columns, [0, nx - 1], [corner[2], far[2]])
    coarse = np.stack(np.broadcast_arrays(corner[0], y[:, None], x[None, :]), axis=-1)
    maps = loop_sensitivities(centres, normals, coarse / 1000.0)
    fine = np.arange(ny), np.arange(nx)
    return np.stack(
        [
            RectBivariateSpline(rows, columns, m.real)(*fine) + 1j * RectBivariateSpline(rows, columns, m.imag)(*fine)
            for m in maps
        ]
    )
