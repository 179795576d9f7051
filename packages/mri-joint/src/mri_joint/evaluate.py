"""One table for methods that each give a reconstruction and a segmentation: joint, two-stage, controls, oracle."""

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from mri_io.prep import Comparison
from mri_io.store import Volume
from mri_joint.errors import ConfigError, ShapeError, expected_got
from mri_joint.metrics import METRICS as FOCUSED
from mri_joint.metrics import image_metrics
from mri_recon.cropping import check_grid, on_grid_of
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


LIBRARIES = 230 * 10**6
"""Torch, jaxtyping and scipy imported."""
VOXEL_BYTES = 50
"""What a voxel of the reference takes: magnitudes, their errors in float64, labels and masks."""


@dataclass(frozen=True)
class _Measure:
    """Compare the results of one volume with its image and its labels; runs in a worker."""

    reference: str
    labels: str
    methods: dict[str, tuple[str, str]]

    @property
    def elements(self) -> list[str]:
        results = [path for pair in self.methods.values() for path in pair]
        return list(dict.fromkeys([self.reference, self.labels, *results]))

    def check(self, volume: Volume) -> None:
        reference = volume[self.reference]
        if (shape := volume[self.labels].shape) != reference.shape:
            expected = f"{reference.shape} of {self.reference}"
            raise ShapeError(expected_got(self.labels, expected=expected, got=shape, where=volume.path))
        for path in self.elements:
            check_grid(reference, volume[path])

    def memory(self, volume: Volume) -> int:
        """Return an upper bound of the bytes held beside a process of mri-io."""
        largest = max(math.prod(volume[path].shape) for path in self.elements)
        return LIBRARIES + VOXEL_BYTES * math.prod(volume[self.reference].shape) + 8 * largest

    def __call__(self, volume: Volume) -> list[dict[str, Any]]:
        reference, tissue = volume[self.reference], volume[self.labels]
        truth = np.abs(reference.numpy()).astype(np.float32)
        names = {number: str(entry["name"]) for number, entry in tissue.labels.items()}
        target = tissue.numpy()
        rows = []
        for method, (image_path, label_path) in self.methods.items():
            image = np.abs(on_grid_of(reference, volume[image_path])).astype(np.float32)
            predicted = on_grid_of(reference, volume[label_path])
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


def evaluate(
    cohort: str | Path,
    *,
    reference: str = "recon/reference",
    labels: str = "seg/tissue",
    methods: Mapping[str, tuple[str, str]],
    split: str = "default",
    part: str | None = "test",
    name: str = "joint",
    scheduler: str = "sync",
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
    scheduler
        See `mri_io.prep.prepare_cohort`.

    Returns
    -------
    dict
        The stored evaluation: one row per volume and method; a summary of means and standard deviations over volumes.
        Volumes that failed are named in ``"missing"``, and in ``failures.jsonl``; without failures there is no such
        key.

    Raises
    ------
    ElementNotFoundError
        When a volume lacks an element; nothing is left out silently.
    ShapeError
        When grids differ; only larger results with the same centre are cropped to the reference.
    StoreError
        When all volumes fail.
    """
    measure = _Measure(reference, labels, dict(methods))
    compared = Comparison(cohort, measure.elements, split, part)
    compared.check(measure.check)
    found = compared.measure(
        measure,
        description=f"evaluate {name}",
        memory=measure.memory,
        scheduler=scheduler,
    )
    keys = (key for key in found.rows[0] if key.startswith("dice/"))
    per_class = {key: OVERLAP["dice"] | {"description": f"Dice of {key[5:]}"} for key in keys}
    metrics = {"psnr": IMAGE["psnr"], "ssim": IMAGE["ssim"], "dice": OVERLAP["dice"], **per_class, **FOCUSED}
    metrics["dice"] = metrics["dice"] | {"description": "Dice, mean over the classes of a volume"}
    pairs = {key: " + ".join(pair) for key, pair in methods.items()}
    config = {"reference": reference, "labels": labels, "split": split, "part": part, "methods": pairs}
    return compared.write(name, found, task="joint", metrics=metrics, config=config)
