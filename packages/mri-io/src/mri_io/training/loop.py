"""Train a LightningModule: resumable to the bit, with a self-describing checkpoint at the end."""

import logging
import warnings
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

import torch
from lightning.pytorch import Callback, LightningModule, Trainer
from lightning.pytorch.callbacks import EarlyStopping
from lightning.pytorch.utilities import rank_zero_only
from lightning.pytorch.utilities.model_helpers import is_overridden

from mri_io.config import config_hash
from mri_io.errors import ConfigError
from mri_io.training.callbacks import BestWeights, MovingAverage, RunState, StepSeed
from mri_io.training.checkpoint import SplitLike, make_header, read_raw
from mri_io.training.config import TrainingConfig
from mri_io.training.folder import Earlier, RunFolder
from mri_io.training.interruption import Interruption, interruptible
from mri_io.training.loaders import Collate, TrainBatches, ValidationBatches
from mri_io.training.loggers import make_loggers
from mri_io.training.metrics import MetricsTable
from mri_io.training.progress import ProgressReport

__all__ = ["TrainResult", "train"]


@dataclass(frozen=True)
class TrainResult:
    """What a run left behind.

    Attributes
    ----------
    checkpoint
        model.ckpt, for `load_checkpoint`.
    metrics
        metrics.csv.
    steps
        Optimiser steps taken in all.
    resumed_from
        Step at which this call took over; 0 for a new run; equal to `steps` if there was nothing left to do.
    """

    checkpoint: Path
    metrics: Path
    steps: int
    resumed_from: int


def train(
    task: LightningModule,
    *,
    kind: Literal["recon", "seg", "joint"],
    config: Any,
    train_data: Any,
    val_data: Any | None = None,
    out: str | Path,
    collate: Collate | None = None,
    split: SplitLike | None = None,
    monitor: str = "val/loss",
    mode: Literal["min", "max"] = "min",
) -> TrainResult:
    """Train `task`, or continue the run that `out` holds.

    The folder gets config.yaml, metrics.csv, last.ckpt (to resume from), model.ckpt (the result) and, by
    default, a folder with TensorBoard events. Calling it again with the same configuration continues an
    interrupted run, with bit-equal weights to an uninterrupted one on the same machine, and returns at once
    if the run is complete.

    Parameters
    ----------
    task
        Logs ``train/...`` and ``val/...``; with several devices, ``val/...`` with ``sync_dist=True``. Its
        ``configure_optimizers`` may return `make_optimizer` of its parameters. Build it after `set_seed`.
    kind
        What the checkpoint is for.
    config
        Configuration of the whole run, with the field ``training``; stored in the checkpoint.
    train_data, val_data
        Map-style data sets. `train_data` is indexed by ``(index, draw)`` (see `mri_io.torch.StepSampler`),
        `val_data` by plain integers.
    out
        Folder of the run.
    collate
        Turns a list of samples into a batch; default `mri_io.torch.collate_slices`.
    split
        The split of subjects that the data come from, stored in the checkpoint.
    monitor, mode
        Metric that decides early stopping and the best weights, and whether less or more is better.

    Returns
    -------
    TrainResult
        Paths and steps; `task` holds the final weights.

    Raises
    ------
    ConfigError
        If `out` holds a run of another configuration, split or kind; the message lists the keys. If a device is
        asked for that is not there.
    NonFiniteError
        If the loss becomes NaN or infinite.
    TrainingInterruptedError
        After Ctrl-C, once the step is finished and last.ckpt is written.
    MissingPackageError
        If a logger is asked for that is not installed.
    """
    folder = RunFolder(Path(out).absolute())
    earlier = folder.earlier(kind, config, split)
    steps = earlier.step
    if not earlier.complete:
        folder.start(config)
        run = _Run(task, kind, config, split, folder, earlier, monitor, mode)
        with _environment(config.training), interruptible() as interruption:
            steps = run.fit(train_data, val_data, collate or _default_collate(), interruption)
    if getattr(rank_zero_only, "rank", 0) == 0:
        folder.finish(config.training)
    if torch.distributed.is_available() and torch.distributed.is_initialized():
        torch.distributed.barrier()
    task.load_state_dict(read_raw(folder.model)["state_dict"])
    return TrainResult(folder.model, folder.metrics, steps, earlier.step)


def _default_collate() -> Collate:
    from mri_io.torch import collate_slices

    return collate_slices


@dataclass(frozen=True)
class _Run:
    """The Lightning side of one call of `train`."""

    task: LightningModule
    kind: str
    config: Any
    split: SplitLike | None
    folder: RunFolder
    earlier: Earlier
    monitor: str
    mode: Literal["min", "max"]

    @property
    def settings(self) -> TrainingConfig:
        settings: TrainingConfig = self.config.training
        return settings

    def fit(self, train_data: Any, val_data: Any | None, collate: Collate, interruption: Interruption) -> int:
        settings, start = self.settings, self.earlier.step
        holder: list[Trainer] = []
        validates = val_data is not None
        loggers = make_loggers(
            settings,
            self.folder.path,
            project=f"mri-{self.kind}",
            identity=config_hash(self.config)[:16],
            start_step=start,
            steps_done=lambda: holder[0].global_step,
        )
        trainer = Trainer(
            **_devices(settings),
            precision=settings.precision,
            max_epochs=-1,
            max_steps=settings.steps,
            accumulate_grad_batches=settings.accumulate,
            gradient_clip_val=settings.gradient_clip,
            # Counted in batches over the whole run, since a run is a single epoch.
            val_check_interval=min(settings.validate_every or settings.steps, settings.steps) * settings.accumulate,
            check_val_every_n_epoch=None,
            limit_val_batches=None if validates else 0,
            num_sanity_val_steps=0,
            log_every_n_steps=settings.log_every,
            logger=loggers or False,
            callbacks=self._callbacks(
                [x.flush for x in loggers if isinstance(x, MetricsTable)], interruption, validates=validates
            ),
            default_root_dir=self.folder.path,
            deterministic="warn",
            enable_checkpointing=False,
            enable_progress_bar=False,
            enable_model_summary=False,
            use_distributed_sampler=False,
        )
        holder.append(trainer)
        self.task.train()

        def rank() -> tuple[int, int]:
            return trainer.global_rank, trainer.world_size

        batches = TrainBatches(train_data, settings, collate, rank, start)
        checks = None
        if is_overridden("validation_step", self.task):
            checks = ValidationBatches(val_data if validates else (), settings, collate, rank)
        resume = None if self.earlier.path is None else str(self.earlier.path)
        try:
            trainer.fit(self.task, batches, checks, ckpt_path=resume, weights_only=True)
        except SystemExit as end:  # what Lightning makes of a KeyboardInterrupt
            raise KeyboardInterrupt from end
        return trainer.global_step

    def _header(self, step: int, complete: bool) -> dict[str, Any]:
        return make_header(kind=self.kind, config=self.config, split=self.split, step=step, complete=complete)

    def _callbacks(
        self, before_save: list[Callable[[], None]], interruption: Interruption, *, validates: bool
    ) -> list[Callback]:
        settings, start = self.settings, self.earlier.step
        average = MovingAverage(settings.ema_decay) if settings.ema_decay is not None else None
        # RunState comes before the average: at the end it must save the weights before the average replaces
        # them.
        callbacks: list[Callback] = [
            RunState(self.folder.last, settings, self._header, before_save, start, interruption),
            StepSeed(settings),
        ]
        if average is not None:
            callbacks.append(average)
        if validates:
            best = self.folder.best
            callbacks.append(BestWeights(best, self.monitor, self.mode, self._header, average, settings.keeps_best))
            if settings.patience is not None:
                callbacks.append(EarlyStopping(self.monitor, mode=self.mode, patience=settings.patience))
        if settings.progress:
            callbacks.append(ProgressReport(self.folder.path.name, start, settings.steps))
        return callbacks


def _devices(settings: TrainingConfig) -> dict[str, Any]:
    """Return where Lightning is to train; ConfigError when that is not there."""
    present = torch.cuda.device_count() if torch.cuda.is_available() else 0
    # "auto" of Lightning would take Apple's MPS, which lacks the double precision of the augmentation.
    wanted = {"auto": "cuda" if present else "cpu", "gpu": "cuda"}.get(settings.accelerator, settings.accelerator)
    if wanted == "cuda" and (not present or (settings.devices != "auto" and settings.devices > present)):
        raise ConfigError(
            f"training.accelerator: {settings.accelerator} with training.devices: {settings.devices}: PyTorch finds "
            f"{present} CUDA device(s) on this machine. Set training.accelerator=cpu, or fewer devices."
        )
    return {"accelerator": wanted, "devices": settings.devices}


@contextmanager
def _environment(settings: TrainingConfig) -> Iterator[None]:
    """Set threads, determinism and Lightning's chattiness for a run, and put them back."""
    loggers = [logging.getLogger(name) for name in ("lightning.pytorch", "lightning.fabric")]
    levels = [logger.level for logger in loggers]
    threads = torch.get_num_threads()
    deterministic: Any = torch.utils.deterministic
    flags = (
        torch.are_deterministic_algorithms_enabled(),
        torch.is_deterministic_algorithms_warn_only_enabled(),
    )
    benchmark, fill = torch.backends.cudnn.benchmark, deterministic.fill_uninitialized_memory
    try:
        for logger in loggers:
            # Lightning announces devices, tips and its end at INFO on stderr; the progress report says what
            # matters.
            logger.setLevel(logging.WARNING)
        if settings.threads is not None:
            torch.set_num_threads(settings.threads)
        # Filling every new tensor costs time and changes no result that is not already wrong.
        deterministic.fill_uninitialized_memory = False
        with warnings.catch_warnings():
            # Lightning 2.6 calls a function that torch 2.13 renames: nothing that a user could change.
            warnings.filterwarnings("ignore", r".*treespec, LeafSpec", FutureWarning)
            yield
    finally:
        for logger, level in zip(loggers, levels, strict=True):
            logger.setLevel(level)
        torch.set_num_threads(threads)
        torch.use_deterministic_algorithms(flags[0], warn_only=flags[1])
        torch.backends.cudnn.benchmark = benchmark
        deterministic.fill_uninitialized_memory = fill
