"""Remove what killed writers left behind, and finish a replacement that a crash interrupted."""

import shutil
import time
from pathlib import Path

from mri_io.store.cohort import Cohort
from mri_io.store.commit import NODE, REPLACED, STAGING, TARGET, owner_is_alive, storage_errors
from mri_io.store.verification import verify

__all__ = ["collect_garbage"]

DAY = 86400.0


def collect_garbage(cohort: Cohort, *, dry_run: bool = False, older_than_s: float = DAY) -> list[Path]:
    """Remove staging directories of dead writers and nodes without ``zarr.json``.

    A staging directory whose writer runs on this machine is left alone, and so is one made by another machine
    within the last `older_than_s` seconds.

    Returns
    -------
    list of pathlib.Path
        What was removed, or would be.
    """
    removed = []
    for folder in verify(cohort, fast=True).orphans:
        if folder.parent.name == STAGING:
            alive = owner_is_alive(folder)
            recent = time.time() - folder.stat().st_mtime < older_than_s
            if alive or (alive is None and recent):
                continue
            if not dry_run:
                _finish_replacement(folder)
        if not dry_run:
            with storage_errors(folder):
                shutil.rmtree(folder)
        removed.append(folder)
    return removed


def _finish_replacement(folder: Path) -> None:
    """Complete the move of a replacing element whose writer died between the two renames."""
    record = folder / TARGET
    if not record.is_file() or not (folder / REPLACED).is_dir():
        return
    target = folder.parent / record.read_text(encoding="utf-8")
    source = folder / NODE if (folder / NODE / "zarr.json").is_file() else folder / REPLACED
    if not target.exists():
        source.rename(target)
