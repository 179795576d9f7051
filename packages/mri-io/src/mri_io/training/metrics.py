"""metrics.csv: one table per run, one row per logged step, complete and without repeats after resuming."""

import csv
import math
import os
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

from lightning.pytorch.loggers import Logger
from lightning.pytorch.utilities import rank_zero_only

__all__ = ["MetricsTable", "read_metrics"]


def read_metrics(path: str | Path) -> list[dict[str, float]]:
    """Read metrics.csv as one dict per step; cells that were not measured at a step are left out.

    A last line that a killed process left unfinished is dropped.
    """
    path = Path(path)
    if not path.is_file():
        return []
    text = path.read_text(encoding="utf-8")
    lines = text[: text.rfind("\n") + 1].splitlines()
    rows = []
    for record in csv.DictReader(lines):
        try:
            rows.append({key: float(value) for key, value in record.items() if value not in ("", None)})
        except (TypeError, ValueError):
            continue
    return [row for row in rows if "step" in row]


class MetricsTable(Logger):
    """Lightning logger that writes `path` as a wide table with the column ``step`` = optimiser steps taken.

    Rows are appended; the file is rewritten (atomically) only when a new column appears or on resume.

    Parameters
    ----------
    path
        The CSV file.
    start_step
        Rows of later steps are dropped, since they will be computed again.
    steps_done
        Returns the number of optimiser steps taken.
    """

    def __init__(self, path: Path, start_step: int, steps_done: Callable[[], int]) -> None:
        super().__init__()
        self.path, self.start_step, self.steps_done = path, start_step, steps_done
        self._columns: list[str] = []
        self._pending: dict[int, dict[str, float]] = {}
        self._opened = False

    @property
    def name(self) -> str:
        """Name that Lightning asks for."""
        return "metrics"

    @property
    def version(self) -> str:
        """Version that Lightning asks for; the run's folder is the version."""
        return ""

    def log_hyperparams(self, *args: Any, **kwargs: Any) -> None:
        """Do nothing: the run's configuration is config.yaml."""

    @rank_zero_only
    def log_metrics(self, metrics: Mapping[str, float], step: int | None = None) -> None:
        """Add metrics to the row of the current step."""
        row = self.steps_done()
        for earlier in [key for key in self._pending if key != row]:
            self._write(earlier, self._pending.pop(earlier))
        values = {key: float(value) for key, value in metrics.items() if key not in ("epoch", "step")}
        self._pending.setdefault(row, {}).update(values)

    @rank_zero_only
    def flush(self) -> None:
        """Write what is pending, to the disk."""
        self._open()
        for step in sorted(self._pending):
            self._write(step, self._pending.pop(step))
        with self.path.open("a", encoding="utf-8") as file:
            os.fsync(file.fileno())

    @rank_zero_only
    def finalize(self, status: str) -> None:
        """Write what is pending when the run ends or fails."""
        self.flush()

    def _open(self) -> None:
        """Drop the rows that will be computed again, and any line a killed process left unfinished."""
        if not self._opened:
            self._opened = True
            rows = [row for row in read_metrics(self.path) if row["step"] <= self.start_step]
            if self.start_step == 0:
                rows = []
            columns = {key: None for row in rows for key in row if key != "step"}
            self._columns = list(columns)
            self._rewrite(rows)

    def _write(self, step: int, values: Mapping[str, float]) -> None:
        self._open()
        new = [key for key in values if key not in self._columns]
        if new:
            rows = read_metrics(self.path)
            self._columns += new
            self._rewrite([*rows, {"step": float(step), **values}])
            return
        with self.path.open("a", encoding="utf-8", newline="") as file:
            csv.writer(file, lineterminator="\n").writerow(self._cells({"step": float(step), **values}))

    def _rewrite(self, rows: list[dict[str, float]]) -> None:
        temporary = self.path.with_name(f".{self.path.name}.tmp")
        with temporary.open("w", encoding="utf-8", newline="") as file:
            writer = csv.writer(file, lineterminator="\n")
            writer.writerow(["step", *self._columns])
            writer.writerows(self._cells(row) for row in rows)
            file.flush()
            os.fsync(file.fileno())
        temporary.replace(self.path)

    def _cells(self, row: Mapping[str, float]) -> list[str]:
        values = (row.get(key) for key in self._columns)
        return [str(int(row["step"])), *("" if value is None else _text(value) for value in values)]


def _text(value: float) -> str:
    return "nan" if math.isnan(value) else f"{value:.9g}"
