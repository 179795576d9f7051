"""Train reconstruction and segmentation end to end, from a warm start, with the stabilisation curriculum."""

from pathlib import Path
from typing import Any

import numpy as np
import torch
from lightning.pytorch import LightningModule
from torch import Tensor, nn

from mri_io.store import open_cohort
from mri_io.torch import SliceDataset
from mri_io.training import TrainResult, make_optimizer, set_seed
from mri_io.training import train as train_task
from mri_joint.config import RunConfig
from mri_joint.curriculum import epoch_of, mask_at_rate, sampled_fraction
from mri_joint.data import ExampleTransform, elements, undersample
from mri_joint.errors import ShapeError, expected_got
from mri_joint.models import JointOutput, build_network, warm_start
from mri_joint.resolve import with_labels
from mri_recon.cropping import center_crop
from mri_recon.data import masks_of_batch, with_signal
from mri_recon.losses import LOSSES, zero_loss
from mri_recon.sampling import MeasuredSamples
from mri_recon.training import mean_psnr
from mri_seg.data import augment
from mri_seg.losses import SegmentationLoss

__all__ = ["JointTask", "train"]


class JointTask(LightningModule):
    """Optimise the joint network for its composite loss.

    Parameters
    ----------
    config
        The run, with its labels. A part that is not to be trained is frozen and stays in evaluation mode; the gradient
        still flows through it.
    """

    def __init__(self, config: RunConfig) -> None:
        super().__init__()
        self.config = config
        self.network = build_network(config)
        self.reconstruction_loss = LOSSES[config.loss.reconstruction]()
        self.segmentation_loss = SegmentationLoss(config.loss.segmentation)
        for part in self.frozen:
            part.requires_grad_(False)
        self._overlap = torch.zeros(2, len(config.labels or {}))

    @property
    def frozen(self) -> list[nn.Module]:
        """The networks that are not trained."""
        wanted = {
            self.network.reconstruction: self.config.train_reconstruction,
            self.network.segmentation: self.config.train_segmentation,
        }
        return [part for part, trained in wanted.items() if not trained]

    def forward(self, inputs: dict[str, Any]) -> JointOutput:
        """Reconstruct and segment what `undersample` returns."""
        image = self._image(inputs)
        return JointOutput(image, self.network.segmentation(image.abs()[:, None]))

    def _image(self, inputs: dict[str, Any]) -> Tensor:
        """Return the reconstructions on the grid of target and labels, perhaps the central part of what k-space covers.

        Raises
        ------
        ShapeError
            When the two are not on one grid, or it is larger.
        """
        grid, labels = inputs["target"].shape[-2:], inputs["labels"].shape[-2:]
        if grid != labels:
            fix = "Give as data.target and data.labels elements on one grid."
            raise ShapeError(expected_got("labels", expected=f"the target's {tuple(grid)}", got=tuple(labels), fix=fix))
        image: Tensor = self.network.reconstruction(inputs["kspace"], inputs["mask"], inputs.get("maps")).image
        return center_crop(image, grid)

    def losses(self, output: JointOutput, inputs: dict[str, Any]) -> dict[str, Tensor]:
        """Return the two losses and their weighted sum."""
        loss = self.config.loss
        reconstruction = self.reconstruction_loss(output.image, inputs["target"], inputs["peak"])
        segmentation = self.segmentation_loss(output.logits, inputs["labels"])
        total = loss.reconstruction_weight * reconstruction + loss.segmentation_weight * segmentation
        return {"loss": total, "reconstruction_loss": reconstruction, "segmentation_loss": segmentation}

    def on_train_start(self) -> None:
        """Keep frozen networks in evaluation mode."""
        for part in self.frozen:
            part.eval()

    def training_step(self, batch: dict[str, Any], index: int) -> Tensor:
        """Return the composite loss of a batch, sampled as the curriculum has it at this step.

        Slices without signal do not count.
        """
        mask, fraction = self._curriculum_mask(masks_of_batch(batch["mask"]), masks_of_batch(batch["measured"]))
        inputs = with_signal(undersample(batch, mask))
        if not len(inputs["peak"]):
            return zero_loss(self.network)
        image = self._image(inputs)
        views, labels = self._views(image.abs(), inputs["labels"])
        output = JointOutput(image, self.network.segmentation(views[:, None]))
        losses = self.losses(output, inputs | {"labels": labels})
        values = {f"train/{name}": value for name, value in losses.items()}
        self.log_dict(values | {"train/sampled_fraction": fraction}, batch_size=len(image))
        return losses["loss"]

    def _views(self, images: Tensor, labels: Tensor) -> tuple[Tensor, Tensor]:
        """Return magnitudes and labels (batch * view, y, x) as the segmenter is trained on them."""
        data = self.config.data
        if data.augment is None:
            return images, labels
        rng = _rng_of_step()
        pairs = zip(images.repeat_interleave(data.views, 0), labels.repeat_interleave(data.views, 0), strict=True)
        changed = [augment(image[None], label, data.augment, rng) for image, label in pairs]
        return torch.cat([image for image, _ in changed]), torch.stack([label for _, label in changed])

    def _curriculum_mask(self, target: Tensor, measured: Tensor) -> tuple[Tensor, float]:
        """Return the masks (batch, 1, 1 or ky, kx) at this step, within `measured`, and their mean sampled fraction."""
        curriculum = self.config.curriculum
        if curriculum is not None:
            epoch = epoch_of(self.global_step, curriculum, self.config.training.steps)
            rng = _rng_of_step()
            masks = []
            for mask, free in zip(target.cpu().numpy(), measured.cpu().numpy(), strict=True):
                # A mask without a sample, as of a slice that was not acquired, has no fraction to go to.
                rate = sampled_fraction(epoch, float(mask.mean()), curriculum) if mask.any() else 0.0
                masks.append(mask_at_rate(mask, rate, rng, free))
            target = torch.from_numpy(np.stack(masks)).to(target)
        return target, float(target.mean())

    def validation_step(self, batch: dict[str, Any], index: int) -> None:
        """Log the losses and the PSNR on the target mask, with each slice's maximum as the peak; gather overlaps."""
        inputs = with_signal(undersample(batch, masks_of_batch(batch["mask"])))
        if not len(inputs["peak"]):
            return
        output = self(inputs)
        values = {f"val/{name}": value for name, value in self.losses(output, inputs).items()}
        values["val/psnr"] = mean_psnr(output.image, inputs["target"], inputs["peak"])
        self.log_dict(values, batch_size=len(output.image), sync_dist=True)
        predicted, labels = output.logits.argmax(dim=1), inputs["labels"]
        for column, number in enumerate(self.config.labels or {}):
            p, r = predicted == number, labels == number
            self._overlap[:, column] += torch.stack([2 * (p & r).sum(), p.sum() + r.sum()]).cpu()

    def on_validation_epoch_end(self) -> None:
        """Log the Dice of all validation slices together, averaged over the classes that occur."""
        overlap = self.trainer.strategy.reduce(self._overlap.to(self.device), reduce_op="sum")
        present = overlap[1] > 0
        if present.any():
            self.log("val/dice", (overlap[0] / overlap[1].clamp_min(1))[present].mean())
        self._overlap.zero_()

    def configure_optimizers(self) -> Any:
        """Return AdamW with a learning rate per network."""
        groups: list[dict[str, Any]] = []
        for name, rate in self.config.learning_rate.model_dump().items():
            group = {"params": list(getattr(self.network, name).parameters()), "name": name}
            groups.append(group if rate is None else group | {"lr": rate})
        return make_optimizer(groups, self.config.training)


def _rng_of_step() -> np.random.Generator:
    """Return a generator seeded by the global one, which is seeded for each step: a resumed run draws the same."""
    return np.random.default_rng(int(torch.randint(2**31, (1,))))


def train(cohort: str | Path, config: RunConfig, out: str | Path) -> TrainResult:
    """Train the networks of `config` on the training part, validating on the validation part at the target mask.

    Parameters
    ----------
    cohort
        The cohort's folder.
    config
        The run; see `mri_joint.resolve.load_run_config`. Its labels are taken from the data if it has none.
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
        When `out` holds a run of another configuration, or a starting checkpoint another network.
    """
    config = with_labels(config, cohort)
    split = open_cohort(cohort).split(config.data.split)
    transform = ExampleTransform(config, MeasuredSamples(cohort, config.data.kspace))

    def slices(part: str) -> SliceDataset:
        return SliceDataset(
            cohort,
            elements(config),
            split=config.data.split,
            part=part,
            transform=transform,
            seed=config.training.seed,
            writable=False,  # the transform makes new arrays
        )

    set_seed(config.training.seed)
    task = JointTask(config)
    warm_start(task.network, config)
    return train_task(
        task,
        kind="joint",
        config=config,
        train_data=slices("train"),
        val_data=slices("val") if split.val else None,
        out=out,
        split=split,
    )
