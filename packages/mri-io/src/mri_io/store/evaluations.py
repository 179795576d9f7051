"""Tables of metrics, kept with the cohort so that the report and later readers find them."""

import csv
import io
import json
import math
from collections.abc import Mapping, Sequence
from pathlib import Path
from statistics import mean, stdev
from typing import Any

from mri_io.errors import SchemaError, StoreError, expected_got
from mri_io.schema.attributes import now_utc
from mri_io.schema.validation import validate
from mri_io.store.commit import write_json_atomic, write_text_atomic

__all__ = ["read_evaluations", "summarise", "write_evaluation"]


def summarise(rows: Sequence[Mapping[str, Any]], metrics: Sequence[str]) -> dict[str, dict[str, Any]]:
    """Return mean, sample standard deviation and n per method and metric; undefined values are left out.

    A metric given per label is first averaged over the labels of each volume, so that n counts volumes.
    """
    summary: dict[str, dict[str, Any]] = {}
    for method in dict.fromkeys(str(row["method"]) for row in rows):
        summary[method] = {}
        for metric in metrics:
            volumes: dict[str, list[float]] = {}
            undefined = 0
            for row in rows:
                value = row.get(metric)
                if row["method"] != method or metric not in row:
                    continue
                if value is None or not math.isfinite(value):
                    undefined += 1
                else:
                    volumes.setdefault(str(row["volume_id"]), []).append(float(value))
            values = [mean(items) for items in volumes.values()]
            summary[method][metric] = {
                "mean": mean(values) if values else None,
                "std": stdev(values) if len(values) > 1 else None,
                "n": len(values),
                "undefined": undefined,
            }
    return summary


def write_evaluation(
    cohort: Path,
    name: str,
    *,
    task: str,
    rows: Sequence[Mapping[str, Any]],
    metrics: Mapping[str, Mapping[str, str]],
    config: Mapping[str, Any] | None = None,
    inputs: Sequence[Mapping[str, str]] = (),
) -> Path:
    """Write ``evaluations/<name>.json`` with a summary, and the rows as ``.csv``.

    Parameters
    ----------
    cohort
        The cohort's folder.
    name
        Name of the evaluation; an earlier one of that name is replaced.
    task
        ``"recon"``, ``"seg"`` or ``"joint"``.
    rows
        One mapping per volume and method (and ``"label"``, where metrics are per label) with the keys
        ``volume_id``, ``subject_id``, ``method`` and one per metric; None where a metric is undefined.
    metrics
        ``{metric: {"unit": ..., "better": "higher" | "lower", "description": ...}}``.
    config
        What was asked for: reference, region, part, ...
    inputs
        ``{"path", "commit"}`` of the elements compared.

    Returns
    -------
    pathlib.Path
        The JSON file.
    """
    if not name or any(c in name for c in "/\\") or name.startswith("."):
        raise SchemaError(expected_got("evaluation name", expected="a plain file name", got=repr(name)))
    clean = [
        {k: None if isinstance(v, float) and not math.isfinite(v) else v for k, v in row.items()} for row in rows
    ]
    content = {
        "name": name,
        "task": task,
        "created_utc": now_utc(),
        "config": dict(config or {}),
        "inputs": [dict(item) for item in inputs],
        "metrics": {key: dict(value) for key, value in metrics.items()},
        "rows": clean,
        "summary": summarise(clean, list(metrics)) if clean else {},
    }
    path = cohort / "evaluations" / f"{name}.json"
    validate("evaluation", content, path)
    columns = list(dict.fromkeys(key for row in clean for key in row))
    text = io.StringIO()
    table = csv.DictWriter(text, columns, lineterminator="\n")
    table.writeheader()
    table.writerows(clean)
    write_text_atomic(path.with_suffix(".csv"), text.getvalue())
    write_json_atomic(path, content)
    return path


def read_evaluations(cohort: Path) -> dict[str, dict[str, Any]]:
    """Return all evaluations of a cohort by name."""
    found: dict[str, dict[str, Any]] = {}
    for path in sorted((cohort / "evaluations").glob("*.json")):
        try:
            content = json.loads(path.read_bytes())
        except ValueError as error:
            raise StoreError(f"{path}: not valid JSON: {error}. Run the evaluation again.") from None
        validate("evaluation", content, path)
        found[path.stem] = content
    return found
