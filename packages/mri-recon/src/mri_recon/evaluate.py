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
from mri_recon.errors import ConfigError, ShapeError
from mri_recon.evaluation_figure import can_draw, draw, typical_volume
from mri_recon.metrics import METRICS, hfen, least_squares_scale, nmse, psnr, ssim

__all__ = ["evaluate", "head_region"]

LIBRARIES = 180 * 10**6
"""Torch and scipy imported."""
VOXEL_BYTES, REGION_VOXEL_BYTES = 50, 90
"""What a voxel of the reference takes, in a region or with a scale, too: magnitudes, errors, squares in float64."""

Region = str
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
        # With a margin, or closing would take away what touches the border.
        wide = ndimage.binary_closing(np.pad(plane, 4), iterations=3)[4:-4, 4:-4]
        closed = ndimage.binary_fill_holes(wide)
        labelled, count = ndimage.label(closed)
        sizes = np.bincount(labelled.ravel())
        region[number] = (labelled == 1 + np.argmax(sizes[1:])) if count else False
    return region


def _metrics(
    truth: np.ndarray, image: np.ndarray, inside: np.ndarray | None, peak: Literal["volume", "slice"]
) -> dict[str, float | None]:
    """Return the metrics of a volume, all of them undefined where the reference shows nothing."""
    if not np.any(truth if inside is None else truth[inside]):
        return dict.fromkeys(METRICS)
    return {
        "psnr": psnr(truth, image, inside, peak),
        "ssim": ssim(truth, image, inside, peak),
        "nmse": nmse(truth, image, inside),
        "hfen": hfen(truth, image, inside),
    }


@dataclass(frozen=True)
class _Measure:
    """Compare the images of one volume with its reference; runs in a worker."""

    reference: str
    methods: tuple[str, ...]
    region: Region
    scale: Scale
    peak: Literal["volume", "slice"]

    def check(self, volume: Volume) -> None:
        if self.region not in ("all", "head") and volume[self.region].shape != volume[self.reference].shape:
            raise ShapeError(
                f"{volume.path}: --region {self.region}: expected the shape of {self.reference}, "
                f"{volume[self.reference].shape}, got {volume[self.region].shape}."
            )
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
        if self.region not in ("all", "head"):
            inside = volume[self.region].numpy() != 0
        for method in self.methods:
            image = np.abs(on_grid_of(reference, volume[method])).astype(np.float64)
            if self.scale == "least-squares":
                image = image * least_squares_scale(truth, image)
            row = {"volume_id": volume.id, "subject_id": volume.subject_id, "method": method}
            rows.append(row | _metrics(truth, image, inside, self.peak))
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
    peak: Literal["volume", "slice"] = "volume",
    name: str = "reconstruction",
    scheduler: str = "sync",
) -> dict[str, Any]:
    """Measure PSNR, SSIM, NMSE and HFEN of magnitudes per volume; keep table and picture with the cohort.

    ``evaluations/<name>`` has a ``.json``, a ``.csv``, and where matplotlib is installed a ``.png`` of the volume whose
    NMSE with the first method is the median: the methods, and their errors up to a tenth of the reference's maximum.
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
        ``"all"``: the whole image; ``"head"``: where the reference shows the object (`head_region`); or an element of
        labels, e.g. ``"seg/tissue"``: where it is not zero.
    scale
        ``"least-squares"`` multiplies each volume by the factor that fits the reference best.
    peak
        Of PSNR and SSIM: the maximum of the ``"volume"``, as fastMRI, or of each ``"slice"``; then PSNR is averaged
        over slices, too.
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
        For an unknown region, scale or peak, or no methods.
    """
    named = region in ("all", "head") or region.startswith("seg/")
    if not named or scale not in ("none", "least-squares") or peak not in ("volume", "slice"):
        raise ConfigError(
            "evaluate: expected region all, head or seg/NAME, scale none or least-squares, peak volume or slice, "
            f"got {region!r}, {scale!r}, {peak!r}."
        )
    methods = tuple(dict.fromkeys(methods))
    if not methods:
        raise ConfigError("--methods: expected at least one element, e.g. --methods recon/cg-sense-r4.")
    measure = _Measure(reference, methods, region, scale, peak)
    regions = () if region in ("all", "head") else (region,)
    compared = Comparison(cohort, (reference, *methods, *regions), split, part)
    compared.check(measure.check)
    found = compared.measure(
        measure,
        description=f"evaluate {name}",
        memory=measure.memory,
        scheduler=scheduler,
    )
    config = {"reference": reference, "methods": list(methods), "split": split, "part": part}
    config |= {"region": region, "scale": scale} | ({} if peak == "volume" else {"peak": peak})
    figure = None
    if can_draw():
        shown = typical_volume(found.rows, methods[0])
        volume = compared.cohort[shown]
        figure = draw(volume, [row for row in found.rows if row["volume_id"] == shown], reference, scale)
    return compared.write(name, found, task="recon", metrics=METRICS, config=config, figure=figure)
