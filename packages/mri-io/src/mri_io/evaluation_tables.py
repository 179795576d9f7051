"""Print an evaluation as a table: mean and standard deviation over volumes, per method and per class."""

from collections.abc import Mapping, Sequence
from typing import Any

from mri_io.store.evaluations import summarise

__all__ = ["print_evaluation"]


def _cell(values: Mapping[str, Any]) -> str:
    if values["mean"] is None:
        return "undefined"
    spread = "" if values["std"] is None else f" ± {values['std']:.3f}"
    missing = f" ({values['undefined']} undefined)" if values["undefined"] else ""
    return f"{values['mean']:.3f}{spread}{missing}"


def print_evaluation(evaluation: Mapping[str, Any]) -> None:
    """Print the summary of a stored evaluation to the terminal.

    Parameters
    ----------
    evaluation
        As `Cohort.evaluations` returns it.
    """
    from rich.console import Console
    from rich.table import Table

    rows: Sequence[Mapping[str, Any]] = evaluation["rows"]
    metrics: Mapping[str, Mapping[str, str]] = evaluation["metrics"]
    volumes = len({row["volume_id"] for row in rows})
    settings = ", ".join(f"{key} {value}" for key, value in evaluation["config"].items() if key != "methods")
    table = Table(title=f"{evaluation['name']}: mean ± sd over {volumes} volumes ({settings})")
    table.add_column("method", overflow="fold")
    labels = list(dict.fromkeys(str(row["label"]) for row in rows if "label" in row))
    if labels:
        table.add_column("class")
    for metric, description in metrics.items():
        arrow = "↑" if description["better"] == "higher" else "↓"
        unit = f" [{description['unit']}]" if description["unit"] else ""
        table.add_column(f"{metric}{unit} {arrow}", justify="right")
    for method, values in evaluation["summary"].items():
        cells = [_cell(values[metric]) for metric in metrics]
        table.add_row(method, *(["all"] if labels else []), *cells)
        for label in labels:
            chosen = [row for row in rows if row["method"] == method and row.get("label") == label]
            per_label = summarise(chosen, list(metrics)).get(method, {})
            table.add_row("", label, *[_cell(per_label[metric]) for metric in metrics])
    Console(width=None if Console().is_terminal else 140).print(table)
