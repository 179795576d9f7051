"""Run the faults and print one row for each: python -m tools.faults [kills] [flips] [full] [race] [fuzz]."""

import argparse
import importlib
import platform
import sys
import tempfile
import time
from importlib.metadata import version
from pathlib import Path

PARTS = ("kills", "flips", "full", "race", "fuzz")


def main() -> None:
    """Run the parts named on the command line, all by default; exit with 1 when any of them found a defect."""
    parser = argparse.ArgumentParser(prog="python -m tools.faults", description=__doc__)
    parser.add_argument("parts", nargs="*", choices=[*PARTS, []], help="which to run [all]")
    parser.add_argument("--number", type=int, default=None, help="how many kills, flips or inputs per format")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--folder", type=Path, default=None, help="where to work [a temporary folder]")
    options = parser.parse_args()
    packages = ", ".join(f"{name} {version(name)}" for name in ("mri-io", "zarr", "numpy", "h5py"))
    print(f"{platform.system()} {platform.machine()}, Python {platform.python_version()}, {packages}\n", flush=True)
    print("| fault | tries | outcome | seconds |\n|---|---|---|---|", flush=True)
    failed = False
    for part in options.parts or PARTS:
        with tempfile.TemporaryDirectory(dir=options.folder) as folder:
            module = importlib.import_module(f"tools.faults.{part}")
            start = time.monotonic()
            more = {} if options.number is None else {"number": options.number}
            for fault, tries, outcome, defects in module.run(Path(folder), seed=options.seed, **more):
                failed |= bool(defects)
                print(f"| {fault} | {tries} | {outcome} | {time.monotonic() - start:.0f} |", flush=True)
                for defect in defects[:20]:
                    print(f"  DEFECT: {defect}", file=sys.stderr, flush=True)
                start = time.monotonic()
    sys.exit(failed)


if __name__ == "__main__":
    main()
