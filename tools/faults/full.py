"""A file system that is full: a real one of a few megabytes where one can be mounted, else an injected error."""

import os
import shutil
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from tools.faults.cohorts import finished, write_sources, wrong
from tools.faults.kills import Row

from mri_io import open_cohort
from mri_io.convert import convert
from mri_io.prep import PrepSummary
from mri_io.testing import full_disk

FILES = 6


def run(folder: Path, *, seed: int, number: int = 3) -> Iterator[Row]:
    """Convert until the disk is full, look at what is there, make room, and go on; `number` sizes of the disk."""
    sources = write_sources(folder / "sources", FILES)
    reference = finished(sources, folder / "reference")
    size = sources[0].stat().st_size
    outside = [sys.executable, "-m", "tools.faults.full", str(folder)]
    namespace = ["unshare", "--user", "--map-root-user", "--mount"]
    for number_of_disk in range(number):
        disk, room = folder / f"disk{number_of_disk}", int(size * (1.5 + 1.3 * number_of_disk))
        disk.mkdir()
        mounted = shutil.which("unshare") is not None
        if mounted:
            done = subprocess.run([*namespace, *outside, str(disk), str(room)], capture_output=True, text=True)
            mounted = done.returncode != 77 and "unshare" not in done.stderr.partition(":")[0]
        if mounted:
            defects = [line for line in done.stdout.splitlines() if line.startswith("DEFECT")]
            defects += [] if done.returncode == 0 else [done.stderr[-2000:]]
            outcome = done.stdout.splitlines()[-1] if done.stdout else ""
            kind = f"file system of {room / 1e6:.1f} MB full"
        else:
            with full_disk(room):
                first = convert(sources, disk / "c", progress=False)
            defects, outcome = _judge(first, disk / "c", reference)
            kind = f"no space after {room / 1e6:.1f} MB (injected)"
        yield kind, 1, outcome, defects


def _judge(first: PrepSummary, cohort: Path, reference: dict[str, Any]) -> tuple[list[str], str]:
    """Check what a full disk left; return defects and a line."""
    failures = [failure.error for failure in first.failures]
    defects = [f"unclear error: {error}" for error in failures if "full" not in error]
    opened = open_cohort(cohort)
    kept = len(opened)
    defects += wrong(opened, reference)
    if kept + len(failures) != FILES:
        defects.append(f"{kept} volumes and {len(failures)} failures of {FILES} files")
    if not failures:
        defects.append("nothing failed: the disk was not full")
    return defects, f"{kept} volumes intact, {len(failures)} named failures"


def _inside(folder: Path, disk: Path, room: int) -> int:
    """Do it on a file system of its own; 77 where none can be mounted."""
    if subprocess.run(["mount", "-t", "tmpfs", "-o", f"size={room}", "tmpfs", disk], capture_output=True).returncode:
        return 77
    sources = sorted((folder / "sources").glob("*.h5"))
    reference = finished(sources, folder / "reference")
    first = convert(sources, disk / "c", progress=False)
    defects, outcome = _judge(first, disk / "c", reference)
    subprocess.run(["mount", "-o", f"remount,size={100 * room}", disk], check=True)
    second = convert(sources, disk / "c", progress=False)
    opened = open_cohort(disk / "c")
    if not second.ok or len(opened) != FILES or opened.failures():
        defects.append(f"after room was made: {second}")
    defects += wrong(opened, reference)
    for defect in defects:
        print(f"DEFECT {defect}")
    print(f"{outcome}; after room was made all {len(opened)} volumes")
    return int(bool(defects))


if __name__ == "__main__":
    os._exit(_inside(Path(sys.argv[1]), Path(sys.argv[2]), int(sys.argv[3])))
