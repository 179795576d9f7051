r"""Variable-density Poisson discs: random points that keep a distance, which grows from the centre outwards.

Vasanawala et al. 2011, doi:10.1109/ISBI.2011.5872579: such sampling is incoherent, and has neither the gaps nor the
clusters of independent draws. Discs are thrown in random order onto free grid points until none is left (Cook 1986,
doi:10.1145/7529.8927).
"""

import math
from functools import lru_cache

import numpy as np
from pydantic import Field

from mri_recon.physics.masks.common import MaskSettings, centre, check_parameters, samples_to_draw

__all__ = ["PoissonConfig", "poisson_mask", "poisson_radius"]

_SURPLUS, _TRIALS, _BLOCK = 0.03, 12, 2048
# Share of grid points that random discs of squared radius up to n take before none fits any more; beyond, 0.66 / n.
_SATURATION = (1.0, 0.365, 0.187, 0.187, 0.14, 0.087, 0.087, 0.087, 0.076, 0.067, 0.053, 0.053, 0.053, 0.0437)


class PoissonConfig(MaskSettings):
    """Poisson discs."""

    acceleration: float = Field(default=4, ge=1)
    center_fraction: float = Field(default=0.08, ge=0, le=1)
    seed: int = Field(default=0, ge=0, lt=2**32)
    uniform: bool = Field(default=False, description="the same distance everywhere")
    elliptical: bool = Field(default=True, description="leave out the corners of k-space")


def poisson_mask(
    shape: tuple[int, int],
    acceleration: float,
    center_fraction: float = 0.08,
    seed: int | None = None,
    *,
    uniform: bool = False,
    elliptical: bool = True,
) -> np.ndarray:
    """Sample a central rectangle and Poisson discs around it.

    Two samples outside the rectangle are at least as far apart as the smaller of their radii, see `poisson_radius`.
    Its slope is found by bisection such that at most 3 % too many discs fit; of these as many as are too many are
    left out at random, which keeps the distances, so the acceleration is exact to rounding.

    Parameters
    ----------
    shape
        (ky, kx).
    acceleration
        Points over sampled points, centre and corners counted in.
    center_fraction
        Sides of the rectangle that is fully sampled, shares of the axes.
    seed
        Of `numpy.random.default_rng`.
    uniform
        The same radius everywhere instead of one that grows outwards.
    elliptical
        Leave out the corners of k-space.

    Returns
    -------
    numpy.ndarray
        uint8 (ky, kx), 1 where sampled.

    Raises
    ------
    ConfigError
        When the acceleration cannot be reached: the centre alone has more samples, or there are not as many points.
    """
    check_parameters(shape, acceleration, center_fraction)
    mask = np.zeros(shape, np.uint8)
    mask[centre(shape[0], center_fraction), centre(shape[1], center_fraction)] = 1
    free = (mask == 0) & (_ellipse(shape) <= 1 if elliptical else True)
    always, room = int(mask.sum()), int(free.sum())
    wanted = samples_to_draw(mask.size, acceleration, always, always + room)
    distance = np.ones(room) if uniform else _distance(shape, center_fraction)[free]
    points, rng = np.flatnonzero(free), np.random.default_rng(seed)
    taken = _throw_about(points, distance, wanted, shape, rng) if 0 < wanted < room else points[:wanted]
    mask.ravel()[taken] = 1
    return mask


def poisson_radius(shape: tuple[int, int], center_fraction: float, slope: float) -> np.ndarray:
    """Return the radii of the discs, in grid points, (ky, kx): 1 + slope times the distance from the central rectangle.

    The distance is 1 where an axis ends.
    """
    return 1 + slope * _distance(shape, center_fraction)


def _distance(shape: tuple[int, int], fraction: float) -> np.ndarray:
    beyond = []
    for length in shape:
        inside = centre(length, fraction)
        k = np.arange(length)
        outside = np.maximum(np.maximum(inside.start - k, k - inside.stop + 1), 0)
        beyond.append(outside / max(int(outside.max()), 1))
    return np.hypot(beyond[0][:, None], beyond[1])


def _ellipse(shape: tuple[int, int]) -> np.ndarray:
    """Return the distance from the centre, (ky, kx), 1 on the largest ellipse that fits."""
    y, x = ((np.arange(n) + 0.5 - n / 2) / (n / 2) for n in shape)
    return np.hypot(y[:, None], x)


def _throw_about(
    points: np.ndarray, distance: np.ndarray, wanted: int, shape: tuple[int, int], rng: np.random.Generator
) -> np.ndarray:
    """Return `wanted` of the points, apart by ``1 + slope distance``, the slope found by bisection.

    How many discs fit is predicted from the share that discs of one radius take, and the prediction corrected by how
    many did fit, so that two trials are the rule.
    """
    slopes, correction, best = (0.0, float(max(shape))), 1.0, points
    for _ in range(_TRIALS):
        slope = _slope_for(wanted * (1 + _SURPLUS / 2) / correction, distance, slopes)
        squared = _squared(slope, distance)
        taken = _throw(points, squared, shape, rng)
        correction = len(taken) / _expected(squared)
        if len(taken) < wanted:
            slopes = slopes[0], slope
            continue
        slopes, best = (slope, slopes[1]), min(best, taken, key=len)
        if len(best) <= wanted * (1 + _SURPLUS):
            break
    return rng.permutation(best)[:wanted]


def _squared(slope: float, distance: np.ndarray) -> np.ndarray:
    """Return the largest squared distance, an integer, that is within the radius."""
    return np.ceil((1 + slope * distance) ** 2).astype(np.int64) - 1


def _expected(squared: np.ndarray) -> float:
    counts = np.bincount(squared)
    share = 0.66 / np.maximum(np.arange(len(counts)), 1)
    share[: len(_SATURATION)] = _SATURATION[: len(counts)]
    return float(counts @ share)


def _slope_for(count: float, distance: np.ndarray, slopes: tuple[float, float]) -> float:
    """Return the slope between two for which a number of discs is expected."""
    low, high = slopes
    few = distance[:: max(1, distance.size // 2048)]
    for _ in range(14):
        slope = (low + high) / 2
        if _expected(_squared(slope, few)) * distance.size / few.size > count:
            low = slope
        else:
            high = slope
    return (low + high) / 2


def _throw(points: np.ndarray, squared: np.ndarray, shape: tuple[int, int], rng: np.random.Generator) -> np.ndarray:
    """Take points in random order, each unless it lies in the disc of one taken before; return their flat indices."""
    margin = int(np.sqrt(squared.max())) + 1  # discs reach over the border of the grid
    width = shape[1] + 2 * margin
    order = rng.permutation(len(points))
    y, x = np.divmod(points[order], shape[1])
    places, squared = (y + margin) * width + x + margin, squared[order]
    rows = {key: _disc_rows(key, width) for key in np.flatnonzero(np.bincount(squared)).tolist()}
    covered = bytearray(width * (shape[0] + 2 * margin))
    seen = np.frombuffer(covered, np.uint8)
    taken = []
    for start in range(0, len(order), _BLOCK):
        # Most points of later blocks are covered by now; numpy leaves them out faster than the loop would.
        free = start + np.flatnonzero(seen[places[start : start + _BLOCK]] == 0)
        for number, at, key in zip(free.tolist(), places[free].tolist(), squared[free].tolist(), strict=True):
            if not covered[at]:
                taken.append(number)
                for first, end, ones in rows[key]:
                    covered[at + first : at + end] = ones
    return points[order[taken]]


@lru_cache(maxsize=4096)
def _disc_rows(squared: int, width: int) -> tuple[tuple[int, int, bytes], ...]:
    """Return the rows of a disc: first and last position relative to its centre in a flat grid, and what fills them."""
    reach = math.isqrt(squared)
    halves = [(dy, math.isqrt(squared - dy * dy)) for dy in range(-reach, reach + 1)]
    return tuple((dy * width - half, dy * width + half + 1, bytes([1]) * (2 * half + 1)) for dy, half in halves)
