"""Descriptions of cohorts and volumes, as data and as tables for a person; the printing side of the commands."""

import json
import math
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from mri_io.errors import ConfigError, CorruptElementError, ElementNotFoundError, StoreError, expected_got
from mri_io.prep.progress import progress_report
from mri_io.prep.verification import verify_cohort
from mri_io.store.cohort import Cohort, open_cohort
from mri_io.store.element import Element
from mri_io.store.remote.paths import AnyPath, sorted_glob, store_path
from mri_io.store.removal import Removal
from mri_io.store.verification import VerifyReport, is_single, verify
from mri_io.store.volume import Volume, open_volume

__all__ = [
    "describe",
    "image_elements",
    "list_volumes",
    "print_description",
    "print_json",
    "print_listing",
    "print_removal",
    "print_statistics",
    "simulate_with_progress",
    "split_sizes",
    "verify_with_progress",
]


def _element(element: Element) -> dict[str, Any]:
    affine = element.affine
    made = element.provenance
    return {
        "path": element.path,
        "dims": dict(zip(element.dims, element.shape, strict=True)),
        "dtype": str(element.dtype),
        "stored_bytes": element.stored_bytes,
        "voxel_size_mm": None
        if affine is None
        else [round(float(v), 4) for v in np.linalg.norm(affine[:3, :3], axis=0)],
        "labels": {number: entry["name"] for number, entry in element.labels.items()},
        "method": made.get("method"),
        "package": f"{made.get('package')} {made.get('version')}",
        "created_utc": made.get("created_utc"),
        "inputs": [item["path"] for item in made.get("inputs", [])],
        "commit": element.commit,
    }


def _volume(volume: Volume) -> dict[str, Any]:
    source = volume.source
    return {
        "volume": volume.id,
        "subject": volume.subject_id,
        "source": None if source is None else source.model_dump(),
        "header": {k: v for k, v in volume.header.model_dump().items() if v is not None},
        "elements": [_element(element) for element in volume.elements().values()],
    }


def list_volumes(cohort: str | AnyPath) -> list[dict[str, Any]]:
    """Return id, subject, parts in splits, elements and bytes of every volume; of damaged ones id and ``damage``."""
    opened = open_cohort(cohort)
    splits = [opened.split(path.stem) for path in sorted_glob(opened.path / "splits", "*.json")]
    readable, damaged = _readable(opened)
    rows = [
        {
            "volume": volume.id,
            "subject": volume.subject_id,
            "split": {split.name: part for split in splits if (part := split.part_of(volume.subject_id))},
            "elements": list(elements),
            "bytes": sum(element.stored_bytes for element in elements.values()),
        }
        for volume, elements in readable
    ]
    unread = {"subject": "", "split": {}, "elements": [], "bytes": 0}
    rows += [{"volume": volume_id, **unread, "damage": problem} for volume_id, problem in damaged.items()]
    return sorted(rows, key=lambda row: str(row["volume"]))


def _readable(cohort: Cohort) -> tuple[list[tuple[Volume, dict[str, Element]]], dict[str, str]]:
    """Return the volumes with their elements, and by id what is damaged in those whose metadata cannot be read."""
    damaged: dict[str, str] = {}
    readable = []
    volumes = cohort.volumes(on_damage=lambda volume_id, error: damaged.update({volume_id: str(error)}))
    for volume in volumes:
        try:
            readable.append((volume, volume.elements()))
        except CorruptElementError as error:
            damaged[volume.id] = str(error)
    return readable, dict(sorted(damaged.items()))


def describe(path: str | AnyPath, volume: str | None = None) -> dict[str, Any]:
    """Describe a cohort, one of its volumes, or a volume by its own path."""
    folder = store_path(path)
    if volume is None and not (folder / "cohort.json").is_file() and (folder / "zarr.json").is_file():
        return _volume(open_volume(folder))
    opened = open_cohort(folder)
    if volume is not None:
        return _volume(opened[volume])
    return _cohort(opened)


def _cohort(cohort: Cohort) -> dict[str, Any]:
    kinds: dict[str, dict[str, Any]] = {}
    readable, damaged = _readable(cohort)
    for _, elements in readable:
        for path, element in elements.items():
            kind = kinds.setdefault(path, {"volumes": 0, "bytes": 0, "shapes": [], "dtype": str(element.dtype)})
            kind["volumes"] += 1
            kind["bytes"] += element.stored_bytes
            if element.shape not in kind["shapes"]:
                kind["shapes"].append(element.shape)
    return {
        **cohort.metadata,
        "path": str(cohort.path),
        "volumes": len(readable) + len(damaged),
        "subjects": len({volume.subject_id for volume, _ in readable}),
        "damaged": damaged,
        "splits": [path.stem for path in sorted_glob(cohort.path / "splits", "*.json")],
        "evaluations": [path.stem for path in sorted_glob(cohort.path / "evaluations", "*.json")],
        "failures": [{key: row.get(key) for key in ("item", "stage", "error")} for row in cohort.failures()],
        "elements": kinds,
    }


def clear_failures(cohort: Cohort, stage: str, *, dry_run: bool) -> None:
    """Remove the recorded failures of a stage, or list them only."""
    import typer

    found = [row for row in cohort.failures() if row.get("stage") == stage] if dry_run else cohort.clear_failures(stage)
    for row in found:
        typer.echo(f"{row.get('item')}: {row.get('error')}")
    typer.echo(f"{len(found)} {'would be ' if dry_run else ''}removed")


def print_json(content: Any) -> None:
    """Print JSON."""
    import typer

    typer.echo(json.dumps(content, indent=1, default=str))


def _table(title: str, columns: Sequence[str], rows: Sequence[Sequence[object]]) -> None:
    from rich.console import Console
    from rich.table import Table
    from rich.text import Text

    table = Table(title=Text(title), title_justify="left")
    for column in columns:
        table.add_column(column, overflow="fold", justify="right" if column in ("MB", "n") else "left")
    for row in rows:  # as Text: what others named may hold brackets and colons, which strings have read as markup
        table.add_row(*[Text(f"{cell:.2f}" if isinstance(cell, float) else str(cell)) for cell in row])
    # Without a terminal nothing limits the width, and other programs want whole words.
    Console(width=None if Console().is_terminal else 160).print(table)


def print_listing(rows: Sequence[Mapping[str, Any]]) -> None:
    """Print `list_volumes` as a table."""
    cells = [
        (
            row["volume"],
            row["subject"],
            ", ".join(f"{part} ({name})" for name, part in row["split"].items()),
            f"damaged: {row['damage']}" if "damage" in row else ", ".join(row["elements"]),
            f"{row['bytes'] / 1e6:.2f}",
        )
        for row in rows
    ]
    _table(f"{len(rows)} volumes", ("volume", "subject", "part", "elements", "MB"), cells)


def print_description(content: Mapping[str, Any]) -> None:
    """Print `describe` as tables."""
    import typer

    if "subject" not in content:
        for key in ("name", "path", "schema_version", "created", "license", "volumes", "subjects"):
            typer.echo(f"{key:>15}: {content[key]}")
        for volume_id, problem in content["damaged"].items():
            typer.echo(f"{'damaged':>15}: {volume_id}: {problem}")
        typer.echo(f"{'splits':>15}: {', '.join(content['splits']) or 'none'}")
        typer.echo(f"{'evaluations':>15}: {', '.join(content['evaluations']) or 'none'}")
        typer.echo(f"{'failures':>15}: {len(content['failures']) or 'none'}")
        for row in content["failures"]:
            typer.echo(f"{'':>17}{row['item']}: {row['stage']}: {row['error']}")
        kinds = sorted(content["elements"].items())
        summary = [
            (p, k["volumes"], " ".join(map(str, k["shapes"][:3])), k["dtype"], k["bytes"] / 1e6) for p, k in kinds
        ]
        _table("elements", ("element", "n", "shapes", "dtype", "MB"), summary)
        return
    typer.echo(f"{'volume':>15}: {content['volume']}\n{'subject':>15}: {content['subject']}")
    if content["source"]:
        source = content["source"]
        typer.echo(f"{'source':>15}: {source['uri']} ({source['format']}, sha256 {source['sha256'][:12]}...)")
    for key, value in content["header"].items():
        values = value if isinstance(value, tuple | list) else [value]
        typer.echo(f"{key:>15}: {', '.join(f'{v:.6g}' if isinstance(v, float) else str(v) for v in values)}")
    cells = []
    for element in content["elements"]:
        shape = ", ".join(f"{name} {size}" for name, size in element["dims"].items())
        voxel = " x ".join(f"{v:g}" for v in element["voxel_size_mm"]) if element["voxel_size_mm"] else ""
        labels = ", ".join(f"{number} {name}" for number, name in element["labels"].items())
        origin = f"{element['method']} ({element['package']})"
        if element["inputs"]:
            origin += " from " + ", ".join(element["inputs"])
        cells.append(
            (element["path"], shape, element["dtype"], voxel, labels, f"{element['stored_bytes'] / 1e6:.2f}", origin)
        )
    _table("elements", ("element", "shape", "dtype", "voxel (mm)", "labels", "MB", "made by"), cells)


def print_formats() -> None:
    """Print the table of formats that `convert` reads."""
    from mri_io.formats import format_names, get_format

    readers = [get_format(name) for name in format_names()]
    rows = [(r.name, r.summary, ", ".join(sorted(r.options | r.options_when_named))) for r in readers]
    _table("formats", ("format", "what is read", "options"), rows)


def print_steps() -> None:
    """Print the table of preparation steps that installed packages offer."""
    from mri_io.prep import get_step, step_names

    rows = []
    for name in step_names():
        try:
            step = get_step(name)
            rows.append((step.name, step.summary, ", ".join(step.options.model_fields)))
        except ConfigError as error:  # of one package; the others' steps are listed all the same
            rows.append((name, f"({error})", ""))
    _table("preparation steps", ("step", "what it does", "options (--set)"), rows)


def print_exporters() -> None:
    """Print the table of formats that `export` writes."""
    from mri_io.export import exporter_class, exporter_names

    rows = []
    for name in exporter_names():
        try:
            kind = exporter_class(name)
            rows.append((name, kind.summary, kind.gives, ", ".join(kind.parts), ", ".join(sorted(kind.options))))
        except ConfigError as error:  # of one package; the others' exporters are listed all the same
            rows.append((name, f"({error})", "", "", ""))
    columns = ("format", "what is written", "of each element", "parts of complex data", "options")
    _table("formats", columns, rows)


def print_statistics(content: Mapping[str, Any]) -> None:
    """Print what `compute_statistics` returns."""
    rows = [
        (path, f"{f['mean']:.6g}", f"{f['std']:.6g}", f"{f['p1']:.6g}", f"{f['p99']:.6g}", f["n"], f["volumes"])
        for path, f in content["fields"].items()
    ]
    title = f"training part of split {content['split']}"
    _table(title, ("element", "mean", "sd", "1st percentile", "99th percentile", "n", "volumes"), rows)


def split_sizes(train: float, val: float, test: float) -> dict[str, Any]:
    """Return the sizes of a split as `make_split` takes them: shares when they sum to 1 at most, else numbers.

    Raises
    ------
    ConfigError
        When a number of subjects is not whole, or no number.
    """
    sizes = (train, val, test)
    if not all(math.isfinite(size) for size in sizes):
        raise ConfigError(expected_got("sizes", expected="shares that sum to 1, or whole numbers", got=str(sizes)))
    if sum(sizes) <= 1 + 1e-6:
        return {"fractions": sizes}
    if any(size != int(size) for size in sizes):
        raise ConfigError(expected_got("sizes", expected="shares that sum to 1, or whole numbers", got=str(sizes)))
    return {"counts": [int(size) for size in sizes]}


def image_elements(cohort: Cohort, split: str) -> list[str]:
    """Return the paths of images and reconstructions of the training part of a split."""
    found = {path for volume in cohort.volumes(split, "train") for path in volume.elements()}
    images = sorted(path for path in found if path.partition("/")[0] in ("image", "recon"))
    if not images:
        raise ElementNotFoundError(
            f"{cohort.path}: the training part of split {split!r} has no images. Name other elements: --element"
        )
    return images


def print_removal(removal: Removal) -> None:
    """Print what was removed, and what was computed from it."""
    import typer

    named = f": {', '.join(removal.elements)}" if removal.elements else ""
    typer.echo(f"removed: {removal.volume}{named}")
    for path in removal.dependents:
        typer.echo(f"computed from it: {removal.volume} {path}")
    for name in removal.evaluations:
        typer.echo(f"measured on it: evaluation {name}")


def verify_with_progress(path: str | AnyPath, *, fast: bool, scheduler: str = "sync") -> VerifyReport:
    """Verify and report progress by volume; StoreError when there is nothing of a cohort or volume to verify."""
    folder = store_path(path)
    if not any((folder / name).exists() for name in ("cohort.json", "volumes", "zarr.json")) and not (
        folder.is_dir() and folder.suffix == ".zarr"
    ):
        raise StoreError(f"{folder}: there is no cohort here, nor a volume.")
    return verify(folder, fast=fast) if is_single(folder) else verify_cohort(folder, fast=fast, scheduler=scheduler)


def simulate_with_progress(simulate: Callable[..., list[Path]], out: Path, **options: Any) -> None:
    """Run a simulation, report progress, and say what was made."""
    import typer

    with progress_report(options["subjects"], "simulate") as advance:
        files = simulate(out, progress=lambda done, total: advance(str(done), False), **options)
    typer.echo(f"{len(files)} raw files in {out}, label maps in {out / 'labels'}")
