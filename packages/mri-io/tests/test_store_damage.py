"""Damage: every flipped bit, cut or lost file is found; readers raise an error of ours or are unaffected."""

import itertools
import json
import os
import shutil
from pathlib import Path

import numpy as np
import pytest

from mri_io import create_cohort, open_cohort, verify
from mri_io.errors import CorruptElementError, MriError
from mri_io.schema import Provenance
from mri_io.store import Split, collect_garbage, compute_statistics, open_volume, read_statistics
from mri_io.store.metadata import write_array_metadata, write_group
from mri_io.testing import flip_bit, truncate

ID = "sub-01_acq-t1_run-1"
FOLDER = f"volumes/{ID}.zarr"
SEAL = "metadata_sha256"
_clock = itertools.count(10**18, 10**9)


def fill(volume, rng):
    made = Provenance(method="test", package="mri-io", version="0")
    complex64 = lambda *shape: (rng.random(shape) + 1j * rng.random(shape)).astype(np.complex64)  # noqa: E731
    volume.write("kspace", complex64(3, 2, 7, 5), provenance=made)
    volume.write("noise", complex64(2, 11), provenance=made)
    volume.write("recon/reference", complex64(3, 7, 5), provenance=made, affine=np.eye(4))
    volume.write("image/t1", rng.integers(-500, 500, (3, 7, 5)).astype(np.int16), provenance=made)
    labels = rng.integers(0, 3, (3, 7, 5)).astype(np.uint8)
    volume.write("seg/tissue", labels, provenance=made, labels={1: "a", 2: "b"})
    volume.write("mask/acquired", np.array([1, 0, 1, 1, 0], np.uint8), provenance=made, dims=("kx",))
    volume.write("emb/vit/block", rng.random((3, 2, 2, 2)).astype(np.float16), provenance=made)
    boxes = rng.random((4, 4)).astype(np.float32)
    prompts = {"slice": np.arange(4), "label": np.ones(4, np.int32), "boxes": boxes}
    volume.write("prompts/clicks", prompts, provenance=made)


@pytest.fixture(scope="module")
def cohort(tmp_path_factory):
    """A cohort with every codec and every metadata file; a test that damages it mends it."""
    made = create_cohort(tmp_path_factory.mktemp("damage") / "c", license="CC0")
    with made.create_volume(ID, subject_id="sub-01") as volume:
        fill(volume, np.random.default_rng(5))
    made.write_split(Split(name="default", train=("sub-01",)))
    compute_statistics(made, ["image/t1"])
    row = {"volume_id": ID, "subject_id": "sub-01", "method": "a", "psnr": 31.25}
    made.write_evaluation("one", task="recon", rows=[row])
    return made


@pytest.fixture(scope="module")
def expected(cohort):
    """What an undamaged cohort reads as."""
    return read_all(cohort.path)


def files_of(cohort) -> list[Path]:
    """Return every file that is no cache or record, relative to the cohort."""
    found = [p.relative_to(cohort.path) for p in sorted(cohort.path.rglob("*")) if p.is_file()]
    return [path for path in found if path.suffix != ".csv" and not path.name.startswith(".")]


def is_plain_group(path: Path) -> bool:
    return (
        path.name == "zarr.json"
        and json.loads(path.read_text()).get("attributes") == {}
        and "c" not in {child.name for child in path.parent.iterdir()}
    )


class Damage:
    """Damage a file in a with-block, and mend it; time stamps differ even where the clock is coarse."""

    def __init__(self, path: Path, change) -> None:
        self.path, self.change = path, change

    def __enter__(self):
        self.before = self.path.read_bytes()
        self.change(self.path)
        self.stamp()

    def __exit__(self, *_):
        if self.path.is_dir():
            self.path.rmdir()
        self.path.write_bytes(self.before)
        self.stamp()

    def stamp(self):
        if self.path.is_file():
            os.utime(self.path, ns=(next(_clock),) * 2)


def read_all(path: Path) -> dict[str, object]:
    """Read whatever there is as any program would."""
    cohort = open_cohort(path)
    found: dict[str, object] = {"split": cohort.split().model_dump(), "ids": cohort.volume_ids()}
    found |= {"stats": read_statistics(cohort), "evaluations": cohort.evaluations()}
    for volume in cohort.volumes():
        found["root"] = {key: volume.attributes[key] for key in ("volume_id", "subject_id", "header")}
        for name, element in volume.elements().items():
            found[name] = {k: v for k, v in element.attributes.items() if not k.startswith("meta")}
            for array, stored in element.arrays.items():
                found[f"{name}/{array}"] = (stored[...].tolist(), stored.dims, str(stored.dtype))
    return found


def raises_or_is_unaffected(path: Path, expected: dict[str, object]) -> bool:
    """Whether reading raised an error of ours; fails when it gave other values."""
    try:
        found = read_all(path)
    except MriError as caught:
        error = caught
    else:
        assert found == expected
        return False
    assert str(path) in str(error)  # it says where
    return True


def test_an_intact_cohort_verifies(cohort):
    for fast in (False, True):
        report = verify(cohort, fast=fast)
        assert (report.ok, report.orphans, report.stale) == (True, [], [])
        assert (report.volumes, report.elements) == (1, 8)
    assert len(files_of(cohort)) == 40


def test_every_flipped_bit_is_found(cohort, expected):
    """Three bits of every file, seeded: data, shard indices, metadata of arrays, elements, groups, volume, cohort."""
    rng, raised = np.random.default_rng(11), 0
    for file in files_of(cohort):
        path = cohort.path / file
        for position in rng.integers(0, 8 * path.stat().st_size, 3):
            with Damage(path, lambda p, n=int(position): flip_bit(p, n)):
                report = verify(cohort)
                assert not report.ok, f"bit {position} of {file}"
                assert all(problem.message for problem in report.problems)
                if str(file) != "cohort.json":  # name and licence may be edited
                    raised += raises_or_is_unaffected(cohort.path, expected)
    assert raised >= 100
    assert read_all(cohort.path) == expected


@pytest.mark.parametrize("path", ["mask/acquired", "noise", "seg/tissue", "image/t1"])
def test_all_bits_of_small_files_are_found(cohort, path):
    """No bit of an encoded chunk is overlooked: headers of zstd and blosc, checksums, index, padding."""
    file = next(p for p in (cohort.path / FOLDER / path / "data" / "c").rglob("*") if p.is_file())
    size, volume = file.stat().st_size, open_volume(cohort.path / FOLDER)
    overlooked, named, expected = [], True, volume[path].numpy()
    step = 1 if size < 100 else 7
    for position in range(0, 8 * size, step):
        with Damage(file, lambda p, n=position: flip_bit(p, n)):
            try:
                volume[path].numpy()
                overlooked.append(position)
            except CorruptElementError as error:
                named &= str(file) in str(error)
            if position in overlooked:  # the values are right, but for verify that is not enough
                np.testing.assert_array_equal(volume[path].numpy(), expected)
                assert not verify(volume).ok
    assert named
    assert len(overlooked) <= volume[path].shape[0]  # bit 37 of a zstd frame may be read either way


METADATA = ["cohort.json", "splits/default.json", "stats/default.json", "evaluations/one.json", f"{FOLDER}/zarr.json"]
METADATA += [
    f"{FOLDER}/{node}/zarr.json" for node in ("recon", "emb/vit", "kspace", "kspace/data", "prompts/clicks/boxes")
]
CUTS = {
    "emptied": lambda p: truncate(p, 0),
    "cut by one byte": lambda p: truncate(p, -1),
    "cut in half": lambda p: truncate(p, p.stat().st_size // 2),
    "longer": lambda p: p.write_bytes(p.read_bytes() + b"\1"),
    "zeroed": lambda p: p.write_bytes(bytes(p.stat().st_size)),
    "a folder": lambda p: (p.unlink(), p.mkdir()),
    "garbage": lambda p: p.write_bytes(np.random.default_rng(1).bytes(99)),
}


@pytest.mark.parametrize("cut", CUTS)
def test_cut_and_foreign_files_are_found(cohort, expected, cut):
    for file in files_of(cohort):
        if "c" not in file.parts and str(file) not in METADATA:
            continue  # others of its kind are among them
        if cut == "a folder" and file.name == "zarr.json":
            continue  # a folder of this name is no metadata: the node is absent
        if cut == "cut by one byte" and is_plain_group(cohort.path / file):
            continue  # the end of the last line
        with Damage(cohort.path / file, CUTS[cut]):
            assert not verify(cohort).ok, file
            assert not verify(cohort, fast=True).ok or cut in ("zeroed",), file
            if str(file) != "cohort.json":
                raises_or_is_unaffected(cohort.path, expected)


def test_every_missing_file_is_found(cohort, expected):
    for file in files_of(cohort):
        if file.parts[0] in ("splits", "stats", "evaluations"):
            continue  # these are whole files, present or absent
        path = cohort.path / file
        aside = cohort.path / "aside"
        path.rename(aside)
        for fast in (False, True):
            report = verify(cohort, fast=fast)
            assert not report.ok, file
            assert "missing" in {p.kind for p in report.problems} or file.name in ("cohort.json", "zarr.json")
        if path.name != "zarr.json":
            assert raises_or_is_unaffected(cohort.path, expected)
        collect_garbage(cohort)  # what is damaged is no garbage
        aside.rename(path)
        assert read_all(cohort.path) == expected, file
    assert verify(cohort).ok


@pytest.mark.parametrize("chunk", [0, 1, 2])
def test_problems_name_file_and_chunk(cohort, chunk):
    file = cohort.path / FOLDER / "kspace" / "data" / "c" / "0" / "0" / "0" / "0"
    bit = 8 * (chunk * 564 + 17)
    with Damage(file, lambda p: flip_bit(p, bit)):
        (problem,) = verify(cohort).problems
        assert (problem.volume, problem.element, problem.kind) == (ID, "kspace", "checksum")
        assert f"{file}: chunk {chunk}: the bytes do not match their checksum" in problem.message
        assert verify(cohort, fast=True).ok  # it reads no data
        element = cohort[ID]["kspace"]
        for other in {0, 1, 2} - {chunk}:
            element[other]
        with pytest.raises(CorruptElementError, match=f"chunk {chunk}: .* Restore it from a copy, or remove"):
            element[chunk]


def test_damage_after_the_first_reading_is_found(cohort):
    """What has been verified once in a process is verified again when the file has changed."""
    element = cohort[ID]["recon/reference"]
    element.numpy()
    file = next(p for p in (element.folder / "data" / "c").rglob("*") if p.is_file())
    with Damage(file, lambda p: flip_bit(p, 100)), pytest.raises(CorruptElementError):
        element.numpy()


PLAIN = b'{"zarr_format": 3, "node_type": "group"'
GARBAGE = [
    b"",
    b"{}",
    b"[]",
    b"[" * 20000,
    b"\xff\xfe{",
    b'{"zarr_format": 3, "node_type": "group"}',
]
GARBAGE += [
    json.dumps({"zarr_format": 3, "node_type": "group", "attributes": attributes}).encode()
    for attributes in ([], {"mri": 5}, {"mri": {}}, {"mri": {"type": 1}}, {"mri": {"type": "recon", SEAL: 3}})
]


@pytest.mark.parametrize("content", GARBAGE, ids=range(len(GARBAGE)))
def test_verify_and_readers_survive_garbage_in_metadata(cohort, expected, content):
    for name in METADATA:
        path = cohort.path / name
        plain = is_plain_group(path) and content == PLAIN + b"}"
        with Damage(path, lambda p: p.write_bytes(content)):
            assert verify(cohort, fast=True).ok == plain, name
            raises_or_is_unaffected(cohort.path, expected)


NONSENSE = [
    ("shape", [-3, 7, 5]),
    ("shape", [3, 7]),
    ("shape", "x"),
    ("shape", [4, 7, 5]),
    ("data_type", "complex128"),
    ("data_type", "r99"),
    ("data_type", {"name": "numpy.void"}),
    ("chunk_grid", {"name": "regular", "configuration": {"chunk_shape": [0, 0, 0]}}),
    ("chunk_grid", None),
    ("codecs", []),
    ("codecs", [{"name": "rot13"}]),
    ("codecs", [{"name": "sharding_indexed", "configuration": {}}]),
    ("dimension_names", None),
    ("dimension_names", ["x", "y", "slice"]),
    ("fill_value", "NaN"),
]


@pytest.mark.parametrize(("key", "value"), NONSENSE)
def test_nonsense_under_a_valid_seal_is_found(cohort, tmp_path, key, value):
    """A broken writer's metadata, sealed by itself, end in a finding as well."""
    copied = shutil.copytree(cohort.path, tmp_path / "c")
    folder = copied / FOLDER / "recon" / "reference"
    metadata = json.loads((folder / "data" / "zarr.json").read_text())
    mri = json.loads((folder / "zarr.json").read_text())["attributes"]["mri"]
    write_array_metadata(folder / "data", {**metadata, key: value})
    write_group(folder, mri, ("data",))
    for fast in (False, True):
        report = verify(copied, fast=fast)
        assert not report.ok
        found = {problem.element for problem in report.problems}
        assert {"recon/reference"} <= found <= {"recon/reference", "seg/tissue", "kspace"}  # what must fit it, too
    element = open_cohort(copied)[ID]["recon/reference"]
    if key != "fill_value" and value != ["x", "y", "slice"]:
        with pytest.raises(MriError):
            element.numpy()


def test_garbage_collection_keeps_what_damage_made_invisible(cohort, tmp_path):
    """Metadata that were lost can be restored; the data must still be there then."""
    copied = open_cohort(shutil.copytree(cohort.path, tmp_path / "c"))
    lost = [copied.path / FOLDER / path / "zarr.json" for path in ("kspace", "emb", "recon/reference", ".")]
    for file in lost:
        aside = file.with_name("aside")
        file.rename(aside)
        before = sorted(copied.path.rglob("*"))
        for _ in range(2):
            assert collect_garbage(copied, older_than_s=0) == []
        assert sorted(copied.path.rglob("*")) == before
        assert "missing" in {problem.kind for problem in verify(copied).problems}
        aside.rename(file)
    assert verify(copied).ok
