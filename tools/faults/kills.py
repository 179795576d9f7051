"""SIGKILL at random moments of conversion, calibration and writes of embeddings."""

import os
import random
import shutil
import signal
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import torch
from tools.faults.cohorts import finished, work, write_sources, wrong

from mri_io import open_cohort

Row = tuple[str, object, str, list[str]]
BEFORE = {"convert": (), "calibrate": ("convert",), "embed": ("convert",)}
FILES = 16
ELEMENTS = {"convert": 1, "calibrate": 2, "embed": 3}
"""Of a volume once the work is done."""


def fork(function: Callable[[], None]) -> int:
    """Run a function in a child, which has everything imported already; return its process number."""
    process = os.fork()
    if process:
        return process
    code = 1
    try:
        function()
        code = 0
    except SystemExit as error:
        os.write(2, f"{error}\n".encode())
    finally:
        os._exit(code)


def run(folder: Path, *, seed: int, number: int = 120) -> Iterator[Row]:
    """Kill `number` writers, a third of each kind; look at what is visible after each, and let the last one finish."""
    torch.set_num_threads(1)  # threads do not survive a fork
    rng = random.Random(seed)
    sources = write_sources(folder / "sources", FILES)
    reference = finished(sources, folder / "reference")
    for kind, before in BEFORE.items():
        start_from = folder / f"{kind}-start"
        for earlier in before:
            work(earlier, sources, start_from)
        defects: list[str] = []
        cohort = folder / kind
        killed = amid = visible = complete = 0
        begun = there = FILES * len(before)
        expected = ELEMENTS[kind] * FILES
        duration = _duration(kind, sources, start_from, folder / "timed")
        while killed < number // 3:
            if start_from.exists() and not cohort.exists():
                shutil.copytree(start_from, cohort)
            child = fork(lambda kind=kind, cohort=cohort: work(kind, sources, cohort))
            time.sleep(rng.uniform(0, 1.1 * duration))
            os.kill(child, signal.SIGKILL)
            _, status = os.waitpid(child, 0)
            ended = os.WIFSIGNALED(status)
            killed += ended
            if not ended and os.waitstatus_to_exitcode(status):
                defects.append(f"{kind}: ended with {os.waitstatus_to_exitcode(status)} after an earlier kill")
            if (cohort / "cohort.json").is_file():
                opened = open_cohort(cohort)
                found = sum(len(volume.elements()) for volume in opened.volumes())
                visible += found
                amid += ended and there < found < expected
                there = found
                defects += wrong(opened, reference)
            if not ended:  # it was done: begin anew
                complete, there = complete + 1, begun
                shutil.rmtree(cohort)
        if start_from.exists() and not cohort.exists():
            shutil.copytree(start_from, cohort)
        work(kind, sources, cohort)
        found = sum(len(volume.elements()) for volume in open_cohort(cohort).volumes())
        defects += list(wrong(open_cohort(cohort), reference))
        if found != expected:
            defects.append(f"{kind}: resumed to {found} elements instead of {expected}")
        outcome = (
            f"{amid} after volumes of that run and before its end; {visible} elements seen, {len(defects)} wrong; "
            f"resumed to the end {complete + 1} times"
        )
        yield f"SIGKILL during {kind}", killed, outcome, defects


def _duration(kind: str, sources: list[Path], start_from: Path, cohort: Path) -> float:
    """Return how long the work takes when nothing stops it."""
    if start_from.exists():
        shutil.copytree(start_from, cohort)
    start = time.monotonic()
    os.waitpid(fork(lambda: work(kind, sources, cohort)), 0)
    duration = time.monotonic() - start
    shutil.rmtree(cohort)
    return duration
