"""Intensity statistics from the training part of a split, for normalisation that never sees test data."""

from collections.abc import Callable, Iterator, Sequence
from typing import Any

import numpy as np

from mri_io.errors import ElementNotFoundError
from mri_io.schema.validation import validate
from mri_io.store.cohort import Cohort
from mri_io.store.documents import read_document, write_document
from mri_io.store.element import Element
from mri_io.store.splits import Split

__all__ = ["compute_statistics", "read_statistics"]

_QUANTILES = {"p1": 0.01, "p99": 0.99}
_HALF = 16
_BINS = 1 << _HALF


def compute_statistics(
    cohort: Cohort, elements: Sequence[str], *, split: str | Split = "default", name: str | None = None
) -> dict[str, Any]:
    """Compute mean, standard deviation, 1st and 99th percentile and n of each element over the training part.

    Complex elements are taken by magnitude, in single precision. The percentiles are exact: order statistics of all
    values, interpolated linearly. Three passes over the slices, one slice in memory at a time.

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

    Returns
    -------
    dict
        ``{"split", "split_hash", "fields": {element: {mean, std, p1, p99, n, volumes}}}``, also written.

    Raises
    ------
    ElementNotFoundError
        When no training volume has an element.
    """
    chosen = cohort.split(split) if isinstance(split, str) else split
    volumes = [volume for volume in cohort.volumes() if volume.subject_id in chosen.train]
    fields: dict[str, dict[str, float]] = {}
    for path in elements:
        found = [volume[path] for volume in volumes if path in volume]
        if not found:
            raise ElementNotFoundError(
                f"{cohort.path}: none of the {len(volumes)} training volumes of split {chosen.name!r} has {path!r}."
            )
        fields[path] = {**_statistics(lambda found=found: _slices(found)), "volumes": len(found)}  # type: ignore[misc]
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


def _slices(elements: Sequence[Element]) -> Iterator[np.ndarray]:
    """Yield the values of one slice after the other, float32, flat."""
    for element in elements:
        for index in range(element.shape[0]):
            block = element[index]
            values = np.abs(block) if block.dtype.kind == "c" else block
            # Adding zero turns the negative zero into the positive, which orders as equal to it.
            yield values.astype(np.float32, copy=False).reshape(-1) + np.float32(0)


def _statistics(slices: Callable[[], Iterator[np.ndarray]]) -> dict[str, float]:
    n, mean, squares = 0, 0.0, 0.0
    histogram = np.zeros(_BINS, dtype=np.int64)
    for values in slices():
        # Chan et al. 1983: update of mean and sum of squared deviations, without cancellation.
        block_mean = float(values.mean(dtype=np.float64))
        delta, total = block_mean - mean, n + values.size
        squares += float(((values - np.float64(block_mean)) ** 2).sum()) + delta**2 * n * values.size / total
        mean += delta * values.size / total
        n = total
        histogram += np.bincount(_ordered(values) >> _HALF, minlength=_BINS)
    found = {"mean": mean, "std": float(np.sqrt(squares / n))}
    return {**found, **_percentiles(slices, histogram, n), "n": n}


def _percentiles(slices: Callable[[], Iterator[np.ndarray]], upper: np.ndarray, n: int) -> dict[str, float]:
    """Return exact percentiles: the histogram of the keys' upper halves finds a bin, another pass the value in it."""
    ranks = {name: q * (n - 1) for name, q in _QUANTILES.items()}
    wanted = sorted({int(f(rank)) for rank in ranks.values() for f in (np.floor, np.ceil)})
    ends = np.cumsum(upper)
    bins = {rank: int(np.searchsorted(ends, rank, side="right")) for rank in wanted}
    lower = {number: np.zeros(_BINS, dtype=np.int64) for number in bins.values()}
    for values in slices():
        keys = _ordered(values)
        for number, histogram in lower.items():
            histogram += np.bincount(keys[keys >> _HALF == number] & (_BINS - 1), minlength=_BINS)
    exact = {}
    for rank, number in bins.items():
        before = int(ends[number] - upper[number])
        low = int(np.searchsorted(np.cumsum(lower[number]), rank - before, side="right"))
        exact[rank] = _value(number << _HALF | low)
    return {name: float(np.interp(rank, wanted, [exact[r] for r in wanted])) for name, rank in ranks.items()}


def _ordered(values: np.ndarray) -> np.ndarray:
    """Return integers that order as the float32 values do (the sign bit flipped, negative numbers complemented)."""
    bits = values.view(np.uint32).astype(np.int64)
    return np.where(bits >> 31, 0xFFFFFFFF - bits, bits | 0x80000000)


def _value(key: int) -> float:
    """Invert `_ordered`."""
    bits = key & 0x7FFFFFFF if key >> 31 else 0xFFFFFFFF - key
    return float(np.array(bits, dtype=np.uint32).view(np.float32))
