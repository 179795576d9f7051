"""Speed of the store beside what users have: fastMRI's way of reading HDF5, a copy of memory, a copy of the file.

make bench-store           # or: python benchmarks/store.py [--slices 36] [--rounds 7] [--folder DIR]

Peers and the store are interleaved (A B A B ...) over the same random k-space, 36 slices of 15 coils of 640 x 368, all
in the page cache; printed are medians and ratios. What is read is compared with the source first. It takes 5 GB of
disk.
"""

import argparse
import json
import os
import shutil
import statistics
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import h5py
import numpy as np
from timing import Table, interleaved
from torch.utils.data import DataLoader, Dataset

from mri_io import open_cohort, open_volume
from mri_io.convert import convert
from mri_io.store import create_cohort, query_index
from mri_io.store.shards import forget
from mri_io.testing.raw_files import xml_header
from mri_io.torch import SliceDataset, collate_slices

SHAPE = (15, 640, 368)
TARGETS = {
    "random slice copied, first pass": 1.0,
    "random slice copied, verified before": 2.5,
    "random slice in a window, summed, first pass": 1.0,
    "random slice in a window, summed, verified before": 2.5,
    "2 loader workers, slices used there, verified before": 2.5,
    "2 loader workers, slices used there, first pass": 1.0,
    "sequential scan": 0.7,
    "conversion": 0.6,
}


class FastMriSlices(Dataset[Any]):
    """One slice per sample, the file opened for each: what fastMRI's `SliceDataset` does with k-space."""

    def __init__(self, path: Path, slices: int) -> None:
        self.path, self.slices = path, slices

    def __len__(self) -> int:
        """Return the number of slices."""
        return self.slices

    def __getitem__(self, index: int) -> Any:
        """Open the file and read one slice."""
        with h5py.File(self.path, "r") as file:
            return file["kspace"][index]


def write_source(path: Path, slices: int) -> None:
    """Write a file as fastMRI has them, slice by slice."""
    rng = np.random.default_rng(0)
    with h5py.File(path, "w") as file:
        kspace = file.create_dataset("kspace", (slices, *SHAPE), np.complex64)
        for number in range(slices):
            kspace[number] = rng.standard_normal((*SHAPE, 2), np.float32).view(np.complex64)[..., 0]
        file["ismrmrd_header"] = xml_header(SHAPE[1], SHAPE[2])
        file.attrs.update({"acquisition": "BENCH", "patient_id": "x", "max": 1.0, "norm": 1.0})


class StoreTable(Table):
    """Speeds relative to a peer's, and times that have a limit."""

    def __init__(self) -> None:
        super().__init__("", "peer", "store", "ratio", "target")

    def ratio(self, name: str, peer: str, peer_seconds: list[float], own: list[float], size: float) -> None:
        """Add the speed relative to a peer over `size` MB."""
        ratio = statistics.median(p / o for p, o in zip(peer_seconds, own, strict=True))
        speeds = [f"{size / statistics.median(s):.0f} MB/s" for s in (peer_seconds, own)]
        target = TARGETS.get(name)
        wanted = "" if target is None else f"{target:g} x"
        self._add(name, f"{peer}: {speeds[0]}", speeds[1], f"{ratio:.2f} x", wanted, target is None or ratio >= target)

    def limit(self, name: str, seconds: list[float], most_ms: float) -> None:
        """Add a time that has a limit."""
        median = 1000 * statistics.median(seconds)
        self._add(name, "", f"{median:.2f} ms", "", f"{most_ms:g} ms", median <= most_ms)

    def _add(self, name: str, peer: str, own: str, ratio: str, target: str, reached: bool) -> None:
        said = f"{target} {'reached' if reached else 'MISSED'}" if target else ""
        self.row(name, peer, own, ratio, said, reached=reached)


def slices_in_random_order(table: StoreTable, source: Path, cohort: Path, slices: int, rounds: int) -> None:
    """Read all slices in random order, in this process and in two workers of a loader.

    In this process as copies, which may be written to, and as windows of the file, whose pages are read when they are
    used: all values are summed.
    """
    peer, copies = FastMriSlices(source, slices), SliceDataset(cohort, ["kspace"], part=None)
    windows = SliceDataset(cohort, ["kspace"], part=None, writable=False)
    for number in (0, slices - 1):
        for own in (copies, windows):
            np.testing.assert_array_equal(peer[number], own[number]["kspace"])
    order = np.random.default_rng(1).permutation(slices).tolist()
    size = slices * np.prod(SHAPE) * 8 / 1e6

    def job(dataset: Any, *, summed: bool) -> Callable[[], None]:
        def read() -> None:
            for number in order:
                kspace = _kspace(dataset[number])
                if summed:
                    kspace.sum()

        return read

    for own, summed, what in ((copies, False, "copied"), (windows, True, "in a window, summed")):
        jobs = [job(peer, summed=summed), job(own, summed=summed)]
        for when, before in (("first pass", forget), ("verified before", lambda: None)):
            seconds = interleaved(rounds, *jobs, before=before)
            table.ratio(f"random slice {what}, {when}", "HDF5", *seconds, size)

    for used in (True, False):
        _with_workers(table, (peer, windows), order, size, rounds, used=used)


def _kspace(sample: Any) -> np.ndarray:
    return np.asarray(sample["kspace"] if isinstance(sample, dict) else sample)


def _with_workers(
    table: StoreTable, datasets: tuple[Any, Any], order: list[int], size: float, rounds: int, *, used: bool
) -> None:
    """Read with two loading processes, which use the slices themselves, as transforms do, or send them on."""
    options: dict[str, Any] = {
        "batch_size": 1,
        "num_workers": 2,
        "sampler": order,
        "multiprocessing_context": "forkserver",
        "persistent_workers": True,
    }
    collates = (total, total) if used else (None, collate_slices)
    firsts: list[list[float]] = [[], []]
    others: list[list[float]] = [[], []]
    for _ in range(rounds):
        loaders = [DataLoader(d, collate_fn=c, **options) for d, c in zip(datasets, collates, strict=True)]
        for number, loader in enumerate(loaders):
            batches = iter(loader)
            next(batches)  # the workers are there
            start = time.perf_counter()
            for _ in batches:
                pass
            firsts[number].append(time.perf_counter() - start)
        jobs = [lambda loader=loader: [None for _ in loader] for loader in loaders]
        for number, taken in enumerate(interleaved(1, *jobs)):  # type: ignore[arg-type]
            others[number] += taken
    where = "used there" if used else "sent on"
    table.ratio(f"2 loader workers, slices {where}, verified before", "HDF5", others[0], others[1], size)
    left = size * (len(order) - 1) / len(order)
    table.ratio(f"2 loader workers, slices {where}, first pass", "HDF5", firsts[0], firsts[1], left)


def total(batch: list[Any]) -> float:
    """Use every value of a slice."""
    return float(abs(_kspace(batch[0]).sum()))


def scan(table: StoreTable, cohort: Path, slices: int, rounds: int) -> None:
    """Read all slices one after the other, beside a plain copy of the same bytes from the page cache."""
    element = open_cohort(cohort).volumes()[0]["kspace"]
    files = sorted(path for path in element.folder.rglob("c/*") if path.is_file())
    files = files or [path for path in element.folder.rglob("*") if path.is_file() and path.name != "zarr.json"]
    maps = [np.memmap(path, np.uint8, "r") for path in files]
    step = int(np.prod(SHAPE)) * 8

    def copy() -> None:
        for mapped in maps:
            for start in range(0, len(mapped), step):
                np.array(mapped[start : start + step])

    def read() -> None:
        for number in range(slices):
            element[number]

    read()
    seconds = interleaved(rounds, copy, read)
    table.ratio("sequential scan", "copy of memory", *seconds, slices * step / 1e6)


def conversion(table: StoreTable, source: Path, folder: Path, rounds: int) -> None:
    """Convert the file, beside a copy of it that reaches the disk."""
    copied, cohort = folder / "copy.h5", folder / "converted"

    def copy() -> None:
        shutil.copyfile(source, copied)
        with copied.open("rb+") as file:
            os.fsync(file.fileno())

    def make() -> None:
        assert convert([source], cohort, progress=False).ok

    make()  # starts the process that reads HDF5, which stays
    seconds: list[list[float]] = [[], []]
    for round_ in range(rounds):
        for number in (0, 1) if round_ % 2 else (1, 0):
            shutil.rmtree(cohort, ignore_errors=True)
            copied.unlink(missing_ok=True)
            os.sync()  # each begins with nothing left to write of the other
            seconds[number] += interleaved(1, (copy, make)[number])[0]
    copied.unlink(missing_ok=True)
    shutil.rmtree(cohort, ignore_errors=True)
    table.ratio("conversion", "copy of the file", *seconds, source.stat().st_size / 1e6)


def metadata(table: StoreTable, cohort: Path, folder: Path, rounds: int) -> None:
    """Open a volume; query an index of 10,000 volumes."""
    volume = open_cohort(cohort).volumes()[0].path
    table.limit("open a volume", interleaved(20 * rounds, lambda: open_volume(volume))[0], 5)
    table.limit("open a volume and list it", interleaved(20 * rounds, lambda: open_volume(volume).elements())[0], 5)
    many = create_cohort(folder / "many")
    element = {"dtype": "complex64", "dims": ["slice", "coil", "ky", "kx"], "commit": "0" * 32}
    paths = ("kspace", "mask/acquired", "recon/rss", "recon/cg-sense-r4", "sens/espirit")
    rows = (
        {
            "id": f"sub-{n:05d}_acq-AXT1_run-1",
            "subject": f"sub-{n:05d}",
            "split": {"default": ("train", "val", "test")[min(n % 10 // 8, 2)]},
            "elements": {p: {**element, "shape": [36, 15, 640, 320 + 8 * (n % 8)]} for p in paths},
        }
        for n in range(10_000)
    )
    (many.path / "index.jsonl").write_text("".join(json.dumps(row, separators=(",", ":")) + "\n" for row in rows))
    found = list(query_index(many, part="val", element="recon/rss", shape=(None, None, None, 368)))
    assert len(found) == sum(1 for n in range(10_000) if n % 10 == 8 and n % 8 == 6)
    queries: dict[str, dict[str, Any]] = {
        "of one subject": {"subject": "sub-04711"},
        "by part and shape": {"part": "val", "element": "recon/rss", "shape": (None, None, None, 368)},
        "of a part, 8,000 found": {"part": "train"},
    }
    for name, query in queries.items():
        seconds = interleaved(rounds, lambda query=query: [row.id for row in query_index(many, **query)])[0]
        table.limit(f"query of 10,000 volumes {name}", seconds, 50)


def main() -> None:
    """Run all parts and print the table."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--slices", type=int, default=36)
    parser.add_argument("--rounds", type=int, default=7)
    parser.add_argument("--folder", type=Path, default=None, help="where the 5 GB go [a temporary folder]")
    options = parser.parse_args()
    table = StoreTable()
    with tempfile.TemporaryDirectory(dir=options.folder) as name:
        folder = Path(name)
        source = folder / "file1.h5"
        write_source(source, options.slices)
        conversion(table, source, folder, options.rounds)
        assert convert([source], folder / "cohort", progress=False).ok
        slices_in_random_order(table, source, folder / "cohort", options.slices, options.rounds)
        scan(table, folder / "cohort", options.slices, options.rounds)
        metadata(table, folder / "cohort", folder, options.rounds)
    table.print_and_exit("zarr", "h5py", "numpy", "torch")


if __name__ == "__main__":
    main()
