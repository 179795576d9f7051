"""The picture beside the table of an evaluation: a volume that is neither the best nor the worst, and its errors."""

import importlib.util
import math
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from mri_io.store import Volume
from mri_recon.cropping import center_crop, on_grid_of
from mri_recon.metrics import least_squares_scale

__all__ = ["can_draw", "draw", "typical_volume"]


def can_draw() -> bool:
    """Return whether matplotlib is installed."""
    return importlib.util.find_spec("matplotlib") is not None


def typical_volume(rows: Sequence[Mapping[str, Any]], method: str) -> str:
    """Return the id of the volume with the median NMSE of a method, where it is defined."""
    chosen = [row for row in rows if row["method"] == method and row["nmse"] is not None]
    defined = sorted((row["nmse"], row["volume_id"]) for row in chosen if math.isfinite(row["nmse"]))
    return str(defined[(len(defined) - 1) // 2][1] if defined else rows[0]["volume_id"])


def draw(volume: Volume, rows: Sequence[Mapping[str, Any]], reference: str, scale: str) -> bytes:
    """Draw the middle slice of a volume as PNG: the methods side by side, and their errors below at one stated scale.

    Parameters
    ----------
    volume
        The one that is shown.
    rows
        Its rows of the evaluation, one per method.
    reference, scale
        As of `mri_recon.evaluate.evaluate`.
    """
    from mri_io.report import comparison_figure, png_bytes

    truth = volume[reference]
    number = truth.shape[0] // 2
    images = {reference: np.abs(truth[number]).astype(np.float32)}
    notes = {reference: f"slice {number} of {volume.id}"}
    for row in rows:
        method = row["method"]
        if method == reference:
            continue
        factor = 1.0
        if scale == "least-squares":
            factor = least_squares_scale(np.abs(truth.numpy()), np.abs(on_grid_of(truth, volume[method])))
        images[method] = factor * np.abs(center_crop(volume[method][number], truth.shape[1:])).astype(np.float32)
        values = [(row["psnr"], "{:.1f} dB"), (row["ssim"], "SSIM {:.3f}")]
        notes[method] = ", ".join(
            form.format(value) for value, form in values if value is not None and math.isfinite(value)
        )
    return png_bytes(comparison_figure(images, reference, {}, notes))
