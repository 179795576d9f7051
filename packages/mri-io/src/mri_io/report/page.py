"""Assemble the page."""

import base64
from collections.abc import Sequence
from importlib.metadata import version
from importlib.resources import files
from pathlib import Path
from typing import Any

from mri_io.errors import ConfigError, MissingPackageError, expected_got
from mri_io.report.content import VolumePanel, evaluation_table, provenance_rows, volume_panel
from mri_io.report.curves import read_curves
from mri_io.report.figures import LABEL_COLOURS, comparison_figure, curves_figure, png_bytes
from mri_io.schema.attributes import now_utc
from mri_io.store.cohort import Cohort, open_cohort
from mri_io.store.commit import write_text_atomic
from mri_io.store.volume import Volume

__all__ = ["write_report"]

MOST_PANELS = 6


def write_report(
    cohort: str | Path | Cohort,
    out: str | Path,
    *,
    volumes: Sequence[str] | None = None,
    slice: int | None = None,
) -> Path:
    """Write one self-contained HTML page about a cohort.

    It shows the volumes, some of them as pictures (methods side by side, error maps at one scale, label overlays), the
    metric tables of all evaluations, the training curves of ``runs/*``, and how each element came about.

    Parameters
    ----------
    cohort
        The cohort.
    out
        The HTML file.
    volumes
        Ids of the volumes shown as pictures; by default up to six, those of the test part first.
    slice
        Which slice, counted from 0; by default the middle one. Of volumes with fewer the last one.

    Returns
    -------
    pathlib.Path
        `out`.

    Raises
    ------
    MissingPackageError
        Without matplotlib or jinja2.
    ConfigError
        For a negative slice.
    """
    if slice is not None and slice < 0:
        raise ConfigError(expected_got("slice", expected="a number from 0", got=slice))
    try:
        import jinja2
        import matplotlib  # noqa: F401
    except ImportError as error:
        raise MissingPackageError(
            "The report needs matplotlib and jinja2. Install them: pip install 'mri-io[report]'"
        ) from error
    opened = cohort if isinstance(cohort, Cohort) else open_cohort(cohort)
    every = opened.volumes()
    parts = _parts(opened)
    chosen = [opened[v] for v in volumes] if volumes else _choose(every, parts)
    notes = _notes(opened)
    panels = [p for v in chosen if (p := volume_panel(opened, v, slice, notes)) is not None]
    runs = read_curves(opened.path / "runs") if isinstance(opened.path, Path) else {}
    template = jinja2.Environment(autoescape=True, undefined=jinja2.StrictUndefined, trim_blocks=True).from_string(
        files("mri_io.report").joinpath("page.html").read_text(encoding="utf-8")
    )
    html = template.render(
        cohort=opened.metadata,
        path=str(opened.path),
        made=f"{now_utc()} by mri-io {version('mri-io')}",
        volumes=[_volume_row(v, parts) for v in every],
        panels=[_panel(panel) for panel in panels],
        left_out=len(every) - len(panels),
        tables=[evaluation_table(evaluation) for evaluation in opened.evaluations().values()],
        curves=_image(curves_figure(runs)) if runs else "",
        runs=", ".join(runs),
        provenance=[(v.id, provenance_rows(v)) for v in chosen],
        failures=opened.failures(),
    )
    path = Path(out)
    write_text_atomic(path, html)
    return path


def _parts(cohort: Cohort) -> dict[str, str]:
    """Return the part of each subject in the default split, if there is one."""
    if not (cohort.path / "splits" / "default.json").is_file():
        return {}
    split = cohort.split()
    return {subject: part for part in ("train", "val", "test") for subject in split.subjects(part)}


def _choose(volumes: Sequence[Volume], parts: dict[str, str]) -> list[Volume]:
    order = {"test": 0, "val": 1, "train": 2}
    return sorted(volumes, key=lambda v: order.get(parts.get(v.subject_id, ""), 3))[:MOST_PANELS]


def _notes(cohort: Cohort) -> dict[tuple[str, str], str]:
    """Return a short text of metrics per volume and reconstruction."""
    notes = {}
    for evaluation in cohort.evaluations().values():
        if evaluation["task"] == "recon":
            for row in evaluation["rows"]:
                shown = [(row.get("psnr"), "{:.1f} dB"), (row.get("ssim"), "SSIM {:.3f}")]
                text = ", ".join(form.format(value) for value, form in shown if value is not None)
                notes[row["volume_id"], row["method"]] = text
    return notes


def _volume_row(volume: Volume, parts: dict[str, str]) -> dict[str, Any]:
    elements = volume.elements()
    return {
        "id": volume.id,
        "subject": volume.subject_id,
        "part": parts.get(volume.subject_id, ""),
        "elements": ", ".join(elements),
        "megabytes": f"{sum(e.stored_bytes for e in elements.values()) / 1e6:.1f}",
        "source": volume.source.uri if volume.source else "",
    }


def _panel(panel: VolumePanel) -> dict[str, Any]:
    figure = comparison_figure(panel.images, panel.reference, panel.labels, panel.notes)
    legend = [(LABEL_COLOURS[(n - 1) % len(LABEL_COLOURS)], name) for n, name in sorted(panel.names.items())]
    return {
        "volume": panel.volume,
        "subject": panel.subject,
        "slice": panel.slice,
        "image": _image(figure),
        "alt": f"Slice {panel.slice} of {panel.volume}: {', '.join(panel.images)}",
        "legend": legend,
        "has_error": panel.reference is not None,
    }


def _image(figure: Any) -> str:
    return "data:image/png;base64," + base64.b64encode(png_bytes(figure)).decode()
