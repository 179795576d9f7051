"""Where slices lie: affines from positions and directions, patient coordinates LPS+ to RAS+."""

import numpy as np

from mri_io.formats.ismrmrd.scan import Scan

__all__ = ["affine_of", "scan_affine"]

TOLERANCE = 1e-3
"""Of unit vectors, and of the spacing of slices relative to itself."""
_TO_RAS = np.array([-1.0, -1.0, 1.0])


def affine_of(
    centres: np.ndarray,
    read: np.ndarray,
    phase: np.ndarray,
    through: np.ndarray,
    *,
    matrix: tuple[int, int, int],
    voxel_mm: tuple[float, float, float],
) -> np.ndarray | None:
    """Return the affine voxel (x, y, slice) to RAS+ mm of an image, None when the geometry is not stated or irregular.

    Parameters
    ----------
    centres
        (slice, 3): centre of each slice, mm LPS+; one of a 3-D slab, its centre.
    read, phase, through
        Unit vectors along columns, rows and slices, LPS+.
    matrix
        Columns, rows, slices or partitions.
    voxel_mm
        Spacing of the same; of several slices it follows from their centres.

    Notes
    -----
    The transform of centred k-space puts the centre of the field of view into voxel ``n // 2``.
    """
    axes = np.stack([read, phase, through]).astype(np.float64)
    if not np.isfinite(axes).all() or np.abs(axes @ axes.T - np.eye(3)).max() > TOLERANCE:
        return None
    steps = axes * np.asarray(voxel_mm)[:, None]
    centre = centres[0].astype(np.float64)
    middle = np.array([matrix[0] // 2, matrix[1] // 2, matrix[2] // 2 if len(centres) == 1 else 0])
    if len(centres) > 1:
        steps[2] = (centres[-1].astype(np.float64) - centre) / (len(centres) - 1)
        expected = centre + np.arange(len(centres))[:, None] * steps[2]
        spacing = np.linalg.norm(steps[2])
        if spacing == 0 or np.abs(expected - centres).max() > max(TOLERANCE * spacing, 1e-2):
            return None
    affine = np.eye(4)
    affine[:3, :3] = (steps * _TO_RAS).T
    affine[:3, 3] = centre * _TO_RAS - affine[:3, :3] @ middle
    return affine if abs(np.linalg.det(affine[:3, :3])) > 1e-9 else None


def scan_affine(scan: Scan) -> np.ndarray | None:
    """Return the affine of images on the reconstruction matrix, None when heads or header do not give one.

    It is left out where slices are not parallel and equidistant, or where the patient was followed.
    """
    header = scan.header
    matrix, field = header.recon_matrix, header.recon_fov_m
    if matrix is None or field is None or min(matrix) < 1 or min(field) <= 0:
        return None
    slices, first = np.unique(scan.counter("slice"), return_index=True)
    volume = np.unique(scan.counter("kspace_encode_step_2")).size > 1
    if volume and len(slices) > 1:
        return None
    places = np.searchsorted(slices, scan.counter("slice"))
    for name in ("position", "read_dir", "phase_dir", "slice_dir"):
        values = scan.head(name)
        same = values[first][places] if name == "position" else values[:1]
        if np.abs(values - same).max() > TOLERANCE:
            return None
    read, phase, through = (scan.head(name)[0] for name in ("read_dir", "phase_dir", "slice_dir"))
    shape = matrix if volume else (matrix[0], matrix[1], 1)
    thickness = field[2] / (matrix[2] if volume else 1)
    spacing = (1000 * field[0] / matrix[0], 1000 * field[1] / matrix[1], 1000 * thickness)
    centres = scan.head("position")[first]
    return affine_of(centres, read, phase, through, matrix=shape, voxel_mm=spacing)
