"""Sources, work and truth that the faults share: small scans, the three kinds of writes, and what must come of them."""

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np

from mri_io import Cohort, Provenance, Volume, open_cohort, verify
from mri_io.convert import convert
from mri_io.prep import already_there, prepare_cohort
from mri_io.store import quantise
from mri_io.testing.raw_files import random_kspace, write_fastmri
from mri_recon.calibrate import calibrate

SHAPE = (3, 4, 48, 40)


def write_sources(folder: Path, number: int) -> list[Path]:
    """Write that many small fastMRI files of white noise with a strong centre, each its own."""
    folder.mkdir(parents=True, exist_ok=True)
    files = []
    for index in range(number):
        kspace = random_kspace(SHAPE, seed=index)
        kspace[..., 20:28, 16:24] *= 30
        files.append(write_fastmri(folder / f"file{index}.h5", kspace, patient=f"P{index}"))
    return files


def truth(file: int) -> np.ndarray:
    """Return the k-space of a file of `write_sources`."""
    kspace = random_kspace(SHAPE, seed=file)
    kspace[..., 20:28, 16:24] *= 30
    return kspace


class Embed:
    """What a bank of embeddings does: several elements per volume, float16 and int8, made from k-space."""

    def __call__(self, volume: Volume) -> dict[str, Any]:
        """Write those that are not there."""
        for layer, array in self.made(volume["kspace"].numpy()).items():
            made = Provenance.of("mri-io", "embed", {"layer": layer}, [volume["kspace"]])
            if not already_there(volume, f"emb/test/{layer}", made, replace=False):
                volume.write(f"emb/test/{layer}", array, provenance=made)
        return {"status": "done"}

    @staticmethod
    def made(kspace: np.ndarray) -> dict[str, Any]:
        """Return the embeddings of k-space."""
        features = np.abs(kspace).repeat(8, axis=1)
        return {"block-1": features.astype(np.float16), "block-2": quantise(features)}


def work(kind: str, sources: list[Path], cohort: Path) -> None:
    """Do one kind of work: convert, calibrate or embed."""
    if kind == "convert":
        summary = convert(sources, cohort, progress=False)
    elif kind == "calibrate":
        summary = calibrate(cohort)
    else:
        summary = prepare_cohort(cohort, Embed(), description="embed", progress=False)
    if not summary.ok:
        raise SystemExit(str(summary))


def wrong(cohort: Cohort, reference: dict[str, Any]) -> Iterator[str]:
    """Yield what readers are shown and is not as it must be; damage counts, absence does not."""
    for volume in cohort.volumes():
        for path, element in volume.elements().items():
            for name, array in element.arrays.items():
                expected = reference[volume.source.sha256 if volume.source else "", path, name]
                if not np.array_equal(array[...], expected):
                    yield f"{volume.id}: {path}: {name}: other data than were written"
    report = verify(cohort)
    yield from (f"{problem.volume}: {problem.element}: {problem.message}" for problem in report.problems)


def finished(sources: list[Path], folder: Path) -> dict[str, Any]:
    """Do all work without faults; return every array by source, path and name, k-space checked against the files."""
    for kind in ("convert", "calibrate", "embed"):
        work(kind, sources, folder)
    found = {}
    for volume in open_cohort(folder).volumes():
        assert volume.source is not None
        number = int(volume.source.uri.removeprefix("file").removesuffix(".h5"))
        np.testing.assert_array_equal(volume["kspace"].numpy(), truth(number))
        for path, element in volume.elements().items():
            for name, array in element.arrays.items():
                found[volume.source.sha256, path, name] = array[...]
    return found
