"""Time from the shell to an answer: `mri-cli --help` and its neighbours, beside the bare interpreter.

make bench-startup         # or: python benchmarks/startup.py [ROUNDS]

The runs are interleaved; printed are the median, and the ratio to `python -c pass`.
"""

import json
import os
import platform
import statistics
import subprocess
import sys
import time
from pathlib import Path

CLI = str(Path(sys.executable).with_name("mri-cli"))
COMMANDS = {
    "python -c pass": [sys.executable, "-c", "pass"],
    "mri-cli --help": [CLI, "--help"],
    "mri-cli convert --help": [CLI, "convert", "--help"],
    "mri-cli recon run --help": [CLI, "recon", "run", "--help"],
}


def measure(rounds: int) -> dict[str, list[float]]:
    """Return the seconds of each command, one round after the other."""
    seconds: dict[str, list[float]] = {name: [] for name in COMMANDS}
    for _ in range(rounds):
        for name, command in COMMANDS.items():
            start = time.perf_counter()
            subprocess.run(command, check=True, stdout=subprocess.DEVNULL)
            seconds[name].append(time.perf_counter() - start)
    return seconds


if __name__ == "__main__":
    medians = {
        name: statistics.median(values)
        for name, values in measure(int(sys.argv[1]) if len(sys.argv) > 1 else 15).items()
    }
    bare = medians["python -c pass"]
    machine = f"{platform.machine()}, {os.cpu_count()} cores, Python {platform.python_version()}"
    print(json.dumps({"machine": machine}))
    for name, median in medians.items():
        print(f"{name:28s} {median * 1000:6.0f} ms  {median / bare:5.1f} x")
