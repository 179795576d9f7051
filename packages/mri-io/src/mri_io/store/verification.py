"""Check a cohort or a volume: every byte, or quickly nodes, sizes and shard indices. Never raises for bad data."""

import json
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal

import numpy as np

from mri_io.errors import CorruptElementError, MriError, SchemaError, VersionError
from mri_io.schema.elements import ELEMENT_TYPES
from mri_io.schema.validation import validate
from mri_io.store.checks import check_affine, check_labels_declared, check_siblings
from mri_io.store.cohort import Cohort
from mri_io.store.commit import STAGING
from mri_io.store.element import DATA, Element, read_attributes
from mri_io.store.shards import MappedShard
from mri_io.store.volume import Volume, check_version

__all__ = ["Problem", "VerifyReport", "verify"]

Kind = Literal["checksum", "missing", "metadata", "schema", "version", "orphan", "cache"]


@dataclass(frozen=True)
class Problem:
    """One thing that is wrong, where, and what to do."""

    volume: str
    element: str
    kind: Kind
    message: str


@dataclass
class VerifyReport:
    """What was looked at and what is wrong.

    Orphans (left by killed writers, invisible to readers) are listed apart: they are no damage.
    """

    problems: list[Problem] = field(default_factory=list)
    orphans: list[Path] = field(default_factory=list)
    volumes: int = 0
    elements: int = 0
    bytes: int = 0

    @property
    def ok(self) -> bool:
        """Whether no committed data are damaged."""
        return not self.problems


def verify(
    target: Cohort | Volume | str | Path,
    *,
    fast: bool = False,
    progress: Callable[[str, int], None] | None = None,
) -> VerifyReport:
    """Check everything that is committed.

    Parameters
    ----------
    target
        A cohort or a volume, open or as a path.
    fast
        Check metadata, presence and sizes of chunks and the shard indices, without reading the data.
    progress
        Called with the volume id and the bytes read after each element.

    Returns
    -------
    VerifyReport
    """
    report = VerifyReport()
    path = target.path if isinstance(target, Cohort | Volume) else Path(target)
    cohort_file = path / "cohort.json"
    if not cohort_file.is_file() and (path / "zarr.json").is_file():
        _verify_volume(path, report, fast=fast, progress=progress)
        return report
    _verify_json(cohort_file, "cohort", report)
    for file in sorted((path / "splits").glob("*.json")):
        _verify_json(file, "split", report)
    for file in sorted((path / "evaluations").glob("*.json")):
        _verify_json(file, "evaluation", report)
    for folder in sorted((path / "volumes").glob("*.zarr")):
        if (folder / "zarr.json").is_file():
            _verify_volume(folder, report, fast=fast, progress=progress)
        else:
            report.orphans.append(folder)
    report.orphans.extend(sorted((path / "volumes" / STAGING).glob("*")))
    return report


def _verify_json(path: Path, schema: str, report: VerifyReport) -> None:
    try:
        content = json.loads(path.read_bytes())
        if schema == "cohort":
            check_version(content.get("schema_version"), path)
        validate(schema, content, path)
    except (OSError, ValueError, AttributeError, MriError) as error:
        kind: Kind = "version" if isinstance(error, VersionError) else "metadata"
        report.problems.append(Problem("", path.name, kind, f"{path}: {error}"))


def _verify_volume(
    folder: Path, report: VerifyReport, *, fast: bool, progress: Callable[[str, int], None] | None
) -> None:
    volume_id = folder.name.removesuffix(".zarr")

    def problem(element: str, kind: Kind, error: object) -> None:
        report.problems.append(Problem(volume_id, element, kind, str(error)))

    report.volumes += 1
    try:
        attributes = read_attributes(folder)
        if attributes is None:
            raise CorruptElementError(f"{folder}/zarr.json: expected a group with attributes 'mri'.")
        check_version(attributes.get("schema_version"), folder)
        validate("volume", attributes, folder)
        if attributes["volume_id"] != volume_id:
            raise SchemaError(f"{folder}: its attributes name another volume, {attributes['volume_id']!r}.")
    except (MriError, OSError, ValueError) as error:
        problem("", "version" if isinstance(error, VersionError) else "metadata", error)
    elements: dict[str, Element] = {}
    for group, path in _walk(folder, report, problem):
        try:
            found = read_attributes(group) or {}
            if found.get("type") not in ELEMENT_TYPES:
                if "type" not in found:
                    problem(path, "metadata", f"{group}: expected an element type in its attributes.")
                continue
            validate("element", found, group)
            elements[path] = Element(group, path, volume_id, found)
        except (MriError, OSError, ValueError) as error:
            problem(path, "version" if isinstance(error, VersionError) else "metadata", error)
    for path, element in elements.items():
        report.elements += 1
        try:
            read = _verify_element(element, elements, fast=fast)
            report.bytes += read
            if progress is not None:
                progress(volume_id, read)
        except CorruptElementError as error:
            problem(path, "missing" if "found no file" in str(error) else "checksum", error)
        except (MriError, OSError, ValueError) as error:
            problem(path, "schema", error)
        except Exception as error:  # whatever garbage does to a decoder is a finding, not a crash
            problem(path, "checksum", f"{element.folder}: cannot be read: {error!r}")


def _walk(
    folder: Path, report: VerifyReport, problem: Callable[[str, Kind, object], None]
) -> Iterator[tuple[Path, str]]:
    """Yield committed groups; note orphans, and groups whose metadata cannot be read."""
    pending = sorted(child for child in folder.iterdir() if child.is_dir() and not child.name.startswith("."))
    while pending:
        group = pending.pop(0)
        path = group.relative_to(folder).as_posix()
        if not (group / "zarr.json").is_file():
            # Data below a group without metadata: an orphan of an element, or the damage of a parent group.
            nested = any(group.rglob("zarr.json")) and path in ELEMENT_TYPES and ELEMENT_TYPES[path].named
            if nested:
                problem(path, "missing", f"{group}/zarr.json: expected a group, found no file.")
            else:
                report.orphans.append(group)
                continue
        try:
            content = json.loads((group / "zarr.json").read_bytes()) if (group / "zarr.json").is_file() else {}
            if content and (content.get("node_type") != "group" or content.get("zarr_format") != 3):
                raise ValueError("expected the metadata of a zarr v3 group")
            attributes = content.get("attributes", {})
            if (group / DATA).is_dir() or attributes.get("mri") is not None:
                if "mri" not in attributes:
                    raise ValueError("expected attributes 'mri'")
                yield group, path
                continue
        except (OSError, ValueError, AttributeError, TypeError) as error:
            problem(path, "metadata", f"{group}/zarr.json: {error}")
            continue
        pending.extend(sorted(child for child in group.iterdir() if child.is_dir()))


def _verify_element(element: Element, siblings: dict[str, Element], *, fast: bool) -> int:
    """Check one element and return the number of bytes of its files; raise what is wrong."""
    kind = ELEMENT_TYPES[element.type]
    where = str(element.folder)
    data = element.arrays.get(DATA)
    if data is None:
        raise CorruptElementError(f"{element.folder / DATA}/zarr.json: expected an array, found no file.")
    kind.check_array(data.shape, data.dtype, data.dims, where)
    if element.affine is not None:
        check_affine(element.affine, where)
    others = {path: other for path, other in siblings.items() if path != element.path}
    check_siblings(kind, data.shape, data.dims, element.affine, others, where)
    _check_layout(element, data.zarr())
    if data.is_mapped:
        _verify_shards(element, fast=fast)
    else:
        _verify_chunks(element, fast=fast)
    return element.stored_bytes


def _check_layout(element: Element, array: Any) -> None:
    """Compare chunks, codecs and fill value with what this type is written with."""
    from zarr.core.metadata import ArrayV3Metadata

    from mri_io.store.arrays import array_metadata

    kind = ELEMENT_TYPES[element.type]
    found: ArrayV3Metadata = array.metadata
    expected = array_metadata(kind, element.shape, element.dtype, element.dims)
    for key, value in expected.items():
        if key != "attributes" and found.to_dict().get(key) != value:
            raise CorruptElementError(
                f"{element.folder / DATA}/zarr.json: {key}: expected {value}, got {found.to_dict().get(key)}."
            )


def _verify_shards(element: Element, *, fast: bool) -> None:
    kind = ELEMENT_TYPES[element.type]
    per_shard = kind.shards(element.shape, element.dtype.itemsize)[0]
    zeros = ["0"] * (len(element.shape) - 1)
    for first in range(0, element.shape[0], per_shard):
        path = element.folder.joinpath(DATA, "c", str(first // per_shard), *zeros)
        if not path.is_file():
            raise CorruptElementError(f"{path}: expected a shard, found no file.")
        shard = MappedShard(path, per_shard, element.shape[1:], element.dtype)
        for number in range(min(per_shard, element.shape[0] - first)):
            chunk = shard.chunk(number, check=not fast)
            if not fast and not np.isfinite(chunk).all():
                raise SchemaError(f"{path}: chunk {number}: expected finite values, got NaN or infinity.")
        shard.check_size(min(per_shard, element.shape[0] - first))


def _verify_chunks(element: Element, *, fast: bool) -> None:
    kind = ELEMENT_TYPES[element.type]
    step = element.shape[0] if kind.whole else kind.shards(element.shape, element.dtype.itemsize)[0]
    zeros = ["0"] * (len(element.shape) - 1)
    for first in range(0, element.shape[0], step):
        path = element.folder.joinpath(DATA, "c", str(first // step), *zeros)
        if not path.is_file() or path.stat().st_size == 0:
            raise CorruptElementError(f"{path}: expected a chunk, found no file or an empty one.")
    if fast:
        return
    for index in range(element.shape[0]):
        block = element[index] if not kind.whole else element.numpy()
        if kind.labelled:
            check_labels_declared(block, element.attributes["labels"], str(element.folder))
        if kind.finite and block.dtype.kind in "fc" and not np.isfinite(block).all():
            raise SchemaError(f"{element.folder}: slice {index}: expected finite values, got NaN or infinity.")
        if kind.whole:
            return
