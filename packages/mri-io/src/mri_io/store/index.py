"""The index: one row per volume in ``index.jsonl``. A cache for queries, never the truth (rule R2).

A query over ten thousand volumes is to take some milliseconds, so that rows are taken apart only as far as it asks:
lines as `build_index` writes them by a regular expression, their elements when they are looked at, others as JSON.
"""

import json
import re
from collections.abc import Callable, Iterator, Mapping, Sequence
from functools import lru_cache
from typing import Any

from mri_io.config import Config, validate_config
from mri_io.errors import ConfigError, SchemaError, StoreError
from mri_io.schema.validation import validate
from mri_io.store.cohort import Cohort
from mri_io.store.durable import write_text_atomic
from mri_io.store.remote.paths import AnyPath, sorted_glob
from mri_io.store.splits import Split, read_split

__all__ = ["IndexElement", "IndexRow", "build_index", "query_index", "read_index"]

_START = re.compile(rb'\{"id":"([^"\\]*)","subject":"([^"\\]*)","split":\{([^{}]*)\},"elements":(?=\{)')

_SHAPE = b'"shape":['
_REMEMBERED = 1024


class IndexElement(Config):
    """What the index says of one element."""

    shape: tuple[int, ...]
    dtype: str
    dims: tuple[str, ...]
    commit: str


class IndexRow:
    """What the index says of one volume.

    Attributes
    ----------
    id, subject
        The volume and its subject.
    split
        Name of a split to the part that the subject is in.
    """

    __slots__ = ("_stored", "_where", "id", "split", "subject")

    def __init__(
        self, id: str, subject: str, split: Mapping[str, str], elements: Mapping[str, Any] | bytes, where: AnyPath
    ) -> None:
        self.id, self.subject, self.split = id, subject, split
        self._stored, self._where = elements, where

    @property
    def elements(self) -> dict[str, IndexElement]:
        """The elements by path; StoreError when the line is damaged."""
        stored = self._stored
        if isinstance(stored, bytes):
            stored = self._stored = _json(stored, self._where)
        return {path: self._element(path, content) for path, content in stored.items()}

    def _element(self, path: str, content: Any) -> IndexElement:
        if not isinstance(content, dict):
            raise _unreadable(self._where, f"{self.id}: {path}: expected a mapping, got {content!r}")
        # Later minor versions may have further keys.
        known = {key: value for key, value in content.items() if key in IndexElement.model_fields}
        return validate_config(IndexElement, known, where=f"{self._where}: {self.id}: {path}")

    def has(self, element: str, shape: Sequence[int | None] | None = None) -> bool:
        """Whether the volume has an element, of this shape where one is given, None standing for any length.

        No more than that element is taken apart.
        """
        if isinstance(stored := self._stored, bytes) and (at := stored.find(_begin(element))) >= 0:
            if shape is None:
                return True
            start = stored.find(_SHAPE, at, stored.find(b"}", at)) + len(_SHAPE)
            fits = _text_fits(stored[start : stored.find(b"]", start)], tuple(shape))
            if start >= len(_SHAPE) and fits is not None:
                return fits
        whole = self.elements.get(element)
        return whole is not None and (shape is None or _fits(whole.shape, shape))

    def line(self) -> str:
        """Return the line of the index, without its end."""
        elements = {path: element.model_dump(mode="json") for path, element in self.elements.items()}
        row = {"id": self.id, "subject": self.subject, "split": self.split, "elements": elements}
        return json.dumps(row, separators=(",", ":"))

    def __repr__(self) -> str:
        """Return id and elements."""
        return f"<IndexRow {self.id}: {', '.join(self.elements)}>"


@lru_cache(_REMEMBERED)
def _begin(element: str) -> bytes:
    """Return how an element begins in a line of the index."""
    return f"{json.dumps(element)}:{{".encode()


@lru_cache(_REMEMBERED)
def _text_fits(text: bytes, wanted: tuple[int | None, ...]) -> bool | None:
    """Whether a shape as the index has it is the one that is wanted; None where it is not as `build_index` writes it.

    Many volumes have the same.
    """
    try:
        return _fits([int(length) for length in text.split(b",")], wanted)
    except ValueError:
        return None


def build_index(cohort: Cohort) -> list[IndexRow]:
    """Rebuild ``index.jsonl`` from the volumes and return its rows."""
    splits = [read_split(cohort, path.stem) for path in sorted_glob(cohort.path / "splits", "*.json")]
    rows = [_row(cohort, volume_id, splits) for volume_id in cohort.volume_ids()]
    write_text_atomic(cohort.path / "index.jsonl", "".join(row.line() + "\n" for row in rows))
    return rows


def _row(cohort: Cohort, volume_id: str, splits: list[Split]) -> IndexRow:
    volume = cohort[volume_id]
    parts: dict[str, str] = {split.name: part for split in splits if (part := split.part_of(volume.subject_id))}
    elements = {
        path: {"shape": element.shape, "dtype": str(element.dtype), "dims": element.dims, "commit": element.commit}
        for path, element in volume.elements().items()
    }
    return IndexRow(volume_id, volume.subject_id, parts, elements, volume.path)


def read_index(cohort: Cohort) -> list[IndexRow]:
    """Return the rows of the index; StoreError when there is none or it cannot be read."""
    return _rows(cohort, ())


def _rows(cohort: Cohort, words: Sequence[str]) -> list[IndexRow]:
    """Return the rows that hold all of these strings somewhere."""
    path: AnyPath = cohort.path / "index.jsonl"
    try:
        lines = path.read_bytes().splitlines()
    except FileNotFoundError:
        raise StoreError(f"{path}: there is no index. Build it: mri-cli index {cohort.path}") from None
    for word in words:
        quoted = json.dumps(word).encode()
        lines = [line for line in lines if quoted in line]
    splits: dict[bytes, dict[str, str]] = {}  # few differ
    rows = []
    for line in lines:
        if (found := _START.match(line)) and line.endswith(b"}}"):
            name, subject, parts = found.groups()
            elements = line[found.end() : -1]
            try:
                if parts not in splits:
                    splits[parts] = json.loads(b"{%s}" % parts)
                rows.append(IndexRow(name.decode(), subject.decode(), splits[parts], elements, path))
            except ValueError as error:
                raise _unreadable(path, f"not valid JSON: {error}") from None
        else:
            rows.append(_foreign_row(line, path))
    return rows


def _foreign_row(line: bytes, path: AnyPath) -> IndexRow:
    """Return the row of a line that is not as `build_index` writes it."""
    row = _json(line, path)
    try:
        validate("index-row", row, path)
    except SchemaError as error:
        raise _unreadable(path, str(error).removeprefix(f"{path}: ")) from None
    return IndexRow(row["id"], row["subject"], row.get("split", {}), row["elements"], path)


def _json(text: bytes, path: AnyPath) -> Any:
    try:
        return json.loads(text)
    except ValueError as error:
        raise _unreadable(path, f"not valid JSON: {error}") from None


def _unreadable(path: AnyPath, problem: str) -> StoreError:
    return StoreError(f"{path}: {problem}. Rebuild the index: mri-cli index {path.parent}")


def query_index(
    cohort: Cohort,
    *,
    subject: str | None = None,
    split: str = "default",
    part: str | None = None,
    element: str | None = None,
    shape: Sequence[int | None] | None = None,
    where: Callable[[IndexRow], bool] | None = None,
) -> Iterator[IndexRow]:
    """Yield the rows that fulfil every given condition.

    Parameters
    ----------
    subject, part
        The subject; the part of `split`.
    element, shape
        An element that must be present, and its shape, with None where any length will do.
    where
        Any further condition on the row.

    Raises
    ------
    ConfigError
        When `shape` is given without `element`.
    StoreError
        When there is no index or it cannot be read.
    """
    if shape is not None and element is None:
        raise ConfigError(f"shape: expected beside the element whose shape it is, got {shape} alone.")
    for row in _rows(cohort, [value for value in (subject, part, element) if value is not None]):
        if (
            (subject is None or row.subject == subject)
            and (part is None or row.split.get(split) == part)
            and (element is None or row.has(element, shape))
            and (where is None or where(row))
        ):
            yield row


def _fits(found: Sequence[int], wanted: Sequence[int | None]) -> bool:
    return len(found) == len(wanted) and all(w in (None, f) for f, w in zip(found, wanted, strict=True))
