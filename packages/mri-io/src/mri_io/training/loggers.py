"""The loggers of a run: metrics.csv, TensorBoard events, and Weights & Biases by name."""

import importlib.util
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

from lightning.pytorch.loggers import Logger, TensorBoardLogger, WandbLogger

from mri_io.errors import MissingPackageError
from mri_io.training.config import TrainingConfig
from mri_io.training.metrics import MetricsTable

__all__ = ["make_loggers"]

Counter = Callable[[], int]


class _Events(TensorBoardLogger):
    """TensorBoard events at the number of steps taken, as in metrics.csv, without Lightning's epoch."""

    steps_done: Counter

    def log_metrics(self, metrics: Mapping[str, float], step: int | None = None) -> None:
        super().log_metrics({k: v for k, v in metrics.items() if k != "epoch"}, self.steps_done())


class _Wandb(WandbLogger):
    """The same for Weights & Biases."""

    steps_done: Counter

    def log_metrics(self, metrics: Mapping[str, float], step: int | None = None) -> None:
        super().log_metrics({k: v for k, v in metrics.items() if k != "epoch"}, self.steps_done())


def make_loggers(
    settings: TrainingConfig, path: Path, *, project: str, identity: str, start_step: int, steps_done: Counter
) -> list[Logger]:
    """Build the loggers that `settings` names.

    Parameters
    ----------
    settings
        Names in ``loggers``.
    path
        Folder of the run.
    project, identity
        Where Weights & Biases files the run; the same identity continues the same curves.
    start_step
        Steps taken by earlier processes: what they logged later is dropped, since it comes again.
    steps_done
        Returns the number of optimiser steps taken.

    Raises
    ------
    MissingPackageError
        If ``wandb`` is named and not installed.
    """
    loggers: list[Logger] = []
    if "csv" in settings.loggers:
        loggers.append(MetricsTable(path / "metrics.csv", start_step, steps_done))
    if "tensorboard" in settings.loggers:
        options: dict[str, Any] = {"purge_step": start_step + 1} if start_step else {}
        events = _Events(path, name="", version="tensorboard", default_hp_metric=False, **options)
        events.steps_done = steps_done
        loggers.append(events)
    if "wandb" in settings.loggers:
        if importlib.util.find_spec("wandb") is None:
            raise MissingPackageError(
                "training.loggers: wandb is not installed; pip install wandb, or use csv and tensorboard."
            )
        wandb = _Wandb(project=project, name=path.name, id=identity, save_dir=path, resume="allow")
        wandb.steps_done = steps_done
        loggers.append(wandb)
    return loggers
