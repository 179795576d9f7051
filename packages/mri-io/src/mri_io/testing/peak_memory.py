"""How much memory a piece of code takes at most, in a process of its own."""

import os
import subprocess
import sys
from collections.abc import Sequence

__all__ = ["peak_growth"]

_READ = """
import sys as _sys

def peak():
    try:
        lines = open("/proc/self/status").read().splitlines()
    except OSError:  # not Linux
        import resource
        return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * (1 if _sys.platform == "darwin" else 1024)
    # ru_maxrss would be that of the parent where this is more: it is handed down.
    return int(next(line for line in lines if line.startswith("VmHWM")).split()[1]) * 1024
"""


def peak_growth(before: str, measured: str, arguments: Sequence[object] = ()) -> int:
    """Run Python code in a process of its own; return by how many bytes its largest resident size grew.

    Parameters
    ----------
    before
        Code that is run first: imports and what else is not to be counted.
    measured
        Code that is.
    arguments
        What both find in ``sys.argv`` from 1 on.
    """
    code = f"{_READ}\nimport sys\n{before}\n_start = peak()\n{measured}\nprint(peak() - _start)\n"
    command = [sys.executable, "-c", code, *map(str, arguments)]
    done = subprocess.run(command, capture_output=True, text=True, env=os.environ, check=False)
    if done.returncode:
        raise RuntimeError(done.stderr)
    return int(done.stdout.splitlines()[-1])
