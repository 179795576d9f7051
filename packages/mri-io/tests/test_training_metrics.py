"""metrics.csv: complete, without repeats, whatever was interrupted."""

import csv
from pathlib import Path

import pandas
import pytest

from mri_io.training.metrics import MetricsTable, read_metrics


class Clock:
    step = 0

    def __call__(self) -> int:
        return self.step


def log(table: MetricsTable, clock: Clock, rows: list[tuple[int, dict[str, float]]]) -> None:
    for clock.step, values in rows:
        table.log_metrics(values, step=-1)


ROWS = [
    (5, {"train/loss": 2.0, "epoch": 0}),
    (10, {"train/loss": 1.0}),
    (10, {"val/loss": 1.5, "val/psnr": 30.0}),
    (15, {"train/loss": float("nan")}),
    (20, {"train/loss": 1 / 3, "val/loss": 1e-12}),
]


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "metrics.csv"


def write(path: Path, rows, start_step: int = 0, *, flush: bool = True) -> None:
    clock = Clock()
    table = MetricsTable(path, start_step, clock)
    log(table, clock, rows)
    if flush:
        table.flush()


def test_one_row_per_step_and_a_column_per_metric(path: Path):
    write(path, ROWS)
    table = pandas.read_csv(path)
    assert list(table.columns) == ["step", "train/loss", "val/loss", "val/psnr"]
    assert table["step"].tolist() == [5, 10, 15, 20]
    assert table["val/loss"].tolist()[1::2] == pytest.approx([1.5, 1e-12])
    assert table["val/psnr"].isna().tolist() == [True, False, True, True]
    assert table["train/loss"].tolist()[3] == pytest.approx(1 / 3, rel=1e-8)


@pytest.mark.parametrize("resumed_at", [0, 5, 10, 15])
def test_resuming_drops_rows_that_come_again_and_gives_the_same_file(path: Path, resumed_at: int):
    write(path, ROWS)
    expected = path.read_text()
    with path.open("a") as file:
        file.write("25,0.5")  # a process killed in the middle of a line
    write(path, [row for row in ROWS if row[0] > resumed_at], resumed_at)
    assert sorted(expected.splitlines()[1:]) == sorted(path.read_text().splitlines()[1:])
    with path.open() as file:
        assert [float(row["step"]) for row in csv.DictReader(file)] == [5, 10, 15, 20]


def test_a_row_is_on_disk_as_soon_as_the_next_begins(path: Path):
    write(path, ROWS[:2], flush=False)
    assert [row["step"] for row in read_metrics(path)] == [5]


def test_a_new_run_starts_an_empty_table(path: Path):
    path.write_text("step,old\n1,2\n")
    write(path, ROWS[:1])
    assert read_metrics(path) == [{"step": 5.0, "train/loss": 2.0}]


def test_unreadable_lines_are_left_out(path: Path):
    path.write_text("step,a\n1,2\nx,y\n3,4\n5")
    assert read_metrics(path) == [{"step": 1.0, "a": 2.0}, {"step": 3.0, "a": 4.0}]
    assert read_metrics(path.with_name("none.csv")) == []
