"""Single bits flipped in chunks, shard indices and metadata."""

import random
from collections.abc import Iterator
from pathlib import Path

import numpy as np
from tools.faults.cohorts import finished, write_sources
from tools.faults.kills import Row

from mri_io import Provenance, make_split, open_cohort, verify
from mri_io.store import compute_statistics
from mri_io.testing import flip_bit

UNSEALED = ("index.jsonl", "failures.jsonl")
"""A cache that is rebuilt, and a log: nothing depends on them."""


def run(folder: Path, *, seed: int, number: int = 300) -> Iterator[Row]:
    """Flip one bit at a time, in data and in metadata in turn; `verify` must tell of each, and crash at none."""
    rng = random.Random(seed)
    finished(write_sources(folder / "sources", 3), folder / "c")
    cohort = open_cohort(folder / "c")
    made = Provenance.of("mri-io", "fault", {})
    volume = cohort.volumes()[0]
    values = np.random.default_rng(seed)
    volume.write("mask/a", values.integers(0, 2, 40).astype(np.uint8), provenance=made, dims=("kx",))
    volume.write("image/a", values.random((3, 48, 40)).astype(np.float32), provenance=made)
    volume.write("seg/a", values.integers(0, 3, (3, 48, 40)).astype(np.uint8), provenance=made, labels={1: "a", 2: "b"})
    volume.write("qmap/a", values.random((3, 48, 40)).astype(np.float32), provenance=made, attributes={"unit": "s"})
    volume.write("prompts/a", {"slice": np.arange(3), "label": np.ones(3, int)}, provenance=made)
    cohort.write_split(make_split(cohort, counts=(1, 1, 1)))
    compute_statistics(cohort, ["kspace"])
    assert verify(cohort).ok
    files = [path for path in cohort.path.rglob("*") if path.is_file() and path.name[0] != "."]
    files = [path for path in files if path.name not in UNSEALED]
    kinds = {
        "data": [path for path in files if path.suffix != ".json"],
        "metadata": [path for path in files if path.suffix == ".json"],
    }
    for kind, among in kinds.items():
        detected, defects = 0, []
        for _ in range(number // 2):
            path = rng.choice(among)
            position = rng.randrange(8 * path.stat().st_size)
            flip_bit(path, position)
            try:
                problems = verify(cohort).problems
                detected += bool(problems)
                if not problems:
                    defects.append(f"{path.relative_to(folder)}: bit {position}: not detected")
            except Exception as error:
                defects.append(f"{path.relative_to(folder)}: bit {position}: verify raised {error!r}")
            flip_bit(path, position)
        what = kind if kind == "data" else "metadata (but for the index, a cache, and the log of failures)"
        yield f"one bit flipped in {what}", number // 2, f"{detected} detected by verify", defects
    assert verify(cohort).ok
