"""Bring the metadata of a cohort that an older release wrote to the present version, in place.

Data and commits are kept. What each version changed is a pure function of attributes: `mri_io.schema.readers.STEPS` for
elements, `VOLUME_STEPS` and `COHORT_STEPS` for the rest. Every file is written beside its place and renamed: of a
killed migration each node is either old or new, and both can be read; the next run does the rest. The version of a
volume follows those of its elements, that of the cohort those of its volumes.
"""

import os
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from mri_io.errors import ConfigError, VersionError, expected_got
from mri_io.schema.elements import SCHEMA_VERSION
from mri_io.schema.readers import (
    COHORT_STEPS,
    VOLUME_STEPS,
    check_version,
    is_known,
    read_current,
    read_current_root,
    version_number,
)
from mri_io.schema.validation import validate
from mri_io.store.cohort import Cohort, open_cohort
from mri_io.store.damage import DamageError
from mri_io.store.documents import read_document, write_document
from mri_io.store.durable import flush_folder, storage_errors
from mri_io.store.metadata import Node, group_text, read_node
from mri_io.store.remote.paths import StorePath, is_url, store_path
from mri_io.store.roots import changing_root, write_root
from mri_io.store.staging import staging

__all__ = ["Change", "MigrationReport", "migrate"]


@dataclass(frozen=True)
class Change:
    """What was, or would be, rewritten, from which version to which; `element` is empty for a volume."""

    volume: str
    element: str
    before: str
    after: str

    def __str__(self) -> str:
        """Return the line that the command prints."""
        name = " ".join(part for part in (self.volume, self.element) if part) or "cohort.json"
        return f"{name}: {self.before} -> {self.after}"


@dataclass
class MigrationReport:
    """What a migration did, or with `dry_run` would do."""

    dry_run: bool = False
    changes: list[Change] = field(default_factory=list)
    volumes: int = 0

    def __str__(self) -> str:
        """Return the summary that the command prints."""
        elements = sum(bool(change.element) for change in self.changes)
        changed = sum(bool(change.volume and not change.element) for change in self.changes)
        would = "would be " if self.dry_run else ""
        some = f"{elements} element{'' if elements == 1 else 's'}"
        return f"{changed} of {self.volumes} volumes and {some} {would}brought to version {SCHEMA_VERSION}"


def migrate(cohort: str | Path | Cohort, *, dry_run: bool = False) -> MigrationReport:
    """Bring the metadata of a cohort to the present version of the store.

    Everything is looked at before anything is changed. Elements of types that this release does not know stay as they
    are. Those who read meanwhile may have to open an element again.

    Parameters
    ----------
    cohort
        The cohort or its folder.
    dry_run
        Only report what would be done.

    Raises
    ------
    VersionError
        When anything in it is newer than this release; nothing has been changed then.
    CorruptElementError
        When metadata are damaged, or were edited under their seal; nothing has been changed then.
    ConfigError
        For a cohort in an object store.
    """
    place = cohort.path if isinstance(cohort, Cohort) else cohort
    if isinstance(place, StorePath) or is_url(place):
        fix = "Copy the cohort to a local disk, migrate the copy, and copy it back."
        raise ConfigError(expected_got("migrate", expected="a cohort on a local disk", got=store_path(place), fix=fix))
    opened = open_cohort(place)
    folder = Path(str(opened.path))
    document = folder / "cohort.json"
    _refuse_newer(read_document(document).get("schema_version"), folder)
    volumes = [folder / "volumes" / f"{volume_id}.zarr" for volume_id in opened.volume_ids()]
    plans = [_plan(volume) for volume in volumes]
    report = MigrationReport(dry_run, volumes=len(volumes))
    for volume, planned in zip(volumes, plans, strict=True):
        changes = planned if dry_run or not planned else _migrate_volume(volume)
        report.changes += changes
    report.changes += _migrate_document(document, dry_run=dry_run)
    return report


def _refuse_newer(version: object, where: Path) -> None:
    check_version(version, where)
    if version_number(str(version)) > version_number(SCHEMA_VERSION):
        raise VersionError(
            f"{where}: written with store version {version}, newer than {SCHEMA_VERSION}, to which this release of "
            "mri-io migrates. Upgrade it: pip install --upgrade mri-io"
        )


def _root(volume: Path) -> dict[str, Any]:
    node = read_node(volume, root=True)
    if node is None or node.mri is None:
        raise DamageError(f"{volume}/zarr.json: expected the metadata of a volume.", "metadata")
    _refuse_newer(node.mri.get("schema_version"), volume)
    return node.mri


def _elements(volume: Path) -> dict[str, Node]:
    """Return the elements of known types of a volume, by path, of whatever version."""
    found: dict[str, Node] = {}
    pending = [volume]
    while pending:
        for folder in sorted(child for child in pending.pop().iterdir() if child.is_dir()):
            node = None if folder.name.startswith(".") else read_node(folder)
            if node is None:
                continue
            if node.mri is None:
                pending.append(folder)
            elif is_known(node.mri):
                found[folder.relative_to(volume).as_posix()] = node
    return dict(sorted(found.items()))


def _plan(volume: Path) -> list[Change]:
    """Return what is to be done in a volume; raise what stands against it."""
    root, changes = _root(volume), []
    for path, node in _elements(volume).items():
        _, change = _of_element(volume, path, node)
        changes += [change] if change else []
    before = str(root["schema_version"])
    if before != SCHEMA_VERSION:
        validate("volume", read_current_root(root, VOLUME_STEPS, volume), volume)
        changes.append(Change(volume.name.removesuffix(".zarr"), "", before, SCHEMA_VERSION))
    return changes


def _of_element(volume: Path, path: str, node: Node) -> tuple[dict[str, Any], Change | None]:
    """Return the attributes of an element in the present version, and what changes."""
    stored = node.mri or {}
    current = read_current(stored, volume / path)
    before, after = stored["type_version"], current["type_version"]
    if before == after:
        return current, None
    validate("element", current, volume / path)
    kind = str(current["type"])
    return current, Change(volume.name.removesuffix(".zarr"), path, f"{kind} {before}", f"{kind} {after}")


def _migrate_volume(volume: Path) -> list[Change]:
    """Rewrite the nodes of a volume that are old, its root last, under the volume's lock."""
    done = []
    with staging(volume.parent) as folder, storage_errors(volume), changing_root(volume, folder, loses=True):
        for path, node in _elements(volume).items():  # as they are now that nobody else changes the volume
            attributes, change = _of_element(volume, path, node)
            if change is not None:
                _rewrite(volume / path, attributes, node, folder)
                done.append(change)
        root = _root(volume)
        before = str(root["schema_version"])
        if before != SCHEMA_VERSION:
            write_root(volume, read_current_root(root, VOLUME_STEPS, volume), folder)
            done.append(Change(volume.name.removesuffix(".zarr"), "", before, SCHEMA_VERSION))
    return done


def _rewrite(element: Path, attributes: Mapping[str, Any], node: Node, temporary: Path) -> None:
    """Put new attributes of an element into the place of the old ones in one step."""
    arrays = {name: (element / name / "zarr.json").read_bytes() for name in node.arrays}
    new = temporary / "element.json"
    with new.open("wb") as file:
        file.write(group_text(attributes, arrays).encode())
        file.flush()
        os.fsync(file.fileno())
    new.replace(element / "zarr.json")
    flush_folder(element)


def _migrate_document(path: Path, *, dry_run: bool) -> list[Change]:
    content = read_document(path)  # a new seal must not hide damage
    before = str(content["schema_version"])
    if before == SCHEMA_VERSION:
        return []
    current = read_current_root(content, COHORT_STEPS, path)
    validate("cohort", current, path)
    if not dry_run:
        write_document(path, current)
    return [Change("", "", before, SCHEMA_VERSION)]
