"""Lightning callbacks that make a run repeatable and resumable to the bit."""

import os
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import torch
from lightning.pytorch import Callback, LightningModule, Trainer
from lightning.pytorch.callbacks import WeightAveraging

from mri_io.errors import ConfigError, NonFiniteError
from mri_io.store.durable import flush_folder
from mri_io.training.checkpoint import write_checkpoint
from mri_io.training.config import TrainingConfig
from mri_io.training.interruption import Interruption, TrainingInterruptedError
from mri_io.training.seeding import set_seed

__all__ = ["BestWeights", "MovingAverage", "RunState", "StepSeed"]

_REMEDY = "Lower training.learning_rate, set training.gradient_clip, or check the data for NaN."


class StepSeed(Callback):
    """Seed every step by (seed, step, rank), log the learning rate, stop on a loss that is not finite."""

    def __init__(self, config: TrainingConfig) -> None:
        self.config = config

    def on_train_batch_start(self, trainer: Trainer, pl_module: LightningModule, batch: Any, batch_idx: int) -> None:
        """Make dropout and noise a function of the step, so that a resumed run repeats them."""
        micro = batch_idx % self.config.accumulate
        set_seed(self.config.seed, trainer.global_step, micro, trainer.global_rank)
        for optimizer in trainer.optimizers:
            for index, group in enumerate(optimizer.param_groups):
                name = "lr" if len(optimizer.param_groups) == 1 else f"lr/{group.get('name', index)}"
                pl_module.log(name, group["lr"], rank_zero_only=True, batch_size=1)

    def on_train_batch_end(
        self, trainer: Trainer, pl_module: LightningModule, outputs: Any, batch: Any, batch_idx: int
    ) -> None:
        """Raise `NonFiniteError` at the logging interval if the loss has become NaN or infinite."""
        step = trainer.global_step
        if step % self.config.log_every and step != self.config.steps:
            return
        loss = outputs.get("loss") if isinstance(outputs, dict) else outputs
        if isinstance(loss, torch.Tensor) and not torch.isfinite(loss).all():
            raise NonFiniteError(
                f"training loss at step {step}: expected a finite number, got {loss.item()}. {_REMEDY}"
            )


class RunState(Callback):
    """Write last.ckpt between steps, and set Lightning's counters when a run continues from it.

    The checkpoint is taken at the start of a step, when validation, moving average, schedule and logging of
    the step before are finished, so that nothing is repeated or left out. Lightning's own loop state is not
    stored: every run is one epoch whose batches `TrainBatches` starts at the right step, and only the
    counters are set.

    Parameters
    ----------
    path
        last.ckpt.
    config
        The training configuration.
    header
        Returns the description stored in the checkpoint, given step and completeness.
    before_save
        Called first, e.g. to flush metrics.csv.
    start_step
        Optimiser steps taken before this process.
    interruption
        Asks to stop after the step, on a single device.
    """

    def __init__(
        self,
        path: Path,
        config: TrainingConfig,
        header: Callable[[int, bool], dict[str, Any]],
        before_save: Sequence[Callable[[], None]],
        start_step: int,
        interruption: Interruption,
    ) -> None:
        self.path, self.config, self.header = path, config, header
        self.before_save, self.start_step, self.interruption = before_save, start_step, interruption
        self._complete = False

    def on_train_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Set the number of steps taken and batches seen, which Lightning derives everything else from."""
        loop = trainer.fit_loop.epoch_loop
        loop.automatic_optimization.optim_progress.optimizer.step.total.completed = self.start_step
        loop.manual_optimization.optim_step_progress.total.completed = self.start_step
        loop._batches_that_stepped = self.start_step
        total, batches = loop.batch_progress.total, self.start_step * self.config.accumulate
        total.ready = total.completed = batches

    def on_train_batch_start(self, trainer: Trainer, pl_module: LightningModule, batch: Any, batch_idx: int) -> None:
        """Save when the interval is reached, or when training is to stop."""
        step = trainer.global_step
        # Several devices would not all stop before the same step.
        stop = self.interruption.asked and trainer.world_size == 1
        due = step > self.start_step and (stop or step % self.config.checkpoint_every == 0)
        if due and batch_idx % self.config.accumulate == 0:
            self._save(trainer, pl_module)
        if stop and batch_idx % self.config.accumulate == 0:
            raise TrainingInterruptedError(
                f"{self.path.parent.name}: interrupted after step {step} of {self.config.steps}; nothing is lost. "
                "To continue run the same command again."
            )

    def on_train_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Save the end of the run, before the moving average replaces the weights."""
        self._complete = True
        self._save(trainer, pl_module)

    def on_save_checkpoint(self, trainer: Trainer, pl_module: LightningModule, checkpoint: dict[str, Any]) -> None:
        """Add the description and leave out Lightning's loop state."""
        checkpoint.pop("loops", None)
        checkpoint["mri"] = self.header(trainer.global_step, self._complete)

    def _save(self, trainer: Trainer, task: LightningModule) -> None:
        for name, weight in task.named_parameters():
            if not torch.isfinite(weight).all():
                # Before anything is written: last.ckpt stays the one before the weights were lost.
                raise NonFiniteError(
                    f"weights at step {trainer.global_step}: {name}: expected finite numbers, got NaN or infinity. "
                    f"{_REMEDY}"
                )
        for prepare in self.before_save:
            prepare()
        temporary = self.path.with_name(f".{self.path.name}.tmp")
        trainer.save_checkpoint(temporary, weights_only=False)
        if trainer.is_global_zero:
            with temporary.open("rb") as file:
                os.fsync(file.fileno())
            temporary.replace(self.path)
            flush_folder(self.path.parent)
        trainer.strategy.barrier("last.ckpt")


class BestWeights(Callback):
    """Keep the weights of the best validation in `path`; with a moving average, its weights.

    Parameters
    ----------
    path
        best.ckpt.
    monitor, mode
        Metric, and ``"min"`` or ``"max"``.
    header
        As in `RunState`.
    average
        The callback that holds the moving average, or None.
    keep
        Whether to write weights; else only check that the metric exists.
    """

    def __init__(
        self,
        path: Path,
        monitor: str,
        mode: str,
        header: Callable[[int, bool], dict[str, Any]],
        average: "MovingAverage | None",
        keep: bool,
    ) -> None:
        self.path, self.monitor, self.mode, self.header = path, monitor, mode, header
        self.average, self.keep = average, keep
        self.best: float | None = None

    def on_validation_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Compare the metric with the best so far."""
        if self.monitor not in trainer.callback_metrics:
            known = ", ".join(sorted(map(str, trainer.callback_metrics))) or "none"
            raise ConfigError(f"monitor: expected a metric that the task logs ({known}), got {self.monitor!r}.")
        value = float(trainer.callback_metrics[self.monitor])
        better = self.best is None or (value < self.best if self.mode == "min" else value > self.best)
        if not (self.keep and better):
            return
        self.best = value
        if trainer.is_global_zero:
            state = pl_module.state_dict() if self.average is None else self.average.weights()
            write_checkpoint(self.path, self.header(trainer.global_step, False), state)

    def state_dict(self) -> dict[str, Any]:
        """Return the best value so far."""
        return {"best": self.best}

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        """Continue from the best value so far."""
        self.best = state_dict["best"]


class MovingAverage(WeightAveraging):
    """Exponential moving average of the weights, ``w' <- d w' + (1 - d) w`` after every step.

    The decay rises as ``d = min(decay, (1 + n) / (10 + n))`` with the number of updates n, so that a short
    run is not dominated by its first weights (the rule of TensorFlow's ExponentialMovingAverage with
    ``num_updates``). Buffers are copied, not averaged. Validation and model.ckpt use the average.
    """

    def __init__(self, decay: float) -> None:
        @torch.no_grad()
        def update(average: Any, current: Any, count: Any) -> None:
            n = float(count)
            d = min(decay, (1 + n) / (10 + n))
            torch._foreach_lerp_(average, current, 1 - d)

        super().__init__(use_buffers=False, multi_avg_fn=update)

    def weights(self) -> dict[str, torch.Tensor]:
        """Return the averaged weights under the module's own names."""
        assert self._average_model is not None
        state = self._average_model.state_dict()
        return {name.removeprefix("module."): value for name, value in state.items() if name.startswith("module.")}
