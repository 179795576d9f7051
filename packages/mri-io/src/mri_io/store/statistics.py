"""Intensity statistics from the training part of a split, for normalisation that never sees test data."""

import json
from collections.abc import Sequence
from typing import Any

import numpy as np

from mri_io.errors import ElementNotFoundError
from mri_io.store.cohort import Cohort
from mri_io.store.commit import write_json_atomic
from mri_io.store.element import Element

__all__ = ["compute_statistics", "read_statistics"]

BINS = 4096


def compute_statistics(
    cohort: Cohort, elements: Sequence[str], *, split: str = "default", name: str | None = None
) -> dict[str, Any]:
    """Compute mean, standard deviation, 1st and 99th percentile and n of each element over the training part.

    Complex elements are taken by magnitude. Two passes over the slices, one slice in memory at a time; the
    percentiles come from a histogram of 4096 bins between minimum and maximum.

    Parameters
    ----------
    cohort
        The cohort.
    elements
        Element paths, e.g. ``["recon/reference"]``; volumes without one are left out for it.
    split
        Name of the split whose training part is used.
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
    chosen = cohort.split(split)
    volumes = cohort.volumes(split, "train")
    fields: dict[str, dict[str, float]] = {}
    for path in elements:
        found = [volume[path] for volume in volumes if path in volume]
        if not found:
            raise ElementNotFoundError(
                f"{cohort.path}: none of the {len(volumes)} training volumes of split {split!r} has {path!r}."
            )
        fields[path] = _statistics(found)
    content = {"split": split, "split_hash": chosen.hash, "fields": fields}
    write_json_atomic(cohort.path / "stats" / f"{name or split}.json", content)
    return content


def read_statistics(cohort: Cohort, name: str = "default") -> dict[str, Any]:
    """Read ``stats/<name>.json``."""
    path = cohort.path / "stats" / f"{name}.json"
    try:
        content: dict[str, Any] = json.loads(path.read_bytes())
    except FileNotFoundError:
        raise ElementNotFoundError(
            f"{path}: there are no such statistics. Compute them: mri-cli stats {cohort.path}"
        ) from None
    return content


def _magnitude(block: np.ndarray) -> np.ndarray:
    return np.abs(block) if block.dtype.kind == "c" else block.astype(np.float64, copy=False)


def _statistics(elements: Sequence[Element]) -> dict[str, float]:
    n, mean, squares = 0, 0.0, 0.0
    low, high = np.inf, -np.inf
    for element in elements:
        for index in range(element.shape[0]):
            values = _magnitude(element[index]).ravel()
            # Chan et al. 1983: update of mean and sum of squared deviations, without cancellation.
            block_mean = float(values.mean(dtype=np.float64))
            delta, total = block_mean - mean, n + values.size
            squares += float(((values - block_mean) ** 2).sum(dtype=np.float64))
            squares += delta**2 * n * values.size / total
            mean += delta * values.size / total
            n = total
            low, high = min(low, float(values.min())), max(high, float(values.max()))
    edges = np.linspace(low, high if high > low else low + 1, BINS + 1)
    histogram = np.zeros(BINS, dtype=np.int64)
    for element in elements:
        for index in range(element.shape[0]):
            histogram += np.histogram(_magnitude(element[index]), bins=edges)[0]
    cumulative = np.concatenate([[0], np.cumsum(histogram)]) / max(n, 1)
    p1, p99 = (float(np.interp(q, cumulative, edges)) for q in (0.01, 0.99))
    return {
        "mean": mean,
        "std": float(np.sqrt(squares / n)),
        "p1": p1,
        "p99": p99,
        "n": n,
        "volumes": len(elements),
    }
