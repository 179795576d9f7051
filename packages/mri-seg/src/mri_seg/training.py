"""Train a segmentation network on elements of a cohort."""

from pathlib import Path
from typing import Any

import torch
from lightning.pytorch import LightningModule

from mri_io.store import open_cohort
from mri_io.torch import SliceDataset
from mri_io.training import TrainResult, make_optimizer, set_seed
from mri_io.training import train as train_task
from mri_seg.config import RunConfig
from mri_seg.data import ExampleTransform
from mri_seg.errors import ConfigError, ElementNotFoundError
from mri_seg.losses import SegmentationLoss
from mri_seg.networks import build_run_network

__all__ = ["SegmentationTask", "label_names", "train"]


class SegmentationTask(LightningModule):
    """Optimise a network for Dice + cross-entropy; logs the mean Dice of the validation slices pooled.

    Parameters
    ----------
    config
        The run, with its labels.
    """

    def __init__(self, config: RunConfig) -> None:
        super().__init__()
        self.config = config
        self.labels = tuple(config.labels or {})
        self.network = build_run_network(config)
        self.loss = SegmentationLoss(config.loss)
        self._overlap = torch.zeros(2, len(self.labels))

    def training_step(self, batch: dict[str, Any], index: int) -> torch.Tensor:
        """Return the loss of a batch."""
        loss: torch.Tensor = self.loss(self.network(batch["image"]), batch["labels"])
        self.log("train/loss", loss, prog_bar=True, batch_size=len(batch["labels"]))
        return loss

    def validation_step(self, batch: dict[str, Any], index: int) -> None:
        """Gather loss and overlap."""
        logits = self.network(batch["image"])
        size = len(batch["labels"])
        self.log("val/loss", self.loss(logits, batch["labels"]), batch_size=size, sync_dist=True)
        predicted, labels = logits.argmax(dim=1), batch["labels"]
        for column, number in enumerate(self.labels):
            p, r = predicted == number, labels == number
            self._overlap[:, column] += torch.stack([2 * (p & r).sum(), p.sum() + r.sum()]).cpu()

    def on_validation_epoch_end(self) -> None:
        """Log the Dice of all validation slices together, averaged over the classes that occur."""
        overlap = self.trainer.strategy.reduce(self._overlap.to(self.device), reduce_op="sum")
        present = overlap[1] > 0
        if present.any():
            self.log("val/dice", (overlap[0] / overlap[1].clamp_min(1))[present].mean(), prog_bar=True)
        self._overlap.zero_()

    def configure_optimizers(self) -> Any:
        """Return what the training configuration asks for."""
        return make_optimizer(self.network.parameters(), self.config.training)


def label_names(cohort: str | Path, path: str, split: str, part: str = "train") -> dict[int, str]:
    """Return the label ids and names that the volumes of a part declare.

    Raises
    ------
    ElementNotFoundError
        When no volume has the element, or the ids are not 1 .. n.
    ConfigError
        When two volumes name the same id differently.
    """
    found: dict[int, str] = {}
    first: dict[int, str] = {}
    volumes = open_cohort(cohort).volumes(split, part)
    if not any(path in volume for volume in volumes):
        others = sorted({other for volume in volumes for other in volume.elements() if other.startswith("seg/")})
        raise ElementNotFoundError(
            f"{cohort}: no volume of part {part!r} has {path}. Label maps there: {', '.join(others) or 'none'}. "
            "Choose one: --set data.labels=seg/NAME"
        )
    for volume in volumes:
        for number, entry in (volume[path].labels if path in volume else {}).items():
            name = found.setdefault(number, entry["name"])
            first.setdefault(number, volume.id)
            if name != entry["name"]:
                raise ConfigError(
                    f"{cohort}: {path}: label {number} is {name!r} in {first[number]} and {entry['name']!r} in "
                    f"{volume.id}. Declare the same labels in all volumes."
                )
    if not found or sorted(found) != list(range(1, len(found) + 1)):
        raise ElementNotFoundError(
            f"{cohort}: {path}: expected declared label ids 1, 2, ... without gaps in the volumes of part {part!r}, "
            f"got {sorted(found) or 'none'}."
        )
    return dict(sorted(found.items()))


def _check_ids(cohort: str | Path, config: RunConfig) -> None:
    """Raise ConfigError when a volume declares an id that the network has no channel for."""
    known, path, opened = config.labels or {}, config.data.labels, open_cohort(cohort)
    for part in ("train", "val"):
        for volume in opened.volumes(config.data.split, part):
            unknown = sorted(set(volume[path].labels) - set(known)) if path in volume else []
            if unknown:
                raise ConfigError(
                    f"{volume.path}: {path}: expected the labels {sorted(known)} of the training, got also {unknown}. "
                    "Name them in `labels` of the configuration, or leave the volume out."
                )


def train(cohort: str | Path, config: RunConfig, out: str | Path) -> TrainResult:
    """Train the network that `config` describes on the training part, validating on the validation part.

    Parameters
    ----------
    cohort
        The cohort's folder.
    config
        The run; its label names are taken from the data.
    out
        Folder of the run; an interrupted run there is continued.

    Returns
    -------
    mri_io.training.TrainResult

    Raises
    ------
    ElementNotFoundError
        When elements, labels or the split are missing.
    ConfigError
        When `out` holds a run of another configuration, or volumes declare labels that are not to be learnt.
    """
    data = config.data
    split = open_cohort(cohort).split(data.split)
    elements = (*data.inputs, data.labels)

    def slices(part: str, *, augmented: bool) -> SliceDataset:
        return SliceDataset(
            cohort,
            elements,
            split=data.split,
            part=part,
            transform=ExampleTransform(data, augmented=augmented),
            seed=config.training.seed,
        )

    if config.labels is None:
        config = config.model_copy(update={"labels": label_names(cohort, data.labels, data.split)})
    _check_ids(cohort, config)
    set_seed(config.training.seed)
    task = SegmentationTask(config)
    return train_task(
        task,
        kind="seg",
        config=config,
        train_data=slices("train", augmented=True),
        val_data=slices("val", augmented=False) if split.val else None,
        out=out,
        split=split,
        monitor="val/dice",
        mode="max",
    )
