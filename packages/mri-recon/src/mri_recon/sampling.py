"""Which samples of k-space may be used: those of a chosen mask, where the scan measured them."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np

from mri_io.errors import expected_got
from mri_io.store import Element, Volume, mask_array, open_cohort
from mri_io.store.remote.paths import AnyPath, store_path
from mri_recon.errors import ShapeError

__all__ = ["MeasuredSamples", "Samples"]


class Samples:
    """The samples of a volume: those of the chosen mask that are in ``mask/acquired`` and within the padding.

    What lies outside the header's ``padding_left`` .. ``padding_right`` was never measured; a mask that has it would
    enforce zeros there. fastMRI's transforms do the same (Zbontar et al. 2018, arXiv:1811.08839).

    Parameters
    ----------
    volume
        Its header and acquired mask.
    kspace
        The element that is sampled, (slice or kz, coil, ky, kx), perhaps behind sets, frames and echoes.
    chosen
        A mask element; None for all that was measured.

    Raises
    ------
    ShapeError
        When a mask has a dimension that k-space has not.
    """

    def __init__(self, volume: Volume, kspace: Element, chosen: Element | None = None) -> None:
        has_mask = "mask/acquired" in volume
        self.acquired = volume["mask/acquired"] if has_mask else None
        self.chosen = chosen
        self._columns = kspace.shape[-1]
        self._chosen = None if chosen is None else _Pattern.of(chosen, kspace)
        measured = [
            _padding(volume, kspace.shape),
            None if self.acquired is None else _Pattern.of(self.acquired, kspace),
        ]
        self._measured = [pattern for pattern in measured if pattern is not None]

    @property
    def masks(self) -> list[Element]:
        """The mask elements that decide, for the provenance of a result."""
        found = {mask.path: mask for mask in (self.chosen, self.acquired) if mask is not None}
        return list(found.values())

    @property
    def dims(self) -> frozenset[str]:
        """The dimensions of k-space along which what is sampled differs."""
        patterns = [*self._measured, *([] if self._chosen is None else [self._chosen])]
        return frozenset(name for pattern in patterns for name in pattern.varying)

    def measured(self, number: int, **place: int) -> np.ndarray | None:
        """Return what was measured of a slice, uint8 (1 or ky, 1 or kx); None when that is everything.

        Parameters
        ----------
        number
            The slice, or the partition kz.
        place
            Frame, echo and set of a series.
        """
        patterns = [pattern.at(number, place) for pattern in self._measured]
        partial = [pattern for pattern in patterns if not pattern.all()]
        return None if not partial else _as_lines(np.prod(np.broadcast_arrays(*partial), axis=0, dtype=np.uint8))

    def of_slice(self, number: int, **place: int) -> np.ndarray:
        """Return the samples of a slice, uint8 (1 or ky, 1 or kx), one where sampled; see `measured`."""
        measured = self.measured(number, **place)
        if self._chosen is None:
            return np.ones((1, self._columns), np.uint8) if measured is None else measured
        chosen = self._chosen.at(number, place)
        return chosen if measured is None else _as_lines(chosen * measured)


@dataclass(frozen=True)
class _Pattern:
    """A mask with the names of its dimensions, the last two (1 or ky, 1 or kx)."""

    data: np.ndarray
    front: tuple[str, ...]

    @classmethod
    def of(cls, mask: Element, kspace: Element) -> "_Pattern":
        front = tuple(name for name in mask.dims if name not in ("ky", "kx"))
        if not set(front) <= set(kspace.dims):
            raise ShapeError(
                expected_got("mask", expected=f"dimensions of {kspace.dims}", got=mask.dims, where=mask.folder)
            )
        return cls((mask_array(mask) != 0).astype(np.uint8), front)

    @property
    def varying(self) -> set[str]:
        """The dimensions along which it is not constant."""
        names = (*self.front, "ky", "kx")
        data = self.data
        return {name for axis, name in enumerate(names) if (data != np.take(data, [0], axis=axis)).any()}

    def at(self, number: int, place: Mapping[str, int]) -> np.ndarray:
        """Return the pattern of a slice or partition of a series."""
        found = {"slice": number, "kz": number, **place}
        return _as_lines(self.data[tuple(found[name] for name in self.front)])


class MeasuredSamples:
    """What the scans of a cohort measured; opens volumes on first use in each process.

    Parameters
    ----------
    cohort
        The cohort's folder or URL.
    kspace
        Path of the element that is sampled.
    """

    def __init__(self, cohort: str | AnyPath, kspace: str = "kspace") -> None:
        self.path, self.kspace = store_path(cohort).absolute(), kspace
        self._open: dict[str, Samples] = {}

    def __getstate__(self) -> dict[str, Any]:
        """Leave open volumes behind: every process opens its own."""
        return {**self.__dict__, "_open": {}}

    def __call__(self, volume_id: str, number: int) -> np.ndarray | None:
        """Return what was measured of a slice; see `Samples.measured`."""
        if volume_id not in self._open:
            volume = open_cohort(self.path)[volume_id]
            self._open[volume_id] = Samples(volume, volume[self.kspace])
        return self._open[volume_id].measured(number)


def _as_lines(pattern: np.ndarray) -> np.ndarray:
    """Give a pattern that is constant along an axis the length one there: networks and operators look for lines."""
    if 1 not in pattern.shape:
        for lines in (pattern[:1], pattern[:, :1]):
            if np.array_equal(pattern, np.broadcast_to(lines, pattern.shape)):
                return lines
    return pattern


def _padding(volume: Volume, shape: tuple[int, ...]) -> _Pattern | None:
    """Return the lines within the header's padding, (1, kx) or (ky, 1); None when it states none."""
    left, right = volume.header.padding_left, volume.header.padding_right
    if left is None or right is None:
        return None
    # The phase encoding, which is what the padding is about, lies along kx but for the ISMRMRD reader.
    rows = volume.source is not None and volume.source.format == "ismrmrd"
    inside = np.zeros(shape[-2] if rows else shape[-1], np.uint8)
    inside[max(left, 0) : max(right, 0)] = 1
    return _Pattern(inside[:, None] if rows else inside[None], ())
