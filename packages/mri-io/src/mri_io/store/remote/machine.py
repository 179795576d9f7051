"""Which process this is, so that others on its machine can tell whether it still lives."""

import hashlib
import os
import socket
import uuid
from collections.abc import Mapping
from contextlib import suppress
from functools import cache
from pathlib import Path
from typing import Any

import psutil

__all__ = ["has_died", "this_process"]

_CLOCK_S = 2.0


@cache
def _machine() -> str:
    """Return what tells this machine, its present start and its space of process numbers from others."""
    parts = [socket.gethostname(), str(uuid.getnode())]
    with suppress(OSError):  # Linux
        parts.append(Path("/proc/sys/kernel/random/boot_id").read_text())
        parts.append(str(Path("/proc/self/ns/pid").stat().st_ino))
    return hashlib.sha256("\0".join(parts).encode()).hexdigest()[:16]


def this_process() -> dict[str, Any]:
    """Return host, machine, number and start of this process."""
    process = psutil.Process()
    return {
        "host": socket.gethostname(),
        "machine": _machine(),
        "pid": os.getpid(),
        "started": round(process.create_time(), 2),
    }


def has_died(writer: Mapping[str, Any]) -> bool:
    """Whether a process is known to have ended: it was one of this machine and runs no more."""
    if writer.get("machine") != _machine():
        return False
    try:
        process = psutil.Process(int(writer["pid"]))
        if process.status() == psutil.STATUS_ZOMBIE:
            return True
        return abs(process.create_time() - float(writer["started"])) > _CLOCK_S
    except psutil.NoSuchProcess:
        return True
    except (psutil.Error, KeyError, TypeError, ValueError):
        return False
