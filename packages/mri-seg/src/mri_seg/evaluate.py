"""Compare label maps with a reference over the volumes of a cohort."""

import math
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from mri_io.prep import Comparison
from mri_io.store import Volume
from mri_seg.errors import ConfigError, ShapeError
from mri_seg.metrics import METRICS, volume_metrics
from mri_seg.metrics.volume import voxel_size_mm

__all__ = ["evaluate"]


LIBRARIES = 40 * 10**6
"""Scipy imported."""
MASK_BYTES, DISTANCE_BYTES = 8, 90
"""What a voxel takes beside the label maps: masks of a class, and where distances are measured those and their
nearest surfaces."""


@dataclass(frozen=True)
class _Measure:
    """Compare the label maps of one volume with its reference; runs in a worker."""

    reference: str
    methods: tuple[str, ...]

    def check_grids(self, volume: Volume) -> None:
        truth = volume[self.reference]
        for method in self.methods:
            if (shape := volume[method].shape) != truth.shape:
                raise ShapeError(
                    f"{volume.path}: {method}: expected the grid {truth.shape} of {self.reference}, got {shape}."
                )

    def memory(self, volume: Volume) -> int:
        """Return an upper bound of the bytes held beside a process of mri-io; as if labels filled the volume."""
        truth = volume[self.reference]
        stored = truth.dtype.itemsize + max((volume[method].dtype.itemsize for method in self.methods), default=0)
        voxels = math.prod(truth.shape)
        at_once = voxels if truth.affine is not None else math.prod(truth.shape[1:])
        return LIBRARIES + (MASK_BYTES + stored) * voxels + DISTANCE_BYTES * at_once

    def __call__(self, volume: Volume) -> list[dict[str, Any]]:
        truth, rows = volume[self.reference], []
        spacing = voxel_size_mm(truth.affine)
        names = {number: str(entry["name"]) for number, entry in truth.labels.items()}
        target = truth.numpy()
        for method in self.methods:
            base = {"volume_id": volume.id, "subject_id": volume.subject_id, "method": method}
            rows += [base | row for row in volume_metrics(volume[method].numpy(), target, names, spacing)]
        return rows


def evaluate(
    cohort: str | Path,
    *,
    reference: str,
    methods: Sequence[str],
    split: str = "default",
    part: str | None = "test",
    name: str = "segmentation",
    scheduler: str = "sync",
) -> dict[str, Any]:
    """Measure Dice, IoU, HD95 and ASD per class and volume; keep the table with the cohort.

    Parameters
    ----------
    cohort
        The cohort's folder.
    reference
        Element with the true labels, e.g. ``"seg/tissue"``.
    methods
        Elements to compare, e.g. ``["seg/unet-reference"]``.
    split, part
        Volumes to take; `part` None takes all.
    name
        Of the evaluation.
    scheduler
        See `mri_io.prep.prepare_cohort`.

    Returns
    -------
    dict
        The stored evaluation: rows per volume, method and class; a summary of means over volumes. Volumes that failed
        are named in ``"missing"``, and in ``failures.jsonl``; without failures there is no such key.

    Raises
    ------
    ElementNotFoundError
        When a volume lacks an element; nothing is left out silently.
    ShapeError
        When label maps are on different grids.
    ConfigError
        When some volumes have an affine and others have none.
    StoreError
        When all volumes fail.
    """
    measure = _Measure(reference, tuple(methods))
    compared = Comparison(cohort, (reference, *methods), split, part)
    compared.check(measure.check_grids)
    placed = compared.check(lambda volume: (volume.id, volume[reference].affine is not None))
    without = [volume_id for volume_id, known in placed if not known]
    if without and len(without) < len(placed):
        raise ConfigError(
            f"{compared.cohort.path}: {reference}: expected an affine in all volumes or in none, since distances in mm "
            f"and in pixels have no common mean; {len(without)} of {len(placed)} have none, e.g. {without[0]}. "
            "Evaluate them apart."
        )
    found = compared.measure(
        measure,
        description=f"evaluate {name}",
        memory=measure.memory,
        scheduler=scheduler,
    )
    metrics = {key: {**m, "unit": m["unit"] and "pixel"} for key, m in METRICS.items()} if without else METRICS
    config = {"reference": reference, "methods": list(methods), "split": split, "part": part}
    return compared.write(name, found, task="seg", metrics=metrics, config=config)
