"""Two processes that convert into one cohort at once."""

import os
from collections.abc import Iterator
from pathlib import Path

from tools.faults.cohorts import finished, write_sources, wrong
from tools.faults.kills import Row, fork

from mri_io import open_cohort
from mri_io.convert import convert

FILES = 8


def run(folder: Path, *, seed: int, number: int = 20) -> Iterator[Row]:
    """Let two processes convert halves of the files, then the same files, into a new cohort, again and again."""
    sources = write_sources(folder / "sources", FILES)
    reference = finished(sources, folder / "reference")
    for kind, shares in {
        "different files": (sources[::2], sources[1::2]),
        "the same files": (sources, sources[::-1]),
    }.items():
        defects: list[str] = []
        for attempt in range(number // 2):
            cohort = folder / f"{kind.split()[-2]}-{attempt}"
            children = [fork(lambda share=share, cohort=cohort: _convert(share, cohort)) for share in shares]
            codes = [os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) for child in children]
            opened = open_cohort(cohort)
            if len(opened) != FILES or any(codes):
                defects.append(f"{kind}: {len(opened)} volumes, exit {codes}")
            if opened.failures():
                defects.append(f"{kind}: failures {opened.failures()}")
            defects += wrong(opened, reference)
        outcome = f"both finished, {FILES} volumes each time, {len(defects)} wrong"
        yield f"two processes, {kind}", number // 2, outcome, defects


def _convert(share: list[Path], cohort: Path) -> None:
    summary = convert(share, cohort, progress=False)
    if not summary.ok:
        raise SystemExit(str(summary))
