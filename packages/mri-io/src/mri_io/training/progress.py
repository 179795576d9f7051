"""Progress of a run on stderr: a bar with rate and time left on a terminal, ten plain lines elsewhere."""

import time
from typing import Any

from lightning.pytorch import Callback, LightningModule, Trainer
from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TaskID, TextColumn, TimeRemainingColumn

__all__ = ["ProgressReport"]

LINES = 10


class ProgressReport(Callback):
    """Report steps done, steps per second, time left and the latest metrics.

    Parameters
    ----------
    title
        Name of the run.
    start_step, steps
        Where the run starts and where it ends.
    console
        Where to write; stderr by default.
    """

    def __init__(self, title: str, start_step: int, steps: int, console: Console | None = None) -> None:
        self.title, self.start_step, self.steps = title, start_step, steps
        self.console = console or Console(stderr=True, soft_wrap=True)
        self._bar: Progress | None = None
        self._task = TaskID(0)
        self._began = 0.0
        self._last = start_step

    def on_train_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Start the bar, or say where the run starts."""
        self._began = time.monotonic()
        if not trainer.is_global_zero:
            return
        if self.console.is_terminal:
            columns = (
                TextColumn("{task.description}"),
                BarColumn(),
                MofNCompleteColumn(),
                TextColumn("{task.fields[rate]} steps/s"),
                TimeRemainingColumn(),
                TextColumn("{task.fields[metrics]}"),
            )
            self._bar = Progress(*columns, console=self.console)
            self._bar.start()
            self._task = self._bar.add_task(
                self.title, total=self.steps, completed=self.start_step, rate="-", metrics=""
            )
        else:
            where = f"from step {self.start_step}" if self.start_step else "from the start"
            self.console.print(f"{self.title}: {self.steps} steps, {where}", highlight=False, markup=False)

    def on_train_batch_end(self, trainer: Trainer, pl_module: LightningModule, *args: Any) -> None:
        """Advance the bar, or write a line at every tenth of the run."""
        if not trainer.is_global_zero:
            return
        step = trainer.global_step
        done = step - self.start_step
        rate = done / max(time.monotonic() - self._began, 1e-9)
        if self._bar is not None:
            self._bar.update(
                self._task,
                completed=step,
                rate=f"{rate:.2f}",
                metrics=_latest(trainer) if step % 10 == 0 else None,
            )
            return
        interval = max(1, self.steps // LINES)
        if step % interval == 0 and step > self._last:
            self._last = step
            left = (self.steps - step) / max(rate, 1e-9)
            text = f"{self.title}: step {step}/{self.steps}, {rate:.2f} steps/s, {_clock(left)} left"
            self.console.print(text + _latest(trainer), highlight=False, markup=False)

    def on_train_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Close the bar."""
        self._stop()

    def on_exception(self, trainer: Trainer, pl_module: LightningModule, exception: BaseException) -> None:
        """Close the bar, so that the error is readable."""
        self._stop()

    def _stop(self) -> None:
        if self._bar is not None:
            self._bar.stop()
            self._bar = None


def _latest(trainer: Trainer) -> str:
    shown = {key: float(value) for key, value in trainer.callback_metrics.items() if key.count("/") == 1}
    return "".join(f", {key} {value:.4g}" for key, value in shown.items())


def _clock(seconds: float) -> str:
    minutes, rest = divmod(round(seconds), 60)
    hours, minutes = divmod(minutes, 60)
    return f"{hours}:{minutes:02}:{rest:02}" if hours else f"{minutes}:{rest:02}"
