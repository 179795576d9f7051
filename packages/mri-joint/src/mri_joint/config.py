"""Configuration of a joint run."""

from typing import Literal

from pydantic import Field, model_validator

from mri_io.config import Config
from mri_io.training import TrainingConfig
from mri_recon.config import DataConfig as ReconDataConfig
from mri_recon.config import ModelConfig as ReconModelConfig
from mri_recon.config import VarNetConfig
from mri_seg.config import AugmentConfig, MonaiUnetConfig
from mri_seg.config import LossConfig as SegLossConfig
from mri_seg.config import ModelConfig as SegModelConfig

__all__ = ["CurriculumConfig", "DataConfig", "InitConfig", "LearningRateConfig", "LossConfig", "RunConfig"]


class InitConfig(Config):
    """Trained networks to start from; None starts from random weights.

    The hashes are filled in when a run starts, so that a checkpoint tells which weights it came from, and a run is
    not continued after the files were replaced.
    """

    reconstruction: str | None = Field(default=None, description="model.ckpt of a reconstruction run")
    segmentation: str | None = Field(default=None, description="model.ckpt of a segmentation run")
    reconstruction_sha256: str | None = None
    segmentation_sha256: str | None = None


class DataConfig(ReconDataConfig):
    """Which elements are read: those of a reconstruction run, and label maps."""

    labels: str = "seg/tissue"
    augment: AugmentConfig | None = Field(
        default=None, description="random changes of reconstruction and labels before the segmenter, in training"
    )
    views: int = Field(
        default=1,
        ge=1,
        description="changed copies of each reconstruction for the segmenter; they cost little beside reconstructing",
    )


class LossConfig(Config):
    """The composite loss; equal weights as in Acar 2022.

    The reconstruction losses are relative to the peak of the target, so an l1 loss is a few per cent where Dice +
    cross-entropy is a few tenths: a larger weight holds the image closer to the target.
    """

    reconstruction: Literal["ssim", "l1", "complex-l1"] = "l1"
    reconstruction_weight: float = Field(default=1.0, ge=0)
    segmentation: SegLossConfig = SegLossConfig()
    segmentation_weight: float = Field(default=1.0, ge=0)


class CurriculumConfig(Config):
    """The stabilisation curriculum of `mri_joint.curriculum`. Acar 2022 leaves epsilon open; 0.05 is our choice."""

    epochs: int = Field(default=10, gt=0, description="P, number of epochs until the target mask")
    steps_per_epoch: int | None = Field(default=None, gt=0, description="None: the P epochs take half of the run")
    epsilon: float = Field(default=0.05, ge=0, lt=1, description="share of k-space that the first epoch leaves out")


class LearningRateConfig(Config):
    """Learning rate of each network; None takes that of ``training``."""

    reconstruction: float | None = Field(default=None, gt=0)
    segmentation: float | None = Field(default=None, gt=0)


class RunConfig(Config):
    """One joint run."""

    reconstruction: ReconModelConfig = VarNetConfig()
    segmentation: SegModelConfig = MonaiUnetConfig()
    init: InitConfig = InitConfig()
    data: DataConfig = DataConfig()
    labels: dict[int, str] | None = Field(default=None, description="ids 1 .. n and names; None takes the data's")
    loss: LossConfig = LossConfig()
    curriculum: CurriculumConfig | None = CurriculumConfig()
    train_reconstruction: bool = True
    train_segmentation: bool = True
    learning_rate: LearningRateConfig = LearningRateConfig()
    training: TrainingConfig = TrainingConfig(steps=200, learning_rate=3e-4, schedule="cosine", gradient_clip=1.0)

    @model_validator(mode="after")
    def _views_differ(self) -> "RunConfig":
        if self.data.views > 1 and self.data.augment is None:
            raise ValueError("data.views: expected data.augment with more than one view; without it all are equal")
        return self

    @model_validator(mode="after")
    def _something_to_train(self) -> "RunConfig":
        if not self.train_reconstruction and not self.train_segmentation:
            raise ValueError("train_reconstruction, train_segmentation: expected at least one of them true")
        per_epoch = self.curriculum.steps_per_epoch if self.curriculum else None
        if self.curriculum and per_epoch and self.curriculum.epochs * per_epoch >= self.training.steps:
            raise ValueError(
                f"curriculum: expected epochs * steps_per_epoch below training.steps = {self.training.steps}, "
                f"got {self.curriculum.epochs * per_epoch}; no step would see the target mask"
            )
        return self
