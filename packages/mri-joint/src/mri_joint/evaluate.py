"""One table for methods that each give a reconstruction and a segmentation: joint, two-stage, controls, oracle."""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from mri_io.store import Volume, open_cohort
from mri_joint.errors import ConfigError, ElementNotFoundError, ShapeError, expected_got
from mri_joint.metrics import METRICS as FOCUSED
from mri_joint.metrics import image_metrics
from mri_recon.cropping import on_grid_of
from mri_recon.metrics import METRICS as IMAGE
from mri_seg.metrics import METRICS as OVERLAP
from mri_seg.metrics import dice

__all__ = ["evaluate", "parse_methods"]


def parse_methods(methods: Sequence[str]) -> dict[str, tuple[str, str]]:
    """Read ``"name=recon/a+seg/b"`` into ``{name: (recon/a, seg/b)}``; without a name the pair is the name.

    Raises
    ------
    ConfigError
        For another form or a name that occurs twice.
    """
    pairs: dict[str, tuple[str, str]] = {}
    for text in methods:
        name, _, pair = text.rpartition("=")
        image, plus, labels = pair.partition("+")
        if not plus or not image.startswith(("recon/", "image/")) or not labels.startswith("seg/"):
            raise ConfigError(expected_got("--methods", expected="[name=]recon/IMAGE+seg/LABELS", got=repr(text)))
        key = name or pair
        if key in pairs:
            raise ConfigError(f"--methods: the name {key!r} occurs twice.")
        pairs[key] = (image, labels)
    if not pairs:
        raise ConfigError("--methods: expected at least one, e.g. joint=recon/joint-r4+seg/joint-r4.")
    return pairs


def evaluate(
    cohort: str | Path,
    *,
    reference: str = "recon/reference",
    labels: str = "seg/tissue",
    methods: Mapping[str, tuple[str, str]],
    split: str = "default",
    part: str | None = "test",
    name: str = "joint",
) -> dict[str, Any]:
    """Measure image quality, overlap and image quality within the labels; keep the table with the cohort.

    Parameters
    ----------
    cohort
        The cohort's folder.
    reference, labels
        Elements with the true image and the true label map.
    methods
        ``{name: (reconstruction, segmentation)}``; see `parse_methods`.
    split, part
        Volumes to take; `part` None takes all.
    name
        Of the evaluation.

    Returns
    -------
    dict
        The stored evaluation: one row per volume and method; a summary of means and standard deviations over volumes.

    Raises
    ------
    ElementNotFoundError
        When a volume lacks an element; nothing is left out silently.
    ShapeError
        When grids differ; only larger results with the same centre are cropped to the reference.
    """
    opened = open_cohort(cohort)
    volumes = opened.volumes(split, part)
    wanted = list(dict.fromkeys([reference, labels, *(path for pair in methods.values() for path in pair)]))
    missing = [f"{volume.id}: {path}" for volume in volumes for path in wanted if path not in volume]
    if missing or not volumes:
        what = f"missing elements: {'; '.join(missing[:6])}" if missing else "no volumes"
        raise ElementNotFoundError(f"{opened.path} (split {split!r}, part {part!r}): {what}.")
    rows: list[dict[str, Any]] = []
    inputs = []
    for volume in volumes:
        inputs += [{"path": f"{volume.id}/{path}", "commit": volume[path].commit} for path in wanted]
        rows += _rows(volume, reference, labels, methods)
    per_class = {key: OVERLAP["dice"] | {"description": f"Dice of {key[5:]}"} for key in rows[0] if key[:5] == "dice/"}
    metrics = {"psnr": IMAGE["psnr"], "ssim": IMAGE["ssim"], "dice": OVERLAP["dice"], **per_class, **FOCUSED}
    metrics["dice"] = metrics["dice"] | {"description": "Dice, mean over the classes of a volume"}
    pairs = {key: " + ".join(pair) for key, pair in methods.items()}
    config = {"reference": reference, "labels": labels, "split": split, "part": part, "methods": pairs}
    opened.write_evaluation(name, task="joint", rows=rows, metrics=metrics, config=config, inputs=inputs)
    evaluation: dict[str, Any] = opened.evaluations()[name]
    return evaluation


def _rows(volume: Volume, reference: str, labels: str, methods: Mapping[str, tuple[str, str]]) -> list[dict[str, Any]]:
    truth = np.abs(volume[reference].numpy()).astype(np.float32)
    tissue = volume[labels]
    names = {number: str(entry["name"]) for number, entry in tissue.labels.items()}
    target = tissue.numpy()
    if target.shape != truth.shape:
        raise ShapeError(
            expected_got(labels, expected=f"{truth.shape} of {reference}", got=target.shape, where=volume.path)
        )
    rows = []
    for method, (image_path, label_path) in methods.items():
        image = np.abs(on_grid_of(volume[reference], volume[image_path])).astype(np.float32)
        predicted = on_grid_of(volume[reference], volume[label_path])
        overlaps = {f"dice/{text}": dice(predicted == number, target == number) for number, text in names.items()}
        defined = [value for value in overlaps.values() if value is not None]
        rows.append(
            {
                "volume_id": volume.id,
                "subject_id": volume.subject_id,
                "method": method,
                "dice": float(np.mean(defined)) if defined else None,
                **overlaps,
                **image_metrics(truth, image, target > 0),
            }
        )
    return rows
