"""Sensitivities of a ring of receive loops around the head, by the law of Biot and Savart."""

import numpy as np

__all__ = ["loop_sensitivities", "ring_of_loops"]

SEGMENTS = 32
TURN = np.radians(4.0)
"""Standard deviation of the angle by which a head is turned in the array."""


def ring_of_loops(
    coils: int, rng: np.random.Generator, *, radii_m: tuple[float, float] = (0.15, 0.135)
) -> tuple[np.ndarray, np.ndarray]:
    """Place loops on an ellipse around the head, staggered along z, each a little displaced.

    It is one array, not a new one for every subject: only the way the head lies in it turns by a few degrees.

    Parameters
    ----------
    coils
        Number of loops.
    rng
        Of the displacements.
    radii_m
        Half axes of the ring along y (front to back) and x, metres.

    Returns
    -------
    centres, normals
        (coil, 3), metres and unit vectors, order z, y, x; the normals point to the axis.
    """
    angles = 2 * np.pi * (np.arange(coils) + rng.uniform(-0.12, 0.12, coils)) / coils + rng.normal(0, TURN)
    z = 0.03 * np.where(np.arange(coils) % 2, 1, -1) + rng.normal(0, 0.005, coils)
    centres = np.stack([z, radii_m[0] * np.sin(angles), radii_m[1] * np.cos(angles)], axis=1)
    normals = -centres * np.array([0.3, 1, 1])
    return centres, normals / np.linalg.norm(normals, axis=1, keepdims=True)


def loop_sensitivities(
    centres: np.ndarray, normals: np.ndarray, points: np.ndarray, *, radius_m: float = 0.06
) -> np.ndarray:
    """Return the receive sensitivity ``B_x - i B_y`` of circular loops at points.

    By reciprocity (Hoult and Richards 1976, doi:10.1016/0022-2364(76)90233-X) a loop receives in proportion to the
    transverse field that a unit current in it would make. The field is the Biot-Savart sum over 32 segments.

    Parameters
    ----------
    centres, normals
        (coil, 3), order z, y, x.
    points
        (..., 3) in metres, order z, y, x.
    radius_m
        Of the loops.

    Returns
    -------
    numpy.ndarray
        complex64, shape (coil, ...), scaled so that the root sum of squares has the mean one over the points.
    """
    flat = points.reshape(-1, 3)
    phi = 2 * np.pi * (np.arange(SEGMENTS) + 0.5) / SEGMENTS
    fields = np.empty((len(centres), len(flat)), np.complex128)
    for number, (centre, normal) in enumerate(zip(centres, normals, strict=True)):
        helper = np.array([1.0, 0.0, 0.0])
        u = np.cross(normal, helper)
        u /= np.linalg.norm(u)
        v = np.cross(normal, u)
        wire = centre + radius_m * (np.cos(phi)[:, None] * u + np.sin(phi)[:, None] * v)
        current = -np.sin(phi)[:, None] * u + np.cos(phi)[:, None] * v
        field = np.zeros((len(flat), 3))
        for place, direction in zip(wire, current, strict=True):
            offset = flat - place
            distance = np.maximum(np.linalg.norm(offset, axis=1), 0.01)
            field += np.cross(direction, offset) / distance[:, None] ** 3
        fields[number] = field[:, 2] - 1j * field[:, 1]
    fields /= np.sqrt(np.sum(np.abs(fields) ** 2, axis=0)).mean()
    return fields.reshape(len(centres), *points.shape[:-1]).astype(np.complex64)
