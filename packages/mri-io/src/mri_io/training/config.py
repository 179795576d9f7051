"""How long, how fast and on what to train; no torch needed to read it."""

from collections.abc import Mapping
from typing import Any, Literal

from pydantic import Field, model_validator

from mri_io.config import Config, validate_config
from mri_io.errors import ConfigError

__all__ = ["RESUMABLE_KEYS", "TrainingConfig", "differing_keys"]

RESUMABLE_KEYS = frozenset(
    {"accelerator", "checkpoint_every", "devices", "loggers", "num_workers", "progress", "threads"}
)
"""Fields of `TrainingConfig` that say how a run is computed; they may change when a run is continued."""


class TrainingConfig(Config):
    """Budget, optimiser and machine of one training run. All budgets are optimiser steps, never seconds.

    The defaults are those of AdamW (Loshchilov & Hutter 2019, arXiv:1711.05101) with the learning rate 1e-3
    that fastMRI's U-Net and VarNet use.
    """

    steps: int = Field(1000, gt=0, description="optimiser steps in all")
    batch_size: int = Field(1, gt=0, description="samples per step over all devices, before `accumulate`")
    val_batch_size: int = Field(1, gt=0)
    learning_rate: float = Field(1e-3, gt=0)
    weight_decay: float = Field(0.0, ge=0)
    schedule: Literal["constant", "cosine", "onecycle"] = "constant"
    warmup_steps: int = Field(0, ge=0, description="linear rise of the learning rate; not with onecycle")
    gradient_clip: float | None = Field(None, gt=0, description="largest allowed norm of the whole gradient")
    accumulate: int = Field(1, gt=0, description="batches whose gradients are averaged into one step")
    precision: Literal["32-true", "16-mixed", "bf16-mixed"] = "32-true"
    accelerator: Literal["auto", "cpu", "gpu", "cuda"] = Field(
        "auto", description="auto: a CUDA device if there is one, else the CPU"
    )
    devices: int | Literal["auto"] = 1
    num_workers: int = Field(0, ge=0, description="loading processes per device; 0 loads in the main process")
    seed: int = Field(0, ge=0)
    validate_every: int = Field(0, ge=0, description="steps between validations; 0: once, at the end")
    checkpoint_every: int = Field(100, gt=0, description="steps between writings of last.ckpt")
    log_every: int = Field(10, gt=0, description="steps between rows of metrics.csv")
    ema_decay: float | None = Field(None, gt=0, lt=1, description="exponential moving average of the weights")
    patience: int | None = Field(None, gt=0, description="validations without improvement before stopping")
    select: Literal["auto", "last", "best"] = Field(
        "auto", description="weights of model.ckpt; auto: best with `patience`, else last"
    )
    loggers: tuple[Literal["csv", "tensorboard", "wandb"], ...] = ("csv", "tensorboard")
    threads: int | None = Field(None, gt=0, description="torch's threads; None leaves torch's choice")
    progress: bool = True

    @model_validator(mode="after")
    def _consistent(self) -> "TrainingConfig":
        if self.warmup_steps >= self.steps:
            raise ValueError(f"warmup_steps: expected fewer than steps = {self.steps}, got {self.warmup_steps}")
        if self.schedule == "onecycle" and self.warmup_steps:
            raise ValueError("warmup_steps: onecycle has its own rise; expected 0")
        if isinstance(self.devices, int) and self.devices < 1:
            raise ValueError(f"devices: expected at least 1 or 'auto', got {self.devices}")
        return self

    @property
    def keeps_best(self) -> bool:
        """Whether model.ckpt holds the weights of the best validation instead of the last step."""
        return self.select == "best" or (self.select == "auto" and self.patience is not None)


def differing_keys(old: Mapping[str, Any], new: Config) -> list[str]:
    """List what differs between a saved configuration and `new`, as ``"a.b: saved -> new"``.

    Fields that a newer version of the package added count as equal where they have their default, and the
    keys in `RESUMABLE_KEYS` of ``training`` are not compared: they change where a run is computed, not what.
    """
    try:
        old = validate_config(type(new), old).model_dump(mode="json")
    except ConfigError:
        old = dict(old)
    before, after = _flatten(old), _flatten(new.model_dump(mode="json"))
    skipped = {f"training.{key}" for key in RESUMABLE_KEYS}
    absent = "(absent)"
    return [
        f"{key}: {before.get(key, absent)} -> {after.get(key, absent)}"
        for key in sorted(before.keys() | after.keys())
        if key not in skipped and before.get(key, absent) != after.get(key, absent)
    ]


def _flatten(values: Mapping[str, Any], prefix: str = "") -> dict[str, Any]:
    flat: dict[str, Any] = {}
    for key, value in values.items():
        if isinstance(value, Mapping) and value:
            flat |= _flatten(value, f"{prefix}{key}.")
        else:
            flat[f"{prefix}{key}"] = value
    return flat
