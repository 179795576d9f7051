"""Print an evaluation as a table: mean and standard deviation over volumes, per method and per class."""

import math
from collections.abc import Mapping, Sequence
from typing import Any

from mri_io.prep.summary import TaskFailure, failure_lines
from mri_io.store.evaluations import summarise

__all__ = ["print_evaluation", "summary_cell"]


def summary_cell(values: Mapping[str, Any]) -> str:
    """Return a mean and its standard deviation as text, with at least three digits of the mean that count.

    Parameters
    ----------
    values
        ``mean``, ``std`` and ``undefined`` as of `mri_io.store.evaluations.summarise`.
    """
    mean = values["mean"]
    if mean is None:
        return "undefined"
    small = 0 < abs(mean) < 0.1
    form = ".2e" if 0 < abs(mean) < 1e-4 else f".{2 - math.floor(math.log10(abs(mean)))}f" if small else ".3f"
    spread = "" if values["std"] is None else f" ± {values['std']:{form}}"
    missing = f" ({values['undefined']} undefined)" if values["undefined"] else ""
    return f"{mean:{form}}{spread}{missing}"


def print_evaluation(evaluation: Mapping[str, Any]) -> None:
    """Print the summary of a stored evaluation to the terminal, and below it the volumes that failed.

    Parameters
    ----------
    evaluation
        As `Cohort.evaluations` returns it.
    """
    import typer
    from rich.console import Console
    from rich.table import Table

    rows: Sequence[Mapping[str, Any]] = evaluation["rows"]
    metrics: Mapping[str, Mapping[str, str]] = evaluation["metrics"]
    volumes = len({row["volume_id"] for row in rows})
    config = {key: value for key, value in evaluation["config"].items() if key != "methods" and value is not None}
    if "part" not in config:
        config.pop("split", None)  # all volumes were taken
    settings = ", ".join(f"{key} {value}" for key, value in config.items())
    missing: Sequence[Mapping[str, str]] = evaluation.get("missing", ())
    count = f"{volumes} volume{'' if volumes == 1 else 's'}" + (f", {len(missing)} missing" if missing else "")
    table = Table(title=f"{evaluation['name']}: mean ± sd over {count} ({settings})")
    table.add_column("method", overflow="fold")
    labels = list(dict.fromkeys(str(row["label"]) for row in rows if "label" in row))
    if labels:
        table.add_column("class")
    for metric, description in metrics.items():
        arrow = "↑" if description["better"] == "higher" else "↓"
        unit = f" [{description['unit']}]" if description["unit"] else ""
        table.add_column(f"{metric}{unit} {arrow}", justify="right")
    for method, values in evaluation["summary"].items():
        cells = [summary_cell(values[metric]) for metric in metrics]
        table.add_row(method, *(["all"] if labels else []), *cells)
        for label in labels:
            chosen = [row for row in rows if row["method"] == method and row.get("label") == label]
            per_label = summarise(chosen, list(metrics)).get(method, {})
            table.add_row("", label, *[summary_cell(per_label[metric]) for metric in metrics])
    Console(width=None if Console().is_terminal else 140).print(table)
    if missing:
        failures = [TaskFailure(item["volume_id"], item["volume_id"], item["error"], "") for item in missing]
        typer.echo(failure_lines(failures))
