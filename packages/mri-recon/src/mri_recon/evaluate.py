"""Compare reconstructions with a reference over the volumes of a cohort."""

from collections.abc import Sequence
from pathlib import Path
from typing import Any, Literal

import numpy as np
from scipy import ndimage

from mri_io.store import open_cohort
from mri_recon.cropping import on_grid_of
from mri_recon.errors import ConfigError, ElementNotFoundError
from mri_recon.metrics import METRICS, least_squares_scale, nmse, psnr, ssim

__all__ = ["evaluate", "head_region"]

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

    Returns
    -------
    dict
        The stored evaluation: a row per volume and method, and a summary.

    Raises
    ------
    ElementNotFoundError
        When a volume lacks an element; nothing is left out silently.
    ShapeError
        When images are on different grids; only larger ones with the same centre are cropped to the reference.
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
    opened = open_cohort(cohort)
    volumes = opened.volumes(split, part)
    missing = [f"{v.id}: {path}" for v in volumes for path in (reference, *methods) if path not in v]
    if missing or not volumes:
        what = f"missing elements: {'; '.join(missing[:6])}" if missing else "no volumes"
        raise ElementNotFoundError(f"{opened.path} (split {split!r}, part {part!r}): {what}.")
    rows, inputs = [], []
    for volume in volumes:
        truth = np.abs(volume[reference].numpy()).astype(np.float64)
        inside = head_region(truth) if region == "head" else None
        compared = (reference, *methods)
        inputs += [{"path": f"{volume.id}/{path}", "commit": volume[path].commit} for path in compared]
        for method in methods:
            image = np.abs(on_grid_of(volume[reference], volume[method])).astype(np.float64)
            if scale == "least-squares":
                image = image * least_squares_scale(truth, image)
            row = {"volume_id": volume.id, "subject_id": volume.subject_id, "method": method}
            rows.append(row | _metrics(truth, image, inside))
    config = {"reference": reference, "methods": list(methods), "split": split, "part": part}
    config |= {"region": region, "scale": scale}
    opened.write_evaluation(name, task="recon", rows=rows, metrics=METRICS, config=config, inputs=inputs)
    evaluation: dict[str, Any] = opened.evaluations()[name]
    return evaluation
