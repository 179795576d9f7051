"""Train a reconstruction network on elements of a cohort."""

from pathlib import Path
from typing import Any

import torch
from lightning.pytorch import LightningModule
from torch import Tensor

from mri_io.store import open_cohort
from mri_io.torch import SliceDataset
from mri_io.training import TrainResult, make_optimizer, set_seed
from mri_io.training import train as train_task
from mri_recon.config import RunConfig
from mri_recon.cropping import center_crop
from mri_recon.data import ExampleTransform, elements_of, masks_of_batch, with_signal
from mri_recon.losses import LOSSES, zero_loss
from mri_recon.networks import build_network
from mri_recon.sampling import MeasuredSamples

__all__ = ["ReconstructionTask", "mean_psnr", "train"]

HIGHEST_PSNR = 120.0


def mean_psnr(image: Tensor, target: Tensor, peak: Tensor) -> Tensor:
    """Return the mean PSNR of slices in dB, of each at most 120, with the maximum of its target as the peak.

    Parameters
    ----------
    image, target
        (batch, y, x); their magnitudes are compared.
    peak
        (batch,), above zero.
    """
    error = (image.abs() - target.abs()).square().mean(dim=(-2, -1)) / peak**2
    return -10 * torch.log10(error.clamp_min(10 ** (-HIGHEST_PSNR / 10))).mean()


class ReconstructionTask(LightningModule):
    """Optimise a network for its loss; logs the loss and the PSNR of validation slices.

    Parameters
    ----------
    config
        The run.
    """

    def __init__(self, config: RunConfig) -> None:
        super().__init__()
        self.config = config
        self.network = build_network(config.model)
        self.loss = LOSSES[config.loss]()

    def _image(self, batch: dict[str, Any]) -> Tensor:
        """Return the images on the grid of the targets, which may be the central part of what k-space covers."""
        image: Tensor = self.network(batch["kspace"], batch["mask"], batch.get("maps")).image
        return center_crop(image, batch["target"].shape[-2:])

    def training_step(self, batch: dict[str, Any], index: int) -> Tensor:
        """Return the loss of a batch; slices without signal do not count."""
        batch = with_signal(batch | {"mask": masks_of_batch(batch["mask"])})
        if not len(batch["peak"]):
            return zero_loss(self.network)
        loss: Tensor = self.loss(self._image(batch), batch["target"], batch["peak"])
        self.log("train/loss", loss, prog_bar=True, batch_size=len(batch["peak"]))
        return loss

    def validation_step(self, batch: dict[str, Any], index: int) -> None:
        """Log the loss, and the PSNR with each slice's maximum as the peak; slices without signal do not count."""
        batch = with_signal(batch | {"mask": masks_of_batch(batch["mask"])})
        if not len(batch["peak"]):
            return
        image, target, peak = self._image(batch), batch["target"], batch["peak"]
        options: dict[str, Any] = {"batch_size": len(peak), "sync_dist": True}
        self.log("val/loss", self.loss(image, target, peak), **options)
        self.log("val/psnr", mean_psnr(image, target, peak), prog_bar=True, **options)

    def configure_optimizers(self) -> Any:
        """Return what the training configuration asks for."""
        return make_optimizer(self.network.parameters(), self.config.training)


def train(cohort: str | Path, config: RunConfig, out: str | Path) -> TrainResult:
    """Train the network that `config` describes on the training part, validating on the validation part.

    Parameters
    ----------
    cohort
        The cohort's folder.
    config
        The run.
    out
        Folder of the run; an interrupted run there is continued.

    Returns
    -------
    mri_io.training.TrainResult

    Raises
    ------
    ElementNotFoundError
        When elements or the split are missing.
    ConfigError
        When `out` holds a run of another configuration.
    ShapeError
        When targets are larger than what k-space covers; smaller ones are taken as the central part of it.
    """
    data = config.data
    split = open_cohort(cohort).split(data.split)
    measured = MeasuredSamples(cohort, data.kspace)
    transform = ExampleTransform(data, with_maps=config.model.coil_maps == "stored", measured=measured)

    def slices(part: str) -> SliceDataset:
        return SliceDataset(
            cohort,
            elements_of(config),
            split=data.split,
            part=part,
            transform=transform,
            seed=config.training.seed,
            writable=False,  # the transform makes new arrays
        )

    set_seed(config.training.seed)
    return train_task(
        ReconstructionTask(config),
        kind="recon",
        config=config,
        train_data=slices("train"),
        val_data=slices("val") if split.val else None,
        out=out,
        split=split,
        monitor="val/psnr",
        mode="max",
    )
