"""How much memory tasks need, how much is free, and how many workers fit into it."""

from collections.abc import Callable, Sequence
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from mri_io.prep.summary import counted

__all__ = ["PROCESS_BYTES", "Memory", "MemoryPlan", "free_memory", "plan_memory"]

Memory = int | Callable[[Any], int]
"""Bytes that one task holds at most beside its process, or a function of the item that returns them."""

PROCESS_BYTES = 300 * 10**6
"""A worker, the process that watches it, and the one that parses its files, with this package imported (measured:
0.27 GB), and some room."""

_MEMBERSHIP, _GROUPS = Path("/proc/self/cgroup"), Path("/sys/fs/cgroup")


@dataclass(frozen=True)
class MemoryPlan:
    """How many workers are to run, and what they need.

    Attributes
    ----------
    workers
        Number of workers, at least one.
    wanted
        How many there would be with enough memory.
    largest
        Bytes of the largest task.
    needed
        Bytes of that many workers, each with one of the largest tasks.
    free
        Bytes that are free; None where the work is done on other machines.
    """

    workers: int
    wanted: int
    largest: int
    needed: int
    free: int | None

    @property
    def fits(self) -> bool:
        """Whether there is enough for the workers."""
        return self.free is None or self.needed <= self.free

    def describe(self, items: int) -> str:
        """Return the line that is shown before the work begins."""
        each = f"{counted(items, 'volume')}, up to {_size(self.largest)} each beside {_size(PROCESS_BYTES)} "
        each += "per process"
        if self.free is None:
            return each
        some = counted(self.workers, "worker")
        fewer = f", fewer than the {self.wanted} asked for," if self.workers < self.wanted else ""
        need = "needs" if self.workers == 1 else "need"
        return f"{each}; {some}{fewer} {need} {_size(self.needed)} of {_size(self.free)} free"

    def warning(self) -> str:
        """Return what is said when not even one worker fits."""
        return (
            f"warning: one volume may need {_size(self.needed)}, and {_size(self.free or 0)} are free: the "
            "system may end the work. Close other programs, or use a machine with more memory "
            "(--scheduler slurm or tcp://host:port)."
        )


def plan_memory(needs: Sequence[int], wanted: int, free: int | None) -> MemoryPlan:
    """Return how many of the wanted workers fit into the free memory.

    Parameters
    ----------
    needs
        Bytes of each task. That the largest of them run at once is assumed.
    wanted
        Number of workers wanted, at least one.
    free
        Bytes; None when unknown, then all fit.
    """
    largest_first = sorted(needs, reverse=True)

    def needed(workers: int) -> int:
        return workers * PROCESS_BYTES + sum(largest_first[:workers])

    fitting = (n for n in range(wanted, 1, -1) if free is None or needed(n) <= free)
    workers = next(fitting, 1)
    return MemoryPlan(workers, wanted, largest_first[0] if largest_first else 0, needed(workers), free)


def free_memory() -> int:
    """Return the bytes that this machine, or the control groups that this process is in, leave to be used."""
    import psutil

    return min([int(psutil.virtual_memory().available), *_group_limits()])


def _group_limits() -> list[int]:
    """Return what each control group above this process leaves, version 1 or 2; on other systems nothing."""
    found = []
    with suppress(OSError, ValueError):
        for line in _MEMBERSHIP.read_text().splitlines():
            _, controllers, path = line.split(":", 2)
            if controllers == "":
                found += _left_of(_GROUPS, path, "memory.max", "memory.current", "inactive_file")
            elif "memory" in controllers.split(","):
                names = ("memory.limit_in_bytes", "memory.usage_in_bytes", "total_inactive_file")
                found += _left_of(_GROUPS / "memory", path, *names)
    return found


def _left_of(root: Path, path: str, limit: str, usage: str, reclaimable: str) -> list[int]:
    """Return limit less usage of a group and those above it; within a container only some of them are to be seen."""
    found = []
    group = root / path.lstrip("/")
    for folder in (group, *group.parents):
        with suppress(OSError, ValueError):  # no such group, or no limit: "max"
            used = int((folder / usage).read_text())
            cached = 0
            with suppress(OSError):
                stat = dict(row.split() for row in (folder / "memory.stat").read_text().splitlines())
                cached = int(stat.get(reclaimable, 0))  # files that the system drops when memory is wanted
            found.append(max(int((folder / limit).read_text()) - used + cached, 0))
        if folder == root:
            break
    return found


def _size(number: int) -> str:
    return f"{number / 1e9:.1f} GB" if number >= 10**8 else f"{max(number / 1e6, 0.1):.1f} MB"  # upper bounds
