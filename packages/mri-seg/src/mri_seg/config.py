"""Configuration of a segmentation run."""

from typing import Literal

from pydantic import Field, field_validator

from mri_io.config import Config
from mri_io.training import TrainingConfig

__all__ = ["AugmentConfig", "DataConfig", "LossConfig", "ModelConfig", "MonaiUnetConfig", "RunConfig"]


class MonaiUnetConfig(Config):
    """The residual U-Net of MONAI (Kerfoot et al. 2019, doi:10.1007/978-3-030-12029-0_40), in two dimensions."""

    name: Literal["monai-unet"] = "monai-unet"
    widths: tuple[int, ...] = Field(default=(32, 64, 128, 256), min_length=2, description="channels per level")
    residual_units: int = Field(default=2, ge=0)
    dropout: float = Field(default=0.0, ge=0, lt=1)


ModelConfig = MonaiUnetConfig
"""The networks by `name`; becomes a discriminated union with the second one."""


class AugmentConfig(Config):
    """Random changes of the training images; each is drawn anew for every sample and seeded with it.

    The ranges are about those of nnU-Net (Isensee et al. 2021, doi:10.1038/s41592-020-01008-z, suppl. 2), narrower
    where a head in a scanner varies less.
    """

    flip_x: float = Field(default=0.5, ge=0, le=1, description="probability of a left-right flip")
    rotate_degrees: float = Field(default=10.0, ge=0)
    scale: float = Field(default=0.1, ge=0, lt=1, description="zoom is drawn from 1 - scale .. 1 + scale")
    shift: float = Field(default=0.05, ge=0, description="in fields of view")
    gamma: float = Field(default=0.2, ge=0, lt=1, description="exponent is drawn from 1 - gamma .. 1 + gamma")
    noise: float = Field(default=0.0, ge=0, description="standard deviation relative to the image maximum")


class DataConfig(Config):
    """Which elements are read."""

    inputs: tuple[str, ...] = Field(default=("recon/reference",), min_length=1, description="one channel each")
    labels: str = "seg/tissue"
    split: str = "default"
    augment: AugmentConfig | None = AugmentConfig()


class LossConfig(Config):
    """Dice + cross-entropy, the compound loss that nnU-Net found most robust (Isensee et al. 2021)."""

    dice: float = Field(default=1.0, ge=0)
    cross_entropy: float = Field(default=1.0, ge=0)


class RunConfig(Config):
    """One segmentation run."""

    model: ModelConfig = MonaiUnetConfig()
    data: DataConfig = DataConfig()
    loss: LossConfig = LossConfig()
    labels: dict[int, str] | None = Field(default=None, description="ids 1 .. n and names; None takes the data's")
    training: TrainingConfig = TrainingConfig(
        steps=1000, batch_size=6, learning_rate=2e-3, schedule="onecycle", validate_every=200, val_batch_size=6
    )

    @field_validator("labels")
    @classmethod
    def _without_gaps(cls, labels: dict[int, str] | None) -> dict[int, str] | None:
        if labels is not None and (not labels or sorted(labels) != list(range(1, len(labels) + 1))):
            raise ValueError(f"expected ids 1, 2, ... without gaps, got {sorted(labels)}")
        return labels
