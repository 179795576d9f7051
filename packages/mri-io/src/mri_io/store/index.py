"""The index: one row per volume in ``index.jsonl``. A cache for queries, never the truth (rule R2)."""

import json
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

from pydantic import Field

from mri_io.config import Config, validate_config
from mri_io.errors import SchemaError, StoreError
from mri_io.schema.validation import validate
from mri_io.store.cohort import Cohort
from mri_io.store.durable import write_text_atomic
from mri_io.store.splits import Split, read_split

__all__ = ["IndexElement", "IndexRow", "build_index", "query_index", "read_index"]


class IndexElement(Config):
    """What the index says of one element."""

    shape: tuple[int, ...]
    dtype: str
    dims: tuple[str, ...]
    commit: str


class IndexRow(Config):
    """What the index says of one volume."""

    id: str
    subject: str
    split: dict[str, str] = Field(default_factory=dict)
    elements: dict[str, IndexElement] = Field(default_factory=dict)


def build_index(cohort: Cohort) -> list[IndexRow]:
    """Rebuild ``index.jsonl`` from the volumes and return its rows."""
    splits = [read_split(cohort, path.stem) for path in sorted((cohort.path / "splits").glob("*.json"))]
    rows = [_row(cohort, volume_id, splits) for volume_id in cohort.volume_ids()]
    text = "".join(row.model_dump_json() + "\n" for row in rows)
    write_text_atomic(cohort.path / "index.jsonl", text)
    return rows


def _row(cohort: Cohort, volume_id: str, splits: list[Split]) -> IndexRow:
    volume = cohort[volume_id]
    parts: dict[str, str] = {split.name: part for split in splits if (part := split.part_of(volume.subject_id))}
    elements = {
        path: IndexElement(shape=element.shape, dtype=str(element.dtype), dims=element.dims, commit=element.commit)
        for path, element in volume.elements().items()
    }
    return IndexRow(id=volume_id, subject=volume.subject_id, split=parts, elements=elements)


def read_index(cohort: Cohort) -> list[dict[str, Any]]:
    """Return the rows of the index as plain mappings; StoreError when there is none or it is torn."""
    path: Path = cohort.path / "index.jsonl"
    try:
        rows = [json.loads(line) for line in path.read_bytes().splitlines()]
    except FileNotFoundError:
        raise StoreError(f"{path}: there is no index. Build it: mri-cli index {cohort.path}") from None
    except ValueError as error:
        raise StoreError(f"{path}: not valid JSON: {error}. Rebuild it: mri-cli index {cohort.path}") from None
    for row in rows:
        try:
            validate("index-row", row, path)
        except SchemaError as error:
            raise StoreError(f"{error}\nRebuild the index: mri-cli index {cohort.path}") from None
    return rows


def query_index(
    cohort: Cohort,
    *,
    subject: str | None = None,
    split: str = "default",
    part: str | None = None,
    element: str | None = None,
    shape: tuple[int | None, ...] | None = None,
    where: Callable[[dict[str, Any]], bool] | None = None,
) -> Iterator[IndexRow]:
    """Yield the rows that fulfil every given condition.

    Parameters
    ----------
    subject, part
        The subject; the part of `split`.
    element, shape
        An element that must be present, and its shape, with None where any length will do.
    where
        Any further condition on the row as a plain mapping.
    """
    for row in read_index(cohort):
        found = row["elements"].get(element) if element else None
        if (
            (subject is None or row["subject"] == subject)
            and (part is None or row.get("split", {}).get(split) == part)
            and (element is None or found is not None)
            and (shape is None or (found is not None and _fits(found["shape"], shape)))
            and (where is None or where(row))
        ):
            yield validate_config(IndexRow, _known(row), where=f"{cohort.path / 'index.jsonl'}")


def _known(row: dict[str, Any]) -> dict[str, Any]:
    """Return a row without the keys of later minor versions."""
    elements = {
        path: {key: value for key, value in element.items() if key in IndexElement.model_fields}
        for path, element in row["elements"].items()
    }
    return {**{key: value for key, value in row.items() if key in IndexRow.model_fields}, "elements": elements}


def _fits(found: list[int], wanted: tuple[int | None, ...]) -> bool:
    return len(found) == len(wanted) and all(w in (None, f) for f, w in zip(found, wanted, strict=True))
