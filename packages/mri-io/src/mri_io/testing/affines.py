"""Affines of voxel (x, y, slice) to RAS+ mm in the orientations that scanners make, for tests of geometry."""

import numpy as np

__all__ = ["ORIENTATIONS", "affine", "rotation"]


def rotation(x: float, y: float, z: float) -> np.ndarray:
    """Return the matrix (3, 3) that turns by these angles, in radians, about z, then y, then x."""
    (cx, cy, cz), (sx, sy, sz) = np.cos([x, y, z]), np.sin([x, y, z])
    about_x = np.array([[1, 0, 0], [0, cx, -sx], [0, sx, cx]])
    about_y = np.array([[cy, 0, sy], [0, 1, 0], [-sy, 0, cy]])
    about_z = np.array([[cz, -sz, 0], [sz, cz, 0], [0, 0, 1]])
    return np.asarray(about_x @ about_y @ about_z)


def affine(matrix: np.ndarray, offset: tuple[float, float, float]) -> np.ndarray:
    """Return the affine (4, 4) of a matrix (3, 3) and the position of the first voxel in mm."""
    full = np.eye(4)
    full[:3, :3], full[:3, 3] = matrix, offset
    return full


ORIENTATIONS = {
    "sagittal": affine(np.array([[0, 0, -4], [-1.1, 0, 0], [0, -1.3, 0]]), (31, 120, 90)),
    "coronal": affine(np.array([[-1.1, 0, 0], [0, 0, -3], [0, -1.3, 0]]), (100, 50, 90)),
    "oblique": affine(rotation(0.3, -0.2, 0.7) @ np.diag([-0.8, -1.1, 5]), (12.5, -30.25, 7)),
    "oblique and flipped": affine(rotation(2.1, 0.4, -1.2) @ np.diag([0.8, 1.1, -5]), (-1, 0.5, 100)),
}
"""With slices along the normal of their images and, where the determinant is negative, against it."""
