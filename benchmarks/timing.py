"""What the benchmarks share: jobs that take turns, peers in an environment of their own, and the table of ratios.

A benchmark of one family is a file `benchmarks/<family>.py` that builds a `Table`, runs `interleaved` and ends with
`table.print_and_exit()`. Peers that do not go into this environment run in a process of another Python, which is named
by ``--peer-python`` or PEER_PYTHON: see `PeerProcess`.
"""

import argparse
import importlib.util
import os
import platform
import statistics
import subprocess
import sys
import time
from collections.abc import Callable
from importlib.metadata import version
from pathlib import Path

import numpy as np

__all__ = ["PeerProcess", "Table", "cpu_seconds", "interleaved", "options", "peer_python", "versions"]


def interleaved(
    rounds: int,
    *jobs: Callable[[], object],
    before: Callable[[], None] = lambda: None,
    clock: Callable[[], float] = time.perf_counter,
) -> list[list[float]]:
    """Return the seconds of each job in each round; the jobs take turns.

    Parameters
    ----------
    rounds
        How often each runs.
    *jobs
        Of no arguments. One that returns a float has measured itself, and that counts.
    before
        Done before each job; does not count.
    clock
        `cpu_seconds` for the seconds of all processors, child processes counted in.
    """
    seconds: list[list[float]] = [[] for _ in jobs]
    for _ in range(rounds):
        for job, taken in zip(jobs, seconds, strict=True):
            before()
            start = clock()
            result = job()
            passed = clock() - start
            taken.append(result if isinstance(result, float) else passed)
    return seconds


def cpu_seconds() -> float:
    """Return the processor time of this process and of its children that have ended."""
    times = os.times()
    return times.user + times.system + times.children_user + times.children_system


class PeerProcess:
    """A peer's job in another Python; a call runs it once and returns the seconds it took there.

    Parameters
    ----------
    python
        The interpreter that has the peer.
    script, function
        A file, and the function in it that makes the job: it is given the folder and returns a function of no
        arguments, whose last result is written to ``<function>.npy`` in the folder.
    folder
        Where the inputs lie, and where the result goes.
    clock
        ``"wall"`` or ``"cpu"``.
    threads
        That torch may use there.
    """

    def __init__(
        self, python: str, script: Path, function: str, folder: Path, clock: str = "wall", threads: int = 2
    ) -> None:
        command = [python, __file__, str(script), function, str(folder), clock, str(threads)]
        self.result = folder / f"{function}.npy"
        self.process = subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)
        self._answer()

    def __call__(self) -> float:
        """Run the job once."""
        assert self.process.stdin is not None
        self.process.stdin.write("run\n")
        self.process.stdin.flush()
        return float(self._answer())

    def close(self) -> np.ndarray:
        """End the process; return the last result."""
        self.process.communicate("")
        return np.asarray(np.load(self.result))

    def _answer(self) -> str:
        assert self.process.stdout is not None
        for line in self.process.stdout:
            if line.startswith("peer: "):
                return line.removeprefix("peer: ").strip()
        raise RuntimeError(f"the peer's process ended with status {self.process.wait()}.")


def _serve(script: str, function: str, folder: str, clock: str, threads: str) -> None:
    """Run a peer's job whenever a line comes; this is the other process."""
    try:
        import torch

        torch.set_num_threads(int(threads))
    except ImportError:
        pass
    spec = importlib.util.spec_from_file_location("peer", script)
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    job = getattr(module, function)(Path(folder))
    result = None
    print("peer: ready", flush=True)
    measure = cpu_seconds if clock == "cpu" else time.perf_counter
    for _ in sys.stdin:
        start = measure()
        result = job()
        print(f"peer: {measure() - start}", flush=True)
    np.save(Path(folder) / f"{function}.npy", np.asarray(result))


class Table:
    """Rows of a report in Markdown; `failed` tells whether a target or an accuracy gate was missed.

    Parameters
    ----------
    head
        Names of the columns.
    """

    def __init__(self, *head: str) -> None:
        self.head = head or ("", "peer", "peer's time", "time", "ratio", "target", "accuracy")
        self.rows: list[tuple[str, ...]] = []
        self.failed = False

    def faster(
        self,
        name: str,
        peer: str,
        peer_seconds: list[float],
        own: list[float],
        *,
        most: float | None = None,
        accuracy: float | None = None,
        gate: float | None = None,
    ) -> None:
        """Add a time relative to a peer's: the median of the ratios of the rounds, at most `most`.

        `accuracy` is an error, at most `gate`.
        """
        ratio = statistics.median(o / p for p, o in zip(peer_seconds, own, strict=True))
        times = [f"{1000 * statistics.median(s):.4g} ms" for s in (peer_seconds, own)]
        wanted = "" if most is None else f"<= {most:g} {self._reached(ratio <= most)}"
        right = "" if accuracy is None else f"{accuracy:.2g}"
        if accuracy is not None and gate is not None:
            right += f" <= {gate:g} {self._reached(accuracy <= gate)}"
        self.rows.append((name, peer, *times, f"{ratio:.3f}", wanted, right))

    def left_out(self, name: str, peer: str, why: str) -> None:
        """Add a row without figures, for a peer that is not there."""
        self.rows.append((name, peer, why, *[""] * (len(self.head) - 3)))

    def row(self, *cells: str, reached: bool = True) -> None:
        """Add cells as they are."""
        self.failed |= not reached
        self.rows.append(cells)

    def _reached(self, reached: bool) -> str:
        self.failed |= not reached
        return "reached" if reached else "MISSED"

    def __str__(self) -> str:
        """Return the table in Markdown."""
        lines = ["| " + " | ".join(self.head) + " |", "|" + "---|" * len(self.head)]
        return "\n".join([*lines, *("| " + " | ".join(row) + " |" for row in self.rows)])

    def print_and_exit(self, *packages: str) -> None:
        """Print where this ran and the table; the exit status is 1 when something was missed."""
        print(f"{versions(*packages)}\n\n{self}")
        sys.exit(self.failed)


def versions(*packages: str) -> str:
    """Return the machine and the versions of packages in one line."""
    named = ", ".join(f"{p} {version(p)}" for p in packages)
    return f"{platform.machine()}, {os.cpu_count()} cores, Python {platform.python_version()}, {named}"


def options(description: str | None) -> argparse.ArgumentParser:
    """Return a parser with the options that all have: rounds and the peers' Python."""
    parser = argparse.ArgumentParser(description=(description or "").splitlines()[0])
    parser.add_argument("--rounds", type=int, default=7)
    parser.add_argument("--peer-python", default=None, help="the Python that has the peers [PEER_PYTHON]")
    return parser


def peer_python(given: str | None) -> str | None:
    """Return the Python that has the peers, None when none is named."""
    return given or os.environ.get("PEER_PYTHON")


if __name__ == "__main__":
    _serve(*sys.argv[1:])
