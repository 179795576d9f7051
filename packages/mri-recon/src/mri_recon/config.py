"""Configuration of a reconstruction run."""

from typing import Literal

from pydantic import Field, model_validator

from mri_io.config import Config
from mri_io.training import TrainingConfig
from mri_recon.errors import ConfigError

__all__ = ["DataConfig", "ModelConfig", "RunConfig", "SamplingConfig", "VarNetConfig", "check_acceleration"]


INTEGER_MASKS = {
    "equispaced": "equispaced-fraction or random",
    "equispaced-2d": "gaussian-2d or poisson",
    "caipirinha": "gaussian-2d or poisson",
    "kt-equispaced": "kt-gaussian",
}
"""Kinds of masks on a lattice, and what takes other accelerations."""


def check_acceleration(kind: str, acceleration: float) -> None:
    """Check that a kind of mask can be made for an acceleration: `INTEGER_MASKS` take integers, the others any.

    Raises
    ------
    ConfigError
        When it cannot.
    """
    if kind in INTEGER_MASKS and acceleration != int(acceleration):
        raise ConfigError(
            f"acceleration: expected an integer for {kind}, whose samples are that far apart, got {acceleration:g}. "
            f"Use {INTEGER_MASKS[kind]} for other accelerations."
        )


class VarNetConfig(Config):
    """End-to-end variational network (Sriram 2020); the defaults are those of fastMRI's published model."""

    name: Literal["varnet"] = "varnet"
    cascades: int = Field(default=12, gt=0)
    channels: int = Field(default=18, gt=0)
    pools: int = Field(default=4, gt=0)
    sens_channels: int = Field(default=8, gt=0)
    sens_pools: int = Field(default=4, gt=0)
    coil_maps: Literal["stored", "estimated"] = Field(
        default="estimated", description="stored: those of data.maps; estimated: by a sensitivity network"
    )
    combination: Literal["sense", "rss"] = Field(default="sense", description="fastMRI's model has rss")
    residual: bool = Field(
        default=False, description="true: refinements begin at zero and leave the mean alone; false as published"
    )
    start_iterations: int = Field(
        default=0, ge=0, description="of CG-SENSE before the first cascade; 0 as published: the measured data alone"
    )


ModelConfig = VarNetConfig
"""The networks by `name`; becomes a discriminated union with the second one."""


class SamplingConfig(Config):
    """Retrospective sampling of the training data: a fresh mask for every sample, seeded with it."""

    mask: Literal["equispaced", "equispaced-fraction", "random"] = "equispaced"
    acceleration: float = Field(default=4, ge=1)
    center_fraction: float = Field(default=0.08, gt=0, le=1)

    @model_validator(mode="after")
    def _can_be_made(self) -> "SamplingConfig":
        check_acceleration(self.mask, self.acceleration)
        return self


class DataConfig(Config):
    """Which elements are read."""

    kspace: str = "kspace"
    maps: str = Field(default="sens/espirit", description="read where model.coil_maps is stored")
    target: str = "recon/reference"
    split: str = "default"
    sampling: SamplingConfig = SamplingConfig()


class RunConfig(Config):
    """One reconstruction run."""

    model: ModelConfig = VarNetConfig()
    data: DataConfig = DataConfig()
    loss: Literal["ssim", "l1", "complex-l1"] = "ssim"
    training: TrainingConfig = TrainingConfig(steps=1000, learning_rate=1e-3, schedule="onecycle", validate_every=200)
