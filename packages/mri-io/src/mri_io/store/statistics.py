"""Intensity statistics from the training part of a split, for normalisation that never sees test data."""

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import partial, reduce
from typing import Any

import numpy as np

from mri_io.errors import ElementNotFoundError, MriError
from mri_io.schema.validation import validate
from mri_io.store.cohort import Cohort
from mri_io.store.documents import read_document, write_document
from mri_io.store.element import Element
from mri_io.store.splits import Split
from mri_io.store.volume import Volume

__all__ = ["Each", "Elements", "compute_statistics", "read_statistics"]

_QUANTILES = {"p1": 0.01, "p99": 0.99}
_HALF = 16
_BINS = 1 << _HALF

Elements = Mapping[str, Element]
"""Those of one volume, by path."""
Each = Callable[[Callable[[Elements], Any], Mapping[str, Elements], Callable[[str, Any], None]], None]
"""Calls a function for the elements of each volume, by id, and hands what it returns over with the id, in any order."""


def _one_by_one(
    function: Callable[[Elements], Any], volumes: Mapping[str, Elements], take: Callable[[str, Any], None]
) -> None:
    for volume_id, elements in volumes.items():
        take(volume_id, function(elements))


def compute_statistics(
    cohort: Cohort,
    elements: Sequence[str],
    *,
    split: str | Split = "default",
    name: str | None = None,
    each: Each = _one_by_one,
) -> dict[str, Any]:
    """Compute mean, standard deviation, 1st and 99th percentile and n of each element over the training part.

    Complex elements are taken by magnitude, in single precision. The percentiles are exact: order statistics of all
    values, interpolated linearly. Two passes over the volumes, one slice in memory at a time. See
    `mri_io.prep.statistics.cohort_statistics` for other schedulers.

    Parameters
    ----------
    cohort
        The cohort.
    elements
        Element paths, e.g. ``["recon/reference"]``; volumes without one are left out for it.
    split
        The split, or its name, whose training part is used.
    name
        Name of ``stats/<name>.json``, by default the split's.
    each
        How a pass goes over the volumes. The statistics do not depend on it, bit by bit.

    Returns
    -------
    dict
        ``{"split", "split_hash", "fields": {element: {mean, std, p1, p99, n, volumes}}}``, also written.

    Raises
    ------
    ElementNotFoundError
        When no training volume has an element.
    StoreError
        When a volume cannot be read: nothing is written, for statistics of fewer volumes would go unnoticed.
    """
    chosen = cohort.split(split) if isinstance(split, str) else split
    training = [volume for volume in _intact(cohort, chosen.train) if volume.subject_id in chosen.train]
    volumes = {volume.id: {path: volume[path] for path in elements if path in volume} for volume in training}
    count = {path: sum(path in found for found in volumes.values()) for path in elements}
    for path in elements:
        if not count[path]:
            raise ElementNotFoundError(
                f"{cohort.path}: none of the {len(training)} training volumes of split {chosen.name!r} has {path!r}."
            )
    found = _statistics({volume_id: of_volume for volume_id, of_volume in volumes.items() if of_volume}, each)
    fields = {path: {**found[path], "volumes": count[path]} for path in elements}
    content = {"split": chosen.name, "split_hash": chosen.hash, "fields": fields}
    validate("statistics", content, cohort.path)
    write_document(cohort.path / "stats" / f"{name or chosen.name}.json", content)
    return content


def read_statistics(cohort: Cohort, name: str = "default") -> dict[str, Any]:
    """Read ``stats/<name>.json``."""
    path = cohort.path / "stats" / f"{name}.json"
    try:
        content = read_document(path)
    except FileNotFoundError:
        raise ElementNotFoundError(
            f"{path}: there are no such statistics. Compute them: mri-cli stats {cohort.path}"
        ) from None
    validate("statistics", content, path)
    return content


def _intact(cohort: Cohort, subjects: Sequence[str]) -> list[Volume]:
    """Return the volumes of a cohort; damage to metadata matters where it is of one of the subjects."""

    def on_damage(volume_id: str, error: MriError) -> None:
        if volume_id.partition("_")[0] in subjects:
            raise error

    return cohort.volumes(on_damage=on_damage)


@dataclass(frozen=True)
class _Moments:
    """Number, mean and sum of squared deviations of values."""

    n: int
    mean: float
    squares: float

    @classmethod
    def of(cls, values: np.ndarray) -> "_Moments":
        mean = float(values.mean(dtype=np.float64))
        return cls(values.size, mean, float(((values - np.float64(mean)) ** 2).sum()))

    def __add__(self, other: "_Moments") -> "_Moments":
        """Return those of both together, without cancellation (Chan, Golub, LeVeque 1983)."""
        total, delta = self.n + other.n, other.mean - self.mean
        squares = self.squares + other.squares + delta**2 * self.n * other.n / total
        return _Moments(total, self.mean + delta * other.n / total, squares)


@dataclass(frozen=True)
class _Counts:
    """A histogram of 2^16 bins that travels: those that are not empty, and what is in them."""

    bins: np.ndarray
    counts: np.ndarray

    @classmethod
    def of(cls, histogram: np.ndarray) -> "_Counts":
        bins = np.flatnonzero(histogram)
        return cls(bins, histogram[bins])

    def add_to(self, histogram: np.ndarray) -> None:
        histogram[self.bins] += self.counts


def _statistics(volumes: Mapping[str, Elements], each: Each) -> dict[str, dict[str, float]]:
    """Return the statistics of each element.

    Histograms of integers add to the same in any order. Moments do not: they wait for their turn.
    """
    paths = list(dict.fromkeys(path for elements in volumes.values() for path in elements))
    upper = {path: np.zeros(_BINS, dtype=np.int64) for path in paths}
    moments: dict[str, dict[str, _Moments]] = {}

    def take_first(volume_id: str, found: Mapping[str, tuple[_Moments, _Counts]]) -> None:
        moments[volume_id] = {path: of_path for path, (of_path, _) in found.items()}
        for path, (_, counts) in found.items():
            counts.add_to(upper[path])

    each(_first_pass, volumes, take_first)
    in_order = [moments[volume_id] for volume_id in volumes]
    total = {path: reduce(_Moments.__add__, [found[path] for found in in_order if path in found]) for path in paths}
    ranks = {path: _ranks(total[path].n) for path in paths}
    places = {path: _places(upper[path], ranks[path]) for path in paths}
    lower = {path: {number: np.zeros(_BINS, dtype=np.int64) for number, _ in places[path].values()} for path in paths}

    def take_second(_: str, found: Mapping[str, Mapping[int, _Counts]]) -> None:
        for path, of_path in found.items():
            for number, counts in of_path.items():
                counts.add_to(lower[path][number])

    each(partial(_second_pass, numbers={path: tuple(lower[path]) for path in paths}), volumes, take_second)
    return {
        path: {
            "mean": total[path].mean,
            "std": float(np.sqrt(total[path].squares / total[path].n)),
            **_percentiles(ranks[path], places[path], lower[path]),
            "n": total[path].n,
        }
        for path in paths
    }


def _first_pass(elements: Elements) -> dict[str, tuple[_Moments, _Counts]]:
    """Return moments, and the histogram of the keys' upper halves; runs in a worker."""
    found = {}
    for path, element in elements.items():
        histogram, moments = np.zeros(_BINS, dtype=np.int64), []
        for values in _slices(element):
            moments.append(_Moments.of(values))
            histogram += np.bincount(_ordered(values) >> _HALF, minlength=_BINS)
        found[path] = reduce(_Moments.__add__, moments), _Counts.of(histogram)
    return found


def _second_pass(elements: Elements, *, numbers: Mapping[str, Sequence[int]]) -> dict[str, dict[int, _Counts]]:
    """Return histograms of the keys' lower halves, of those with some upper halves; runs in a worker."""
    found = {}
    for path, element in elements.items():
        histograms = {number: np.zeros(_BINS, dtype=np.int64) for number in numbers[path]}
        for values in _slices(element):
            keys = _ordered(values)
            for number, histogram in histograms.items():
                histogram += np.bincount(keys[keys >> _HALF == number] & (_BINS - 1), minlength=_BINS)
        found[path] = {number: _Counts.of(histogram) for number, histogram in histograms.items()}
    return found


def _slices(element: Element) -> Iterator[np.ndarray]:
    """Yield the values of one slice after the other, float32, flat."""
    for index in range(element.shape[0]):
        block = element[index]
        values = np.abs(block) if block.dtype.kind == "c" else block
        # Adding zero turns the negative zero into the positive, which orders as equal to it.
        yield values.astype(np.float32, copy=False).reshape(-1) + np.float32(0)


def _ranks(n: int) -> dict[str, float]:
    """Return the place of each percentile among n ordered values, mostly between two of them."""
    return {name: q * (n - 1) for name, q in _QUANTILES.items()}


def _places(upper: np.ndarray, ranks: Mapping[str, float]) -> dict[int, tuple[int, int]]:
    """Return, by the ranks of values that are needed, the key's upper half and the rank among those that have it."""
    ends = np.cumsum(upper)
    wanted = sorted({int(f(rank)) for rank in ranks.values() for f in (np.floor, np.ceil)})
    bins = {rank: int(np.searchsorted(ends, rank, side="right")) for rank in wanted}
    return {rank: (number, rank - int(ends[number] - upper[number])) for rank, number in bins.items()}


def _percentiles(
    ranks: Mapping[str, float], places: Mapping[int, tuple[int, int]], lower: Mapping[int, np.ndarray]
) -> dict[str, float]:
    """Return exact percentiles: the histogram of the lower halves finds each value."""
    exact = {}
    for rank, (number, within) in places.items():
        low = int(np.searchsorted(np.cumsum(lower[number]), within, side="right"))
        exact[rank] = _value(number << _HALF | low)
    return {name: float(np.interp(rank, list(exact), list(exact.values()))) for name, rank in ranks.items()}


def _ordered(values: np.ndarray) -> np.ndarray:
    """Return integers that order as the float32 values do (the sign bit flipped, negative numbers complemented)."""
    bits = values.view(np.uint32).astype(np.int64)
    return np.where(bits >> 31, 0xFFFFFFFF - bits, bits | 0x80000000)


def _value(key: int) -> float:
    """Invert `_ordered`."""
    bits = key & 0x7FFFFFFF if key >> 31 else 0xFFFFFFFF - key
    return float(np.array(bits, dtype=np.uint32).view(np.float32))
