"""Compare reconstructions with a reference over the volumes of a cohort."""

import math
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

import numpy as np
from scipy import ndimage

from mri_io.prep import Comparison
from mri_io.store import Volume
from mri_recon.cropping import check_grid, on_grid_of
from mri_recon.errors import ConfigError
from mri_recon.metrics import METRICS, least_squares_scale, nmse, psnr, ssim

__all__ = ["evaluate", "head_region"]

LIBRARIES = 180 * 10**6
"""Torch and scipy imported."""
VOXEL_BYTES, REGION_VOXEL_BYTES = 50, 90
"""What a voxel of the reference takes, in a region or with a scale, too: magnitudes, errors, squares in float64."""

Region = Literal["all", "head"]
Scale = Literal["none", "least-squares"]


def head_region(reference: np.ndarray) -> np.ndarray:
    """Return where the object is: above a tenth of the 99th percentile, closed and filled, slice by slice.

    Parameters
    ----------
    reference
        Magnitudes (slice, y, x).
    """
    above = reference > 0.1 * np.percentile(reference, 99)
    region = np.empty_like(above)
    for number, plane in enumerate(above):
        closed = ndimage.binary_fill_holes(ndimage.binary_closing(plane, iterations=3))
        labelled, count = ndimage.label(closed)
        sizes = np.bincount(labelled.ravel())
        region[number] = (labelled == 1 + np.argmax(sizes[1:])) if count else False
    return region


def _metrics(truth: np.ndarray, image: np.ndarray, inside: np.ndarray | None) -> dict[str, float | None]:
    """Return the metrics of a volume, all of them undefined where the reference shows nothing."""
    measures = {"psnr": psnr, "ssim": ssim, "nmse": nmse}
    if not np.any(truth if inside is None else truth[inside]):
        return dict.fromkeys(measures)
    return {name: measure(truth, image, inside) for name, measure in measures.items()}


@dataclass(frozen=True)
class _Measure:
    """Compare the images of one volume with its reference; runs in a worker."""

    reference: str
    methods: tuple[str, ...]
    region: Region
    scale: Scale

    def check(self, volume: Volume) -> None:
        for method in self.methods:
            check_grid(volume[self.reference], volume[method])

    def memory(self, volume: Volume) -> int:
        """Return an upper bound of the bytes held beside a process of mri-io."""
        largest = max(math.prod(volume[method].shape) for method in self.methods)
        voxel = VOXEL_BYTES if self.region == "all" and self.scale == "none" else REGION_VOXEL_BYTES
        return LIBRARIES + voxel * math.prod(volume[self.reference].shape) + 8 * largest

    def __call__(self, volume: Volume) -> list[dict[str, Any]]:
        reference, rows = volume[self.reference], []
        truth = np.abs(reference.numpy()).astype(np.float64)
        inside = head_region(truth) if self.region == "head" else None
        for method in self.methods:
            image = np.abs(on_grid_of(reference, volume[method])).astype(np.float64)
            if self.scale == "least-squares":
                image = image * least_squares_scale(truth, image)
            row = {"volume_id": volume.id, "subject_id": volume.subject_id, "method": method}
            rows.append(row | _metrics(truth, image, inside))
        return rows


def evaluate(
    cohort: str | Path,
    *,
    reference: str,
    methods: Sequence[str],
    split: str = "default",
    part: str | None = "test",
    region: Region = "all",
    scale: Scale = "none",
    name: str = "reconstruction",
    scheduler: str = "sync",
) -> dict[str, Any]:
    """Measure PSNR, SSIM and NMSE of magnitudes per volume; keep the table with the cohort.

    What is not finite counts as undefined: the PSNR of an image equal to the reference, all metrics where the reference
    is zero.

    Parameters
    ----------
    cohort
        The cohort's folder.
    reference
        Element that is taken as true, e.g. ``"recon/reference"``.
    methods
        Elements to compare.
    split, part
        Volumes to take; `part` None takes all.
    region
        ``"all"``: the whole image; ``"head"``: where the reference shows the object (`head_region`).
    scale
        ``"least-squares"`` multiplies each volume by the factor that fits the reference best.
    name
        Of the evaluation.
    scheduler
        See `mri_io.prep.prepare_cohort`.

    Returns
    -------
    dict
        The stored evaluation: a row per volume and method, and a summary. Volumes that failed are named in
        ``"missing"``, and in ``failures.jsonl``; without failures there is no such key.

    Raises
    ------
    ElementNotFoundError
        When a volume lacks an element; nothing is left out silently.
    ShapeError
        When images are on different grids; only larger ones with the same centre are cropped to the reference.
    StoreError
        When all volumes fail.
    ConfigError
        For an unknown region or scale, or no methods.
    """
    if region not in ("all", "head") or scale not in ("none", "least-squares"):
        raise ConfigError(
            f"evaluate: expected region all or head and scale none or least-squares, got {region!r}, {scale!r}."
        )
    methods = tuple(dict.fromkeys(methods))
    if not methods:
        raise ConfigError("--methods: expected at least one element, e.g. --methods recon/cg-sense-r4.")
    measure = _Measure(reference, methods, region, scale)
    compared = Comparison(cohort, (reference, *methods), split, part)
    compared.check(measure.check)
    found = compared.measure(
        measure,
        description=f"evaluate {name}",
        memory=measure.memory,
        scheduler=scheduler,
    )
    config = {"reference": reference, "methods": list(methods), "split": split, "part": part}
    config |= {"region": region, "scale": scale}
    return compared.write(name, found, task="recon", metrics=METRICS, config=config)
