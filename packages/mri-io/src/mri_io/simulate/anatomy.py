"""Simulated scans of real anatomy: the MNI152 head, varied per subject, through a ring of coils.

The anatomy is the T1 template with grey- and white-matter maps (Fonov et al. 2011,
doi:10.1016/j.neuroimage.2010.07.033) that the ``nilearn`` package carries in its wheel. It is skull-stripped; a gap
of fluid, a skull and a scalp are put around it, without which images do not look like heads. The slice is imaged on a
grid twice as fine as the acquired matrix and k-space is cut out of its transform, so that reconstruction does not
invert the discretisation it was made with.
"""

from collections.abc import Callable
from dataclasses import dataclass
from functools import cache
from pathlib import Path

import numpy as np
from scipy import ndimage
from scipy.interpolate import RectBivariateSpline

from mri_io.errors import ConfigError, MissingPackageError, expected_got
from mri_io.simulate.coils import loop_sensitivities, ring_of_loops
from mri_io.simulate.fourier import fft2c
from mri_io.simulate.raw_files import SimulatedScan, write_scans

__all__ = ["LABELS", "Anatomy", "load_anatomy", "simulate_brains"]

LABELS = {1: "grey matter", 2: "white matter"}
FOV_Y_MM = 230.0
"""Field of view along y; the head with its scalp takes about 205 mm."""
SPACING_MM = 8.0
THICKNESS_MM = 4.0
DISPLACEMENT_MM = 3.0
LOWEST_MM, HIGHEST_MM = 2.0, 48.0
"""Range of template heights (MNI z) from which slices are taken."""
SKULL, FLUID = 0.06, 0.22


@dataclass(frozen=True)
class Anatomy:
    """Template maps on a 1 mm grid, order (z, y, x), padded; `origin` is the voxel of MNI (0, 0, 0).

    t1 in 0..1, gm and wm probabilities, distance to the brain in mm.
    """

    t1: np.ndarray
    gm: np.ndarray
    wm: np.ndarray
    distance: np.ndarray
    origin: np.ndarray


@cache
def load_anatomy() -> Anatomy:
    """Load the template from the installed ``nilearn`` package.

    Raises
    ------
    MissingPackageError
        When nilearn is not installed or no longer carries the files.
    """
    try:
        from nilearn.datasets import (
            load_mni152_gm_template,
            load_mni152_template,
            load_mni152_wm_template,
        )
    except ImportError as error:
        raise MissingPackageError(
            "The simulated brains need the template that nilearn carries. Install it: pip install 'mri-io[demo]'"
        ) from error
    loaders = (load_mni152_template, load_mni152_gm_template, load_mni152_wm_template)
    images = [load(resolution=1) for load in loaders]
    maps = [np.asarray(image.dataobj, np.float32) for image in images]
    t1, gm, wm = (np.pad(m.transpose(2, 1, 0), 24) for m in maps)
    brain = ndimage.binary_fill_holes((gm + wm > 0.3) | (t1 > 0.25 * t1.max()))
    assert brain is not None
    distance = ndimage.distance_transform_edt(~ndimage.binary_opening(brain, iterations=2)).astype(np.float32)
    origin = np.linalg.inv(images[0].affine)[:3, 3][::-1] + 24
    return Anatomy(t1 / np.percentile(t1[brain], 99), gm, wm, distance, origin)


def simulate_brains(
    out: str | Path,
    *,
    subjects: int = 12,
    slices: int = 6,
    matrix: tuple[int, int] = (192, 160),
    coils: int = 8,
    noise: float = 0.01,
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
        Acquired matrix (ky, kx); y is front to back.
    noise
        Standard deviation of the complex noise per coil and k-space sample, where white matter is about one and
        the sensitivities' root sum of squares has the mean one.
    seed
        The files are a function of the parameters.
    progress
        Called with (done, subjects).

    Returns
    -------
    list of pathlib.Path
        The raw files.

    Raises
    ------
    ConfigError
        When a size is not positive or the matrix is odd.
    MissingPackageError
        Without nilearn.
    """
    if min(subjects, slices, coils, *matrix) < 1 or any(n % 2 for n in matrix) or noise < 0:
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
    anatomy = load_anatomy()
    ny, nx = matrix
    voxel = FOV_Y_MM / ny
    start = rng.uniform(LOWEST_MM, LOWEST_MM + 6)
    step = min(SPACING_MM, (HIGHEST_MM - start) / max(slices - 1, 1))
    heights = start + step * np.arange(slices)
    warp = _Deformation(rng, anatomy)
    contrast = _Contrast(rng)
    centres, normals = ring_of_loops(coils, rng)
    kspace = np.empty((slices, coils, ny, nx), np.complex64)
    labels = np.empty((slices, ny, nx), np.uint8)
    for number, height in enumerate(heights):
        fine = _grid(2 * ny, 2 * nx, voxel / 2, height)
        t1, gm, wm, distance = warp.sample(fine, (-THICKNESS_MM / 3, 0, THICKNESS_MM / 3))
        labels[number] = _labels(gm, wm)
        image = contrast.image(t1, gm, wm, distance, fine)
        maps = _sensitivities(centres, normals, fine)
        spectrum = fft2c(image * maps)[:, ny // 2 : ny // 2 + ny, nx // 2 : nx // 2 + nx]
        kspace[number] = spectrum / 2
    kspace += noise / np.sqrt(2) * (rng.standard_normal(kspace.shape) + 1j * rng.standard_normal(kspace.shape))
    return SimulatedScan(
        kspace=kspace.astype(np.complex64),
        labels=labels,
        affine=_affine(ny, nx, voxel, float(heights[0]), float(step)),
        te_ms=2.9,
        tr_ms=2300.0,
        flip_deg=9.0,
        acquisition="AXT1",
    )


def _grid(ny: int, nx: int, voxel: float, height: float) -> np.ndarray:
    """Return MNI coordinates (z, y, x) in mm of pixel centres: rows front to back, columns right to left."""
    # Two fine pixels share an acquired one: their centres lie a quarter of it to each side.
    y = -(np.arange(ny) - ny // 2 + 0.5) * voxel
    x = -(np.arange(nx) - nx // 2 + 0.5) * voxel
    rows, columns = np.meshgrid(y, x, indexing="ij")
    return np.stack([np.full_like(rows, height), rows - 17.0, columns], axis=-1)


def _affine(ny: int, nx: int, voxel: float, first: float, step: float) -> np.ndarray:
    """Return voxel (x, y, slice) to RAS+ mm of the acquired grid of `_grid`."""
    affine = np.diag([-voxel, -voxel, step if step > 0 else THICKNESS_MM, 1.0])
    affine[:3, 3] = (nx // 2 - 0.5) * voxel, (ny // 2 - 0.5) * voxel - 17.0, first
    return affine


class _Deformation:
    """Random affine and smooth displacement from a subject's space to the template's."""

    def __init__(self, rng: np.random.Generator, anatomy: Anatomy) -> None:
        self.anatomy = anatomy
        angles = rng.normal(0, np.radians(4), 3)
        rotation = np.eye(3)
        for a, b, angle in ((0, 1, angles[0]), (0, 2, angles[1]), (1, 2, angles[2])):
            turn = np.eye(3)
            turn[[a, a, b, b], [a, b, a, b]] = np.cos(angle), -np.sin(angle), np.sin(angle), np.cos(angle)
            rotation = rotation @ turn
        self.matrix = rotation @ np.diag(1 / rng.uniform(0.9, 1.0, 3))
        self.shift = rng.normal(0, 2.0, 3)
        field = rng.standard_normal((3, 12, 12, 12))
        field = ndimage.gaussian_filter(field, (0, 1.3, 1.3, 1.3))
        field *= DISPLACEMENT_MM / field.std()
        # Interpolation as in `map_coordinates(order=3)`, its prefilter done once.
        self.field = [ndimage.spline_filter(component, order=3, mode="nearest") for component in field]
        self.centre = np.array([25.0, -17.0, 0.0])

    def sample(self, points: np.ndarray, offsets: tuple[float, ...]) -> list[np.ndarray]:
        """Return t1, gm, wm and distance at points (..., 3), order z, y, x in mm, averaged over offsets in z."""
        coordinates = np.moveaxis((points - self.centre) / 240.0 * 11 + 5.5, -1, 0)
        displacement = [
            ndimage.map_coordinates(f, coordinates, order=3, mode="nearest", prefilter=False) for f in self.field
        ]
        moved = (points - self.centre) @ self.matrix.T + self.centre + self.shift + np.stack(displacement, axis=-1)
        through = self.matrix[:, 0]
        maps = (self.anatomy.t1, self.anatomy.gm, self.anatomy.wm, self.anatomy.distance)
        planes = [np.moveaxis(moved + dz * through + self.anatomy.origin, -1, 0) for dz in offsets]
        return [
            np.mean([ndimage.map_coordinates(m, plane, order=1, mode="nearest") for plane in planes], axis=0)
            for m in maps
        ]


class _Contrast:
    """Random tissue contrast, layers around the brain, bias and phase."""

    def __init__(self, rng: np.random.Generator) -> None:
        self.gm, self.wm = rng.uniform(-0.12, 0.06), rng.uniform(-0.05, 0.1)
        self.layers = np.cumsum(rng.uniform([1.5, 4.0, 4.0], [3.0, 6.5, 6.5]))
        self.scalp = rng.uniform(0.6, 0.85)
        self.bias = rng.normal(0, 0.08, 3)
        self.phase = rng.normal(0, [0.8, 0.8, 0.8, 0.6, 0.6, 0.6])

    def image(
        self, t1: np.ndarray, gm: np.ndarray, wm: np.ndarray, distance: np.ndarray, points: np.ndarray
    ) -> np.ndarray:
        """Return the complex transverse magnetisation."""
        fluid, skull, scalp = self.layers
        inside = np.clip(1.5 - distance, 0, 1)
        brain = t1 * (1 + self.gm * gm + self.wm * wm)
        texture = 1 + 0.08 * np.sin(points[..., 1] / 3.1) * np.sin(points[..., 2] / 2.7)
        around = _between(distance, 0, fluid) * FLUID
        around += _between(distance, fluid, skull) * SKULL
        around += _between(distance, skull, scalp) * self.scalp * texture
        z, y, x = np.moveaxis(points / 100.0, -1, 0)
        bias = np.exp(self.bias[0] * y + self.bias[1] * x + self.bias[2] * (x**2 + y**2))
        p = self.phase
        phase = p[0] + p[1] * x + p[2] * y + p[3] * x * y + p[4] * x**2 + p[5] * y**2 + 0.2 * z
        return np.asarray((inside * brain + (1 - inside) * around) * bias * np.exp(1j * phase))


def _between(distance: np.ndarray, low: float, high: float) -> np.ndarray:
    """Return a layer with edges half a millimetre soft."""
    return np.clip((distance - low) + 0.5, 0, 1) * np.clip((high - distance) + 0.5, 0, 1)


def _labels(gm: np.ndarray, wm: np.ndarray) -> np.ndarray:
    """Average probabilities over the four fine pixels of each acquired one and take the largest."""
    ny, nx = gm.shape[0] // 2, gm.shape[1] // 2
    coarse = [p.reshape(ny, 2, nx, 2).mean(axis=(1, 3)) for p in (gm, wm)]
    rest = 1 - coarse[0] - coarse[1]
    return np.argmax(np.stack([rest, *coarse]), axis=0).astype(np.uint8)


def _sensitivities(centres: np.ndarray, normals: np.ndarray, points: np.ndarray) -> np.ndarray:
    """Return coil maps on the fine grid; they are smooth, so they are computed coarsely and interpolated."""
    ny, nx = points.shape[:2]
    rows, columns = np.linspace(0, ny - 1, 25), np.linspace(0, nx - 1, 21)
    corner, far = points[0, 0], points[-1, -1]
    y = np.interp(rows, [0, ny - 1], [corner[1], far[1]])
    x = np.interp(columns, [0, nx - 1], [corner[2], far[2]])
    coarse = np.stack(np.broadcast_arrays(corner[0] - 25.0, y[:, None] + 17.0, x[None, :]), axis=-1)
    maps = loop_sensitivities(centres, normals, coarse / 1000.0)
    fine = np.arange(ny), np.arange(nx)
    return np.stack(
        [
            RectBivariateSpline(rows, columns, m.real)(*fine) + 1j * RectBivariateSpline(rows, columns, m.imag)(*fine)
            for m in maps
        ]
    )
