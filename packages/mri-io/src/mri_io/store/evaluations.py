"""Tables of metrics, kept with the cohort so that the report and later readers find them."""

import csv
import io
import math
from collections.abc import Mapping, Sequence
from statistics import mean, stdev
from typing import TYPE_CHECKING, Any

import numpy as np

from mri_io.errors import ElementExistsError, SchemaError, expected_got
from mri_io.schema.attributes import now_utc
from mri_io.schema.validation import validate
from mri_io.store.checks import check_anonymous
from mri_io.store.documents import read_document, write_document
from mri_io.store.durable import write_bytes_atomic, write_text_atomic
from mri_io.store.remote.paths import AnyPath, sorted_glob

if TYPE_CHECKING:
    from mri_io.store.element import Element

__all__ = ["METRICS", "read_evaluations", "summarise", "write_evaluation"]

METRICS: dict[str, dict[str, str]] = {
    "psnr": {"unit": "dB", "better": "higher", "description": "peak signal-to-noise ratio, peak of the volume"},
    "ssim": {"unit": "", "better": "higher", "description": "structural similarity, range of the volume"},
    "nmse": {"unit": "", "better": "lower", "description": "squared error over squared reference"},
    "dice": {"unit": "", "better": "higher", "description": "overlap 2 |A and B| / (|A| + |B|)"},
    "hd95": {"unit": "mm", "better": "lower", "description": "95th percentile of surface distances"},
    "asd": {"unit": "mm", "better": "lower", "description": "average symmetric surface distance"},
}
"""Metrics that need no description."""
_KEYS = ("volume_id", "subject_id", "method", "label")


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
    cohort: AnyPath,
    name: str,
    *,
    task: str,
    rows: Sequence[Mapping[str, Any]],
    metrics: Mapping[str, Mapping[str, str]] | None = None,
    config: Mapping[str, Any] | None = None,
    inputs: "Sequence[Mapping[str, str] | Element]" = (),
    missing: Sequence[Mapping[str, str]] = (),
    overwrite: bool = True,
    figure: bytes | None = None,
) -> AnyPath:
    """Write ``evaluations/<name>.json`` with a summary, the rows as ``.csv`` and a picture as ``.png``.

    Parameters
    ----------
    cohort
        The cohort's folder.
    name
        Name of the evaluation.
    task
        ``"recon"``, ``"seg"`` or ``"joint"``.
    rows
        One mapping per volume and method (and ``"label"``, where metrics are per label) with the keys
        ``volume_id``, ``subject_id``, ``method`` and one per metric; None where a metric is undefined.
    metrics
        ``{metric: {"unit": ..., "better": "higher" | "lower", "description": ...}}``; None takes the
        rows' metrics from `METRICS`.
    config
        What was asked for: reference, region, part, ...
    inputs
        The elements compared, or ``{"path", "commit"}`` of them.
    missing
        ``{"volume_id", "error"}`` of volumes that could not be measured.
    overwrite
        Whether an earlier evaluation of that name is replaced.
    figure
        The picture; None for none.

    Returns
    -------
    pathlib.Path
        The JSON file.

    Raises
    ------
    SchemaError
        When a row lacks a key, or `metrics` is None and a metric is not in `METRICS`; when a key, of a row or deep in
        the configuration, names what identifies a patient.
    ElementExistsError
        When there is one of that name and `overwrite` is false.
    """
    if not name or any(c in name for c in "/\\") or name.startswith("."):
        raise SchemaError(expected_got("evaluation name", expected="a plain file name", got=repr(name)))
    clean = [{key: _plain(value) for key, value in row.items()} for row in rows]
    described = _describe(clean, metrics, name)
    content = {
        "name": name,
        "task": task,
        "created_utc": now_utc(),
        "config": dict(config or {}),
        "inputs": [_reference(item) for item in inputs],
        "metrics": described,
        "rows": clean,
        "summary": {},
    }
    if missing:
        content["missing"] = [dict(item) for item in missing]
    path = cohort / "evaluations" / f"{name}.json"
    validate("evaluation", content, path)
    check_anonymous(content, str(path))
    content["summary"] = summarise(clean, list(described))
    if path.exists() and not overwrite:
        raise ElementExistsError(f"{path}: there is an evaluation of this name. Choose another name.")
    columns = list(dict.fromkeys(key for row in clean for key in row))
    text = io.StringIO()
    table = csv.DictWriter(text, columns, lineterminator="\n")
    table.writeheader()
    table.writerows(clean)
    write_text_atomic(path.with_suffix(".csv"), text.getvalue())
    picture = path.with_suffix(".png")
    if figure is not None:
        write_bytes_atomic(picture, figure)
    else:
        picture.unlink(missing_ok=True)  # of an earlier evaluation of this name
    write_document(path, content)
    return path


def _plain(value: Any) -> Any:
    """Return a JSON value; numbers of numpy become Python's, and what is not finite is undefined."""
    if isinstance(value, np.generic):
        value = value.item()
    return None if isinstance(value, float) and not math.isfinite(value) else value


def _describe(
    rows: Sequence[Mapping[str, Any]], metrics: Mapping[str, Mapping[str, str]] | None, name: str
) -> dict[str, dict[str, str]]:
    """Return the metrics as described, or from `METRICS` for what the rows hold."""
    if metrics is not None:
        return {key: dict(value) for key, value in metrics.items()}
    found: dict[str, dict[str, str]] = {}
    for key in dict.fromkeys(key for row in rows for key in row if key not in _KEYS):
        if key in METRICS:
            found[key] = dict(METRICS[key])
        elif any(isinstance(row.get(key), float) for row in rows):
            known = ", ".join(METRICS)
            raise SchemaError(
                f"evaluation {name!r}: the metric {key!r} has no unit and direction. Give them in metrics=; "
                f"known without: {known}."
            )
    return found


def _reference(item: "Mapping[str, str] | Element") -> dict[str, str]:
    if isinstance(item, Mapping):
        return dict(item)
    return {"volume": item.volume_id, "path": item.path, "commit": item.commit}


def read_evaluations(cohort: AnyPath) -> dict[str, dict[str, Any]]:
    """Return all evaluations of a cohort by name."""
    found: dict[str, dict[str, Any]] = {}
    for path in sorted_glob(cohort / "evaluations", "*.json"):
        content = read_document(path)
        validate("evaluation", content, path)
        found[path.stem] = content
    return found
