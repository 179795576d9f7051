"""The most memory that converting one large file takes, beside what the command says that it may need.

Writes a fastMRI file of the given size, converts it with `mri-cli convert`, and looks at the command and all processes
that it starts a hundred times a second. Fails when they hold more than --limit together, or more than was said. Needs
twice the size on disk, below --folder, and removes it in the end.
"""

import argparse
import re
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import h5py
import numpy as np

from mri_io.testing.peak_memory import watched

COILS, ROWS, COLUMNS = 15, 640, 368
_NEEDS = re.compile(r"needs? ([0-9.]+) ([GM])B of")


def write_file(path: Path, size: float) -> int:
    """Write a fastMRI file of about so many bytes, slice by slice; return the number of slices."""
    rng = np.random.default_rng(0)
    one = rng.standard_normal((COILS, ROWS, COLUMNS, 2), np.float32).view(np.complex64)[..., 0]
    slices = max(1, round(size / one.nbytes))
    with h5py.File(path, "w") as file:
        kspace = file.create_dataset("kspace", (slices, *one.shape), np.complex64)
        for number in range(slices):
            kspace[number] = one * (number + 1)
        file.attrs["acquisition"] = "AXT2"
    return slices


def said_bytes(text: str) -> float:
    """Return what the command says that it needs in all."""
    found = _NEEDS.search(text)
    if found is None:
        raise SystemExit(f"the command does not say what it needs:\n{text}")
    return float(found[1]) * {"G": 1e9, "M": 1e6}[found[2]]


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--gigabytes", type=float, default=4.0, help="size of the file (default 4)")
    parser.add_argument("--limit", type=float, default=1.5, help="gigabytes that are allowed (default 1.5)")
    parser.add_argument("--folder", type=Path, help="where there is room for twice the size (default: temporary files)")
    arguments = parser.parse_args()
    with tempfile.TemporaryDirectory(dir=arguments.folder) as folder:
        source, cohort, log = Path(folder, "large.h5"), Path(folder, "cohort"), Path(folder, "log")
        slices = write_file(source, arguments.gigabytes * 1e9)
        size, began = source.stat().st_size, time.monotonic()
        command = [sys.executable, "-m", "mri_cli", "convert", str(source), str(cohort)]
        with log.open("w") as errors, subprocess.Popen(command, stderr=errors) as process, watched(process.pid) as peak:
            process.wait()
        took, text = time.monotonic() - began, log.read_text()
    print(text, end="")
    if process.returncode:
        return process.returncode
    said = said_bytes(text)
    print(
        f"fastMRI file of {size / 1e9:.2f} GB ({slices} slices of {COILS} coils, {ROWS} x {COLUMNS}): at most "
        f"{peak.bytes / 1e9:.2f} GB in all processes, {said / 1e9:.1f} GB said, {arguments.limit:g} GB allowed; "
        f"{took:.0f} s"
    )
    return int(peak.bytes > min(said, arguments.limit * 1e9))


if __name__ == "__main__":
    sys.exit(main())
