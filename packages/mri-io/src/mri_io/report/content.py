"""What the report shows, gathered from a cohort: pure data, no HTML."""

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from mri_io.evaluation_tables import summary_cell
from mri_io.store.cohort import Cohort
from mri_io.store.evaluations import summarise
from mri_io.store.volume import Volume

__all__ = ["Table", "VolumePanel", "evaluation_table", "provenance_rows", "volume_panel"]


@dataclass(frozen=True)
class Table:
    """A metric table: a title, what was compared, column heads, and rows of (text, is best)."""

    title: str
    caption: str
    columns: list[str]
    rows: list[list[tuple[str, bool]]]


@dataclass(frozen=True)
class VolumePanel:
    """The slice of a volume that is shown, by method."""

    volume: str
    subject: str
    slice: int
    images: dict[str, np.ndarray]
    reference: str | None
    labels: dict[str, np.ndarray | None]
    names: dict[int, str]
    notes: dict[str, str]


def evaluation_table(evaluation: Mapping[str, Any]) -> Table:
    """Turn a stored evaluation into a table of mean ± standard deviation over volumes; the best mean is marked."""
    metrics: Mapping[str, Mapping[str, str]] = evaluation["metrics"]
    rows: Sequence[Mapping[str, Any]] = evaluation["rows"]
    labels = list(dict.fromkeys(str(row["label"]) for row in rows if "label" in row))
    summary = evaluation["summary"]
    best = {}
    for metric, description in metrics.items():
        means = [
            values[metric]["mean"] for values in summary.values() if values.get(metric, {}).get("mean") is not None
        ]
        best[metric] = (max(means) if description["better"] == "higher" else min(means)) if means else None
    columns = ["method", *(["class"] if labels else [])]
    for metric, description in metrics.items():
        unit = f" [{description['unit']}]" if description["unit"] else ""
        columns.append(f"{metric}{unit} {'↑' if description['better'] == 'higher' else '↓'}")
    body: list[list[tuple[str, bool]]] = []
    for method, values in summary.items():
        cells = [(method, False), *([("all", False)] if labels else [])]
        cells += [(summary_cell(values[m]), values[m]["mean"] == best[m] and best[m] is not None) for m in metrics]
        body.append(cells)
        for label in labels:
            chosen = [row for row in rows if row["method"] == method and row.get("label") == label]
            per_label = summarise(chosen, list(metrics)).get(method)
            if per_label:
                body.append([("", False), (label, False), *((summary_cell(per_label[m]), False) for m in metrics)])
    volumes = len({row["volume_id"] for row in rows})
    subjects = len({row["subject_id"] for row in rows})
    settings = ", ".join(f"{k}: {v}" for k, v in evaluation["config"].items() if k != "methods" and v is not None)
    definitions = "; ".join(f"{metric}: {d['description']}" for metric, d in metrics.items())
    failed = len(evaluation.get("missing", ()))
    missing = f" {failed} more could not be measured." if failed else ""
    count = f"{volumes} volumes of {subjects} subjects.{missing}"
    caption = f"Mean ± standard deviation over {count} {settings}. {definitions}."
    return Table(evaluation["name"], caption, columns, body)


def volume_panel(
    cohort: Cohort, volume: Volume, position: int | None, notes: Mapping[tuple[str, str], str]
) -> VolumePanel | None:
    """Gather the middle (or the given) slice of every image, with the label map made from it; None without images.

    A label map belongs to the image that its provenance names; one without such an input, as those from files, is laid
    over the reference.
    """
    elements = volume.elements()
    images = [e for path, e in elements.items() if e.type in ("recon", "image")]
    if not images:
        return None
    paths = [e.path for e in images]
    reference = "recon/reference" if "recon/reference" in paths else None
    shape = elements[reference].shape if reference else images[0].shape
    images = sorted((e for e in images if e.shape == shape), key=lambda e: (e.path != reference, e.path))
    number = shape[0] // 2 if position is None else min(position, shape[0] - 1)
    segs = {path: e for path, e in elements.items() if e.type == "seg" and e.shape == shape}
    shown: dict[str, np.ndarray] = {}
    overlays: dict[str, np.ndarray | None] = {}
    names: dict[int, str] = {}
    captions: dict[str, str] = {}
    first = images[0].path
    for element in images:
        shown[element.path] = np.abs(element[number]).astype(np.float32)
        overlays[element.path] = None
        captions[element.path] = notes.get((volume.id, element.path), "")
    for element in segs.values():
        inputs = [item["path"] for item in element.provenance.get("inputs", [])]
        target = next((path for path in inputs if path in shown), None)
        target = target or (f"recon/{element.name}" if f"recon/{element.name}" in shown else None)
        if target is None and overlays[first] is None:
            target = first
        if target is not None and (overlays[target] is None or not inputs):
            overlays[target] = element[number]
            names |= {key: str(value["name"]) for key, value in element.labels.items()}
    return VolumePanel(volume.id, volume.subject_id, number, shown, reference, overlays, names, captions)


def provenance_rows(volume: Volume) -> list[dict[str, str]]:
    """Return one row per element: how it came about."""
    rows = []
    for path, element in volume.elements().items():
        made = element.provenance
        rows.append(
            {
                "path": path,
                "shape": " × ".join(f"{name} {size}" for name, size in zip(element.dims, element.shape, strict=True)),
                "method": str(made.get("method", "")),
                "package": f"{made.get('package', '')} {made.get('version', '')}",
                "inputs": ", ".join(f"{i['path']} ({i['commit'][:8]})" for i in made.get("inputs", [])),
                "config": json.dumps(made.get("config", {})),
                "weights": str(made.get("weights_sha256") or "")[:12],
                "commit": element.commit[:8],
                "created": str(made.get("created_utc", "")),
            }
        )
    return rows
