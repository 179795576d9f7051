"""Label maps on another grid, each structure with the volume that it had.

Borders between structures are found by shape-based interpolation: the signed distance to each structure's border is
interpolated, not its label (Herman, Zheng, Bucholtz, Shape-based interpolation, IEEE CG&A 12, 1992, section 2). Where
the target is coarser its voxels are sampled more finely than the source, so that they get the share of each structure
in them. A voxel goes to the structure of the largest score; a structure that would so lose or gain volume, as thin
ones do, gets a bias that restores it, and single voxels move where biases cannot. All structures that reach into a
voxel compete for it.
"""

from collections.abc import Callable
from dataclasses import dataclass, field
from itertools import product

import numpy as np
from scipy import ndimage

from mri_io.resampling.assignment import assign
from mri_io.resampling.grids import Grid, Slab, index_map, slabs

__all__ = ["LabelResult", "resampled_labels"]

SAMPLES = 6
"""Samples along an axis of a target voxel, at most."""
_REACH = 3.0
"""Distances matter up to so many voxel sizes, of the coarser of the grids."""
_ASIDE = 1e-3 * np.array([0.4, 0.7, 1.0])
"""Where samples are taken beside their places, in voxels: borders that pass exactly between two grids, and shapes that
are symmetric, make scores equal; so all voxels on one side of a structure come before those on the other."""

Read = Callable[[slice], np.ndarray]


@dataclass(frozen=True)
class LabelResult:
    """A label map on the new grid, (slice, y, x), and of each id the voxels wanted and there."""

    array: np.ndarray
    wanted: dict[int, float] = field(default_factory=dict)

    @property
    def missed(self) -> list[int]:
        """The ids whose volumes are off by more than half a voxel: nothing of them may be moved to where it lacks."""
        return [number for number, there in self.volumes().items() if abs(there - self.wanted[number]) > 0.5 + 1e-6]

    def volumes(self) -> dict[int, int]:
        """Return the voxels of each id that was wanted."""
        counts = np.bincount(self.array.reshape(-1), minlength=max(self.wanted, default=0) + 1)
        return {number: int(counts[number]) for number in self.wanted}


def resampled_labels(read: Read, dtype: np.dtype, source: Grid, target: Grid) -> LabelResult:
    """Return a label map on another grid.

    Parameters
    ----------
    read
        Returns slices of the source, integers (n, y, x).
    dtype
        Of the result.
    source, target
        The grids. Outside the field of view of the source is background.

    Returns
    -------
    LabelResult
        The whole map; beside it only the voxels at borders are held, the source is read in slabs.
    """
    wanted = _volumes_in_view(read, source, target)
    array = np.zeros(target.shape, dtype)
    flat = array.reshape(-1)
    borders: list[tuple[np.ndarray, ...]] = []
    plane = target.shape[1] * target.shape[2]
    for slab in slabs(source, target):
        places, labels, scores, counts = _Slab(source, target, slab).compete(read)
        places += slab.start * plane
        flat[places] = labels[np.cumsum(counts) - counts]
        open_ = counts > 1
        competing = np.repeat(open_, counts)
        borders.append((places[open_], labels[competing], scores[competing], counts[open_]))
    if any(len(places) for places, *_ in borders):
        places, labels, scores, counts = (np.concatenate(parts) for parts in zip(*borders, strict=True))
        borders.clear()
        certain = np.bincount(flat, minlength=65536) - np.bincount(flat[places], minlength=65536)
        left = {number: max(0, round(size) - int(certain[number])) for number, size in wanted.items()}
        flat[places] = assign(labels, scores, counts, left)
    return LabelResult(array, wanted)


def _volumes_in_view(read: Read, source: Grid, target: Grid) -> dict[int, float]:
    """Return, in target voxels, the volume of each structure of the source within the target's field of view."""
    volumes = np.zeros(65536)
    half = np.abs(index_map(target, source)[0]).sum(axis=1)[:, None, None, None] / 2  # of a source voxel, in the target
    limits = np.array(target.shape)[:, None, None, None] - 0.5
    for slab in slabs(target, source):  # where each voxel of the source lies in the target
        at = slab.coordinates
        length = np.minimum(at + half, limits) - np.maximum(at - half, -0.5)
        share = np.prod(np.clip(length / (2 * half), 0, 1), axis=0)  # of the voxel that is in view
        volumes += np.bincount(read(slice(slab.start, slab.stop)).ravel(), weights=share.ravel(), minlength=65536)
    ratio = source.voxel_volume / target.voxel_volume
    return {int(number): float(volumes[number] * ratio) for number in np.flatnonzero(volumes) if number}


class _Slab:
    """The competition of the structures for the voxels of a slab."""

    def __init__(self, source: Grid, target: Grid, slab: Slab) -> None:
        self.source, self.slab = source, slab
        self.steps, _ = index_map(source, target)
        extent = np.abs(self.steps).max(axis=0)
        self.number = [int(min(SAMPLES, np.ceil(size - 0.05))) if size > 1.05 else 1 for size in extent]
        finer = max(self.number) > 1
        # The border is a ramp, of the width of a sample: what a plane through a voxel leaves on one side of it.
        self.ramp = float(source.spacing.min() if finer else source.spacing.max())
        self.reach = _REACH * float(max(source.spacing.max(), target.spacing.max()))
        self.margin = np.ceil(self.reach / source.spacing).astype(int)

    def compete(self, read: Read) -> tuple[np.ndarray, np.ndarray, np.ndarray, np.ndarray]:
        """Return the voxels of the slab that something competes for, the competitors, and how many each voxel has.

        Returns
        -------
        tuple
            Places in the slab, (voxel,) int64; labels and scores, (competitor,), voxel after voxel, of each by falling
            score; numbers of competitors, (voxel,) uint16.
        """
        found: list[tuple[np.ndarray, np.ndarray, int]] = []
        if not self.slab.inside.any():
            return _by_voxel(found)
        reach = float(self.margin[0]) + float(np.abs(self.steps[0]).sum())
        chosen = self.slab.source_slices(reach, self.source.shape[0])
        block = read(chosen).astype(np.uint16)
        coordinates = self.slab.coordinates.copy()
        coordinates[0] -= chosen.start
        boxes = ndimage.find_objects(block.astype(np.int32))
        for number, box in enumerate(boxes, start=1):
            if box is not None:
                near = self._near(box, coordinates)
                found.append((*self._scored(block, number, box, near, coordinates), number))
        # Background competes where something else does, and has what nothing else enters.
        there = [box for box in boxes if box is not None]
        if there:
            ends = [(min(p.start for p in parts), max(p.stop for p in parts)) for parts in zip(*there, strict=True)]
            box = tuple(slice(low, high) for low, high in ends)
            entered = np.zeros(self.slab.inside.shape, bool)
            for places, _, _ in found:
                entered.reshape(-1)[places] = True
            found.append((*self._scored(block, 0, box, entered, coordinates), 0))
        return _by_voxel(found)

    def _near(self, box: tuple[slice, ...], coordinates: np.ndarray) -> np.ndarray:
        """Return which voxels of the target in view reach within a voxel of a box of the source."""
        around = np.abs(self.steps).sum(axis=1)[:, None, None, None] / 2 + 1
        low, high = (np.array([getattr(p, end) for p in box])[:, None, None, None] for end in ("start", "stop"))
        near: np.ndarray = ((coordinates >= low - around) & (coordinates <= high - 1 + around)).all(axis=0)
        return near & self.slab.inside

    def _scored(
        self, block: np.ndarray, number: int, box: tuple[slice, ...], near: np.ndarray, coordinates: np.ndarray
    ) -> tuple[np.ndarray, np.ndarray]:
        """Return the places in the slab that a structure competes for, and its scores there."""
        if not near.any():
            return np.empty(0, np.int64), np.empty(0, np.float32)
        lows = [max(0, part.start - margin) for part, margin in zip(box, self.margin, strict=True)]
        highs = [min(n, p.stop + m) for n, p, m in zip(block.shape, box, self.margin, strict=True)]
        window = tuple(slice(low, high) for low, high in zip(lows, highs, strict=True))
        distance = _signed_distance(block[window] == number, self.source.spacing, self.reach)
        score = self._score(distance, coordinates[:, near] - np.array(lows)[:, None])
        here = score > 0
        return np.flatnonzero(near)[here], score[here]

    def _score(self, distance: np.ndarray, at: np.ndarray) -> np.ndarray:
        """Return the mean over samples of the ramp at the border."""
        total = np.zeros(at.shape[1], np.float32)
        shifts = [(np.arange(n) + 0.5) / n - 0.5 for n in self.number]
        limits = np.array(distance.shape)[:, None] - 1
        for shift in product(*shifts):
            sample = np.clip(at + (self.steps @ (np.array(shift) + _ASIDE))[:, None], 0, limits)
            found = ndimage.map_coordinates(distance, sample, order=1, mode="nearest")
            total += np.clip(0.5 + found / self.ramp, 0, 1)
        return total / np.float32(np.prod(self.number))


def _signed_distance(mask: np.ndarray, spacing: np.ndarray, reach: float) -> np.ndarray:
    """Return the distance in mm to the border of a mask, positive inside, at most `reach`; float32."""
    half = float(spacing.min()) / 2
    if mask.all():
        return np.full(mask.shape, reach, np.float32)
    inner = ndimage.distance_transform_edt(mask, sampling=spacing) - half
    outer = ndimage.distance_transform_edt(~mask, sampling=spacing) - half
    return np.clip(np.where(mask, inner, -outer), -reach, reach).astype(np.float32)


def _by_voxel(
    found: list[tuple[np.ndarray, np.ndarray, int]],
) -> tuple[np.ndarray, np.ndarray, np.ndarray, np.ndarray]:
    """Return competitors in order of voxels and, in each, of falling scores; of equal ones the first stay first."""
    places = np.concatenate([np.empty(0, np.int64), *(part for part, _, _ in found)])
    scores = np.concatenate([np.empty(0, np.float32), *(part for _, part, _ in found)])
    labels = np.repeat(
        np.array([n for *_, n in found], np.uint16), np.array([len(part) for part, _, _ in found], np.int64)
    )
    order = np.lexsort((-scores, places))
    voxels, counts = np.unique(places[order], return_counts=True)
    return voxels, labels[order], scores[order], counts.astype(np.uint16)
