"""Remove what killed writers left behind, and finish a replacement that a crash interrupted."""

import re
import shutil
import time
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path

from mri_io.errors import CorruptElementError
from mri_io.store.cohort import Cohort
from mri_io.store.commit import finish_replacement, is_committed
from mri_io.store.durable import storage_errors
from mri_io.store.metadata import has_attributes
from mri_io.store.remote.garbage import collect_remote_garbage
from mri_io.store.remote.paths import AnyPath, StorePath
from mri_io.store.roots import holds_elements, lost_nodes, refresh_root
from mri_io.store.staging import STAGING, is_abandoned, staging

__all__ = ["collect_garbage"]

DAY = 86400.0
_TEMPORARY = re.compile(r"\..+\.[0-9a-f]{32}")


def collect_garbage(cohort: Cohort, *, dry_run: bool = False, older_than_s: float = DAY) -> list[AnyPath]:
    """Remove staging directories of dead writers, nodes without ``zarr.json`` and temporary files.

    Replacements that a crash interrupted are completed, and outdated copies of metadata in volumes' roots renewed.

    Never touches the staging directory of a living writer of this machine; one of another machine counts as abandoned
    when nothing in it has changed for `older_than_s` seconds. In an object store claims say whose a node is, and until
    when; a dry run compares with the clock of this machine, to write nothing. What lost its metadata by damage, rather
    than never had them, is left alone: `verify` tells of it.

    Returns
    -------
    list of paths
        What was removed, or would be.
    """
    if isinstance(cohort.path, StorePath):
        return list(collect_remote_garbage(cohort.path, dry_run=dry_run, older_than_s=older_than_s))
    volumes = cohort.path / "volumes"
    removed: list[Path] = []
    for folder in sorted((volumes / STAGING).glob("*")):
        if is_abandoned(folder, older_than_s):
            if not dry_run:
                finish_replacement(folder)
            removed.append(folder)
    removed += _orphans(volumes)
    for folder in (cohort.path, *(cohort.path / name for name in ("splits", "stats", "evaluations"))):
        removed += [path for path in sorted(folder.glob(".*")) if _is_stale(path, older_than_s)]
    for path in removed if not dry_run else ():
        with storage_errors(path), suppress(FileNotFoundError):
            shutil.rmtree(path) if path.is_dir() else path.unlink()
    if not dry_run:
        with staging(volumes) as temporary:
            for volume in sorted(volumes.glob("*.zarr")):
                if _lost(volume) == set():  # else the copy is what tells of the damage
                    refresh_root(volume, temporary)
    return list(removed)


def _orphans(volumes: Path) -> Iterator[Path]:
    """Yield volumes and elements that were never committed: directories without ``zarr.json``."""
    for volume in sorted(volumes.glob("*.zarr")):
        if not is_committed(volume):
            if not holds_elements(volume):
                yield volume
        elif (lost := _lost(volume)) is not None:
            yield from (folder for folder in _orphan_elements(volume) if folder not in lost)


def _lost(volume: Path) -> set[Path] | None:
    """Return the folders of a volume that lost their metadata, None when its own are damaged and cannot tell."""
    try:
        return {volume / path for path in lost_nodes(volume)}
    except CorruptElementError:
        return None


def _orphan_elements(group: Path) -> Iterator[Path]:
    for folder in sorted(child for child in group.iterdir() if child.is_dir()):
        if is_committed(folder):
            if not has_attributes(folder) and not (folder / "c").exists():
                yield from _orphan_elements(folder)
        elif not holds_elements(folder):
            # With elements below, it is a group that lost its own metadata: damage, which `verify` tells of.
            yield folder


def _is_stale(path: Path, older_than_s: float) -> bool:
    if not (_TEMPORARY.fullmatch(path.name) and path.is_file()):
        return False
    return time.time() - path.stat().st_mtime > older_than_s
