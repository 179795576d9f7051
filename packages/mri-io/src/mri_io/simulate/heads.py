"""What differs between simulated subjects: shape, tissue contrast, the layers around the brain, bias and phase."""

import numpy as np
from scipy import ndimage

from mri_io.simulate.anatomy import Anatomy

__all__ = ["Contrast", "Deformation", "HeadMaps"]

DISPLACEMENT_MM = 3.0
FIELD_MM = 240.0
KNOTS = 12
CENTRE_MM = np.array([25.0, -17.0, 0.0])
"""Point of the template, order (z, y, x), about which subjects are turned and scaled."""
TABLE, MARROW, MUSCLE = 0.05, 0.22, 0.38

HeadMaps = tuple[np.ndarray, np.ndarray, np.ndarray, np.ndarray]
"""t1, grey matter, white matter and distance to the skull's inner surface in mm, on one grid."""


class Deformation:
    """Random affine and smooth displacement from a subject's space to the template's.

    The displacement is a cubic spline with knots 22 mm apart, whose random coefficients are smoothed; at 3 mm standard
    deviation neighbouring points keep their order.

    Parameters
    ----------
    rng
        Of the subject.
    anatomy
        The template.
    """

    def __init__(self, rng: np.random.Generator, anatomy: Anatomy) -> None:
        self.anatomy = anatomy
        rotation = np.eye(3)
        for (a, b), angle in zip(((0, 1), (0, 2), (1, 2)), rng.normal(0, np.radians(4), 3), strict=True):
            turn = np.eye(3)
            turn[[a, a, b, b], [a, b, a, b]] = np.cos(angle), -np.sin(angle), np.sin(angle), np.cos(angle)
            rotation = rotation @ turn
        self.matrix = rotation @ np.diag(1 / rng.uniform(0.92, 1.0, 3))
        self.shift = rng.normal(0, 2.0, 3)
        field = ndimage.gaussian_filter(rng.standard_normal((3, KNOTS, KNOTS, KNOTS)), (0, 1.3, 1.3, 1.3))
        field *= DISPLACEMENT_MM / field.std()
        # Interpolation as in `map_coordinates(order=3)`, its prefilter done once.
        self.field = [ndimage.spline_filter(component, order=3, mode="nearest") for component in field]

    def shrink(self, factor: float) -> None:
        """Make the head smaller by a factor of at least one."""
        self.matrix = self.matrix * factor

    def to_template(self, points: np.ndarray) -> np.ndarray:
        """Return template coordinates of a subject's points (..., 3), order (z, y, x), in mm."""
        offset = points - CENTRE_MM
        knots = np.moveaxis(offset / FIELD_MM * (KNOTS - 1) + (KNOTS - 1) / 2, -1, 0)
        displacement = [ndimage.map_coordinates(f, knots, order=3, mode="nearest", prefilter=False) for f in self.field]
        return np.asarray(offset @ self.matrix.T + CENTRE_MM + self.shift + np.stack(displacement, axis=-1))

    def distance(self, points: np.ndarray) -> np.ndarray:
        """Return the distance to the skull's inner surface at a subject's points, mm."""
        return self._sample(self.anatomy.outline, [self.to_template(points)], 2)

    def sample(self, points: np.ndarray, offsets_mm: tuple[float, ...]) -> HeadMaps:
        """Return the maps at a subject's points, averaged over offsets along z: the slice's thickness."""
        moved = self.to_template(points)
        planes = [moved + dz * self.matrix[:, 0] for dz in offsets_mm]
        a = self.anatomy
        t1, gm, wm = (self._sample(m, planes, 1) for m in (a.t1, a.gm, a.wm))
        return t1, gm, wm, self._sample(a.outline, planes, 2)

    def _sample(self, volume: np.ndarray, planes: list[np.ndarray], voxel_mm: int) -> np.ndarray:
        places = [np.moveaxis((plane + self.anatomy.origin) / voxel_mm, -1, 0) for plane in planes]
        values = [ndimage.map_coordinates(volume, place, order=1, mode="nearest") for place in places]
        return np.mean(values, axis=0)


class Contrast:
    """Random T1 contrast, thickness and brightness of the layers around the brain, receive bias and object phase.

    Parameters
    ----------
    rng
        Of the subject.
    """

    def __init__(self, rng: np.random.Generator) -> None:
        self.gamma = rng.uniform(1.2, 1.6)
        self.gm, self.wm = rng.uniform(-0.06, 0.06), rng.uniform(-0.05, 0.05)
        self.fluid, self.skull, self.fat = rng.uniform([1.0, 4.5, 2.5], [2.5, 6.5, 5.0])
        self.skin, self.muscle = 1.8, rng.uniform(3.0, 6.0)
        self.fat_signal, self.skin_signal = rng.uniform([0.6, 0.35], [0.8, 0.5])
        self.uneven = rng.uniform(0, 0.2, 3), rng.uniform(0, 2 * np.pi, 3)
        self.bias = rng.normal(0, 0.08, 3)
        self.phase = rng.normal(0, [0.8, 0.8, 0.8, 0.6, 0.6, 0.6])

    @property
    def thickness(self) -> float:
        """Largest distance from the skull's inner surface to the air, mm."""
        return float(self.fluid + 1.3 * self.skull + self.muscle + 1.6 * self.fat + self.skin)

    def image(self, maps: HeadMaps, points: np.ndarray, centre: np.ndarray) -> np.ndarray:
        """Return the complex transverse magnetisation.

        Parameters
        ----------
        maps
            Of `Deformation.sample`.
        points
            Where they were sampled, (..., 3), order (z, y, x), mm.
        centre
            Of the head, (3,), mm.

        Returns
        -------
        numpy.ndarray
            complex128, shape (...); white matter about one.
        """
        t1, gm, wm, distance = maps
        z, y, x = np.moveaxis((points - centre) / 100.0, -1, 0)
        brain = np.maximum(t1, 0) ** self.gamma * (1 + self.gm * gm + self.wm * wm)
        inside = np.clip(self.fluid - distance + 0.5, 0, 1)
        magnitude = inside * brain + (1 - inside) * self._layers(distance, points[..., 0], y, x)
        bias = np.exp(self.bias[0] * y + self.bias[1] * x + self.bias[2] * (x**2 + y**2))
        p = self.phase
        phase = p[0] + p[1] * x + p[2] * y + p[3] * x * y + p[4] * x**2 + p[5] * y**2 + 0.2 * z
        return np.asarray(magnitude * bias * np.exp(1j * phase))

    def _layers(self, distance: np.ndarray, height: np.ndarray, y: np.ndarray, x: np.ndarray) -> np.ndarray:
        """Return the skull with its marrow, the temporal muscles, fat and skin."""
        angle = np.arctan2(y, np.abs(x))
        turn = np.arctan2(y, x)
        share, start = self.uneven
        uneven = [1 + s * np.cos((n + 1) * turn + p) for n, (s, p) in enumerate(zip(share, start, strict=True))]
        skull = self.fluid + self.skull * (1 + 0.5 * (uneven[0] - 1))
        # The temporal muscles lie beside the forehead and end at the temporal lines, 4 or 5 cm above MNI zero.
        muscle = self.muscle * np.exp(-(((angle - 0.45) / 0.4) ** 2)) / (1 + np.exp((height - 30) / 6))
        fat = skull + muscle
        skin = fat + self.fat * uneven[1] * uneven[2]
        marrow = TABLE + MARROW * np.exp(-(((distance - (self.fluid + skull) / 2) / (0.22 * self.skull)) ** 2))
        layers = (
            (self.fluid, skull, marrow),
            (skull, fat, MUSCLE),
            (fat, skin, self.fat_signal),
            (skin, skin + self.skin, self.skin_signal),
        )
        return np.asarray(sum(_between(distance, low, high) * signal for low, high, signal in layers))


def _between(distance: np.ndarray, low: np.ndarray | float, high: np.ndarray | float) -> np.ndarray:
    """Return a layer whose edges are one millimetre soft; adjoining layers sum to one."""
    return np.clip(distance - low + 0.5, 0, 1) - np.clip(distance - high + 0.5, 0, 1)
