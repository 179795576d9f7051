"""Damaged input files: every reader gives an error of ours or a volume that verifies, soon and in little memory."""

import contextlib
import os
import random
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

from mri_io import verify
from mri_io.convert import convert
from mri_io.errors import MriError
from mri_io.formats import ReadOptions
from mri_io.formats.isolation import child

SECONDS, MEMORY = 20, 2 * 2**30
"""What one input may take at most."""
_FOREIGN = re.compile(r"[A-Za-z_.]+(Error|Exception|Warning): ")
"""How the runner tells of errors that are none of ours: with their class."""


def mutate(data: bytes, rng: random.Random) -> bytes:
    """Return bytes with one to four defects: bits, bytes, extreme integers, pieces lost, doubled or exchanged."""
    changed = bytearray(data)
    for _ in range(rng.choice((1, 1, 1, 2, 4))):
        size = len(changed)
        if not size:
            break
        # Headers are where damage has consequences: half of the defects go to the first kilobytes.
        at = rng.randrange(min(size, 4096) if rng.random() < 0.5 else size)
        end = min(size, at + rng.randrange(1, 64))
        kind = rng.randrange(8)
        if kind == 0:
            changed[at] ^= 1 << rng.randrange(8)
        elif kind == 1:
            changed[at:end] = rng.randbytes(end - at)
        elif kind == 2:
            width = rng.choice((1, 2, 4, 8))
            value = rng.choice((0, 1, 2 ** (8 * width - 1) - 1, 2 ** (8 * width - 1), 2 ** (8 * width) - 1))
            changed[at : at + width] = value.to_bytes(width, rng.choice(("little", "big")))
        elif kind == 3:
            del changed[at:]
        elif kind == 4:
            del changed[at:end]
        elif kind == 5:
            changed[at:at] = changed[at:end]
        elif kind == 6:
            other = rng.randrange(size)
            changed[at:end], changed[other : other + end - at] = changed[other : other + end - at], changed[at:end]
        else:
            changed[at:end] = bytes(end - at)
    return bytes(changed)


def run(folder: Path, *, seed: int, number: int = 1000) -> Iterator[Row]:
    """Damage a valid file of each binary format `number` times and convert each."""
    memory = Path("/dev/shm")
    base = memory / folder.name if memory.is_dir() and os.access(memory, os.W_OK) else folder
    try:
        with patch("os.fsync", lambda descriptor: None):  # what is written here is thrown away at once
            for name, source in INPUTS.items():
                yield _fuzz(name, source, base / name, number, seed)
    finally:
        shutil.rmtree(base, ignore_errors=True)


def _fuzz(name: str, source: Input, folder: Path, number: int, seed: int) -> Row:
    """Try all damaged inputs of one format, in children that are replaced when they die or hang."""
    intact = folder / "intact"
    intact.mkdir(parents=True)
    source.write(intact)
    outcomes: Counter[str] = Counter()
    defects: list[str] = []
    if (found := _convert(intact, folder / "check", source.options)) != "volume":
        return f"damaged {name}", 0, "", [f"{name}: the intact input: {found}"]
    position = 0
    while position < number:
        reading, writing = os.pipe()
        child = fork(lambda start=position, pipe=writing: _try_from(start, source, folder, number, seed, pipe))
        os.close(writing)
        last = ""
        while True:
            ready, _, _ = select.select([reading], [], [], SECONDS)
            line = os.read(reading, 1 << 16).decode() if ready else ""
            if not line:
                break
            for entry in line.splitlines():
                _, _, last = entry.partition(" ")
                position += 1
                outcomes[last.partition(":")[0]] += 1
                if not last.startswith(("error", "volume")):
                    defects.append(f"{name} {position - 1}: {last}")
        os.close(reading)
        with contextlib.suppress(ProcessLookupError):
            os.kill(child, signal.SIGKILL)
        _, status = os.waitpid(child, 0)
        if position < number:
            ended = (
                "hang"
                if not ready
                else f"crash with signal {os.WTERMSIG(status) if os.WIFSIGNALED(status) else status}"
            )
            defects.append(f"{name} {position}: {ended}")
            outcomes[ended] += 1
            position += 1
    shutil.rmtree(folder)
    outcome = f"{outcomes['error']} errors of ours, {outcomes['volume']} valid volumes"
    others = {kind: count for kind, count in outcomes.items() if kind not in ("error", "volume")}
    return f"damaged {name}", number, outcome + (f", {others}" if others else ""), defects


def _try_from(start: int, source: Input, folder: Path, number: int, seed: int, pipe: int) -> None:
    """Convert the inputs from a number on; write a line about each."""
    os.dup2(os.open(os.devnull, os.O_WRONLY), 2)
    child.PATIENCE_S = SECONDS / 4
    pages = int(Path("/proc/self/statm").read_text().split()[0]) if Path("/proc/self/statm").exists() else 0
    if pages:
        resource.setrlimit(resource.RLIMIT_AS, (pages * resource.getpagesize() + MEMORY,) * 2)
    for index in range(start, number):
        rng = random.Random(f"{seed}-{index}")
        damaged = folder / "damaged"
        shutil.rmtree(damaged, ignore_errors=True)
        shutil.copytree(folder / "intact", damaged)
        victim = rng.choice(sorted(path for path in damaged.rglob("*") if path.is_file() and source.is_binary(path)))
        victim.write_bytes(mutate(victim.read_bytes(), rng))
        began = time.monotonic()
        outcome = _convert(damaged, folder / "cohort", source.options)
        if time.monotonic() - began > SECONDS / 2:
            outcome = f"slow: {time.monotonic() - began:.0f} s"
        os.write(pipe, f"{index} {outcome}\n".encode())


def _convert(source: Path, cohort: Path, options: ReadOptions) -> str:
    """Convert and judge: ``error``, ``volume`` or what is wrong."""
    shutil.rmtree(cohort, ignore_errors=True)
    try:
        summary = convert([source], cohort, options=options, progress=False)
        for failure in summary.failures:
            if _FOREIGN.match(failure.error):
                return f"foreign error: {failure.error[:300]}"
        if not verify(cohort).ok:
            return f"damage: {verify(cohort).problems[0].message[:300]}"
        return "error" if summary.failures else "volume"
    except MriError:
        return "error"
    except BaseException as error:
        return f"foreign error outside a task: {type(error).__name__}: {str(error)[:300]}".replace("\n", " ")
