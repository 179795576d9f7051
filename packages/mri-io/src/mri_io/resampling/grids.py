"""Voxel grids: how the indices of one lie in another."""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import numpy as np

from mri_io.errors import ConfigError, expected_got
from mri_io.store.element import Element

__all__ = ["Grid", "Slab", "check_spacing", "index_map", "parse_spacing", "slabs", "spaced_grid"]

BLOCK_VOXELS = 2**20
"""So many voxels of the target are made at once."""
MOST_VOXELS, MOST_IN_PLANE = 2**31, 2**26
"""Larger grids are mistakes: 8.6 GB in float32, slices of 8192 x 8192."""
_REVERSE = np.eye(3)[::-1]


@dataclass(frozen=True)
class Grid:
    """A grid of voxels: `shape` (slice, y, x) and `affine`, voxel (x, y, slice) to RAS+ mm."""

    shape: tuple[int, int, int]
    affine: np.ndarray

    @classmethod
    def of(cls, element: Element) -> "Grid":
        """Return the grid of an image-like element; ConfigError when its affine is unknown."""
        affine = element.affine
        if affine is None:
            fix = "Without it nobody knows where its voxels lie."
            raise ConfigError(expected_got("affine", expected="a known one", got="none", where=element.folder, fix=fix))
        slices, rows, columns = element.shape[-3:]
        return cls((slices, rows, columns), affine)

    @property
    def spacing(self) -> np.ndarray:
        """Voxel sizes in mm along (slice, y, x)."""
        return np.linalg.norm(self.affine[:3, :3], axis=0)[::-1]

    @property
    def voxel_volume(self) -> float:
        """Volume of a voxel in mm3."""
        return float(abs(np.linalg.det(self.affine[:3, :3])))


def spaced_grid(grid: Grid, spacing: Sequence[float]) -> Grid:
    """Return a grid with other voxel sizes that covers the same field of view about the same centre.

    The axes are those of the given grid; where these are sheared, the orthogonal ones next to them.

    Parameters
    ----------
    grid
        The grid whose field of view is covered.
    spacing
        Voxel sizes in mm along (x, y, slice).

    Raises
    ------
    ConfigError
        When they are not three positive numbers, or too small for a grid of `MOST_VOXELS`.
    """
    check_spacing(spacing)
    sizes = np.asarray(spacing, dtype=np.float64)
    axes = grid.affine[:3, :3] / np.linalg.norm(grid.affine[:3, :3], axis=0)
    left, _, right = np.linalg.svd(axes)
    axes = left @ right
    lengths = np.array(grid.shape[::-1])
    extent = np.abs(axes.T @ grid.affine[:3, :3]) @ lengths
    lines = np.maximum(1, np.ceil(extent / sizes - 1e-3))
    if lines.prod() > MOST_VOXELS or lines[:2].prod() > MOST_IN_PLANE:
        got = f"{' x '.join(f'{n:.9g}' for n in lines)} of {', '.join(f'{size:g}' for size in sizes)} mm"
        limit = f"a grid of at most {MOST_VOXELS} voxels, {MOST_IN_PLANE} in a slice"
        raise ConfigError(expected_got("spacing", expected=limit, got=got, fix="Take larger voxels."))
    number = lines.astype(int)
    centre = grid.affine[:3, :3] @ ((lengths - 1) / 2) + grid.affine[:3, 3]
    affine = np.eye(4)
    affine[:3, :3] = axes * sizes
    affine[:3, 3] = centre - affine[:3, :3] @ ((number - 1) / 2)
    return Grid((int(number[2]), int(number[1]), int(number[0])), affine)


def check_spacing(spacing: Sequence[float]) -> None:
    """Raise ConfigError unless voxel sizes are three positive numbers."""
    sizes = np.asarray(spacing, dtype=np.float64)
    if sizes.shape != (3,) or not np.isfinite(sizes).all() or sizes.min() <= 0:
        raise ConfigError(expected_got("spacing", expected="three positive numbers of mm", got=tuple(spacing)))


def parse_spacing(text: str) -> tuple[float, float, float]:
    """Return the three numbers of ``"x,y,slice"``; ConfigError when they are none."""
    try:
        x, y, slice_ = (float(word) for word in text.split(","))
    except ValueError:
        expected = "voxel sizes x,y,slice in mm, e.g. 0.5,0.5,3"
        raise ConfigError(expected_got("--spacing", expected=expected, got=repr(text))) from None
    return x, y, slice_


def index_map(source: Grid, target: Grid) -> tuple[np.ndarray, np.ndarray]:
    """Return matrix (3, 3) and offset (3,) from indices (slice, y, x) of the target to those of the source."""
    joined = np.linalg.inv(source.affine) @ target.affine
    matrix, offset = _REVERSE @ joined[:3, :3] @ _REVERSE, _REVERSE @ joined[:3, 3]
    # The inverse leaves noise of 1e-15, which would make grids that coincide differ.
    return np.where(np.abs(matrix) < 1e-12, 0, matrix), np.where(np.abs(offset) < 1e-9, 0, offset)


@dataclass(frozen=True)
class Slab:
    """Slices of the target, and where their voxels lie in the source.

    Attributes
    ----------
    start, stop
        The slices of the target.
    coordinates
        Indices (slice, y, x) in the source, (3, stop - start, y, x) float64.
    inside
        Whether they lie within a voxel of the source.
    """

    start: int
    stop: int
    coordinates: np.ndarray
    inside: np.ndarray

    def source_slices(self, margin: float, length: int) -> slice:
        """Return the slices of the source that the slab needs, with a margin, at least one."""
        first = int(np.clip(np.floor(self.coordinates[0].min() - margin), 0, length - 1))
        last = int(np.clip(np.ceil(self.coordinates[0].max() + margin), first, length - 1))
        return slice(first, last + 1)


def slabs(source: Grid, target: Grid) -> Iterator[Slab]:
    """Yield the target in slabs of about `BLOCK_VOXELS`."""
    matrix, offset = index_map(source, target)
    step = max(1, BLOCK_VOXELS // (target.shape[1] * target.shape[2]))
    plane = np.stack(np.meshgrid(*map(np.arange, target.shape[1:]), indexing="ij")).astype(np.float64)
    in_plane = np.tensordot(matrix[:, 1:], plane, axes=1) + offset[:, None, None]
    limits = np.array(source.shape)[:, None, None, None] - 0.5
    for start in range(0, target.shape[0], step):
        stop = min(start + step, target.shape[0])
        along = matrix[:, :1] * np.arange(start, stop)
        coordinates = in_plane[:, None] + along[:, :, None, None]
        inside = ((coordinates >= -0.5 - 1e-6) & (coordinates <= limits + 1e-6)).all(axis=0)
        yield Slab(start, stop, coordinates, inside)
