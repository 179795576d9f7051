"""Compare label maps with a reference over the volumes of a cohort."""

from collections.abc import Sequence
from pathlib import Path
from typing import Any

from mri_io.store import open_cohort
from mri_seg.errors import ConfigError, ElementNotFoundError, ShapeError
from mri_seg.metrics import METRICS, volume_metrics
from mri_seg.metrics.volume import voxel_size_mm

__all__ = ["evaluate"]


def evaluate(
    cohort: str | Path,
    *,
    reference: str,
    methods: Sequence[str],
    split: str = "default",
    part: str | None = "test",
    name: str = "segmentation",
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

    Returns
    -------
    dict
        The stored evaluation: rows per volume, method and class; a summary of means over volumes.

    Raises
    ------
    ElementNotFoundError
        When a volume lacks an element; nothing is left out silently.
    ShapeError
        When label maps are on different grids.
    ConfigError
        When some volumes have an affine and others have none.
    """
    opened = open_cohort(cohort)
    volumes = opened.volumes(split, part)
    missing = [f"{v.id}: {path}" for v in volumes for path in (reference, *methods) if path not in v]
    if missing or not volumes:
        what = f"missing elements: {'; '.join(missing[:6])}" if missing else "no volumes"
        raise ElementNotFoundError(f"{opened.path} (split {split!r}, part {part!r}): {what}.")
    rows: list[dict[str, Any]] = []
    inputs = []
    without = [v.id for v in volumes if v[reference].affine is None]
    if without and len(without) < len(volumes):
        raise ConfigError(
            f"{opened.path}: {reference}: expected an affine in all volumes or in none, since distances in mm and in "
            f"pixels have no common mean; {len(without)} of {len(volumes)} have none, e.g. {without[0]}. "
            "Evaluate them apart."
        )
    for volume in volumes:
        truth = volume[reference]
        spacing = voxel_size_mm(truth.affine)
        names = {number: str(entry["name"]) for number, entry in truth.labels.items()}
        target = truth.numpy()
        inputs.append({"path": f"{volume.id}/{reference}", "commit": truth.commit})
        for method in methods:
            element = volume[method]
            if element.shape != truth.shape:
                raise ShapeError(
                    f"{volume.path}: {method}: expected the grid {truth.shape} of {reference}, got {element.shape}."
                )
            inputs.append({"path": f"{volume.id}/{method}", "commit": element.commit})
            base = {"volume_id": volume.id, "subject_id": volume.subject_id, "method": method}
            rows += [base | row for row in volume_metrics(element.numpy(), target, names, spacing)]
    metrics = {key: {**m, "unit": m["unit"] and "pixel"} for key, m in METRICS.items()} if without else METRICS
    config = {"reference": reference, "methods": list(methods), "split": split, "part": part}
    opened.write_evaluation(name, task="seg", rows=rows, metrics=metrics, config=config, inputs=inputs)
    evaluation: dict[str, Any] = opened.evaluations()[name]
    return evaluation
