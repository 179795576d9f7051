"""Damaged input files: every reader gives an error of ours or a volume that verifies, soon and in little memory."""

import contextlib
import os
import re
import resource
import select
import shutil
import signal
import time
from collections import Counter
from collections.abc import Iterator
from pathlib import Path
from unittest.mock import patch

from tools.faults.inputs import INPUTS, Input
from tools.faults.kills import Row, fork
from tools.faults.mutations import Case, cases, mutated

from mri_io import verify
from mri_io.convert import convert
from mri_io.errors import MriError
from mri_io.formats import ReadOptions
from mri_io.formats.isolation import child as readers

SECONDS, MEMORY = 20, 2 * 2**30
"""What one input may take at most."""
_FOREIGN = re.compile(r"[A-Za-z_.]+(Error|Exception|Warning): ")
"""How the runner tells of errors that are none of ours: with their class."""
_CONTAINED = re.compile(r"the library that reads it (did not answer|crashed)|the process that reads it was killed")
"""How a hang or crash of a native library, in the process of its own where it is used, is told."""


def run(folder: Path, *, seed: int, number: int = 1000) -> Iterator[Row]:
    """Damage a valid file of each binary format `number` times and convert each."""
    memory = Path("/dev/shm")
    base = memory / folder.name if memory.is_dir() and os.access(memory, os.W_OK) else folder
    try:
        with patch("os.fsync", lambda descriptor: None):  # what is written here is thrown away at once
            for position, (name, source) in enumerate(INPUTS.items()):
                yield _fuzz(name, source, base / name, cases(number, 1000 * seed + position))
    finally:
        shutil.rmtree(base, ignore_errors=True)


def _fuzz(name: str, source: Input, folder: Path, damages: list[Case]) -> Row:
    """Try all damaged inputs of one format, in children that are replaced when they die or hang."""
    intact = folder / "intact"
    intact.mkdir(parents=True)
    source.write(intact)
    if (found := _convert(intact, folder / "check", source.options)) != "volume":
        return f"damaged {name}", 0, "", [f"{name}: the intact input: {found}"]
    outcomes: Counter[str] = Counter()
    defects: list[str] = []
    most, position = 0, 0
    while position < len(damages):
        reading, writing = os.pipe()
        process = fork(lambda start=position, pipe=writing: _try_from(start, source, folder, damages, pipe))
        os.close(writing)
        outcome = ""
        while True:
            ready, _, _ = select.select([reading], [], [], SECONDS)
            text = os.read(reading, 1 << 16).decode() if ready else ""
            if not text:
                break
            for line in text.splitlines():
                used, _, outcome = line.partition(" ")
                most = max(most, int(used))
                outcomes[outcome.partition(":")[0]] += 1
                if outcome not in ("error", "contained", "volume"):
                    defects.append(f"{name} {position}: {outcome}")
                position += 1
        os.close(reading)
        with contextlib.suppress(ProcessLookupError):
            os.kill(process, signal.SIGKILL)
        _, status = os.waitpid(process, 0)
        if position < len(damages) and not outcome.startswith("memory"):
            ended = "hang" if not ready else f"end with {os.waitstatus_to_exitcode(status)}"
            defects.append(f"{name} {position}: {ended}")
            outcomes[ended] += 1
            position += 1
    shutil.rmtree(folder)
    told = {
        "error": "errors of ours",
        "volume": "valid volumes",
        "contained": "hangs or crashes of a library, contained",
    }
    said = [f"{outcomes.pop(kind)} {what}" for kind, what in told.items() if outcomes[kind]]
    said += [f"{count} {kind}" for kind, count in outcomes.items() if count]
    return f"damaged {name}", len(damages), f"{', '.join(said)}; at most {most / 1e6:.0f} MB more", defects


def _try_from(start: int, source: Input, folder: Path, damages: list[Case], pipe: int) -> None:
    """Convert the inputs from a number on; write a line about each, with the bytes that it took at most."""
    os.dup2(os.open(os.devnull, os.O_WRONLY), 2)
    readers.PATIENCE_S = SECONDS / 4
    pages = int(Path("/proc/self/statm").read_text().split()[0]) if Path("/proc/self/statm").exists() else 0
    if pages:  # so that the machine survives what is found
        resource.setrlimit(resource.RLIMIT_AS, (pages * resource.getpagesize() + 2 * MEMORY,) * 2)
    _convert(folder / "intact", folder / "cohort", source.options)  # starts the process in which native libraries read
    before = _peak()
    for case in damages[start:]:
        damaged = folder / "damaged"
        shutil.rmtree(damaged, ignore_errors=True)
        shutil.copytree(folder / "intact", damaged)
        files = sorted(path for path in damaged.rglob("*") if path.is_file() and source.is_binary(path))
        victim = files[int(case.victim * len(files))]
        victim.write_bytes(mutated(victim.read_bytes(), case.edits))
        began = time.monotonic()
        outcome = _convert(damaged, folder / "cohort", source.options)
        if time.monotonic() - began > SECONDS / 2 and outcome != "contained":
            outcome = f"slow: {time.monotonic() - began:.0f} s"
        used = _peak() - before
        if used > MEMORY:
            outcome = f"memory: {used / 1e9:.1f} GB"
        os.write(pipe, f"{used} {outcome}\n".encode())
        if used > MEMORY:
            os._exit(0)  # peaks cannot be taken back


def _peak() -> int:
    """Return the most bytes that this process has held, and with it the one in which native libraries read."""
    total = 0
    for process in ("self", *(str(own.number) for own in readers.processes.values())):
        with contextlib.suppress(OSError, StopIteration):
            lines = Path(f"/proc/{process}/status").read_text().splitlines()
            total += next(1024 * int(line.split()[1]) for line in lines if line.startswith("VmHWM"))
    return total


def _convert(source: Path, cohort: Path, options: ReadOptions) -> str:
    """Convert and judge: ``error``, ``contained``, ``volume`` or what is wrong."""
    shutil.rmtree(cohort, ignore_errors=True)
    try:
        summary = convert([source], cohort, options=options, progress=False)
        for failure in summary.failures:
            if _FOREIGN.match(failure.error):
                return f"foreign error: {failure.error[:300]}"
        if not verify(cohort).ok:
            return f"damage: {verify(cohort).problems[0].message[:300]}"
        if any(_CONTAINED.search(failure.error) for failure in summary.failures):
            return "contained"
        return "error" if summary.failures else "volume"
    except MriError as error:
        return "contained" if _CONTAINED.search(str(error)) else "error"
    except BaseException as error:
        return f"foreign error outside a task: {type(error).__name__}: {str(error)[:300]}".replace("\n", " ")
